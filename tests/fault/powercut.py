"""What a disk may hold after a power cut: what was synced, and any part of the rest.

A *sector* of an unsynced write is there or is not; a new size may have come without the bytes.
So is a change of a name, whatever its order, until its folder is synced. Files that were not made
through ``Disk`` count as there from the beginning.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from connector.adapters.segments.disk import Disk

SECTOR = 512

Change = tuple[str, str, str | int]  # "create", "rename" or "remove"; path; new path or file
Write = tuple[int | None, bytes]  # where, None: cut off at that length; bytes


class RecordingDisk(Disk):
    """Works, and writes down what was asked of it below ``root``. Files are inode numbers, with
    how many files had the number before: a removed file's may be given to a new one."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.before = {path: path.read_bytes() for path in _files(root)}
        self.had: dict[int, int] = {}
        self.inodes = {path: self._file(path.stat()) for path in self.before}
        self.calls: list[tuple[str, object]] = []

    def create(self, path: Path) -> int:
        fd = super().create(path)
        inode = os.fstat(fd).st_ino
        self.had[inode] = self.had.get(inode, 0) + 1
        self.calls.append(("name", ("create", self._name(path), self._file(os.fstat(fd)))))
        return fd

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        whole = data if isinstance(data, bytes) else b"".join(data)
        super().write(fd, whole, offset)
        self.calls.append(("write", (self._file(os.fstat(fd)), offset, whole)))

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self.calls.append(("write", (self._file(os.fstat(fd)), size, None)))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.calls.append(("sync", self._file(os.fstat(fd))))

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.calls.append(("sync_folder", self._name(path)))

    def rename(self, path: Path, target: Path) -> None:
        super().rename(path, target)
        self.calls.append(("name", ("rename", self._name(path), self._name(target))))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.calls.append(("name", ("remove", self._name(path), 0)))

    def cut(self, calls: int, target: Path, dice: random.Random) -> None:
        """Into ``target``: the power went after so many calls."""
        content = {self.inodes[path]: data for path, data in self.before.items()}
        names = {self._name(path): inode for path, inode in self.inodes.items()}
        made = {what[1:] for kind, what in self.calls if kind == "name"}  # type: ignore[index]
        gone = {str(name) for pair in made for name in pair}
        for path in _files(self.root):
            if self._name(path) not in names and self._name(path) not in gone:
                names[self._name(path)] = self._file(path.stat())
        waiting: dict[int, list[tuple[int, bytes | None]]] = {}
        changes: list[Change] = []
        for kind, what in self.calls[:calls]:
            match kind, what:
                case "name", change:
                    changes.append(change)  # type: ignore[arg-type]
                case "write", (inode, at, data):
                    waiting.setdefault(inode, []).append((at, data))
                case "sync", int(inode):
                    content[inode] = _written(content.get(inode, b""), waiting.pop(inode, []))
                case "sync_folder", folder:
                    now = [change for change in changes if str(Path(change[1]).parent) == folder]
                    changes = [change for change in changes if change not in now]
                    _rename(names, now)
        _rename(names, [change for change in changes if dice.random() < 0.5])
        for inode, writes in waiting.items():
            old = content.get(inode, b"")
            content[inode] = _torn(old, _written(old, writes), dice)
        for name, inode in names.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.get(inode, b""))

    def _file(self, found: os.stat_result) -> int:
        return found.st_ino << 16 | self.had.get(found.st_ino, 0)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]


def _rename(names: dict[str, int], changes: Sequence[Change]) -> None:
    for kind, name, other in changes:
        if kind == "create":
            names[name] = int(other)
        elif name in names:
            inode = names.pop(name)
            if kind == "rename":
                names[str(other)] = inode


def _written(old: bytes, writes: Sequence[tuple[int, bytes | None]]) -> bytes:
    data = bytearray(old)
    for at, more in writes:
        data.extend(bytes(max(0, at - len(data))))
        if more is None:
            del data[at:]
        else:
            data[at : at + len(more)] = more
    return bytes(data)


def _torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    size = dice.choice([len(new), len(new), dice.randrange(len(new) + 1)])
    size = max(size, min(len(old), len(new)))
    data = bytearray(old[:size].ljust(size, b"\0"))
    starts = [
        at for at in range(0, size, SECTOR) if data[at : at + SECTOR] != new[at : at + SECTOR]
    ]
    share = dice.choice([0, 0.5, 1])
    lost = {dice.choice(starts)} if starts and share == 1 and dice.random() < 0.7 else set()
    for at in starts:
        if at not in lost and dice.random() < share:
            data[at : at + SECTOR] = new[at : min(at + SECTOR, size)]
    return bytes(data)
