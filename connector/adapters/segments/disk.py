"""The few file system calls that durability hangs on, in one place, so that tests can fail each.

Large writes go to the disk past the system's page cache, where the file system allows it
(decision 84); they are not durable before ``sync`` either. Errors are ``OSError``; the callers
turn them into ours.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DIRECT = getattr(os, "O_DIRECT", 0)  # not everywhere
LARGE = 1 << 17  # bytes, from which on a write goes past the page cache
_BLOCK = 4096  # what such a write's place, length and memory are multiples of
_STAGED = 1 << 22  # bytes of one


class Disk:
    """The machine's own. Any thread; while one writes, no other uses that file descriptor."""

    def __init__(self) -> None:
        self._direct = DIRECT != 0
        self._staging = threading.Lock()
        self._stage: mmap.mmap | None = None  # aligned memory for direct writes

    def create(self, path: Path) -> int:
        """A new file, open for reading and writing by its owner alone; it must not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        """All of ``data``, or of its parts one after the other; in one call where it is not large
        and the system takes it whole."""
        views = [memoryview(part) for part in ([data] if isinstance(data, bytes) else data) if part]
        total = sum(map(len, views))
        if total >= LARGE and self._direct and self._staging.acquire(blocking=False):
            try:
                views, offset = self._write_directly(fd, views, total, offset)
            finally:
                self._staging.release()
        _write(fd, views, offset)

    def _write_directly(
        self, fd: int, views: list[memoryview], total: int, offset: int
    ) -> tuple[list[memoryview], int]:
        """Write the blocks that lie wholly in the data; what is left to write, and where.

        The block in which an earlier write may have ended is not touched by it, nor the one in
        which a later one may begin.
        """
        if self._stage is None:
            self._stage = mmap.mmap(-1, _STAGED)
        head = -offset % _BLOCK
        _write(fd, _take(views, head), offset)
        offset, left = offset + head, (total - head) // _BLOCK * _BLOCK
        while left:
            size = min(left, _STAGED)
            with memoryview(self._stage) as stage:
                at = 0
                for view in _take(views, size):
                    stage[at : at + len(view)] = view
                    at += len(view)
                try:
                    with _directly(fd):
                        _write(fd, [stage[:size]], offset)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct = False  # not on this file system
                    _write(fd, [stage[:size]], offset)
            offset, left = offset + size, left - size
        return views, offset

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Data, and the size needed to find it, are on stable storage on return."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Names created, renamed or removed in the folder are on stable storage on return."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, path: Path, target: Path) -> None:
        """One step for whoever looks; durable after ``sync_folder``."""
        path.rename(target)

    def remove(self, path: Path) -> None:
        """Gone for good after ``sync_folder``; it may be missing."""
        path.unlink(missing_ok=True)

    def replace(self, path: Path, data: bytes) -> None:
        """The file holds ``data`` or what it held before, whatever happens; durable on return."""
        fresh = path.with_suffix(".new")
        self.remove(fresh)
        fd = self.create(fresh)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        finally:
            os.close(fd)
        self.rename(fresh, path)
        self.sync_folder(path.parent)


def _write(fd: int, views: list[memoryview], offset: int) -> None:
    while views:
        written = os.pwritev(fd, views, offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def _take(views: list[memoryview], size: int) -> list[memoryview]:
    """The first ``size`` bytes, which are not in ``views`` any more."""
    taken = []
    while size:
        view = views.pop(0)
        if len(view) > size:
            views.insert(0, view[size:])
            view = view[:size]
        taken.append(view)
        size -= len(view)
    return taken


@contextmanager
def _directly(fd: int) -> Iterator[None]:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
