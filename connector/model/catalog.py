"""Datasets as DCAT 3 describes them, with what usage control needs to know of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.terms import CONTEXT, Offer, offer_json, parse_offer

E = TypeVar("E", bound=StrEnum)

MAX_COLUMNS = 2000
MAX_RECORD_BYTES = 1 << 18


class Classification(StrEnum):
    """Data Security Law of the PRC, article 21: what may happen follows from the class.

    ``core`` is not listed, ``important`` is compute-only, ``general`` may flow.
    """

    CORE = "core"
    IMPORTANT = "important"
    GENERAL = "general"


class Role(StrEnum):
    """What a column may be used for.

    ``dimension``: group key and filter; ``measure``: inside an aggregate; ``unit``: the privacy
    unit, counted but never shown, grouped by or filtered on; ``hidden``: not at all.
    """

    DIMENSION = "dimension"
    MEASURE = "measure"
    UNIT = "unit"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Column:
    """``type`` is an SQL type name as DuckDB writes it (``BIGINT``, ``VARCHAR``)."""

    name: str
    type: str
    role: Role


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset. ``table`` is the name that a query uses in FROM."""

    id: str
    title: str
    description: str
    keywords: tuple[str, ...]
    publisher: str
    classification: Classification
    table: str
    columns: tuple[Column, ...]
    offers: tuple[Offer, ...]

    @property
    def privacy_unit(self) -> str:
        """The column whose distinct values are counted, or empty."""
        return next((column.name for column in self.columns if column.role is Role.UNIT), "")


_KEYS = frozenset(
    {"@context", "@type", "@id", "title", "description", "keyword", "publisher", "hasPolicy"}
    | {"tds:classification", "tds:table", "tds:columns"}
)
_COLUMN_KEYS = frozenset({"name", "type", "role"})


def dataset_json(dataset: Dataset) -> dict[str, Any]:
    return {
        "@context": list(CONTEXT),
        "@type": "Dataset",
        "@id": dataset.id,
        "title": dataset.title,
        "description": dataset.description,
        "keyword": list(dataset.keywords),
        "publisher": dataset.publisher,
        "hasPolicy": [offer_json(offer) for offer in dataset.offers],
        "tds:classification": dataset.classification.value,
        "tds:table": dataset.table,
        "tds:columns": [
            {"name": c.name, "type": c.type, "role": c.role.value} for c in dataset.columns
        ],
    }


def parse_dataset(data: bytes | Mapping[str, Any]) -> Dataset:
    """A Dataset from its JSON. Raises ``InvalidInput``."""
    if isinstance(data, bytes):
        data = fields.parse_json(data, limit=MAX_RECORD_BYTES, what="Dataset")
    value = fields.as_object(data, "Dataset")
    fields.only_keys(value, _KEYS, "Dataset")
    if value.get("@type") != "Dataset":
        raise InvalidInput("@type: must be Dataset")
    columns = value.get("tds:columns")
    if not isinstance(columns, list) or not 1 <= len(columns) <= MAX_COLUMNS:
        raise InvalidInput(f"tds:columns: must be a list of 1 to {MAX_COLUMNS}")
    offers = value.get("hasPolicy")
    if not isinstance(offers, list) or len(offers) > 16:
        raise InvalidInput("hasPolicy: must be a list of at most 16 offers")
    dataset = Dataset(
        id=fields.text(value, "@id", limit=256),
        title=fields.text(value, "title", limit=256),
        description=fields.text(value, "description", limit=4096, default=""),
        keywords=fields.texts(value, "keyword", limit=64, most=32),
        publisher=fields.text(value, "publisher", limit=256),
        classification=_choice(Classification, value, "tds:classification"),
        table=fields.text(value, "tds:table", limit=64),
        columns=tuple(_column(fields.as_object(column, "column")) for column in columns),
        offers=tuple(parse_offer(fields.as_object(one, "offer")) for one in offers),
    )
    if len({column.name.lower() for column in dataset.columns}) != len(dataset.columns):
        raise InvalidInput("tds:columns: names must differ, in lower case too")
    if sum(column.role is Role.UNIT for column in dataset.columns) > 1:
        raise InvalidInput("tds:columns: at most one column is the privacy unit")
    for offer in dataset.offers:
        if offer.target != dataset.id or offer.assigner != dataset.publisher:
            raise InvalidInput("hasPolicy: an offer for another dataset or by another participant")
    return dataset


def parse_offers(data: bytes, dataset_id: str, provider: str) -> tuple[Offer, ...]:
    """The offers of a dataset as any connector describes it (DCAT 3, DSP 2025-1 "Dataset"), whose
    other properties are not looked at. In a catalogue an offer names no target.

    Raises ``InvalidInput``, also where it is another dataset.
    """
    value = fields.as_object(
        fields.parse_json(data, limit=MAX_RECORD_BYTES, what="Dataset"), "Dataset"
    )
    if value.get("@type") != "Dataset" or value.get("@id") != dataset_id:
        raise InvalidInput("Dataset: not the one that was asked for")
    offers = value.get("hasPolicy")
    if not isinstance(offers, list) or not 1 <= len(offers) <= 16:
        raise InvalidInput("hasPolicy: must be a list of 1 to 16 offers")
    implied = {"target": dataset_id, "assigner": provider}
    return tuple(
        parse_offer(implied | dict(fields.as_object(one, "offer")), strict=False) for one in offers
    )


def _column(value: Mapping[str, Any]) -> Column:
    fields.only_keys(value, _COLUMN_KEYS, "column")
    return Column(
        name=fields.text(value, "name", limit=128),
        type=fields.text(value, "type", limit=128),
        role=_choice(Role, value, "role"),
    )


def _choice(kind: type[E], value: Mapping[str, Any], key: str) -> E:
    try:
        return kind(fields.text(value, key, limit=32))
    except ValueError as error:
        raise InvalidInput(f"{key}: must be one of {', '.join(kind)}") from error
