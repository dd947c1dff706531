"""The segment files of a log: which there are, and slices of them.

Files are opened when they are read and closed when others are read more, so that a log of many
segments needs few descriptors.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

from connector.ports.receipts import CorruptLog

BUFFER = 1 << 20
MAX_OPEN = 64
_NAME_DIGITS = 20


class Files:
    """Segments by the position where they start. Reading: any thread; the rest: one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = self._names()
        self._reading = threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._writable: tuple[int, int] | None = None

    def _names(self) -> list[int]:
        names = sorted(path.name for path in self._folder.iterdir())
        if any(len(name) != _NAME_DIGITS or not name.isdecimal() for name in names):
            raise CorruptLog("the log's folder holds a file that is not the log's")
        return [int(name) for name in names]

    def starts(self) -> list[int]:
        """Ascending."""
        return self._starts.copy()

    def start_of(self, position: int) -> int:
        """The segment that a position of the log lies in."""
        return self._starts[bisect_right(self._starts, position) - 1]

    def path(self, start: int) -> Path:
        return self._folder / f"{start:0{_NAME_DIGITS}d}"

    def size(self, start: int) -> int:
        """Bytes in the file."""
        return self.path(start).stat().st_size

    def open(self, start: int, offset: int) -> BinaryIO:
        """A reader of its own, standing at ``offset``."""
        file = self.path(start).open("rb", buffering=BUFFER)
        file.seek(offset)
        return file

    def read(self, start: int, offset: int, count: int) -> bytes:
        """At most ``count`` bytes; fewer at the end of the file."""
        with self._reading:
            fd = self._open.pop(start, None)
            if fd is None:
                fd = os.open(self.path(start), os.O_RDONLY | os.O_CLOEXEC)
            self._open[start] = fd
            if len(self._open) > MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            return os.pread(fd, count, offset)

    def writable(self, start: int) -> int:
        """The segment's file, open for writing; one at a time is."""
        if self._writable is None or self._writable[0] != start:
            fd = os.open(self.path(start), os.O_RDWR | os.O_CLOEXEC)
            self._forget_writable()
            self._writable = start, fd
        return self._writable[1]

    def added(self, start: int, fd: int) -> None:
        """A new segment, the one that is written from now on."""
        insort(self._starts, start)
        self._forget_writable()
        self._writable = start, fd

    def remove(self, start: int) -> None:
        with self._reading:
            fd = self._open.pop(start, None)
            if fd is not None:
                os.close(fd)
        self._starts.remove(start)
        self.path(start).unlink()

    def close(self) -> None:
        with self._reading:
            self._forget_writable()
            while self._open:
                os.close(self._open.popitem()[1])

    def _forget_writable(self) -> None:
        if self._writable is not None:
            os.close(self._writable[1])
            self._writable = None
