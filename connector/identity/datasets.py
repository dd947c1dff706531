"""Signed datasets: the statement with which a publisher describes what it offers.

The payload is the dataset as JSON (``model.catalog``). It travels and is kept as it was signed.
Who negotiates for a dataset again is sent the same bytes again, so the last few are not verified
anew: what one signature is worth under one set of keys never changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.identity.statements import peek_statement, read_statement, sign_statement
from connector.model import fields
from connector.model.catalog import Dataset, dataset_json, parse_dataset

KIND = "dataset"
_REMEMBERED = 64  # records that were verified
_SMALL = 32_768  # characters of a record that is worth remembering


def sign_dataset(key: Ed25519PrivateKey, dataset: Dataset) -> str:
    """The record, by its publisher's key."""
    return sign_statement(key, KIND, dataset_json(dataset))


def read_dataset(record: str, keys: Iterable[bytes]) -> Dataset:
    """The dataset, verified by one of its publisher's ``keys`` (32 bytes each).

    The caller MUST compare ``publisher`` with the participant whose keys it passed. Raises
    ``InvalidInput`` or ``VerificationFailed``.
    """
    read = _remembered if len(record) <= _SMALL else _read
    return read(record, tuple(keys))


def _read(record: str, keys: tuple[bytes, ...]) -> Dataset:
    return parse_dataset(read_statement(record, KIND, keys))


_remembered = lru_cache(_REMEMBERED)(_read)


def peek_publisher(record: str) -> str:
    """Who says that it publishes this, NOT verified: only to learn whose keys to look up."""
    return fields.text(peek_statement(record, KIND), "publisher")
