"""Strict readers for JSON that somebody else wrote.

Every reader names the field it refuses, and raises nothing but ``InvalidInput``. Sizes are
bounded before parsing; duplicate keys, NaN and infinities are refused (RFC 8259 section 4
leaves them open; we do not).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from connector.errors import InvalidInput

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_json(
    data: bytes,
    *,
    limit: int = MAX_JSON_BYTES,
    what: str = "document",
    parse_int: Callable[[str], int] = int,
) -> Any:
    """UTF-8 JSON of at most ``limit`` bytes and ``MAX_JSON_DEPTH`` levels to Python values.

    ``parse_int`` may raise ``ValueError`` for a whole number that the caller does not want.
    """
    if len(data) > limit:
        raise InvalidInput(f"{what}: larger than {limit} bytes")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constants,
            parse_float=_finite,
            parse_int=parse_int,
        )
        if b"\\ud" in data or b"\\uD" in data:  # half a surrogate pair is not text: no UTF-8 for it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # ValueError covers JSON and UTF-8 errors
        raise InvalidInput(f"{what}: not valid JSON") from error
    if _deeper_than(value, MAX_JSON_DEPTH):
        raise InvalidInput(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys.

    For documents that we write. Nothing is ever re-serialised to verify it: signatures go over
    bytes that are kept.
    """
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _no_constants(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that is too large")  # 1e999 would become infinite
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def as_object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what}: must be an object")
    return value


def only_keys(value: Mapping[str, Any], allowed: frozenset[str], what: str) -> None:
    """Refuse keys outside ``allowed``: a misspelt field must never be silent."""
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise InvalidInput(f"{what}: unknown field {unknown[0][:60]!r}")


def text(
    value: Mapping[str, Any], key: str, *, limit: int = 1024, default: str | None = None
) -> str:
    """A string of 1 to ``limit`` characters (or ``default`` if the key is absent)."""
    found = value.get(key, default)
    if not isinstance(found, str):
        raise InvalidInput(f"{key}: must be a string")
    if len(found) > limit or (not found and default is None):
        raise InvalidInput(f"{key}: must have 1 to {limit} characters")
    return found


def integer(
    value: Mapping[str, Any],
    key: str,
    *,
    low: int = 0,
    high: int = 2**53,
    default: int | None = None,
) -> int:
    found = value.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise InvalidInput(f"{key}: must be an integer from {low} to {high}")
    return found


def texts(
    value: Mapping[str, Any], key: str, *, limit: int = 1024, most: int = 1000
) -> tuple[str, ...]:
    """A list of at most ``most`` non-empty strings; absent means empty."""
    found = value.get(key, [])
    if not isinstance(found, list) or len(found) > most:
        raise InvalidInput(f"{key}: must be a list of at most {most} strings")
    for item in found:
        if not isinstance(item, str) or not 1 <= len(item) <= limit:
            raise InvalidInput(f"{key}: each item must have 1 to {limit} characters")
    return tuple(found)


def parse_time(value: str, what: str = "time") -> datetime:
    """RFC 3339 with a zone (as xsd:dateTimeStamp) to an aware UTC datetime."""
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is None:
            raise InvalidInput(f"{what}: must name its zone, as 2026-12-31T00:00:00Z does")
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # the second: year 1 in a zone east of Greenwich
        raise InvalidInput(f"{what}: must be an RFC 3339 date and time") from error


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with whole milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_millis(millis: int) -> str:
    """Milliseconds since the Unix epoch as RFC 3339 UTC."""
    return format_time(_EPOCH + timedelta(milliseconds=millis))
