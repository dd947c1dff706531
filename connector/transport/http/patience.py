"""How long a connection may take to ask: places are few, and silence is cheap for who sends it.

It also shows each request the connection that it came by, for answers that must be cut at once.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "tds.transport"  # the key in a request's scope: its ``asyncio.Transport``
REQUEST_S = 10.0  # seconds from the connection, or a request's first byte, to the end of its head


class Patient(H11Protocol):
    """uvicorn's protocol, which itself waits for a request's head for ever.

    Idle connections between two requests are uvicorn's (``timeout_keep_alive``); bodies are the
    business of whoever reads them.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            scope = cast("dict[str, Any]", self.cycle.scope)
            scope[TRANSPORT] = self.transport

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect()  # the head is not whole yet
        else:
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
