"""Reading a log's segments from the first byte: what is sound, what a crash left, what is damage.

Each commit's chain value and its checkpoint's root are compared with the leaves. What a crash
left behind the last commit is cut off; damage before it raises ``CorruptLog`` and changes
nothing. Memory does not grow with the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from connector.adapters.segments import frames
from connector.adapters.segments.derived import Derived, place
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.frames import Broken, Header
from connector.errors import InvalidInput
from connector.ports.receipts import CorruptLog, Tip
from connector.tlog import merkle
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.frontier import Frontier

BUFFER = 1 << 20
_NAME_DIGITS = 20

log = structlog.get_logger()


@dataclass(slots=True)
class State:
    """Where the log stands: the one mutable thing, changed by its writer alone.

    ``starts`` are the segments' positions, ``fds`` their open files; ``end`` is the position
    after the last commit.
    """

    log_id: bytes = b""
    starts: list[int] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    end: int = 0
    frontier: Frontier = field(default_factory=Frontier)
    chain: bytes = frames.FIRST_CHAIN
    tip: Tip = field(default_factory=lambda: Tip(0, b""))

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.tip = Tip(0, b"")


def segment_path(folder: Path, position: int) -> Path:
    return folder / f"{position:0{_NAME_DIGITS}d}"


def open_segments(folder: Path, derived: Derived, disk: Disk, state: State) -> None:
    """Fill ``state`` and ``derived`` from the segments in ``folder``; none are in an empty log.

    Raises ``CorruptLog`` and ``OSError``.
    """
    names = _names(folder)
    if names and _is_unborn(segment_path(folder, names[-1])):
        log.warning("the log's last segment was never begun and is removed", position=names[-1])
        segment_path(folder, names.pop()).unlink()
    for start in names:
        if start != state.end:
            raise CorruptLog(
                "the log lacks a segment, or one was cut",
                hint="restore the log's folder from its newest copy",
            )
        _Segment(folder, derived, disk, state).open(start, last=start == names[-1])


def _names(folder: Path) -> list[int]:
    names = sorted(path.name for path in folder.iterdir())
    if any(len(name) != _NAME_DIGITS or not name.isdecimal() for name in names):
        raise CorruptLog("the log's folder holds a file that is not the log's")
    return [int(name) for name in names]


def _is_unborn(path: Path) -> bool:
    """A crash may have come between the creation of a segment and its header."""
    if path.stat().st_size > frames.HEADER_BYTES:
        return False
    try:
        frames.parse_header(path.read_bytes())
    except Broken:
        return True
    return False


@dataclass(slots=True)
class _Segment:
    folder: Path
    derived: Derived
    disk: Disk
    state: State

    def open(self, start: int, *, last: bool) -> None:
        path = segment_path(self.folder, start)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.state.starts.append(start)
        self.state.fds.append(fd)
        end = previous = frames.HEADER_BYTES
        with path.open("rb", buffering=BUFFER) as file:
            header = self._header(file.read(frames.HEADER_BYTES), start)
            try:
                for batch in frames.read_batches(file, header):
                    self._restore(batch, start)
                    previous, end = end, batch.end
            except Broken:
                self._cut(fd, end, last=last)
        self.state.end = start + end
        if last:
            # A commit that failed at its fdatasync may be in the cache and not on the disk.
            self.disk.write(fd, os.pread(fd, end - previous, previous), previous)
            self.disk.sync(fd)

    def _header(self, data: bytes, start: int) -> Header:
        try:
            header = frames.parse_header(data)
        except Broken:
            raise CorruptLog("a segment of the log has a damaged header") from None
        state = self.state
        log_id = state.log_id or header.log_id
        if header != Header(log_id, start, state.frontier.size, state.chain):
            raise CorruptLog("a segment of the log does not follow the one before it")
        state.log_id = log_id
        return header

    def _restore(self, batch: frames.Batch, start: int) -> None:
        state = self.state
        for leaf, offset in zip(batch.leaves, batch.places, strict=True):
            hashes = state.frontier.append(merkle.leaf_hash(leaf))
            self.derived.restore(place(start + offset, len(leaf)), hashes)
        state.chain = batch.chain
        if not batch.note:
            if batch.leaves:
                raise CorruptLog("the log has leaves that no checkpoint covers")
            return
        try:
            checkpoint = parse_checkpoint(batch.note)
        except InvalidInput as error:
            raise CorruptLog("the log has a checkpoint that cannot be read") from error
        if (checkpoint.size, checkpoint.root) != (batch.size, state.frontier.root()):
            raise CorruptLog("a checkpoint of the log does not cover its leaves")
        state.tip = Tip(batch.size, batch.note)

    def _cut(self, fd: int, end: int, *, last: bool) -> None:
        tail = os.pread(fd, os.fstat(fd).st_size - end, end)
        if not last or not frames.is_torn(tail, end, self.state.log_id):
            raise CorruptLog(
                "the log is damaged before its last commit; nothing was changed",
                hint="restore the log's folder from its newest copy; do not delete anything",
            )
        log.warning("an unfinished commit behind the log's last one is cut off", bytes=len(tail))
        self.disk.truncate(fd, end)
