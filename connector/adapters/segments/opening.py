"""Reading a log's segments: what is sound, what a crash left, what is damage.

From the kept mark on if there is one, else from the first byte. Each commit's chain value and its
checkpoint's root are compared with the leaves. What a crash left behind the last commit is cut
off; damage before it raises ``CorruptLog`` and changes nothing. Of dropped segments the hashes
that were kept are compared with the checkpoint. Memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import structlog

from connector.adapters.segments import frames
from connector.adapters.segments.derived import STRIDE, Derived, encode_places
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.files import Files, damaged
from connector.adapters.segments.frames import Broken, Header
from connector.adapters.segments.marks import Position
from connector.adapters.segments.sealed import Summary
from connector.core.interface import Core
from connector.errors import Gone, InvalidInput
from connector.ports.receipts import CorruptLog, Tip
from connector.ports.segments import Form
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.merkle import root_of_subtrees

ADOPTED = 1 << 15  # hashes of dropped leaves taken at a time

log = structlog.get_logger()


@dataclass(slots=True)
class State:
    """Where the log stands: the one mutable thing, changed by its writer alone.

    ``commit`` and ``end`` are the positions before and after the last commit.
    """

    log_id: bytes = b""
    commit: int = 0
    end: int = 0
    subtrees: tuple[bytes, ...] = ()
    chain: bytes = frames.FIRST_CHAIN
    tip: Tip = field(default_factory=lambda: Tip(0, b""))

    def position(self, segment: int) -> Position:
        return Position(
            log_id=self.log_id,
            segment=segment,
            commit=self.commit,
            end=self.end,
            size=self.tip.size,
            chain=self.chain,
            subtrees=self.subtrees,
            note=self.tip.checkpoint,
        )


@dataclass(slots=True)
class Opening:
    """Fills ``state`` and ``derived`` from ``files``, which know the folder's segments."""

    files: Files
    derived: Derived
    disk: Disk
    core: Core
    state: State

    def open(self, marks: Sequence[Position]) -> Position | None:
        """Begins from the first mark that can be used, and says which that is. Raises
        ``CorruptLog`` and ``OSError``."""
        self._drop_unborn()
        starts = self.files.starts()
        if starts and starts[0]:
            raise _lacking()
        kept = next((mark for mark in marks if self._resume(mark)), None)
        for start, following in zip(starts, [*starts[1:], None], strict=False):
            if kept is not None and start < kept.segment:
                if following != start + self._size(start):
                    raise _lacking()
                continue
            is_resumed = kept is not None and start == kept.segment
            if not is_resumed and start != self.state.end:
                raise _lacking()
            self._segment(start, resumed=is_resumed, last=following is None)
        size, end = self.state.tip.size, self.state.end
        if any(size < mark.size or end < mark.end for mark in marks):
            raise CorruptLog(
                "the log ends before what was once known of it: commits were lost",
                hint="restore the log's folder from its newest copy; do not delete anything",
            )
        return kept

    def _size(self, start: int) -> int:
        try:
            return self.files.size(start)
        except Broken:
            raise _damaged() from None

    def _drop_unborn(self) -> None:
        """A crash may have come between the creation of a segment and its header."""
        starts = self.files.starts()
        if not starts or self._size(starts[-1]) > frames.HEADER_BYTES:
            return
        try:
            frames.parse_header(self.files.read(starts[-1], 0, frames.HEADER_BYTES))
        except Broken:
            log.warning("the log's last segment was never begun and is removed", at=starts[-1])
            self.files.remove(starts[-1])

    def _resume(self, kept: Position) -> bool:
        """Start from the mark, if the log has the commit that it names."""
        if kept.segment not in self.files.starts() or not self._has_commit(kept):
            return False
        if not self.derived.trust(kept.size):
            return False
        self.state.log_id, self.state.chain = kept.log_id, kept.chain
        self.state.commit, self.state.end = kept.commit, kept.end
        self.state.subtrees = kept.subtrees
        self.state.tip = Tip(kept.size, kept.note)
        return True

    def _has_commit(self, kept: Position) -> bool:
        try:
            header = frames.parse_header(self.files.read(kept.segment, 0, frames.HEADER_BYTES))
            if header.log_id != kept.log_id:
                return False
            if kept.commit == kept.end:
                return header.chain == kept.chain
            ends = []
            for note in (kept.note, b""):  # a commit without leaves has no note
                length = frames.end_bytes(note)
                ends.append(self.files.read(kept.segment, kept.end - kept.segment - length, length))
        except (Broken, Gone, OSError):
            return False
        return any(frames.is_end(data, kept.log_id, kept.chain) for data in ends)

    def _segment(self, start: int, *, resumed: bool, last: bool) -> None:
        state = self.state
        if self.files.form(start) is Form.DROPPED:
            self._dropped(start)
            return
        if not resumed:
            self._header(start)
            state.commit = state.end = start + frames.HEADER_BYTES
        at = state.end - start
        try:
            with self.files.open(start, at) as file:
                for batch in self._batches(file, at):
                    self._restore(batch, start)
        except Broken:
            self._cut(start, last=last)
        if last and state.commit < state.end and self.files.form(start) is Form.COMPLETE:
            # A commit that failed at its fdatasync may be in the cache and not on the disk.
            fd = self.files.writable(start)
            data = self.files.read(start, state.commit - start, state.end - state.commit)
            self.disk.write(fd, data, state.commit - start)
            self.disk.sync(fd)

    def _dropped(self, start: int) -> None:
        """Its leaves are gone; their hashes must still give the tree of its last checkpoint."""
        state, first = self.state, self.state.tip.size
        try:
            summary = self.files.summary(start)
        except Broken:
            raise _damaged() from None
        if summary is None or not follows(summary, state.log_id, start, first, state.chain):
            raise _lacking()
        for at in range(first, first + summary.leaves, ADOPTED):
            hashes = self.derived.adopt(min(ADOPTED, first + summary.leaves - at))
            subtrees, completed = self.core.extend(at, state.subtrees, hashes)
            state.subtrees = tuple(subtrees)
            self.derived.restore(
                b"", {level: values for level, values in completed.items() if level}
            )
        if summary.note and not covers(summary.note, first + summary.leaves, state.subtrees):
            raise CorruptLog(
                "the kept hashes of dropped receipts are damaged: they cannot be computed anew",
                hint="restore the folder hashes of the log from its newest copy",
            )
        state.log_id, state.chain = summary.log_id, summary.after
        state.commit = state.end = start + summary.length
        state.tip = Tip(first + summary.leaves, summary.note or state.tip.checkpoint)

    def _batches(self, file: IO[bytes], at: int) -> Iterator[frames.Batch]:
        state = self.state
        return frames.read_batches(file, state.log_id, state.chain, state.tip.size, at)

    def _header(self, start: int) -> None:
        try:
            header = frames.parse_header(self.files.read(start, 0, frames.HEADER_BYTES))
        except Broken:
            raise CorruptLog("a segment of the log has a damaged header") from None
        state = self.state
        log_id = state.log_id or header.log_id
        if header != Header(log_id, start, state.tip.size, state.chain):
            raise CorruptLog("a segment of the log does not follow the one before it")
        state.log_id = log_id

    def _restore(self, batch: frames.Batch, start: int) -> None:
        """Raises ``Broken`` for a commit whose leaves are not those of its checkpoint."""
        state, first = self.state, self.state.tip.size
        if batch.count:
            try:
                hashes = self.core.leaf_hashes(batch.packed)
                if len(hashes) != batch.count * 32:
                    raise Broken
                subtrees, completed = self.core.extend(first, state.subtrees, hashes)
            except InvalidInput:
                raise Broken from None
            if not covers(batch.note, batch.size, subtrees):
                raise Broken
            places = encode_places(places_of(self.core, batch, start, first))
            self.derived.restore(places, completed)
            state.subtrees = tuple(subtrees)
        state.chain = batch.chain
        state.commit, state.end = start + batch.start, start + batch.end
        if batch.note:
            state.tip = Tip(batch.size, batch.note)

    def _cut(self, start: int, *, last: bool) -> None:
        if not last or self.files.form(start) is not Form.COMPLETE:
            raise _damaged()
        end = self.state.end - start
        tail = self.files.read(start, end, self.files.size(start) - end)
        if not frames.is_torn(tail, end, self.state.log_id):
            raise _damaged()
        log.warning("an unfinished commit behind the log's last one is cut off", bytes=len(tail))
        self.disk.truncate(self.files.writable(start), end)


def places_of(core: Core, batch: frames.Batch, start: int, first: int) -> Iterator[tuple[int, int]]:
    """Of every sixteenth leaf of the log that is in the batch: ``Derived.place``. ``start``: of
    its segment; ``first``: index of its first leaf."""
    if len(batch.places) == 1:
        position = start + batch.places[0][0]
        for offset in core.offsets(batch.packed, -first % STRIDE, STRIDE):
            yield position, offset
    else:  # a frame for each leaf
        for at, before in batch.places:
            if (first + before) % STRIDE == 0:
                yield start + at, 0


def covers(note: bytes, size: int, subtrees: Sequence[bytes]) -> bool:
    """Whether the checkpoint is of the tree of ``size`` leaves with these complete subtrees."""
    try:
        checkpoint = parse_checkpoint(note)
    except InvalidInput:
        return False
    return (checkpoint.size, checkpoint.root) == (size, root_of_subtrees(subtrees))


def follows(summary: Summary, log_id: bytes, start: int, first: int, chain: bytes) -> bool:
    """Whether a dropped segment comes after what ``first`` leaves and ``chain`` say."""
    found = (summary.log_id, summary.position, summary.first, summary.before)
    return found == (log_id or summary.log_id, start, first, chain)


def _damaged() -> CorruptLog:
    return damaged("the log is damaged before its last commit")


def _lacking() -> CorruptLog:
    return CorruptLog(
        "the log lacks a segment, or one was cut",
        hint="restore the log's folder from its newest copy",
    )
