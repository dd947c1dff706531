"""One node's log on disk: ``ports.receipts.LogStorage`` in append-only segment files.

    lock                   held by the one process that has the log open
    segments/<position>    what was committed, and all that decides (``frames``)
    hashes/, places16      computed from the segments, to be read as slices (``derived``)
    kept                   where an opening begins, and the meter's state there (``marks``)
    kept-before-drop       the same as of the last time that a segment was dropped: as receipts
                           are missing since, an opening must not depend on one file
    cosigned/<witness>     the last note that each witness cosigned

A commit is one write and one fdatasync. Opening reads what follows the kept mark (``opening``).
Segments that are complete can be sealed, the oldest ones dropped (``sealing``).

Leaves out: whose signature a checkpoint carries, and whether a tail is missing altogether: the
meter compares with what witnesses saw.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from connector.adapters.segments import frames
from connector.adapters.segments.derived import STRIDE, Derived, encode_places
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.files import Files, dropped
from connector.adapters.segments.frames import Broken, Header, Type
from connector.adapters.segments.marks import Marks, Position, parse_position
from connector.adapters.segments.opening import Opening, State
from connector.adapters.segments.reading import packed_leaves
from connector.adapters.segments.sealing import Sealing
from connector.core.choose import choose
from connector.core.interface import Core, Leaves
from connector.errors import Conflict, InternalError, InvalidInput, Unavailable
from connector.ports.receipts import (
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    CorruptLog,
    Mark,
    Replayed,
    Seal,
    Tip,
)
from connector.ports.segments import Form, Segment
from connector.tlog import tiles
from connector.tlog.merkle import root_of_subtrees
from connector.tlog.tiles import TILE_HEIGHT

SEGMENT_BYTES = 1 << 28  # a new segment starts behind this size


class SegmentLog:
    """The log in ``folder``, created if there is none.

    Raises ``Conflict`` if another process has it open, ``CorruptLog`` if committed bytes are
    damaged or missing, ``Unavailable`` if the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        core: Core | None = None,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._core = core or choose()
        self._disk = disk or Disk()
        self._folder = folder
        self._cosigned = folder / "cosigned"
        self._segment_bytes = segment_bytes
        self._writing = threading.Lock()
        self._keeping = threading.Lock()
        self._failed = False
        self._closed = False
        self._state = State()
        self._parts = ExitStack()
        self._marks = Marks(folder, self._disk)
        self._began: tuple[Position, bytes] | None = None  # the mark that opening began from
        try:
            for path in (folder / "segments", self._cosigned, folder / "hashes"):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = lock(folder / "lock")
            try:
                self._derived = self._parts.enter_context(closing(Derived(folder, self._disk)))
                self._files = self._parts.enter_context(closing(Files(folder / "segments")))
                self._sealing = Sealing(
                    self._files, self._derived, self._disk, self._core, self._marks, self._size
                )
                self._open()
            except BaseException:
                self._let_go()
                raise
        except OSError as error:
            raise Unavailable("the log's folder cannot be read or written") from error

    def _open(self) -> None:
        self._files.tidy(self._disk)
        kept = self._marks.read()
        opening = Opening(self._files, self._derived, self._disk, self._core, self._state)
        resumed = opening.open([position for position, _ in kept])
        self._began = next((mark for mark in kept if mark[0] is resumed), None)
        self._marks.last = resumed
        if not self._files.starts():
            self._state.log_id = secrets.token_bytes(frames.LOG_ID_BYTES)
        if not self._files.starts() or self._files.form(self._files.last) is not Form.COMPLETE:
            self._add_segment()
        self._derived.restored()
        for path in (self._folder / "segments", self._folder):
            self._disk.sync_folder(path)

    @property
    def tip(self) -> Tip:
        return self._state.tip

    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        with self._writing:
            if self._failed or self._closed:
                raise Unavailable(
                    "the log is closed for writing after a disk error",
                    hint="check the disk, then restart the node: it keeps what was stored",
                )
            _check_sizes(records, leaves)
            try:
                return self._append(records, leaves, seal)
            except OSError as error:
                raise Unavailable(
                    "the log cannot be written", hint="check the disk and its free space"
                ) from error

    def mark(self) -> Mark:
        with self._writing:
            state = self._state
            return Mark(state.tip.size, state.position(self._files.last).encode())

    def keep(self, mark: Mark, state: bytes) -> None:
        with self._marks.lock:
            try:
                self._derived.sync()
                self._marks.keep(parse_position(mark.position), state)
            except OSError as error:
                raise Unavailable("the log's state cannot be stored") from error

    @property
    def kept(self) -> tuple[int, bytes] | None:
        return None if self._began is None else (self._began[0].size, self._began[1])

    def replay(self, *, everything: bool = False) -> Iterator[Replayed]:
        known = 0 if self._began is None else self._began[0].end
        end = self._state.end
        starts = self._files.starts()
        size = 0 if everything or self._began is None else self._began[0].size
        for start, following in zip(starts, [*starts[1:], end], strict=True):
            if not everything and following <= known:
                continue
            if self._files.form(start) is Form.DROPPED:
                gone = self._sealing.segment(start)
                yield Replayed(gone.first, gone.leaves, (), b"", known=following <= known)
                size = gone.first + gone.leaves
                continue
            at = frames.HEADER_BYTES
            if not everything and start < known:
                at = known - start
            if start + at >= end:
                return
            for batch in self._batches(start, at, size):
                first, size = size, batch.size
                yield Replayed(
                    first=first,
                    count=batch.count,
                    records=tuple(batch.records),
                    packed=batch.packed,
                    known=start + batch.end <= known,
                )
                if start + batch.end >= end:
                    return

    def _batches(self, start: int, at: int, size: int) -> Iterator[frames.Batch]:
        try:
            with self._files.open(start, at) as file:
                yield from frames.read_batches(
                    file, self._state.log_id, b"", size, at, verify=False
                )
        except (Broken, OSError) as error:
            raise CorruptLog("the log changed while it was read") from error

    def leaves(self, start: int, count: int) -> list[bytes]:
        if start < 0 or count < 0 or start + count > self.tip.size:
            raise InvalidInput("log: no such leaves")
        if not count:
            return []
        position, offset = self._derived.place(start)
        skip = start % STRIDE
        try:
            left = self._sealing.oldest_left()
            if left and position < left.start:
                if start < left.first:
                    raise dropped()
                position, offset, skip = left.start + frames.HEADER_BYTES, 0, start - left.first
            packed = packed_leaves(self._files, position, offset, skip, count)
        except Broken as error:
            raise _changed() from error
        except OSError as error:
            raise Unavailable("the log cannot be read") from error
        if self._core.leaf_hashes(packed) != self._derived.hashes(0, start, count):
            raise _changed()
        return tiles.parse_bundle(packed, count)

    def hashes(self, tile_level: int, start: int, count: int) -> bytes:
        stored = self.tip.size >> TILE_HEIGHT * tile_level if 0 <= tile_level < 8 else 0
        if start < 0 or count < 0 or start + count > stored:
            raise InvalidInput("log: no such hashes")
        return self._derived.hashes(tile_level, start, count) if count else b""

    def cosigned(self) -> list[bytes]:
        return [path.read_bytes() for path in self._cosigned.glob("*.note")]

    def keep_cosigned(self, witness: str, note: bytes) -> None:
        name = hashlib.sha256(witness.encode()).hexdigest()[:32]
        with self._keeping:
            try:
                self._disk.replace(self._cosigned / f"{name}.note", note)
            except OSError as error:
                raise Unavailable("a cosignature cannot be stored") from error

    # ``ports.segments.Segments``

    def segments(self) -> list[Segment]:
        return self._sealing.segments()

    def seal(self, start: int) -> Segment:
        return self._sealing.seal(start)

    def drop(self, start: int) -> Segment:
        return self._sealing.drop(start)

    def close(self) -> None:
        with self._writing:
            if not self._closed:
                self._closed = True
                self._sealing.stop()
                self._state.tip = Tip(0, b"")
                self._let_go()

    def _size(self) -> int:
        return self.tip.size

    def _let_go(self) -> None:
        self._parts.close()
        os.close(self._lock)

    def _append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        state, first = self._state, self._state.tip.size
        if state.end - self._files.last >= self._segment_bytes:
            self._disk.sync(self._files.writable(self._files.last))
            self._add_segment()
        body = b"".join(frames.frame(Type.RECORD, record) for record in records)
        parts, size, subtrees = [body], first + leaves.count, state.subtrees
        note = state.tip.checkpoint
        if leaves.count:
            parts += [frames.frame_head(Type.BUNDLE, len(leaves.packed)), leaves.packed]
            grown, completed = self._core.extend(first, state.subtrees, leaves.hashes)
            subtrees = tuple(grown)
            position = state.end + len(body)
            offsets = self._core.offsets(leaves.packed, -first % STRIDE, STRIDE)
            places = encode_places((position, offset) for offset in offsets)
        sealed = b""
        if leaves.count or not note:
            note = sealed = seal(size, root_of_subtrees(subtrees))
        end = frames.seal_frame(state.log_id, state.chain, body, size, sealed)
        if leaves.count:
            self._derived.write(first, places, completed)
        self._commit([*parts, end])
        state.subtrees = subtrees
        state.chain = frames.chain_of(end)
        state.commit, state.end = state.end, state.end + sum(map(len, parts)) + len(end)
        state.tip = Tip(size, note)
        return state.tip

    def _commit(self, parts: Sequence[bytes]) -> None:
        """One write, one fdatasync. After a failed write the file is cut back and stays in use;
        after a failed fdatasync nobody knows what is on the disk, so nothing more is written."""
        segment = self._files.last
        fd, offset = self._files.writable(segment), self._state.end - segment
        self._failed = True
        try:
            self._disk.write(fd, parts, offset)
        except OSError:
            self._disk.truncate(fd, offset)
            self._failed = False
            raise
        self._disk.sync(fd)
        self._failed = False

    def _add_segment(self) -> None:
        state = self._state
        path = self._files.named(state.end, Form.COMPLETE)
        header = Header(state.log_id, state.end, state.tip.size, state.chain)
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, header.encode(), 0)
            self._disk.sync(fd)
            self._disk.sync_folder(path.parent)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self._files.added(state.end, fd)
        state.end += frames.HEADER_BYTES
        state.commit = state.end


def _changed() -> InternalError:
    return InternalError(
        "log: a leaf is not what it was when it was written",
        hint="stop the node and run: connector log fsck",
    )


def _check_sizes(records: Sequence[bytes], leaves: Leaves) -> None:
    if any(len(record) > MAX_RECORD_BYTES for record in records):
        raise InvalidInput(f"log: a record larger than {MAX_RECORD_BYTES} bytes")
    framed = sum(map(len, records)) + frames.FRAME_HEAD * len(records) + len(leaves.packed)
    if framed > MAX_BATCH_BYTES - frames.FRAME_HEAD:
        raise InvalidInput(f"log: a batch larger than {MAX_BATCH_BYTES} bytes")


def lock(path: Path) -> int:
    """Hold it until what is returned is closed. Raises ``Conflict`` if another process does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Conflict(
            "another process has this log open",
            hint="talk to the running node, or stop it first",
        ) from error
    return fd
