"""Segments that are not written to any more: compressed, or nothing but what they were.

A sealed segment is its bytes in blocks, each compressed by itself (zstd), so that a leaf is read
by decompressing one or two. All integers are big-endian.

    sealed   "tdsseal1" | blocks | index | summary | tail
    index    for each block: where it ends in the file (8) | its check (16)
    tail     blocks (4) | bytes of a block before compression (4) | bytes of the summary (4)
             | check of index, summary and these numbers (32)
    dropped  "tdsdrop1" | summary | check (32)
    summary  log id (16) | position (8) | length (8) | first leaf (8) | leaves (8)
             | chain before (32) | chain after (32) | the newest checkpoint note in it

A check is SHA-256 of the stored bytes, truncated for blocks. Neither file is ever changed.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow

from connector.adapters.segments.disk import Disk
from connector.adapters.segments.frames import LOG_ID_BYTES, Broken
from connector.tlog.note import MAX_NOTE_BYTES

SEALED_MAGIC = b"tdsseal1"
DROPPED_MAGIC = b"tdsdrop1"
BLOCK_BYTES = 1 << 17  # before compression
LEVEL = 3  # higher ones gain one per cent, as most of a leaf is random, and take six times as long

_FIXED = LOG_ID_BYTES + 4 * 8 + 2 * 32  # of a summary
_ENTRY = 8 + 16
_TAIL = 3 * 4 + 32
_MAX_BLOCK = 1 << 24
_SYNC_BYTES = 8 << 20  # written between syncs, so that no commit's sync waits for much


@dataclass(frozen=True, slots=True)
class Summary:
    """A segment in few words: ``length`` bytes in all, header included. ``note`` is empty if it
    has no checkpoint."""

    log_id: bytes
    position: int
    length: int
    first: int
    leaves: int
    before: bytes
    after: bytes
    note: bytes

    def encode(self) -> bytes:
        numbers = (self.position, self.length, self.first, self.leaves)
        fixed = self.log_id + b"".join(number.to_bytes(8) for number in numbers)
        return fixed + self.before + self.after + self.note


def parse_summary(data: bytes) -> Summary:
    """Raises ``Broken``."""
    if not _FIXED <= len(data) <= _FIXED + MAX_NOTE_BYTES:
        raise Broken
    numbers = [int.from_bytes(data[at : at + 8]) for at in range(LOG_ID_BYTES, _FIXED - 64, 8)]
    return Summary(
        log_id=data[:LOG_ID_BYTES],
        position=numbers[0],
        length=numbers[1],
        first=numbers[2],
        leaves=numbers[3],
        before=data[_FIXED - 64 : _FIXED - 32],
        after=data[_FIXED - 32 : _FIXED],
        note=data[_FIXED:],
    )


def encode_dropped(summary: Summary) -> bytes:
    data = DROPPED_MAGIC + summary.encode()
    return data + hashlib.sha256(data).digest()


def read_dropped(path: Path, start: int) -> Summary:
    """Raises ``Broken`` and ``OSError``."""
    with path.open("rb") as file:
        data = file.read(len(DROPPED_MAGIC) + _FIXED + MAX_NOTE_BYTES + 33)
    body, check = data[:-32], data[-32:]
    if not body.startswith(DROPPED_MAGIC) or hashlib.sha256(body).digest() != check:
        raise Broken
    summary = parse_summary(body[len(DROPPED_MAGIC) :])
    if summary.position != start:
        raise Broken
    return summary


class SealedFile:
    """A sealed segment's file, open. Reading: any thread. Raises ``Broken`` and ``OSError``."""

    def __init__(self, path: Path, start: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_index(start)
        except BaseException:
            os.close(self._fd)
            raise

    def _read_index(self, start: int) -> None:
        size = os.fstat(self._fd).st_size
        magic = os.pread(self._fd, len(SEALED_MAGIC), 0)
        tail = os.pread(self._fd, _TAIL, max(0, size - _TAIL))
        if magic != SEALED_MAGIC or len(tail) != _TAIL:
            raise Broken
        blocks, self.block_bytes, summary_bytes = (
            int.from_bytes(tail[at : at + 4]) for at in range(0, 12, 4)
        )
        at = size - _TAIL - summary_bytes - blocks * _ENTRY
        if at < len(SEALED_MAGIC) or not 0 < self.block_bytes <= _MAX_BLOCK:
            raise Broken
        data = os.pread(self._fd, size - _TAIL - at, at)
        if hashlib.sha256(data + tail[:12]).digest() != tail[12:]:
            raise Broken
        self._index = data[: blocks * _ENTRY]
        self.summary = parse_summary(data[blocks * _ENTRY :])
        ends = [self._end(number) for number in range(-1, blocks)]
        if self.summary.position != start or ends != sorted(ends) or ends[-1] != at:
            raise Broken
        if blocks != -(-self.summary.length // self.block_bytes):
            raise Broken

    @property
    def blocks(self) -> int:
        return len(self._index) // _ENTRY

    def block(self, number: int) -> bytes:
        """Checked and decompressed."""
        begin, at = self._end(number - 1), number * _ENTRY
        packed = os.pread(self._fd, self._end(number) - begin, begin)
        if hashlib.sha256(packed).digest()[:16] != self._index[at + 8 : at + _ENTRY]:
            raise Broken
        size = min(self.block_bytes, self.summary.length - number * self.block_bytes)
        try:
            data: bytes = _codec().decompress(packed, size, asbytes=True)
        except OSError as error:  # so pyarrow says that the bytes are not what it wrote
            raise Broken from error
        return data

    def check(self) -> int | None:
        """Where in the segment the first block begins that is not what was written."""
        for number in range(self.blocks):
            try:
                self.block(number)
            except Broken:
                return number * self.block_bytes
        return None

    def close(self) -> None:
        os.close(self._fd)

    def _end(self, number: int) -> int:
        at = number * _ENTRY
        return int.from_bytes(self._index[at : at + 8]) if number >= 0 else len(SEALED_MAGIC)


class SealedReader(io.RawIOBase):
    """The segment's bytes one after the other, from ``offset`` on."""

    def __init__(self, path: Path, start: int, offset: int) -> None:
        self._file = SealedFile(path, start)
        self._at = offset
        self._number, self._block = -1, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._file.summary.length:
            return 0
        number, offset = divmod(self._at, self._file.block_bytes)
        if number != self._number:
            self._block, self._number = self._file.block(number), number
        data = self._block[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class SealedWriter:
    """Writes a sealed segment front to back into the new file ``fd``. Raises ``OSError``."""

    def __init__(self, fd: int, disk: Disk) -> None:
        self._fd = fd
        self._disk = disk
        self._index = bytearray()
        self._end = self._synced = len(SEALED_MAGIC)
        disk.write(fd, SEALED_MAGIC, 0)

    def add(self, block: bytes) -> None:
        """The next ``BLOCK_BYTES`` of the segment; the last one may be shorter."""
        packed: bytes = _codec().compress(block, asbytes=True)
        self._disk.write(self._fd, packed, self._end)
        self._end += len(packed)
        self._index += self._end.to_bytes(8) + hashlib.sha256(packed).digest()[:16]
        if self._end - self._synced >= _SYNC_BYTES:
            self._disk.sync(self._fd)
            self._synced = self._end

    def finish(self, summary: Summary) -> None:
        """Durable on return."""
        told = summary.encode()
        blocks = len(self._index) // _ENTRY
        numbers = b"".join(number.to_bytes(4) for number in (blocks, BLOCK_BYTES, len(told)))
        data = bytes(self._index) + told + numbers
        self._disk.write(self._fd, data + hashlib.sha256(data).digest(), self._end)
        self._disk.sync(self._fd)


def _codec() -> Any:
    """A new one each time: it belongs to one thread."""
    return pyarrow.Codec("zstd", compression_level=LEVEL)
