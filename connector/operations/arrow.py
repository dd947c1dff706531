"""How many rows an Arrow IPC stream from a peer has, told without unpacking any of it.

Of each message the metadata alone is read (Arrow columnar format, "Encapsulated message format",
``Message.fbs``; FlatBuffers' own layout). A few bytes that were compressed can stand for any
number of gigabytes, so a stream with compressed buffers is refused; our providers send none.

Leaves out: whether the stream is a good one. Whoever decodes it must see to that.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from connector.errors import PeerFault

MAX_ROWS = 1 << 40
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # MessageHeader
_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_DICTIONARY_DATA = 1  # field of DictionaryBatch
_LENGTH, _COMPRESSION = 0, 3  # fields of RecordBatch


def rows_of(stream: bytes) -> int:
    """Rows in the stream's record batches; 0 where it cannot be read.

    Raises ``PeerFault`` for a stream with compressed buffers.
    """
    rows = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(stream):
            rows += _rows(message.metadata.to_pybytes())
    except (pa.ArrowException, OSError, struct.error):
        return 0
    return rows if 0 <= rows <= MAX_ROWS else 0


def _rows(metadata: bytes) -> int:
    """Rows of one message. Raises ``struct.error`` if it points outside of itself."""
    message = _follow(metadata, 0)
    kind_at = _field(metadata, message, _HEADER_TYPE)
    header_at = _field(metadata, message, _HEADER)
    if not kind_at or not header_at:
        return 0
    kind, batch = metadata[kind_at], _follow(metadata, header_at)
    if kind == _DICTIONARY_BATCH:
        batch = _follow(metadata, _field(metadata, batch, _DICTIONARY_DATA))
    elif kind != _RECORD_BATCH:
        return 0
    if _field(metadata, batch, _COMPRESSION):
        raise PeerFault("the provider's result is compressed: it could unpack to any size")
    length_at = _field(metadata, batch, _LENGTH)
    if kind == _DICTIONARY_BATCH or not length_at:
        return 0
    return int(struct.unpack_from("<q", metadata, length_at)[0])


def _follow(data: bytes, at: int) -> int:
    """Where the table is that the offset at ``at`` points to."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table's field is; 0 if it is not there."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise struct.error("a table outside of the message")
    size = struct.unpack_from("<H", data, vtable)[0]
    if 4 + 2 * number + 2 > size:
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0])
    if offset and table + offset >= len(data):
        raise struct.error("a field outside of the message")
    return table + offset if offset else 0
