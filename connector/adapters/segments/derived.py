"""What can be computed from the segments and is kept to be read as slices.

    hashes/<tile level>    the tree's hashes of level 8 * tile level, 32 bytes each
    places16               where every sixteenth leaf lies, 12 bytes each: position of its frame
                           in the log (8), offset of the leaf's length in the frame's payload (4)

These files decide nothing and are not synced with a commit. What a kept mark covers was synced
before the mark was; whatever lies above it is compared with the segments at opening, and mended.
The newest items are in memory until they are a large write: a sync for a mark then finds little
left to do, and the log's own syncs do not wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from connector.adapters.segments.disk import LARGE, Disk
from connector.errors import InternalError, Unavailable
from connector.ports.receipts import CorruptLog
from connector.tlog.merkle import HASH_BYTES
from connector.tlog.tiles import TILE_HEIGHT

STRIDE = 16  # leaves to a place
_CHUNK = 1 << 20  # bytes compared at a time
PLACE_BYTES = 12
HELD = LARGE + 8192  # bytes of a file that are not written before; then most go directly


def encode_places(places: Iterable[tuple[int, int]]) -> bytes:
    """``(position of the frame, offset in its payload)`` of leaves."""
    return b"".join(position.to_bytes(8) + offset.to_bytes(4) for position, offset in places)


def places_before(size: int) -> int:
    """How many places the first ``size`` leaves have."""
    return -(-size // STRIDE)


class Derived:
    """``trust``, ``restore`` and ``restored`` are for opening. Afterwards ``write`` is the one
    writer's, and the rest anybody's, for items that were written."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._places = _Items(folder / "places16", PLACE_BYTES, disk)
        self._levels: dict[int, _Items] = {}

    def trust(self, size: int) -> bool:
        """Take what is there for the first ``size`` leaves as it is; False if it is too short."""
        wanted = {self._places: places_before(size)}
        level = 0
        while size >> TILE_HEIGHT * level:
            wanted[self._level(level)] = size >> TILE_HEIGHT * level
            level += 1
        if any(items.stored() < count for items, count in wanted.items()):
            return False
        for items, count in wanted.items():
            items.trust(count)
        return True

    def restore(self, places: bytes, hashes: Mapping[int, bytes]) -> None:
        """The next leaves' places, and the hashes that they completed by tile level."""
        self._places.restore(places)
        for level, values in hashes.items():
            self._level(level).restore(values)

    def adopt(self, count: int) -> bytes:
        """The next leaves were dropped: their hashes as they are stored. They have no places.

        Raises ``CorruptLog`` if they are not there.
        """
        level = self._level(0)
        first = level.done
        places = places_before(first + count) - places_before(first)
        self._places.restore(bytes(places * PLACE_BYTES))
        return level.adopt(count)

    def restored(self) -> None:
        """No more leaves: what lies behind them is cut off."""
        for path in (self._folder / "hashes").iterdir():
            if path.name.isdecimal():
                self._level(int(path.name))
        for items in self._all():
            items.restored()
        (self._folder / "places").unlink(missing_ok=True)  # of before version 0.2

    def write(self, first: int, places: bytes, hashes: Mapping[int, bytes]) -> None:
        """For leaves from index ``first`` on. Raises ``OSError``."""
        if places:
            self._places.write(places_before(first), places)
        for level, values in hashes.items():
            self._level(level).write(first >> TILE_HEIGHT * level, values)

    def place(self, index: int) -> tuple[int, int]:
        """``(position, offset)`` of leaf ``index``, rounded down to a multiple of ``STRIDE``."""
        data = self._places.read(index // STRIDE, 1)
        return int.from_bytes(data[:8]), int.from_bytes(data[8:])

    def hashes(self, level: int, start: int, count: int) -> bytes:
        return self._level(level).read(start, count)

    def sync(self) -> None:
        """What was written is on stable storage on return. Raises ``OSError``."""
        for items in self._all():
            items.sync()
        for path in (self._folder / "hashes", self._folder):
            self._disk.sync_folder(path)

    def close(self) -> None:
        for items in self._all():
            items.close()

    def _all(self) -> list[_Items]:
        return [self._places, *self._levels.copy().values()]

    def _level(self, level: int) -> _Items:
        if level not in self._levels:
            path = self._folder / "hashes" / str(level)
            self._levels[level] = _Items(path, HASH_BYTES, self._disk)
        return self._levels[level]


class _Items:
    """Item ``i`` is the ``width`` bytes at offset ``i * width`` of the file, or of what is held."""

    def __init__(self, path: Path, width: int, disk: Disk) -> None:
        self._width = width
        self._disk = disk
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._to_read = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # beside direct writes
        self._due = bytearray()
        self._done = 0  # bytes known to be right
        self._held, self._held_at = b"", 0  # written, but not in the file; from which offset on
        self._holding = threading.Lock()  # around a change or a look at both, never for long
        self._writing = threading.Lock()  # of the file

    def stored(self) -> int:
        """Items in the file, right or not."""
        return os.fstat(self._fd).st_size // self._width

    def trust(self, count: int) -> None:
        self._done = count * self._width

    def restore(self, items: bytes) -> None:
        self._due += items
        if len(self._due) >= _CHUNK:
            self._settle()

    @property
    def done(self) -> int:
        """Items known to be right."""
        return (self._done + len(self._due)) // self._width

    def adopt(self, count: int) -> bytes:
        self._settle()
        data = os.pread(self._fd, count * self._width, self._done)
        if len(data) != count * self._width:
            raise CorruptLog(
                "the kept hashes of dropped receipts are missing: they cannot be computed anew",
                hint="restore the folder hashes of the log from its newest copy",
            )
        self._done += len(data)
        return data

    def restored(self) -> None:
        self._settle()
        if os.fstat(self._fd).st_size != self._done:
            self._disk.truncate(self._fd, self._done)

    def write(self, index: int, items: bytes) -> None:
        at = index * self._width
        with self._holding:
            kept = at - self._held_at  # what is behind was of a commit that failed
            if not 0 <= kept <= len(self._held):
                kept, self._held_at = 0, at
            self._held = self._held[:kept] + items
        if len(self._held) >= HELD:
            self._put()

    def read(self, index: int, count: int) -> bytes:
        start, end = index * self._width, (index + count) * self._width
        with self._holding:
            held = self._held
            at = self._held_at if held else end
        try:
            data = os.pread(self._to_read, max(0, min(end, at) - start), start)
        except OSError as error:
            raise Unavailable("the log cannot be read") from error
        data += held[max(0, start - at) : max(0, end - at)]
        if len(data) != end - start:
            raise InternalError("log: a derived file is shorter than the log", hint="restart")
        return data

    def sync(self) -> None:
        self._put()
        self._disk.sync(self._fd)

    def close(self) -> None:
        with suppress(OSError):  # opening mends it
            self._put()
        os.close(self._to_read)
        os.close(self._fd)

    def _put(self) -> None:
        """What is held is in the file on return."""
        with self._writing:
            with self._holding:
                data, at = self._held, self._held_at
            self._disk.write(self._fd, data, at)
            with self._holding:
                if self._held_at == at and self._held.startswith(data):
                    self._held, self._held_at = self._held[len(data) :], at + len(data)

    def _settle(self) -> None:
        due = bytes(self._due)
        if os.pread(self._fd, len(due), self._done) != due:
            self._disk.write(self._fd, due, self._done)
        self._done += len(due)
        self._due.clear()
