"""Bytes of a Dataspace Protocol message to a value that its schema allows.

Strict as every reader here (``model.fields``: UTF-8, no duplicate keys, no NaN, no half surrogate
pairs, at most 32 levels), with whole numbers bounded to what JSON hands on without loss (RFC 8259
section 6), and nothing but ``InvalidInput`` comes out.
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
    value = parse_json(body, limit=limit, what=kind, parse_int=_whole)
    schemas.check(kind, value)
    if not isinstance(value, dict):  # no schema of a message lets another through
        raise InvalidInput(f"{kind}: must be an object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > _LARGEST:
        raise ValueError("a whole number that is too large")
    return int(digits)
