"""Catalogues and datasets as DSP 2025-1 has them on the wire ("Catalog Protocol"; DCAT 3), from
this node's own datasets, and as far as negotiation needs it from a peer's. Pure functions.

The protocol's context names neither title nor description nor keywords: they are written as the
terms of DCAT and Dublin Core with the prefixes that it does name. An offer in a catalogue has no
target. Offers whose terms mean nothing here are not listed, and a dataset without an offer neither:
nobody could come to an agreement about it.

Data that may leave as it is (general, nothing hidden, an offer whose terms a file keeps) has the
distributions of the data plane; all data can be asked over gRPC where it is, which is a
distribution of a format of our own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.terms import Offer, offer_json, parse_offer
from connector.model.transfer import QUERY
from connector.policy.constraints import check_terms, let_whole, may_leave_whole
from connector.transport.http.dsp import odrl
from connector.transport.http.dsp.schemas import CONTEXT

_REMEMBERED = 16_384  # datasets whose form on the wire is kept
_MAX_OFFERS = 16
_MAX_DISTRIBUTIONS = 64
# Where there is no title, what EDC calls a name.
_TITLE = ("dct:title", "http://purl.org/dc/terms/title", "title", "edc:name", "name")
_DESCRIPTION = ("dct:description", "http://purl.org/dc/terms/description", "description")
_KEYWORD = ("dcat:keyword", "http://www.w3.org/ns/dcat#keyword", "keyword")


@dataclass(frozen=True, slots=True)
class Service:
    """The data service that datasets are offered by: the base URL of this binding, the formats of
    the data plane, and what the service is called."""

    id: str
    url: str
    formats: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"@id": self.id, "@type": "DataService", "endpointURL": self.url}


class Writer:
    """Datasets of this node for the wire; the ones seen lately are not made again."""

    def __init__(self, participant: str, service: Service) -> None:
        self._participant = participant
        self._service = service
        self._kept = lru_cache(_REMEMBERED)(_Once)

    def dataset(self, dataset: bytes) -> bytes:
        """A root Dataset from its JSON (``model.catalog``). Empty if it has nothing to offer."""
        part = self._part(dataset)
        return b'{"@context":["%s"],%s' % (CONTEXT.encode(), part[1:]) if part else b""

    def catalog(self, datasets: Iterable[bytes]) -> bytes:
        """A root Catalog of those that have something to offer."""
        head = {
            "@context": [CONTEXT],
            "@type": "Catalog",
            "@id": f"{self._participant}#catalog",
            "participantId": self._participant,
            "service": [self._service.to_json()],
        }
        parts = b",".join(filter(None, map(self._part, datasets)))
        listed = b',"dataset":[%s]' % parts if parts else b""  # the schema allows no empty list
        return b"%s%s}" % (fields.encode_json(head)[:-1], listed)

    def _part(self, dataset: bytes) -> bytes:
        once = self._kept(hashlib.sha256(dataset).digest())
        if once.part is None:
            once.part = _write(dataset, self._service)
        return once.part


class _Once:
    """What was made of the dataset with this digest."""

    __slots__ = ("part",)

    def __init__(self, digest: bytes) -> None:
        self.part: bytes | None = None


def _write(data: bytes, service: Service) -> bytes:
    """Our own record, which was checked when it was made: what is not shown is not read again."""
    value = fields.parse_json(data, what="Dataset")
    offers = [parse_offer(offer) for offer in value["hasPolicy"]]
    listed = [offer for offer in offers if not check_terms(offer.terms)]
    if not listed:
        return b""
    roles = (column["role"] for column in value["tds:columns"])
    flows = may_leave_whole(value["tds:classification"], roles) and any(
        let_whole(offer.terms) for offer in listed
    )
    formats = (*(service.formats if flows else ()), QUERY)
    shown = {
        "@id": value["@id"],
        "@type": "Dataset",
        "dct:title": value["title"],
        "dct:description": value["description"],
        "dcat:keyword": value["keyword"],
        f"{odrl.NAMESPACE}classification": value["tds:classification"],
        "hasPolicy": [_offer(offer) for offer in listed],
        "distribution": [
            {"@type": "Distribution", "format": format_, "accessService": service.to_json()}
            for format_ in formats
        ],
    }
    return fields.encode_json({key: part for key, part in shown.items() if part})


def _offer(offer: Offer) -> dict[str, Any]:
    shown = odrl.to_wire(offer_json(offer))
    del shown["target"]
    return shown


# What a peer's catalogue says.


@dataclass(frozen=True, slots=True)
class Distribution:
    format: str
    endpoint: str  # base URL of the access service; empty where it is only named


@dataclass(frozen=True, slots=True)
class ForeignDataset:
    """A dataset in a peer's catalogue. Nobody signed it; terms may be ones that mean nothing here
    (``Terms.others``). ``record`` is its JSON for ``model.catalog.parse_offers``."""

    id: str
    title: str
    description: str
    keywords: tuple[str, ...]
    offers: tuple[Offer, ...]
    distributions: tuple[Distribution, ...]
    record: bytes


def read_catalog(value: Mapping[str, Any], provider: str) -> tuple[ForeignDataset, ...]:
    """Datasets of a Catalog whose schema was checked. Catalogues inside it are left out, and
    datasets that are out of bounds: one of them does not hide the others."""
    services = {
        one["@id"]: one["endpointURL"] for one in value.get("service", []) if "endpointURL" in one
    }
    found = []
    for one in value.get("dataset", []):
        with suppress(InvalidInput):
            found.append(read_dataset(one, provider, services))
    return tuple(found)


def read_dataset(
    value: Mapping[str, Any], provider: str, services: Mapping[str, str] | None = None
) -> ForeignDataset:
    """A Dataset whose schema was checked. ``services``: base URLs by the ids of services that the
    catalogue lists. Raises ``InvalidInput``."""
    offers = value["hasPolicy"]
    distributions = value["distribution"]
    if len(offers) > _MAX_OFFERS or len(distributions) > _MAX_DISTRIBUTIONS:
        raise InvalidInput("Dataset: with too many offers or distributions")
    id_ = fields.text(value, "@id", limit=256)
    kept = [odrl.from_wire(offer) for offer in offers]
    implied = {"target": id_, "assigner": provider}
    return ForeignDataset(
        id=id_,
        title=_text(value, _TITLE)[:256],
        description=_text(value, _DESCRIPTION)[:4096],
        keywords=_texts(value, _KEYWORD),
        offers=tuple(parse_offer({**implied, **offer}, strict=False) for offer in kept),
        distributions=tuple(_distribution(one, services or {}) for one in distributions),
        record=fields.encode_json({"@type": "Dataset", "@id": id_, "hasPolicy": kept}),
    )


def _distribution(value: Mapping[str, Any], services: Mapping[str, str]) -> Distribution:
    service = value["accessService"]
    named = services.get(service, "") if isinstance(service, str) else service["endpointURL"]
    return Distribution(value["format"], named)


def _text(value: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of these properties that is there, as one text."""
    for name in names:
        found = value.get(name)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict):
            found = found.get("@value")
        if isinstance(found, str):
            return found
    return ""


def _texts(value: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        found = value.get(name)
        if isinstance(found, str):
            found = [found]
        if isinstance(found, list):
            return tuple(one[:64] for one in found if isinstance(one, str))[:32]
    return ()
