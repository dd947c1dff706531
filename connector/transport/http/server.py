"""The HTTP door: health, readiness, Prometheus metrics, the log after C2SP tlog-tiles, a witness.

Open to whoever reaches the port, so what it says without a token says nothing of contracts or
data. With a certificate it speaks TLS; without one put it behind a proxy that does, or keep it on
loopback.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, Unavailable
from connector.transport.http import errors, tiles, witness
from connector.transport.http.patience import Patient
from connector.transport.http.tiles import LogFiles
from connector.transport.http.tls import ServerTls
from connector.transport.http.witness import WitnessDoor

MAX_CONNECTIONS = 256


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
    """Serves an application on ``host:port`` inside the running event loop, with ``tls`` or not."""

    def __init__(self, app: Starlette, address: str, tls: ServerTls | None = None) -> None:
        self._app = app
        self._address = address
        self._tls = tls
        self._server: uvicorn.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> str:
        """Start to listen; the address. Raises ``Unavailable`` if the port is taken."""
        host, _, port = self._address.rpartition(":")
        try:
            listener = socket.create_server((host.strip("[]"), int(port)))
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self._address}",
                hint="is the port taken? change http in connector.toml",
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
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=16_384,
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls.context
            self._tasks.append(asyncio.create_task(self._tls.watch()))
        self._server = _Server(config)
        self._tasks.insert(0, asyncio.create_task(self._server.serve(sockets=[listener])))
        found, bound = listener.getsockname()[:2]
        return f"{found}:{bound}"

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.should_exit = True
        serving, *watching = self._tasks
        await serving
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one owner of signals."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()
