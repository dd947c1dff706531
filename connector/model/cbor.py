"""Deterministic CBOR, the part of it that receipts need.

RFC 8949 section 4.2.1 (core deterministic encoding) with unsigned integers, byte strings, text
strings, arrays, and maps with unsigned integer keys. No floats, tags, negative integers, simple
values or indefinite lengths: there is exactly one encoding of a value, and the parser refuses
every other. Any CBOR library reads what this writes; this is small so that an auditor can read
it, and so that the verifier needs no further package.
"""

from __future__ import annotations

from typing import TypeAlias

from connector.errors import InvalidInput

Value: TypeAlias = "int | bytes | str | list[Value] | dict[int, Value]"

MAX_BYTES = 65_535  # an entry of a C2SP tlog-tiles bundle
MAX_DEPTH = 4

_UINT, _BYTES, _TEXT, _ARRAY, _MAP = 0, 2, 3, 4, 5


def encode(value: Value) -> bytes:
    """One value to its only encoding. Raises ``ValueError`` on a type outside the subset."""
    out = bytearray()
    _write(out, value)
    return bytes(out)


def decode(data: bytes) -> Value:
    """The only value that ``data`` encodes. Raises ``InvalidInput`` on anything else."""
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"receipt: larger than {MAX_BYTES} bytes")
    value, end = _read(data, 0, MAX_DEPTH)
    if end != len(data):
        raise InvalidInput("receipt: bytes after the end")
    return value


def _write(out: bytearray, value: Value) -> None:
    if isinstance(value, bool):
        raise ValueError("booleans are not in the subset")
    if isinstance(value, int):
        _head(out, _UINT, value)
    elif isinstance(value, bytes):
        _head(out, _BYTES, len(value))
        out += value
    elif isinstance(value, str):
        encoded = value.encode()
        _head(out, _TEXT, len(encoded))
        out += encoded
    elif isinstance(value, list):
        _head(out, _ARRAY, len(value))
        for item in value:
            _write(out, item)
    elif isinstance(value, dict):
        if any(isinstance(key, bool) or not isinstance(key, int) for key in value):
            raise ValueError("map keys are unsigned integers")
        _head(out, _MAP, len(value))
        for key in sorted(value):  # of unsigned integers: numeric order is bytewise order
            _head(out, _UINT, key)
            _write(out, value[key])
    else:
        raise ValueError(f"{type(value).__name__} is not in the subset")


def _head(out: bytearray, major: int, argument: int) -> None:
    if argument < 0 or argument >= 1 << 64:
        raise ValueError("integers are unsigned and fit 64 bits")
    if argument < 24:
        out.append(major << 5 | argument)
        return
    for extra, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * width:
            out.append(major << 5 | extra)
            out += argument.to_bytes(width)
            return


def _read(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    major, argument, at = _read_head(data, at)
    if major == _UINT:
        return argument, at
    if major in (_BYTES, _TEXT):
        end = at + argument
        if end > len(data):
            raise InvalidInput("receipt: cut short")
        raw = data[at:end]
        if major == _BYTES:
            return raw, end
        try:
            return raw.decode(), end
        except UnicodeDecodeError as error:
            raise InvalidInput("receipt: text is not UTF-8") from error
    if major not in (_ARRAY, _MAP):
        raise InvalidInput("receipt: a type outside the subset")
    if depth == 0 or argument > len(data) - at:  # each item takes a byte at least
        raise InvalidInput("receipt: nested too deep, or cut short")
    if major == _ARRAY:
        items: list[Value] = []
        for _ in range(argument):
            item, at = _read(data, at, depth - 1)
            items.append(item)
        return items, at
    entries: dict[int, Value] = {}
    last = -1
    for _ in range(argument):
        key_major, key, at = _read_head(data, at)
        if key_major != _UINT or key <= last:
            raise InvalidInput("receipt: map keys must be ascending unsigned integers")
        last = key
        entries[key], at = _read(data, at, depth - 1)
    return entries, at


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    if at >= len(data):
        raise InvalidInput("receipt: cut short")
    major, extra = data[at] >> 5, data[at] & 31
    at += 1
    if extra < 24:
        return major, extra, at
    if extra > 27:
        raise InvalidInput("receipt: indefinite or reserved length")
    width = 1 << extra - 24
    if at + width > len(data):
        raise InvalidInput("receipt: cut short")
    argument = int.from_bytes(data[at : at + width])
    if argument < (24 if width == 1 else 1 << 4 * width):
        raise InvalidInput("receipt: a number is not in its shortest form")
    return major, argument, at + width
