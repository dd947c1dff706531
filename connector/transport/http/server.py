"""Health, readiness, Prometheus metrics, and the log after C2SP tlog-tiles.

Open to whoever reaches the port, so it says nothing of contracts or data: hash tiles and the
checkpoint only. Leaves carry a salt, so a hash in a tile says nothing of its receipt; entry
bundles, which hold the receipts, are not served here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, InvalidInput, NotFound, Unavailable

IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True, slots=True)
class Sources:
    """What the door shows.

    ``ready`` gives the empty string or why the node is not; ``tile`` takes a path after
    ``tile/`` (C2SP tlog-tiles) and raises ``NotFound`` or ``InvalidInput``.
    """

    ready: Callable[[], str]
    checkpoint: Callable[[], Awaitable[bytes]]
    tile: Callable[[str], Awaitable[bytes]]
    registry: CollectorRegistry


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

    async def checkpoint(_: Request) -> Response:
        return Response(
            await sources.checkpoint(),
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )

    async def tile(request: Request) -> Response:
        path: str = request.path_params["path"]
        if path.startswith("entries/"):
            raise NotFound("entry bundles are for the parties of a contract")
        body = await sources.tile(path)
        return Response(body, media_type="application/octet-stream", headers=IMMUTABLE)

    async def refused(_: Request, error: Exception) -> Response:
        statuses: dict[type[Exception], int] = {NotFound: 404, InvalidInput: 400, Unavailable: 503}
        message = error.message if isinstance(error, ConnectorError) else "internal error"
        return JSONResponse({"error": message}, status_code=statuses.get(type(error), 500))

    return Starlette(
        routes=[
            Route("/healthz", live),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            Route("/checkpoint", checkpoint),
            Route("/tile/{path:path}", tile),
        ],
        exception_handlers={ConnectorError: refused},
    )


class HttpDoor:
    """Serves an application on ``host:port`` inside the running event loop."""

    def __init__(self, app: Starlette, address: str) -> None:
        self._app = app
        self._address = address
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

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
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=5,
            limit_concurrency=256,
            h11_max_incomplete_event_size=16_384,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        found, bound = listener.getsockname()[:2]
        return f"{found}:{bound}"

    async def close(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one owner of signals."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()
