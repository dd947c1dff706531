"""One node's log on disk: ``ports.receipts.LogStorage`` in append-only segment files.

    lock                   held by the one process that has the log open
    segments/<position>    what was committed, and all that decides (``frames``)
    hashes/, places        computed from the segments, to be read as slices (``derived``)
    cosigned/<witness>     the last note that each witness cosigned

A commit is one write and one fdatasync. Opening reads everything once (``opening``).

Leaves out: whose signature a checkpoint carries, and whether a tail is missing altogether: the
meter compares with what witnesses saw.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from connector.adapters.segments import frames
from connector.adapters.segments.derived import Derived, place
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.frames import Broken, Header, Type
from connector.adapters.segments.opening import BUFFER, State, open_segments, segment_path
from connector.errors import Conflict, InternalError, InvalidInput, Unavailable
from connector.ports.receipts import (
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    CorruptLog,
    Replayed,
    Seal,
    Tip,
)
from connector.tlog import merkle
from connector.tlog.tiles import MAX_ENTRY_BYTES, TILE_HEIGHT

SEGMENT_BYTES = 1 << 26  # a new segment starts behind this size


class SegmentLog:
    """The log in ``folder``, created if there is none.

    Raises ``Conflict`` if another process has it open, ``CorruptLog`` if committed bytes are
    damaged or missing, ``Unavailable`` if the disk refuses.
    """

    def __init__(
        self, folder: Path, *, disk: Disk | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._disk = disk or Disk()
        self._segments = folder / "segments"
        self._cosigned = folder / "cosigned"
        self._segment_bytes = segment_bytes
        self._writing = threading.Lock()
        self._keeping = threading.Lock()
        self._failed = False
        self._closed = False
        self._state = State()
        try:
            for path in (self._segments, self._cosigned, folder / "hashes"):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(folder / "lock")
            self._derived = Derived(folder, self._disk)
            try:
                open_segments(self._segments, self._derived, self._disk, self._state)
                if not self._state.starts:
                    self._state.log_id = secrets.token_bytes(frames.LOG_ID_BYTES)
                    self._add_segment()
                self._derived.restored()
                for path in (self._segments, folder):
                    self._disk.sync_folder(path)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise Unavailable("the log's folder cannot be read or written") from error

    @property
    def tip(self) -> Tip:
        return self._state.tip

    def append(self, records: Sequence[bytes], leaves: Sequence[bytes], seal: Seal) -> Tip:
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

    def replay(self) -> Iterator[Replayed]:
        starts = self._state.starts.copy()
        try:
            for start, end in zip(starts, [*starts[1:], self._state.end], strict=True):
                if end - start == frames.HEADER_BYTES:
                    continue
                with segment_path(self._segments, start).open("rb", buffering=BUFFER) as file:
                    header = frames.parse_header(file.read(frames.HEADER_BYTES))
                    for batch in frames.read_batches(file, header, verify=False):
                        first = batch.size - len(batch.leaves)
                        yield Replayed(first, tuple(batch.records), tuple(batch.leaves))
                        if start + batch.end >= end:
                            break
        except (Broken, OSError) as error:
            raise CorruptLog("the log changed while it was read") from error

    def leaves(self, start: int, count: int) -> list[bytes]:
        if start < 0 or count < 0 or start + count > self.tip.size:
            raise InvalidInput("log: no such leaves")
        return [self._leaf(*found) for found in self._derived.places(start, count)]

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

    def close(self) -> None:
        with self._writing:
            if not self._closed:
                self._closed = True
                self._state.close()
                self._derived.close()
                os.close(self._lock)

    def _append(self, records: Sequence[bytes], leaves: Sequence[bytes], seal: Seal) -> Tip:
        state = self._state
        if state.end - state.starts[-1] >= self._segment_bytes:
            self._disk.sync(state.fds[-1])
            self._add_segment()
        parts = [frames.frame(Type.RECORD, record) for record in records]
        at = state.end + sum(map(len, parts))
        places = bytearray()
        hashes: dict[int, bytearray] = {}
        frontier = state.frontier.copy()
        for leaf in leaves:
            parts.append(frames.frame(Type.LEAF, leaf))
            places += place(at, len(leaf))
            at += len(parts[-1])
            for level, value in frontier.append(merkle.leaf_hash(leaf)):
                hashes.setdefault(level, bytearray()).extend(value)
        note = b""
        if leaves or not state.tip.checkpoint:
            note = seal(frontier.size, frontier.root())
        body = b"".join(parts)
        commit = frames.commit_frame(state.log_id, state.chain, body, frontier.size, note)
        if leaves:
            self._derived.write(state.tip.size, bytes(places), hashes)
        self._commit(body + commit)
        state.frontier = frontier
        state.chain = frames.chain_of(commit)
        state.end += len(body) + len(commit)
        state.tip = Tip(frontier.size, note or state.tip.checkpoint)
        return state.tip

    def _commit(self, data: bytes) -> None:
        """One write, one fdatasync. After a failed write the file is cut back and stays in use;
        after a failed fdatasync nobody knows what is on the disk, so nothing more is written."""
        fd, offset = self._state.fds[-1], self._state.end - self._state.starts[-1]
        self._failed = True
        try:
            self._disk.write(fd, data, offset)
        except OSError:
            self._disk.truncate(fd, offset)
            self._failed = False
            raise
        self._disk.sync(fd)
        self._failed = False

    def _add_segment(self) -> None:
        state = self._state
        path = segment_path(self._segments, state.end)
        header = Header(state.log_id, state.end, state.frontier.size, state.chain)
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, header.encode(), 0)
            self._disk.sync(fd)
            self._disk.sync_folder(path.parent)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        state.starts.append(state.end)
        state.fds.append(fd)
        state.end += frames.HEADER_BYTES

    def _leaf(self, position: int, length: int) -> bytes:
        at = bisect_right(self._state.starts, position) - 1
        try:
            data = os.pread(
                self._state.fds[at],
                frames.FRAME_HEAD + length,
                position - self._state.starts[at],
            )
        except OSError as error:
            raise Unavailable("the log cannot be read") from error
        leaf = data[frames.FRAME_HEAD :]
        if len(leaf) != length or data != frames.frame(Type.LEAF, leaf):
            raise InternalError("log: a leaf is not where it was written", hint="restart")
        return leaf


def _check_sizes(records: Sequence[bytes], leaves: Sequence[bytes]) -> None:
    if any(len(record) > MAX_RECORD_BYTES for record in records):
        raise InvalidInput(f"log: a record larger than {MAX_RECORD_BYTES} bytes")
    if any(len(leaf) > MAX_ENTRY_BYTES for leaf in leaves):
        raise InvalidInput(f"log: a leaf larger than {MAX_ENTRY_BYTES} bytes")
    framed = sum(map(len, records)) + sum(map(len, leaves))
    if framed + frames.FRAME_HEAD * (len(records) + len(leaves)) > MAX_BATCH_BYTES:
        raise InvalidInput(f"log: a batch larger than {MAX_BATCH_BYTES} bytes")


def _lock(path: Path) -> int:
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
