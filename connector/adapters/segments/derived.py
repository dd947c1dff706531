"""What can be computed from the segments and is kept to be read as slices.

    hashes/<tile level>    the tree's hashes of level 8 * tile level, 32 bytes each
    places                 where each leaf lies, 8 bytes each: position in the log << 16 | length

These files decide nothing and are not synced. Whenever the log is opened they are compared with
what the segments say, and mended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from connector.adapters.segments.disk import Disk
from connector.errors import InternalError, Unavailable
from connector.tlog.merkle import HASH_BYTES
from connector.tlog.tiles import TILE_HEIGHT

_CHUNK = 1 << 20  # bytes compared at a time
_PLACE_BYTES = 8
_LENGTH_BITS = 16


def place(position: int, length: int) -> bytes:
    """A leaf of ``length`` bytes whose frame starts at ``position``."""
    return (position << _LENGTH_BITS | length).to_bytes(_PLACE_BYTES)


class Derived:
    """``restore`` and ``restored`` are for opening. Afterwards ``write`` is the one writer's, and
    the rest anybody's, for items that were written."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._places = _Items(folder / "places", _PLACE_BYTES, disk)
        self._levels: dict[int, _Items] = {}

    def restore(self, place: bytes, hashes: list[tuple[int, bytes]]) -> None:
        """The next leaf's place, and the ``(tile level, hash)`` pairs that it completed."""
        self._places.restore(place)
        for level, value in hashes:
            self._level(level).restore(value)

    def restored(self) -> None:
        """No more leaves: what lies behind them is cut off."""
        for path in (self._folder / "hashes").iterdir():
            if path.name.isdecimal():
                self._level(int(path.name))
        for items in (self._places, *self._levels.values()):
            items.restored()

    def write(self, first: int, places: bytes, hashes: Mapping[int, bytes | bytearray]) -> None:
        """For leaves from index ``first`` on. Raises ``OSError``."""
        self._places.write(first, places)
        for level, values in hashes.items():
            self._level(level).write(first >> TILE_HEIGHT * level, values)

    def places(self, start: int, count: int) -> list[tuple[int, int]]:
        """``(position, length)`` of each leaf."""
        data = self._places.read(start, count)
        found = []
        for at in range(0, len(data), _PLACE_BYTES):
            value = int.from_bytes(data[at : at + _PLACE_BYTES])
            found.append((value >> _LENGTH_BITS, value & (1 << _LENGTH_BITS) - 1))
        return found

    def hashes(self, level: int, start: int, count: int) -> bytes:
        return self._level(level).read(start, count)

    def close(self) -> None:
        for items in (self._places, *self._levels.values()):
            items.close()

    def _level(self, level: int) -> _Items:
        if level not in self._levels:
            path = self._folder / "hashes" / str(level)
            self._levels[level] = _Items(path, HASH_BYTES, self._disk)
        return self._levels[level]


class _Items:
    """Item ``i`` is the ``width`` bytes at offset ``i * width`` of the file."""

    def __init__(self, path: Path, width: int, disk: Disk) -> None:
        self._width = width
        self._disk = disk
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._due = bytearray()
        self._done = 0  # bytes known to be right

    def restore(self, item: bytes) -> None:
        self._due += item
        if len(self._due) >= _CHUNK:
            self._settle()

    def restored(self) -> None:
        self._settle()
        if os.fstat(self._fd).st_size != self._done:
            self._disk.truncate(self._fd, self._done)

    def write(self, index: int, items: bytes | bytearray) -> None:
        self._disk.write(self._fd, items, index * self._width)

    def read(self, index: int, count: int) -> bytes:
        try:
            data = os.pread(self._fd, count * self._width, index * self._width)
        except OSError as error:
            raise Unavailable("the log cannot be read") from error
        if len(data) != count * self._width:
            raise InternalError("log: a derived file is shorter than the log", hint="restart")
        return data

    def close(self) -> None:
        os.close(self._fd)

    def _settle(self) -> None:
        due = bytes(self._due)
        if os.pread(self._fd, len(due), self._done) != due:
            self._disk.write(self._fd, due, self._done)
        self._done += len(due)
        self._due.clear()
