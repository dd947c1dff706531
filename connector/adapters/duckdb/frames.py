"""Messages between the node and a worker: JSON and bytes, each behind its length.

    uint32 length of the JSON | uint64 length of the bytes | JSON | bytes

Both lengths are big-endian. The node never trusts a length that a worker states: it has limits.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

HEAD = struct.Struct(">IQ")
MAX_HEADER_BYTES = 1 << 20


def encode(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    data = json.dumps(header, separators=(",", ":")).encode()
    return HEAD.pack(len(data), len(body)) + data + body


def decode_header(data: bytes) -> dict[str, Any]:
    """Raises ``ValueError`` for anything but a JSON object."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
