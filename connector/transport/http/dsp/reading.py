"""Bytes of a Dataspace Protocol message to a value that its schema allows.

Strict as every reader here (``model.fields``: UTF-8, no duplicate keys, no NaN, no half surrogate
pairs, at most 32 levels), with whole numbers bounded to what JSON hands on without loss (RFC 8259
section 6), and nothing but ``InvalidInput`` comes out.

A peer's catalogue is the one exception: there is much in it that is no matter of ours, so an offer
or a dataset that breaks the schema is left out, and hides no other.
"""

from __future__ import annotations

from typing import Any

from connector.errors import InvalidInput
from connector.model.fields import parse_json
from connector.transport.http.dsp import schemas

MAX_MESSAGE_BYTES = 256 << 10
_LARGEST = 2**53 - 1


def read(body: bytes, kind: str, *, limit: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """A ``kind`` (a key of ``schemas.FILES``) of at most ``limit`` bytes."""
    value = _parsed(body, kind, limit)
    schemas.check(kind, value)
    return value


def read_catalog(body: bytes, *, limit: int) -> tuple[dict[str, Any], list[str]]:
    """A Catalog of those offers and datasets that the schema allows, and what was wrong with the
    datasets that are left out. Raises ``InvalidInput`` where all are, or it is wrong elsewhere."""
    value = _parsed(body, "Catalog", limit)
    try:
        schemas.check("Catalog", value)
    except InvalidInput:
        datasets = value.pop("dataset", None)
        schemas.check("Catalog", value)
        if not isinstance(datasets, list):
            raise
        kept, wrong = _sorted_out(datasets, value["@context"])
        if not kept:
            raise
        return {**value, "dataset": kept}, wrong
    return value, []


def _sorted_out(datasets: list[Any], context: Any) -> tuple[list[dict[str, Any]], list[str]]:
    kept, wrong = [], []
    for one in datasets:
        try:
            if not isinstance(one, dict):
                raise InvalidInput("Dataset: must be an object")
            kept.append(_sifted({"@context": context, **one}))
        except InvalidInput as error:
            wrong.append(error.message)
    return kept, wrong


def read_dataset(body: bytes, *, limit: int) -> dict[str, Any]:
    """A Dataset with those offers that the schema allows. Raises ``InvalidInput``."""
    return _sifted(_parsed(body, "Dataset", limit))


def _sifted(dataset: dict[str, Any]) -> dict[str, Any]:
    try:
        schemas.check("Dataset", dataset)
        return dataset
    except InvalidInput:
        offers = dataset.get("hasPolicy")
        kept = [one for one in offers if _allowed(dataset, one)] if isinstance(offers, list) else []
        if not kept:
            raise
    return {**dataset, "hasPolicy": kept}


def _allowed(dataset: dict[str, Any], offer: object) -> bool:
    try:
        schemas.check("Dataset", {**dataset, "hasPolicy": [offer]})
    except InvalidInput:
        return False
    return True


def _parsed(body: bytes, kind: str, limit: int) -> dict[str, Any]:
    value = parse_json(body, limit=limit, what=kind, parse_int=_whole)
    if not isinstance(value, dict):
        raise InvalidInput(f"{kind}: must be an object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > _LARGEST:
        raise ValueError("a whole number that is too large")
    return int(digits)
