"""The HTTP door: health, readiness, Prometheus metrics, the log after C2SP tlog-tiles, a witness.

Open to whoever reaches the port, so what it says without a token says nothing of contracts or
data. With a certificate it speaks TLS; without one put it behind a proxy that does, or keep it on
loopback.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, Unavailable
from connector.transport.http import errors, tiles, witness
from connector.transport.http.accepting import accept
from connector.transport.http.patience import Patient
from connector.transport.http.tiles import LogFiles
from connector.transport.http.tls import ServerTls
from connector.transport.http.witness import WitnessDoor

MAX_CONNECTIONS = 256  # at one door, those in their handshake among them
WAITING = 1024  # connections that the system keeps until they are taken
CLOSE_S = 5  # seconds that answers which are on their way get when the door closes


@dataclass(frozen=True, slots=True)
class Sources:
    """What the door shows.

    ``ready`` gives the empty string or why the node is not. Without ``witness`` there is none.
    """

    ready: Callable[[], str]
    files: LogFiles
    registry: CollectorRegistry
    witness: WitnessDoor | None = None


def application(sources: Sources) -> Starlette:
    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        reason = sources.ready()
        return JSONResponse(
            {"ready": not reason, "reason": reason}, status_code=503 if reason else 200
        )

    async def metrics(_: Request) -> Response:
        body = await run_in_threadpool(generate_latest, sources.registry)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", live),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            *tiles.routes(sources.files),
            *(witness.routes(sources.witness) if sources.witness is not None else ()),
        ],
        exception_handlers={ConnectorError: errors.answer, Exception: errors.answer},
    )


class HttpDoor:
    """Serves an application inside the running event loop, with ``tls`` or not: on ``host:port``,
    or on a Unix socket that its owner alone can reach. ``setting`` is what to change where the
    address cannot be had."""

    def __init__(
        self,
        app: Starlette,
        address: str | Path,
        tls: ServerTls | None = None,
        *,
        setting: str = "http",
    ) -> None:
        self._app = app
        self._address = address
        self._setting = setting
        self._tls = tls
        self._server: uvicorn.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> str:
        """Start to listen; the address. Raises ``Unavailable`` if the port is taken."""
        try:
            listener = _listen(self._address)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self._address}",
                hint=f"is the port taken? change {self._setting} in connector.toml",
            ) from error
        config = uvicorn.Config(
            self._app,
            http=Patient,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=CLOSE_S,
            h11_max_incomplete_event_size=16_384,
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls.context
            self._tasks.append(asyncio.create_task(self._tls.watch()))
        self._server = _Server(config)
        self._tasks.insert(0, asyncio.create_task(self._server.serve(sockets=[listener])))
        if isinstance(self._address, Path):
            return str(self._address)
        found, bound = listener.getsockname()[:2]
        return f"{found}:{bound}"

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.should_exit = True
        serving, *watching = self._tasks
        await serving
        if isinstance(self._address, Path):
            self._address.unlink(missing_ok=True)  # who copies the folder meets no dead socket
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _listen(address: str | Path) -> socket.socket:
    """Raises ``OSError``."""
    if isinstance(address, str):
        host, _, port = address.rpartition(":")
        listener = socket.create_server((host.strip("[]"), int(port)), backlog=WAITING)
        # asyncio does it for sockets whose protocol number is set, which here it is not. Without
        # it the body of an answer waits until the peer acknowledged the headers: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    address.unlink(missing_ok=True)  # the data folder's lock says that nobody listens there
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the socket is never there with other rights
    try:
        listener.bind(str(address))
        listener.listen(WAITING)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, for the process has one owner of signals, and
    without asyncio's way of taking connections (``accepting``)."""

    _accepting: Sequence[asyncio.Task[None]] = ()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers: list[asyncio.Server] = []
        self._accepting = [
            asyncio.create_task(accept(each, self._protocol, self.config.ssl, self._is_full))
            for each in sockets or ()
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    def _protocol(self) -> Patient:
        return Patient(self.config, self.server_state, app_state={})

    def _is_full(self, opening: int) -> bool:
        return opening + len(self.server_state.connections) >= MAX_CONNECTIONS
