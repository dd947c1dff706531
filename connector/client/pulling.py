"""The data of a transfer to a file, by way of the node that is its consumer.

It goes into ``FILE.part``, beside ``FILE.part.json``, which says of which transfer and version the
part is; the next call goes on from there. The file has its name once all of it is on the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.client import types
from connector.client.transfers import TransferCalls
from connector.errors import InvalidInput, PeerFault, Unavailable
from connector.model import fields

WRITE_BYTES = 4 << 20  # that are gathered before they are written
_FORMAT = "tds-pull/1"
_KEYS = frozenset({"format", "pid", "etag"})

OnPulled = Callable[[int, int], None]


class PullCalls(TransferCalls):
    """A part of ``Node``."""

    async def pull(
        self, pid: str, *, offset: int = 0, etag: str = ""
    ) -> AsyncIterator[types.PullStart | bytes]:
        """The data of the transfer ``pid``: first what it is, then its bytes from ``offset`` on,
        or from the beginning if those before it are not of the version ``etag``."""
        request = pb.PullTransferRequest(pid=pid, offset=offset, etag=etag)
        call = self._stub.PullTransfer(request)
        try:
            async for reply in self._calls.many(call):
                if reply.WhichOneof("body") == "start":
                    start = reply.start
                    yield types.PullStart(start.offset, start.size, start.etag, start.media_type)
                else:
                    yield reply.chunk
        finally:
            call.cancel()

    async def pull_to(
        self,
        pid: str,
        file: Path | str,
        *,
        max_bytes: int | None = None,
        on_progress: OnPulled | None = None,
    ) -> types.Pulled:
        """All of it to a ``file`` that is not there yet. What an earlier call left is gone on
        with. ``on_progress`` is called with the bytes there are and the whole's (-1: unknown).

        Raises ``InvalidInput`` for files that cannot be written, and for data of more than
        ``max_bytes`` or than the disk has room for: before any is taken, where the provider says
        how much there is; else what came until then is kept.
        """
        path = Path(file)
        with _Part(path, pid) as part:
            found = part.size
            pieces = self.pull(pid, offset=part.size, etag=part.etag)
            async with aclosing(pieces):  # type: ignore[type-var]
                start = await anext(pieces, None)
                if not isinstance(start, types.PullStart):
                    raise PeerFault("the node's answer does not say what follows")
                _require_below(max_bytes, start.size)
                part.begin(start)
                async for piece in pieces:
                    if not isinstance(piece, bytes):
                        raise PeerFault("the node's answer begins twice")
                    if 0 <= start.size < part.size + len(piece):
                        raise PeerFault("the provider sends more than it said")
                    _require_below(max_bytes, part.size + len(piece))
                    if part.add(piece):
                        await asyncio.to_thread(part.flush)
                    if on_progress is not None:
                        on_progress(part.size, start.size)
            if start.size >= 0 and part.size != start.size:
                raise Unavailable("the data ended too early", hint="the same call goes on there")
            await asyncio.to_thread(part.finish)
            return types.Pulled(path, part.size, min(found, start.offset))


def _require_below(most: int | None, size: int) -> None:
    if most is not None and size > most:
        raise InvalidInput(
            f"the data has {size:,} bytes or more, and at most {most:,} are wanted",
            hint="allow more, and the same call goes on with what there is",
        )


class _Part:
    """``FILE.part`` and what it is of. ``size``: the bytes there are, gathered ones included."""

    def __init__(self, path: Path, pid: str) -> None:
        self._path = path
        self._pid = pid
        self._part = path.with_name(path.name + ".part")
        self._about = path.with_name(path.name + ".part.json")
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._out: BinaryIO | None = None
        self._begun = False
        self.size = 0
        self.etag = ""

    def __enter__(self) -> Self:
        if self._path.exists():
            raise InvalidInput(f"{self._path} is there already", hint="name another file")
        self.etag = self._read()
        try:
            self._out = os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            if not self.etag:
                self._out.truncate(0)
            self.size = self._out.seek(0, os.SEEK_END)
        except OSError as error:
            raise InvalidInput(f"{self._part} cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._out is not None:
            with suppress(OSError, InvalidInput):
                self.flush()
                if not self._begun and not self.size:
                    self._part.unlink()
            self._out.close()

    def begin(self, start: types.PullStart) -> None:
        """What comes is this, from its offset on. Raises ``InvalidInput`` if it has no room."""
        free = shutil.disk_usage(self._part.parent).free
        if start.size - self.size > free:
            raise InvalidInput(
                f"{self._path}: the data has {start.size:,} bytes, the disk room for {free:,}",
                hint="name a file on another disk",
            )
        self._begun = True
        self._file.truncate(start.offset)
        self.size = self._file.seek(start.offset)
        about = {"format": _FORMAT, "pid": self._pid, "etag": start.etag}
        try:
            self._about.write_text(json.dumps(about), "utf-8")
        except OSError as error:
            raise InvalidInput(f"{self._about} cannot be written: {error.strerror}") from error

    def add(self, piece: bytes) -> bool:
        """Whether it is time for ``flush``."""
        self._gathered.append(piece)
        self.size += len(piece)
        self._waiting += len(piece)
        return self._waiting >= WRITE_BYTES

    def flush(self) -> None:
        gathered, self._gathered, self._waiting = self._gathered, [], 0
        try:
            self._file.write(b"".join(gathered))
            self._file.flush()
        except OSError as error:
            raise InvalidInput(
                f"{self._part} cannot be written: {error.strerror}",
                hint="the same call goes on there",
            ) from error

    def finish(self) -> None:
        """All is there: give it its name."""
        self.flush()
        try:
            os.fsync(self._file.fileno())
            self._part.rename(self._path)
            self._about.unlink(missing_ok=True)
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be made: {error.strerror}") from error

    @property
    def _file(self) -> BinaryIO:
        if self._out is None:
            raise RuntimeError("not entered")
        return self._out

    def _read(self) -> str:
        """The version of a part of this transfer; empty if there is none to go on with."""
        try:
            value = fields.as_object(
                fields.parse_json(self._about.read_bytes(), limit=65_536), "part"
            )
            fields.only_keys(value, _KEYS, "part")
            if (value.get("format"), value.get("pid")) != (_FORMAT, self._pid):
                return ""
            return fields.text(value, "etag", default="")
        except (OSError, InvalidInput):
            return ""
