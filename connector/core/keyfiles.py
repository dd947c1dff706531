"""Files of keys: sorted, searched in place, never changed once they have their name.

A *run* holds the keys of a range of leaves. Its file has three parts; numbers are big-endian:

- header, 128 bytes: magic ``tds-keys``; uint64 each: version 1, first leaf, leaf after the last,
  number of entries, number of lines; SHA-256 of the lines, SHA-256 of the entries; the first 16
  bytes of the SHA-256 of all that.
- lines, 64 bytes each. Key k belongs to line ``(first 8 bytes of k) * lines >> 64``: keys are
  hashes, so lines are alike, with about ``LINE_KEYS`` each. A line is the uint64 number of
  entries before its own, and a Bloom filter: 7 words of 64 bits, little-endian; of a key, read as
  an integer, bits ``6 * i`` to ``6 * i + 5`` say which bit of word i is set.
- entries, 16 bytes each: key, uint48 leaf index; ascending, no key twice.

One cache line says that a key is not there (wrong once in about 2,000 times) or where it would
be. Everything is written front to back in the order of the keys, in memory that does not grow.

The native core writes and reads the same files. Leaves out: which runs there are (``keys``).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from connector.errors import InvalidInput

VERSION = 1
MAX_INDEX = 2**48 - 2  # of a leaf
HEADER_BYTES = 128
LINE_BYTES = 64
LINE_KEYS = 24
ENTRY_BYTES = 16
_MAGIC = b"tds-keys"
_FIELDS = struct.Struct(">8s5Q32s32s")
_CHECK_BYTES = HEADER_BYTES - _FIELDS.size
_SYNC_BYTES = 8 << 20  # written between syncs, so that nobody else's sync waits for much
_BUFFER_BYTES = 1 << 20

# What bits 12 * i to 12 * i + 11 of a key set in a filter; the last is for the 6 bits after them.
_MASKS = tuple(
    tuple(1 << 128 * i + (v & 63) | 1 << 128 * i + 64 + (v >> 6) for v in range(4096))
    for i in range(3)
)
_MASKS_0, _MASKS_1, _MASKS_2 = _MASKS
_MASKS_3 = tuple(1 << 384 + v for v in range(64))
# For six bits: the byte of a word, and the bit in it.
SPOTS = tuple((v >> 3, 1 << (v & 7)) for v in range(64))


def file_name(first: int, end: int) -> str:
    """The name of the run of leaves ``first`` to ``end - 1``."""
    return f"{first:015d}-{end:015d}.keys"


def _mask(key: int) -> int:
    return (
        _MASKS_0[key & 4095]
        | _MASKS_1[key >> 12 & 4095]
        | _MASKS_2[key >> 24 & 4095]
        | _MASKS_3[key >> 36 & 63]
    )


class Run:
    """A run's file, open. May be read from any thread; goes with its last reference.

    Raises ``InvalidInput`` if its header, name and size do not belong together, ``OSError``.
    What lines and entries hold is not looked at; whatever it is, reading does no harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
            if len(header) != HEADER_BYTES:
                raise InvalidInput("key file: it ends early")
            fields: tuple[bytes, int, int, int, int, int, bytes, bytes]
            fields = _FIELDS.unpack_from(header)
            magic, version, first, end, count, lines, lines_digest, entries_digest = fields
            check = hashlib.sha256(header[: _FIELDS.size]).digest()[:_CHECK_BYTES]
            if magic != _MAGIC or version != VERSION or check != header[_FIELDS.size :]:
                raise InvalidInput("key file: its header is not one")
            if not first < end <= MAX_INDEX + 1 or path.name != file_name(first, end):
                raise InvalidInput("key file: its name is another file's")
            if not lines or size != HEADER_BYTES + LINE_BYTES * lines + ENTRY_BYTES * count:
                raise InvalidInput("key file: it has another size than it should")
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.first, self.end, self.count, self.lines = first, end, count, lines
        self._lines_digest, self.entries_digest = lines_digest, entries_digest
        self.entries = HEADER_BYTES + LINE_BYTES * lines  # where they begin

    def search(self, key: bytes, number: int, line: int) -> int | None:
        """The leaf's index. ``number``: the key's; ``line``: where in the file its line is."""
        data = self.data
        mask = _mask(number)
        if int.from_bytes(data[line + 8 : line + LINE_BYTES], "little") & mask != mask:
            return None
        low, high = self._start(line), self._start(line + LINE_BYTES)
        entries = self.entries
        while low < high:
            middle = (low + high) >> 1
            at = entries + ENTRY_BYTES * middle
            found = data[at : at + 10]
            if found < key:
                low = middle + 1
            elif found > key:
                high = middle
            else:
                return int.from_bytes(data[at + 10 : at + ENTRY_BYTES], "big")
        return None

    def find(self, key: bytes) -> int | None:
        """The leaf's index."""
        number = int.from_bytes(key, "big")
        line = HEADER_BYTES + ((number >> 16) * self.lines >> 64) * LINE_BYTES
        return self.search(key, number, line)

    def rank(self, bound: int) -> int:
        """How many entries have a key whose first 8 bytes are below ``bound``, 0 to 2**64."""
        line = HEADER_BYTES + (bound * self.lines >> 64) * LINE_BYTES
        low, high = self._start(line), self._start(line + LINE_BYTES)
        while low < high:
            middle = (low + high) >> 1
            at = self.entries + ENTRY_BYTES * middle
            if int.from_bytes(self.data[at : at + 8], "big") < bound:
                low = middle + 1
            else:
                high = middle
        return low

    def read(self, start: int, stop: int) -> bytes:
        """Entries ``start`` to ``stop - 1``."""
        return self.data[self.entries + ENTRY_BYTES * start : self.entries + ENTRY_BYTES * stop]

    def is_sound(self) -> bool:
        """Whether lines and entries are those that were written. Reads all of the file."""
        return self._digest(HEADER_BYTES, self.entries) == self._lines_digest and (
            self._digest(self.entries, len(self.data)) == self.entries_digest
        )

    def _start(self, line: int) -> int:
        """The number of entries before a line's own; never more than there are."""
        if line >= self.entries:
            return self.count
        return min(int.from_bytes(self.data[line : line + 8], "big"), self.count)

    def _digest(self, start: int, stop: int) -> bytes:
        digest = hashlib.sha256()
        for at in range(start, stop, _BUFFER_BYTES):
            digest.update(self.data[at : min(at + _BUFFER_BYTES, stop)])
        return digest.digest()


class RunWriter:
    """Writes the run of leaves ``first`` to ``end - 1``, of at most ``planned`` keys.

    The file has its name once ``finish`` returns, and is durable then. ``abandon`` removes what
    there is. Any method may raise ``OSError``; then only ``abandon`` is left to call.
    """

    def __init__(self, folder: Path, first: int, end: int, planned: int) -> None:
        self._folder, self._first, self._end = folder, first, end
        self._lines = max(1, -(-planned // LINE_KEYS))
        self._count = 0
        self._line, self._before, self._filter = 0, 0, 0  # of the line under way
        self._last = -1
        self._path = folder / f"{file_name(first, end)}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._line_part = _Part(self._fd, HEADER_BYTES)
        self._entry_part = _Part(self._fd, HEADER_BYTES + LINE_BYTES * self._lines)

    def add(self, entries: Iterable[bytes]) -> None:
        """Entries that follow those added before, ascending. Of a key's only the first counts.

        Raises ``InvalidInput`` if they do not ascend.
        """
        lines, last = self._lines, self._last
        kept: list[bytes] = []
        for entry in entries:
            key = int.from_bytes(entry, "big") >> 48
            if key <= last:
                if key == last:
                    continue
                raise InvalidInput("key file: its entries do not ascend")
            last = key
            line = (key >> 16) * lines >> 64
            if line != self._line:
                self._end_lines(line, self._count + len(kept))
            self._filter |= (
                _MASKS_0[key & 4095]
                | _MASKS_1[key >> 12 & 4095]
                | _MASKS_2[key >> 24 & 4095]
                | _MASKS_3[key >> 36 & 63]
            )
            kept.append(entry)
        self._last = last
        self._count += len(kept)
        self._entry_part.write(b"".join(kept))

    def finish(self) -> Path:
        """Durable under its name; where it is."""
        self._end_lines(self._lines, self._count)
        digests = self._line_part.finish(), self._entry_part.finish()
        fields = (VERSION, self._first, self._end, self._count, self._lines)
        header = _FIELDS.pack(_MAGIC, *fields, *digests)
        header += hashlib.sha256(header).digest()[:_CHECK_BYTES]
        _write(self._fd, header, 0)
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        path = self._folder / file_name(self._first, self._end)
        self._path.rename(path)
        sync_folder(self._folder)
        return path

    def abandon(self) -> None:
        """Remove what was written. Raises nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        remove(self._path)

    def _end_lines(self, line: int, count: int) -> None:
        """The line under way is complete, and so are those up to ``line``, which are empty."""
        done = self._before.to_bytes(8, "big") + self._filter.to_bytes(56, "little")
        empty = count.to_bytes(8, "big") + bytes(56)
        self._line_part.write(done + empty * (line - self._line - 1))
        self._line, self._before, self._filter = line, count, 0


class _Part:
    """A part of a file that is written front to back, with its SHA-256."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd, self._offset = fd, offset
        self._buffer = bytearray()
        self._unsynced = 0
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> bytes:
        self._flush()
        return self._digest.digest()

    def _flush(self) -> None:
        self._digest.update(self._buffer)
        _write(self._fd, self._buffer, self._offset)
        self._offset += len(self._buffer)
        self._unsynced += len(self._buffer)
        self._buffer = bytearray()
        if self._unsynced >= _SYNC_BYTES:
            os.fdatasync(self._fd)
            self._unsynced = 0


def _write(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def remove(path: Path) -> bool:
    """Whether the file is gone. Raises nothing."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Names created or removed are durable on return. Raises ``OSError``."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
