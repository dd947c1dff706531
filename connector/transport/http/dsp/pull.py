"""Data of transfer processes over HTTP (format ``HttpData-PULL``), and refreshing its tokens.

DSP 2025-1 leaves the data's own protocol to the data address; this is what ours leads to:

    GET, HEAD {base}/data/{pid}         Authorization: Bearer TOKEN; ranges and conditions
    POST      {base}/data/{pid}/token   grant_type=refresh_token&refresh_token=TOKEN (RFC 6749 6)

The second takes its parameters from a form or from the query, where Tractus-X puts them. It asks
for no other proof of who refreshes: the refresh token is a secret of this one process.

A file of any size is read and sent in pieces, so memory does not grow with it. What may leave,
and when a flow is cut, is decided in ``gate.pulls``. Whoever shows no token that is good for this
process now is told the same words, whatever is there and whatever is wrong with the token.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from connector.errors import (
    ConnectorError,
    InvalidInput,
    NotFound,
    RateLimited,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.gate.flows import Flow
from connector.gate.pulls import Granted, Pulls
from connector.gate.tokens import MAX_TOKEN
from connector.ports.pulls import ServedFile
from connector.transport.http import body
from connector.transport.http.dsp.ranges import Part, part_of
from connector.transport.http.errors import headers_of, status_of
from connector.transport.http.patience import TRANSPORT

log = structlog.get_logger()

CHUNK = 256 << 10  # bytes of one piece
AHEAD = 4 << 20  # bytes that the system is asked to read when a piece is not in memory
STALL_S = 60.0  # that a consumer may take for a piece
MAX_FORM = 4096  # bytes of a refresh
MAX_PID = 256
RETRY_S = "5"
NOT_AUTHORISED = "no valid token for this transfer"

_IF_IN_MEMORY = getattr(os, "RWF_NOWAIT", 0)  # Linux
_SAFE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


def routes(pulls: Pulls) -> list[Route]:
    """Below the base URL that ``pulls`` was given."""

    async def refresh(request: Request) -> Response:
        try:
            pid = _pid(request)
            pair = await pulls.refresh(pid, await _refresh_token(request))
        except ConnectorError as error:
            return _refusal(error)
        return JSONResponse(
            {
                "access_token": pair.access,
                "token_type": "bearer",
                "expires_in": pair.life_s,
                "refresh_token": pair.refresh,
            },
            headers=_SAFE,
        )

    return [
        Route("/data/{pid}", _Data(pulls), methods=["GET", "HEAD"]),
        Route("/data/{pid}/token", refresh, methods=["POST"]),
    ]


class _Data:
    """An ASGI application, for it writes the answer's body itself."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            granted = await self._pulls.ask(_pid(request), _bearer(request))
            file = granted.file
            part = part_of(request.headers, file.size, file.etag, ranges=request.method == "GET")
            if request.method == "HEAD" or part.status not in (200, 206):
                await _without_body(file, part)(scope, receive, send)
                return
            await self._serve(granted, part, scope, receive, send)
        except ConnectorError as error:
            await _refusal(error)(scope, receive, send)

    async def _serve(
        self, granted: Granted, part: Part, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Raises ``ConnectorError`` before anything is sent, and nothing after."""
        try:
            descriptor = await asyncio.to_thread(os.open, granted.file.path, os.O_RDONLY)
        except OSError as error:
            raise Unavailable("the dataset's file is not there now") from error
        cut = partial(_cut, scope.get(TRANSPORT))
        gone = asyncio.create_task(_gone(receive))
        try:
            async with self._pulls.flow(granted, cut) as flow:
                sending = _Sending(flow, descriptor, part, send, gone)
                if not await sending.run(_headers(granted.file, part)):
                    cut()
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            os.close(descriptor)


class _Sending:
    """The way of one body, piece by piece: read, account, send."""

    def __init__(
        self, flow: Flow, descriptor: int, part: Part, send: Send, gone: asyncio.Task[None]
    ) -> None:
        self._flow = flow
        self._descriptor = descriptor
        self._part = part
        self._send = send
        self._gone = gone
        self._piece = memoryview(bytearray(min(CHUNK, part.length)))
        self._reading: asyncio.Future[bytes] | None = None

    async def run(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the answer was given to its end. Raises ``Unavailable`` before it has begun."""
        at, end = self._part.first, self._part.end
        begun = False
        try:
            while at < end:
                data = await self._read(at)
                at += len(data)
                if not data or self._gone.done():
                    return False
                await self._flow.take(len(data), end - at)
                if not begun:
                    begun = True
                    await self._start(headers)
                await self._give(data, more=True)
            if not begun:
                await self._start(headers)
            await self._give(b"", more=False)  # goes once most of what came before is taken
        except ConnectorError as error:
            if not begun:
                raise
            log.warning("an answer was broken off", error=error.message)
            return False
        except (OSError, TimeoutError) as error:
            log.warning("an answer was broken off", error=type(error).__name__)
            return False
        finally:
            if self._reading is not None:  # the descriptor is closed next
                await asyncio.wait({self._reading})
        return True

    async def _read(self, at: int) -> bytes:
        """The next piece. At once, where the system has it in memory, for that takes half of what
        a thread does; else from a thread, for the disk would hold up the whole node."""
        amount = min(CHUNK, self._part.end - at)
        if _IF_IN_MEMORY:
            with suppress(OSError):  # it is not
                piece = self._piece[:amount]
                if os.preadv(self._descriptor, [piece], at, _IF_IN_MEMORY) == amount:
                    return bytes(piece)
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(None, _read, self._descriptor, amount, at)
        return await asyncio.shield(self._reading)

    async def _start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send(
            {"type": "http.response.start", "status": self._part.status, "headers": headers}
        )

    async def _give(self, data: bytes, *, more: bool) -> None:
        async with asyncio.timeout(STALL_S):
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _read(descriptor: int, amount: int, at: int) -> bytes:
    """From the disk, and have the system read on meanwhile."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, at, AHEAD, os.POSIX_FADV_WILLNEED)
    return os.pread(descriptor, amount, at)


async def _gone(receive: Receive) -> None:
    """Returns when the consumer went away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _cut(transport: Any) -> None:
    """Close the connection at once: what waits in our buffers and the system's is dropped."""
    if not isinstance(transport, asyncio.Transport):
        return
    found = transport.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _headers(file: ServedFile, part: Part) -> list[tuple[bytes, bytes]]:
    headers = {
        **_SAFE,
        "Accept-Ranges": "bytes",
        "ETag": file.etag,
        "Content-Type": file.media_type,
        "Content-Length": str(part.length),
        "Content-Disposition": f'attachment; filename="{file.name}"',
    }
    if part.status == 206:
        headers["Content-Range"] = f"bytes {part.first}-{part.end - 1}/{file.size}"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _without_body(file: ServedFile, part: Part) -> Response:
    response = Response(status_code=part.status)
    if part.status == 416:
        headers = [(name.lower().encode(), value.encode()) for name, value in _SAFE.items()]
        headers.append((b"content-range", f"bytes */{file.size}".encode()))
        headers.append((b"content-length", b"0"))
    else:
        headers = _headers(file, part)
        if part.status != 200:
            headers = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
        if part.status == 412:
            headers.append((b"content-length", b"0"))
    response.raw_headers = headers
    return response


def _refusal(error: ConnectorError) -> Response:
    """Reasons are for who holds a token of this process, all others get the same answer."""
    if isinstance(error, NotFound):
        error = Unauthenticated(NOT_AUTHORISED)
    status = status_of(error)
    headers = headers_of(error, status) | _SAFE
    if status == 401:
        return JSONResponse({"error": NOT_AUTHORISED}, status_code=401, headers=headers)
    said: dict[str, Any] = {"error": error.message}
    if isinstance(error, Refused):
        said["reasons"] = [
            {"term": r.term, "observed": r.observed, "allowed": r.allowed} for r in error.reasons
        ]
    if isinstance(error, Unavailable | RateLimited):
        headers["Retry-After"] = RETRY_S
    return JSONResponse(said, status_code=status, headers=headers)


def _pid(request: Request) -> str:
    pid: str = request.path_params["pid"]
    if len(pid) > MAX_PID:
        raise Unauthenticated(NOT_AUTHORISED)
    return pid


def _bearer(request: Request) -> str:
    """The token, after its scheme or by itself, as EDC hands it to its users."""
    values = request.headers.getlist("authorization")
    if len(values) != 1 or len(values[0]) > MAX_TOKEN:
        raise Unauthenticated(NOT_AUTHORISED)
    scheme, _, token = values[0].strip().rpartition(" ")
    if scheme.strip().lower() not in ("", "bearer") or not token:
        raise Unauthenticated(NOT_AUTHORISED)
    return token


async def _refresh_token(request: Request) -> str:
    """Raises ``InvalidInput`` for what is no refresh at all."""
    sent = [request.url.query.encode()[: MAX_FORM + 1]]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        sent.append(await body.read(request, MAX_FORM))
    found: dict[str, list[str]] = {}
    for data in sent:
        if len(data) > MAX_FORM:
            raise InvalidInput(f"a refresh has at most {MAX_FORM} bytes")
        try:
            given = parse_qs(data.decode("ascii"), strict_parsing=bool(data), max_num_fields=16)
        except ValueError as error:
            raise InvalidInput("the parameters of a refresh cannot be read") from error
        for name, values in given.items():
            found.setdefault(name, []).extend(values)
    if found.get("grant_type") != ["refresh_token"] or len(found.get("refresh_token", ())) != 1:
        raise InvalidInput("a refresh needs grant_type=refresh_token and one refresh_token")
    token = found["refresh_token"][0]
    if len(token) > MAX_TOKEN:
        raise Unauthenticated(NOT_AUTHORISED)
    return token
