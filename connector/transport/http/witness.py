"""C2SP tlog-witness, the witness's side, over HTTP: ``add-checkpoint`` and the monitors' read.

Nobody authenticates: a request is worth what the log's signature on its checkpoint is worth. The
statuses are the specification's: 400 malformed, 404 unknown log, 403 not signed by it, 409 another
old size (the body has ours), 422 not consistent.

Leaves out: ``sign-subtree``, which is optional; ML-DSA-44 cosignatures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, NotFound, VerificationFailed
from connector.metering.witness import NotTheLogs, StaleSize
from connector.ports.witnesses import Witnessed
from connector.tlog.witness import (
    MAX_REQUEST_BYTES,
    SIZE_TYPE,
    CheckpointRequest,
    encode_size,
    origin_of,
    parse_request,
)
from connector.transport.http import body
from connector.transport.http.errors import status_of

_NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class WitnessDoor:
    """``logs``: the logs that are witnessed now, each origin with its keys (32 bytes each).

    ``add`` is ``metering.witness.Witness.add_checkpoint``, ``last`` its ``last``.
    """

    logs: Callable[[], Mapping[str, Iterable[bytes]]]
    add: Callable[[CheckpointRequest, str, Iterable[bytes]], Awaitable[str]]
    last: Callable[[str], Awaitable[Witnessed | None]]


def routes(door: WitnessDoor) -> list[Route]:
    async def add_checkpoint(request: Request) -> Response:
        try:
            line = await _add(door, await body.read(request, MAX_REQUEST_BYTES))
        except StaleSize as error:
            headers = {**_NO_STORE, "Content-Type": SIZE_TYPE}  # without a charset
            return Response(encode_size(error.size), 409, headers=headers)
        except ConnectorError as error:
            rest = {"Connection": "close"} if isinstance(error, body.TooMuch) else {}
            return PlainTextResponse(f"{error.message}\n", _status(error), {**_NO_STORE, **rest})
        return Response(
            f"{line}\n".encode(), headers=_NO_STORE, media_type="text/plain; charset=utf-8"
        )

    async def monitored(request: Request) -> Response:
        wanted = request.path_params["origin"]
        for origin in door.logs():
            if hashlib.sha256(origin.encode()).hexdigest() == wanted:
                last = await door.last(origin)
                if last is not None:
                    return Response(
                        last.checkpoint,
                        headers=_NO_STORE,
                        media_type="text/plain; charset=utf-8",
                    )
        raise NotFound("no checkpoint of such a log was cosigned here")

    return [
        Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
        Route("/{origin}/checkpoint", monitored),
    ]


async def _add(door: WitnessDoor, asked: bytes) -> str:
    request = parse_request(asked)
    origin = origin_of(request.checkpoint)
    keys = door.logs().get(origin)
    if keys is None:
        raise NotFound("not a log that is witnessed here")
    return await door.add(request, origin, keys)


def _status(error: ConnectorError) -> int:
    own: tuple[tuple[type[ConnectorError], int], ...] = (
        (NotTheLogs, 403),
        (VerificationFailed, 422),
    )
    return next((status for kind, status in own if isinstance(error, kind)), status_of(error))
