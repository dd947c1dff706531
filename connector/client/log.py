"""The log of a node on this machine, as files, and who may read it: calls of ``LogService``.

    async with connect_log("connector-data") as log:
        await log.export("archive")

``export`` writes a static C2SP tlog-tiles folder that any web server can serve. It can be stopped
at any time and begun again; what is there already is not sent again. The checkpoint is written
last, when the tiles have been found to give its root and everything is on stable storage.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.client.channel import DEADLINE_S, Calls
from connector.errors import InvalidInput, PeerFault, VerificationFailed
from connector.model import fields
from connector.tlog import merkle, tiles
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.tiles import TILE_WIDTH, Tile

ENTRIES = -1  # the level of bundles of entries
DROP_DEADLINE_S = 600.0  # seconds; every agreement with a receipt in a segment is looked at
_FULL_TILE = TILE_WIDTH * merkle.HASH_BYTES
_TEMPORARY = ".part"

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """``size``: leaves in the checkpoint's tree. ``dropped``: bundles, among those that were asked
    for, whose entries the node no longer has."""

    size: int
    files: int
    dropped: int


@dataclass(frozen=True, slots=True)
class LogGrant:
    """Somebody who may read the whole log until ``expires``."""

    name: str
    made: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class LogKeys:
    """C2SP vkeys: what this log is verified with, and what this node cosigns others' with."""

    log: str
    witness: str


@dataclass(frozen=True, slots=True)
class LogSegment:
    """A part of the log, as it is stored: ``leaves`` of them from index ``first`` on, in
    ``stored`` bytes. ``form``: open, complete, sealed or dropped."""

    start: int
    first: int
    leaves: int
    stored: int
    form: str


@dataclass(frozen=True, slots=True)
class Droppable:
    """Segments that can be, or were dropped, and why the next one stays (empty: there is none)."""

    segments: tuple[LogSegment, ...]
    kept_by: str


class NodeLog:
    """Get one from ``connect_log``. Methods raise the classes of ``connector.errors``."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = rpc.LogServiceStub(calls.channel)

    async def export(
        self,
        folder: Path | str,
        *,
        size: int = 0,
        hashes_only: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Exported:
        """Bring the folder up to the newest cosigned checkpoint, or the one of ``size`` leaves.

        ``on_progress`` is told (files written, bytes written). Raises ``InvalidInput`` if the
        folder cannot be written, holds another log, or is ahead; ``VerificationFailed`` if what
        is in the folder does not give the checkpoint's root.
        """
        target = _Folder(Path(folder))
        held = await asyncio.to_thread(target.held, hashes_only)
        request = pb.ExportLogRequest(
            size=size,
            hashes_only=hashes_only,
            held=[pb.HeldTiles(level=level, tiles=count) for level, count in held.items()],
        )
        note = b""
        async for message in self._calls.many(self._stub.ExportLog(request)):
            if message.HasField("start"):
                note = message.start.checkpoint
                target.require_growth(note)
            for file in message.piece.files:
                await asyncio.to_thread(target.write, file.path, file.content)
            if on_progress is not None:
                on_progress(target.files, target.bytes)
        if not note:
            raise PeerFault("the node sent no checkpoint")
        await asyncio.to_thread(target.finish, note)
        return Exported(parse_checkpoint(note).size, target.files, target.dropped)

    async def grant(self, name: str, *, days: int) -> tuple[str, datetime]:
        """The token, which is told this once, and when it ends."""
        request = pb.GrantLogRequest(name=name, days=days)
        reply = await self._calls.one(self._stub.GrantLog(request, timeout=DEADLINE_S))
        return reply.token, fields.parse_time(reply.expires)

    async def grants(self) -> tuple[LogGrant, ...]:
        call = self._stub.ListLogGrants(pb.ListLogGrantsRequest(), timeout=DEADLINE_S)
        return tuple(
            LogGrant(one.name, fields.parse_time(one.made), fields.parse_time(one.expires))
            for one in (await self._calls.one(call)).grants
        )

    async def revoke(self, name: str) -> None:
        request = pb.RevokeLogGrantRequest(name=name)
        await self._calls.one(self._stub.RevokeLogGrant(request, timeout=DEADLINE_S))

    async def keys(self) -> LogKeys:
        call = self._stub.GetLogKeys(pb.GetLogKeysRequest(), timeout=DEADLINE_S)
        reply = await self._calls.one(call)
        return LogKeys(reply.log, reply.witness)

    async def token(self, audience: str) -> str:
        """For one request for a bundle of the log of the member ``audience`` (a DID)."""
        request = pb.IssueLogTokenRequest(audience=audience)
        reply = await self._calls.one(self._stub.IssueLogToken(request, timeout=DEADLINE_S))
        return reply.token

    async def segments(self) -> tuple[LogSegment, ...]:
        call = self._stub.ListSegments(pb.ListSegmentsRequest(), timeout=DEADLINE_S)
        return tuple(map(_segment, (await self._calls.one(call)).segments))

    async def seal(self) -> AsyncIterator[LogSegment]:
        """Compress the segments that are complete; each when it is done."""
        async for message in self._calls.many(self._stub.SealSegments(pb.SealSegmentsRequest())):
            yield _segment(message.segment)

    async def droppable(self, before: datetime) -> Droppable:
        """The oldest segments that ``drop`` would take: all of whose receipts, and the ends of
        whose agreements, are older than ``before``."""
        return await self._drop(before, ())

    async def drop(self, before: datetime, segments: Sequence[LogSegment]) -> Droppable:
        """Remove the receipts of ``droppable`` segments, for ever. Raises ``Conflict`` if they
        cannot be dropped (any more)."""
        if not segments:
            return Droppable((), "")
        return await self._drop(before, [segment.start for segment in segments])

    async def _drop(self, before: datetime, starts: Sequence[int]) -> Droppable:
        request = pb.DropSegmentsRequest(before=fields.format_time(before), starts=starts)
        reply = await self._calls.one(self._stub.DropSegments(request, timeout=DROP_DEADLINE_S))
        return Droppable(tuple(map(_segment, reply.segments)), reply.kept_by)


def _segment(segment: pb.LogSegment) -> LogSegment:
    return LogSegment(segment.start, segment.first, segment.leaves, segment.stored, segment.form)


@asynccontextmanager
async def connect_log(place: Path | str = "connector-data") -> AsyncIterator[NodeLog]:
    """A node or a directory by its data folder, or by the path of its management socket."""
    calls = Calls(place)
    try:
        yield NodeLog(calls)
    finally:
        await calls.close()


class _Folder:
    """The files on this side. Blocking."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._touched: set[Path] = set()
        self.files = self.bytes = self.dropped = 0

    def held(self, hashes_only: bool) -> dict[int, int]:
        """For each level the number of full tiles that are there, from the first on. Bundles may
        be missing where their entries had been dropped: there it counts to the last one."""
        found = {}
        for level in range(tiles.MAX_TILE_LEVEL + 1):
            count = 0
            while _size(self._root / Tile(level, count).path()) == _FULL_TILE:
                count += 1
            if count == 0:
                break
            found[level] = count
        if not hashes_only:
            found[ENTRIES] = self._last_bundle(found.get(0, 0))
        return found

    def _last_bundle(self, most: int) -> int:
        while most and _size(self._root / Tile(None, most - 1).path()) <= 0:
            most -= 1
        return most

    def require_growth(self, note: bytes) -> None:
        """That the checkpoint is of the log that is here, and not of an older tree."""
        try:
            before = parse_checkpoint((self._root / "checkpoint").read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unwritable(self._root, error) from error
        new = parse_checkpoint(note)
        if before.origin != new.origin:
            raise InvalidInput(f"{self._root} holds another log", hint="choose another folder")
        if before.size > new.size:
            raise InvalidInput(
                f"{self._root} is ahead, with {before.size} leaves", hint="choose another folder"
            )

    def write(self, path: str, content: bytes) -> None:
        """One tile or bundle, whole or not at all."""
        tile = tiles.parse_path(path)  # so that no path leads elsewhere
        if not content:
            self.dropped += 1
            return
        self._write(tile.path(), content)
        self.files += 1
        self.bytes += len(content)

    def finish(self, note: bytes) -> None:
        """Compare the tiles with the checkpoint, and write it behind all else."""
        new = parse_checkpoint(note)
        root = merkle.tree_root(
            new.size, tiles.stored_hashes(lambda *at: self._read(new.size, *at))
        )
        if root != new.root:
            raise VerificationFailed(
                "the exported tiles do not give the checkpoint's root",
                hint="export into a new folder; if that fails too: connector log fsck",
            )
        self._sync()
        self._write("checkpoint", note)
        self._sync()

    def _read(self, size: int, level: int, start: int, count: int) -> bytes:
        index, offset = divmod(start, TILE_WIDTH)
        path = self._root / Tile(level, index, tiles.width_at(level, index, size)).path()
        full = self._root / Tile(level, index).path()
        try:
            content = (full if full.exists() else path).read_bytes()
        except OSError as error:
            raise _unwritable(self._root, error) from error
        at = offset * merkle.HASH_BYTES
        return content[at : at + count * merkle.HASH_BYTES]

    def _write(self, name: str, content: bytes) -> None:
        path = self._root / name
        temporary = path.with_name(path.name + _TEMPORARY)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise _unwritable(self._root, error) from error
        inside = path.parent.relative_to(self._root)
        self._touched.update((inside, *inside.parents))

    def _sync(self) -> None:
        """The folders that were written to: that the files are found after a power cut."""
        folders = {self._root / folder for folder in self._touched} | {self._root}
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            for folder in folders:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        except OSError as error:
            raise _unwritable(self._root, error) from error
        self._touched.clear()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _unwritable(root: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"{root} cannot be written or read: {error.strerror}")
