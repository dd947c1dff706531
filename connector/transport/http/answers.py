"""What the messages of one call become in an HTTP answer: JSON, server-sent events, or bytes.

An error that comes before anything was sent has its own status and a problem document. Later, a
stream of events ends with an event of type ``error``; one of bytes is broken off, which clients
see: its last chunk is missing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.errors import (
    ConnectorError,
    InternalError,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.transport.http.errors import problem, problem_response, status_of
from connector.transport.http.openapi import EVENTS, raw_field
from connector.transport.http.protojson import media_type_of, show

FIRST_S = 1.0  # seconds after which a stream of events begins, though it has none yet
BEAT_S = 15.0  # seconds between two signs of life of a stream that has none to tell
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class BrokenOff(Exception):
    """The answer cannot be ended well, and its connection has to be."""


class Answer:
    """``async with`` it, ``add`` each message, ``end``; or ``fail``, once, instead of what is left
    of that. May raise ``BrokenOff``."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._asgi = (scope, receive, send)
        self._send = send
        self.started = False

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def add(self, message: Message) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        raise NotImplementedError

    async def fail(self, error: ConnectorError) -> None:
        if self.started:
            raise BrokenOff(error.code) from error
        await self._whole(problem_response(error, _status(error)))

    async def _whole(self, response: Response) -> None:
        self.started = True
        await response(*self._asgi)

    async def _begin(self, media_type: str, headers: Mapping[str, str]) -> None:
        self.started = True
        sent = {**_HEADERS, "Content-Type": media_type, **headers}
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _piece(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class Whole(Answer):
    """The one message of a unary call."""

    async def add(self, message: Message) -> None:
        await self._whole(JSONResponse(show(message), headers=_HEADERS))

    async def end(self) -> None:
        if not self.started:
            raise InternalError("a call without an answer")


class Events(Answer):
    """Server-sent events (the HTML standard, section 9.2). A quiet stream gives signs of life."""

    async def __aenter__(self) -> Answer:
        self._turn = asyncio.Lock()
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        with suppress(asyncio.CancelledError):
            await self._beating

    async def add(self, message: Message) -> None:
        await self._event(f"data: {_line(show(message))}\n\n")

    async def end(self) -> None:
        await self._event("", more=False)

    async def fail(self, error: ConnectorError) -> None:
        async with self._turn:
            if not self.started:
                await self._whole(problem_response(error, _status(error)))
                return
        await self._event(
            f"event: error\ndata: {_line(problem(error, _status(error)))}\n\n", more=False
        )

    async def _beat(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            await self._event(":\n\n")
            await asyncio.sleep(BEAT_S)

    async def _event(self, text: str, *, more: bool = True) -> None:
        async with self._turn:
            if not self.started:
                await self._begin(EVENTS, {"X-Accel-Buffering": "no"})
            await self._piece(text.encode(), more=more)


class Raw(Answer):
    """The bytes of one field of the messages, one after the other. What comes before the first of
    them is in headers, as ``Tds-Summary``."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, field: FieldDescriptor
    ) -> None:
        super().__init__(scope, receive, send)
        self._field = field
        self._before: dict[str, Any] = {}
        self._unused: Refused | UseFailed | None = None

    async def add(self, message: Message) -> None:
        if data := getattr(message, self._field.name):
            if not self.started:
                headers = {
                    f"Tds-{name.replace('_', '-').title()}": _line(value)
                    for name, value in self._before.items()
                }
                await self._begin(media_type_of(self._field), headers)
            await self._piece(data)
            return
        if isinstance(message, pb.QueryResponse):
            self._unused = _unused(message.summary)
        for field, value in message.ListFields():
            if isinstance(value, Message):
                self._before[field.name] = show(value)

    async def end(self) -> None:
        if self.started:
            await self._piece(b"", more=False)
        elif self._unused is not None:
            await self._whole(problem_response(self._unused, more=self._before))
        else:
            await self._begin(media_type_of(self._field), {})
            await self._piece(b"", more=False)


class UseFailed(Unavailable):
    """The use was allowed and gave no result; it does not count against the allowance."""

    code = "use_failed"


def _unused(summary: pb.UseSummary) -> Refused | UseFailed | None:
    """Why a use has no result, which in messages only its receipt says."""
    reasons = [Reason(one.term, one.observed, one.allowed) for one in summary.reasons]
    if summary.outcome == "refused" and reasons:
        return Refused(reasons)
    if summary.outcome != "allowed":
        return UseFailed(
            "; ".join(map(str, reasons)) or "the use gave no result",
            hint="it does not count against the allowance: ask again, with a fresh use id",
        )
    return None


def choose(
    method: MethodDescriptor, accept: str, scope: Scope, receive: Receive, send: Send
) -> Answer:
    """The answer that the ``Accept`` header wants; bytes only where it names their media type."""
    field = raw_field(method.output_type)
    names = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    if field is not None and media_type_of(field) in names:
        return Raw(scope, receive, send, field=field)
    return (Events if method.server_streaming else Whole)(scope, receive, send)


def _status(error: ConnectorError) -> int:
    """Who comes this far has shown who it is: what is missing is a membership, not a token."""
    return 403 if isinstance(error, Unauthenticated) else status_of(error)


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
