"""C2SP tlog-tiles: the checkpoint, tiles of hashes, and bundles of entries.

Checkpoint and hash tiles are open to whoever reaches the port: leaves carry a salt, so a hash in a
tile says nothing of its receipt. Bundles hold the receipts; who may have one is decided by what
``LogFiles.bundle`` is made of (``operations.bundles``).
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connector.errors import NotFound

_OCTETS = "application/octet-stream"
_OPEN = {"Cache-Control": "public, max-age=31536000, immutable"}
_GATED = {"Cache-Control": "private, no-store", "Vary": "Authorization, Accept-Encoding"}
_GZIP_LEVEL = 1  # salts and digests do not shrink; the rest does at any level


@dataclass(frozen=True, slots=True)
class LogFiles:
    """``tile`` and ``bundle`` take a path after the prefix (``tile/...``) and raise ``NotFound``,
    ``InvalidInput`` or ``Unavailable``.

    ``bundle`` also takes the ``Authorization`` header, empty if there is none, and may raise
    ``Unauthenticated``, ``Refused``, ``RateLimited`` or ``Gone``. Without it no bundle is served.
    """

    checkpoint: Callable[[], Awaitable[bytes]]
    tile: Callable[[str], Awaitable[bytes]]
    bundle: Callable[[str, str], Awaitable[bytes]] | None = None


def routes(files: LogFiles) -> list[Route]:
    async def checkpoint(_: Request) -> Response:
        return Response(
            await files.checkpoint(),
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )

    async def tile(request: Request) -> Response:
        path = request.scope["path"].removeprefix("/")  # whole: a route's pattern ends at a newline
        if not path.startswith("tile/entries/"):
            return Response(await files.tile(path), media_type=_OCTETS, headers=_OPEN)
        if files.bundle is None:
            raise NotFound("no entry bundles are served here")
        body = await files.bundle(path, request.headers.get("authorization", ""))
        headers = dict(_GATED)
        if _takes_gzip(request.headers.get("accept-encoding", "")):
            body = await run_in_threadpool(gzip.compress, body, _GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=_OCTETS, headers=headers)

    return [Route("/checkpoint", checkpoint), Route("/tile/{path:path}", tile)]


def _takes_gzip(accepted: str) -> bool:
    """Whether gzip is named, and not with a weight of zero (RFC 9110 section 12.5.3)."""
    for item in accepted.lower().replace(" ", "").split(","):
        name, _, weight = item.partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False
