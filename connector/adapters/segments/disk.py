"""The few file system calls that durability hangs on, in one place, so that tests can fail each.

Errors are ``OSError``; the callers turn them into ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Disk:
    """The machine's own. Stateless."""

    def create(self, path: Path) -> int:
        """A new file, open for reading and writing by its owner alone; it must not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        """All of ``data``, or of its parts one after the other, in one call where the system
        takes it whole."""
        views = [memoryview(part) for part in ([data] if isinstance(data, bytes) else data) if part]
        while views:
            written = os.pwritev(fd, views, offset)
            offset += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

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
