"""The management services over HTTP: the same servicers as behind the gRPC management socket.

Each method is ``POST /v1/`` and its name in kebab-case, with the request as JSON (``protojson``);
``GET /openapi.json`` describes all of them. Nothing here knows what a method does: services are
given with their protobuf descriptors. Methods whose requests are streams are left out.

Whoever reaches the Unix socket is the operator; at a port it takes the token. Pages that a browser
shows have nothing to do here: a request that names an origin is refused, and so is one for a host
name that is not the door's, which is how a page of somebody else's would get in (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from connector.errors import (
    ConnectorError,
    InvalidInput,
    NotFound,
    Reason,
    Refused,
    Unauthenticated,
)
from connector.transport.calls import Watch
from connector.transport.http import answers, body, openapi, protojson
from connector.transport.http.answers import BrokenOff
from connector.transport.http.errors import problem_response

PREFIX = "/v1/"
TITLE = "Management of a trusted data space node"
CORRELATION = "x-correlation-id"

Services: TypeAlias = Sequence[tuple[ServiceDescriptor, Any]]
"""Each service with its servicer, whose methods do not look at their context."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """Who may come in. Without ``token``: whoever reaches the door. ``hosts``: the names, without
    a port, by which it may be called; empty for any."""

    token: str = ""
    hosts: frozenset[str] = frozenset()

    def check(self, headers: Headers) -> None:
        """Raises ``Refused`` or ``Unauthenticated``."""
        host = re.sub(r":[0-9]+$", "", headers.get("host", "")).lower()
        if self.hosts and host not in self.hosts:
            allowed = ", ".join(sorted(self.hosts))
            raise Refused([Reason("host", "another name than this door's", allowed)])
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise Refused([Reason("origin", "a page that a browser shows", "none")])
        if self.token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            wanted = self.token.encode()
            same = hmac.compare_digest(given.strip().encode(), wanted)
            if scheme.lower() != "bearer" or not same:
                raise Unauthenticated(
                    "the operator's token is required",
                    hint="Authorization: Bearer, and what run/management.token holds",
                )


def path_of(method: MethodDescriptor) -> str:
    """``/v1/get-status`` for ``GetStatus``."""
    return PREFIX + re.sub(r"(?<!^)(?=[A-Z])", "-", method.name).lower()


def application(services: Services, watch: Watch, entry: Entry, *, version: str) -> Starlette:
    """``version``: the program's."""
    offered = {
        path_of(method): (method, getattr(servicer, method.name))
        for service, servicer in services
        for method in service.methods
        if not method.client_streaming
    }
    document = openapi.document(
        [(path, method) for path, (method, _) in offered.items()], title=TITLE, version=version
    )

    async def describe(_: Request) -> Response:
        return JSONResponse(document)

    app = Starlette(
        routes=[
            Route("/openapi.json", describe),
            *(
                Route(path, Endpoint(method, call, watch), methods=["POST"])
                for path, (method, call) in offered.items()
            ),
        ],
        middleware=[Middleware(_Entrance, entry=entry)],
        exception_handlers={HTTPException: _not_offered},
    )
    app.router.redirect_slashes = False  # a path is a call's, or nothing
    return app


class Endpoint:
    """One method as an ASGI application."""

    def __init__(self, method: MethodDescriptor, call: Any, watch: Watch) -> None:
        self._method = method
        self._call = call
        self._watch = watch
        self._name = f"/{method.containing_service.full_name}/{method.name}"
        self._request = GetMessageClass(method.input_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            data = await _read(request)
        except InvalidInput as error:
            await problem_response(error)(scope, receive, send)
            return
        accept = request.headers.get("accept", "")
        answer = answers.choose(self._method, accept, scope, receive, send)
        correlation = request.headers.get(CORRELATION, "")
        work = asyncio.create_task(self._run(data, answer, correlation))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait((work, gone))
        try:
            if not work.cancelled():
                work.result()
        except BrokenOff as error:
            log.warning("an answer over HTTP was broken off", method=self._name, reason=str(error))

    async def _run(self, data: bytes, answer: answers.Answer, correlation: str) -> None:
        streaming = self._method.server_streaming
        async with answer:
            try:
                async with self._watch.over(self._name, correlation, streaming=streaming):
                    message = self._request()
                    protojson.read(data, message)
                    if streaming:
                        async with aclosing(self._call(message, None)) as replies:
                            async for reply in replies:
                                await answer.add(reply)
                    else:
                        await answer.add(await self._call(message, None))
                    await answer.end()
            except ConnectorError as error:
                await answer.fail(error)


async def _read(request: Request) -> bytes:
    """Only with the type of JSON, which no form of a page can send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", protojson.JSON):
        raise body.WrongType(f"the request must be {protojson.JSON}")
    data = await body.read(request, protojson.MAX_BYTES)
    if data and not kind:
        raise body.WrongType(f"the request must say that it is {protojson.JSON}")
    return data


async def _gone(receive: Receive) -> None:
    """Until the caller hangs up, or has the answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Entrance:
    def __init__(self, app: ASGIApp, entry: Entry) -> None:
        self._app = app
        self._entry = entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._entry.check(Headers(scope=scope))
        except ConnectorError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _not_offered(_: Request, error: Exception) -> Response:
    hint = "GET /openapi.json describes what there is"
    if not isinstance(error, HTTPException) or error.status_code != 405:
        return problem_response(NotFound("there is no such call", hint=hint))
    found = NotFound("this call is made with another method", hint=hint)
    response = problem_response(found, 405)
    response.headers.update(error.headers or {})
    return response
