"""One request at the Dataspace Protocol's door and its answer: who asks, how it is logged and
counted, and what a refusal looks like.

Owns the mapping of this program's errors to the HTTPS bindings' error objects (``CatalogError``,
``ContractNegotiationError``, ``TransferError``) and statuses:

================================  =======================================================
status
================================  =======================================================
400                               the message, its place in the state table, or its terms
401 with ``WWW-Authenticate``     nobody to be dealt with
404                               unknown, or not the caller's: nothing more is said
408, 413, 415                     the body: too slow, too large, not JSON
429, 503                          later
500                               ours, without details; the log has them
================================  =======================================================

By the text an illegal move is a 400. Whoever may not see a process gets the 404 of one that is not
there; a caller without a good token is told so, because its operator has to mend it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    InvalidInput,
    NotFound,
    PeerFault,
    RateLimited,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.model import fields
from connector.model.participant import Participant
from connector.negotiation.messages import MAX_PID
from connector.transport.calls import Watch
from connector.transport.http import body
from connector.transport.http.dsp import codec, paths, reading
from connector.transport.http.dsp.authority import Authenticate
from connector.transport.http.errors import headers_of, status_of

CORRELATION_HEADER = "x-correlation-id"
_NO_STORE = {"Cache-Control": "no-store"}
_STATUS: dict[type[ConnectorError], int] = {
    InvalidInput: 400,
    Conflict: 400,
    Refused: 400,
    PeerFault: 400,
    Unauthenticated: 401,
    NotFound: 404,
    RateLimited: 429,
    Unavailable: 503,
}

log = structlog.get_logger()


@dataclass(slots=True)
class Exchange:
    """A request of ``peer``. ``pids`` are the process ids by their names on the wire, as far as
    they are known; what is on the ``stack`` ends when the answer was handed to the network."""

    request: Request
    peer: Participant
    stack: ExitStack
    pids: dict[str, str] = field(default_factory=dict)
    digest: str = ""  # SHA-256 (hex) of the body

    async def body(self) -> bytes:
        """Of the type of JSON, and of a message's size. Raises ``InvalidInput``."""
        type_ = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if type_ not in ("application/json", "application/ld+json"):
            raise body.WrongType("Content-Type: must be application/json")
        return await body.read(self.request, reading.MAX_MESSAGE_BYTES)

    async def message(self, kind: str) -> dict[str, Any]:
        """The body, which must be a ``kind`` (``schemas.FILES``). Raises ``InvalidInput``."""
        data = await self.body()
        value = reading.read(data, kind)
        self.digest = hashlib.sha256(data).hexdigest()
        for name in ("consumerPid", "providerPid"):  # not every schema says what they are
            pid = value.get(name, "")
            if not isinstance(pid, str):
                raise InvalidInput(f"{name}: must be a string")
            if len(pid) <= MAX_PID:
                self.pids[name] = pid
        return value


Handle = Callable[[Exchange], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An ASGI application for one route. ``kind``: the ``@type`` of its error objects."""

    name: str
    kind: str
    handle: Handle
    authenticate: Authenticate
    watch: Watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        correlation = request.headers.get(CORRELATION_HEADER, "")
        with ExitStack() as stack:
            pids: dict[str, str] = {}
            try:
                async with self.watch.over(self.name, correlation, streaming=False) as call:
                    peer = await self.authenticate(request.headers.get("authorization", ""))
                    call.caller = peer.did
                    response = await self.handle(Exchange(request, peer, stack, pids))
            except ConnectorError as error:
                reason = error.message
                log.info("a request was refused", door=self.name, code=error.code, reason=reason)
                response = self._refusal(error, pids)
            await response(scope, receive, send)

    def _refusal(self, error: ConnectorError, pids: Mapping[str, str]) -> Response:
        status = _status(error)
        headers = headers_of(error, status)
        if status in (429, 503):
            headers["Retry-After"] = "1"
        if status == 500:
            error = InternalError("internal error")
        shown = codec.error_json(
            self.kind,
            error.code,
            codec.reasons_of(error),
            consumer_pid=pids.get("consumerPid", ""),
            provider_pid=pids.get("providerPid", ""),
        )
        return answer(shown, status, headers)


async def unknown(request: Request, error: Exception) -> Response:
    """A path or a method that the binding does not have: its error object all the same."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    below = request.url.path.removeprefix(paths.BASE)
    kinds = {paths.NEGOTIATIONS: codec.NEGOTIATION_ERROR, paths.TRANSFERS: codec.TRANSFER_ERROR}
    kind = next((kinds[start] for start in kinds if below.startswith(start)), codec.CATALOG_ERROR)
    reason = "no such path" if status == 404 else HTTPStatus(status).phrase.lower()
    headers = {**_NO_STORE, **(getattr(error, "headers", None) or {})}
    return answer(codec.error_json(kind, "not_found", [reason]), status, headers)


def answer(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] = _NO_STORE
) -> Response:
    return Response(fields.encode_json(value), status, dict(headers), media_type="application/json")


def _status(error: ConnectorError) -> int:
    if isinstance(error, body.TooMuch | body.WrongType):
        return status_of(error)
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
