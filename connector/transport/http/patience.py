"""How long a connection may take to ask, and to take its answer: places are few, and silence is
cheap for who sends it.

It also shows each request the connection that it came by, for answers that must be cut at once.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "tds.transport"  # the key in a request's scope: its ``asyncio.Transport``
REQUEST_S = 10.0  # seconds from the connection, or a request's first byte, to the end of its head
STALL_S = 60.0  # seconds in which what waits to be sent must be taken
_BOTH = {b"content-length", b"transfer-encoding"}


class Patient(H11Protocol):
    """uvicorn's protocol, which itself waits for ever: for a request's head, and for a reader.

    Idle connections between two requests are uvicorn's (``timeout_keep_alive``); bodies are the
    business of whoever reads them.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            scope = cast("dict[str, Any]", self.cycle.scope)
            scope[TRANSPORT] = self.transport
            if {name for name, _ in self.cycle.scope["headers"]} >= _BOTH:
                # RFC 9112, section 6.3: who stands between may have read another body than we do.
                self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect()  # the head is not whole yet
        else:
            self._forget()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hurry()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None and not self.transport.is_closing():
            self._stall.cancel()
            self._stall = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._hurry()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._hurry()  # it is closed once all is taken

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer keeps what it read and wrote: uvicorn's own would, for seconds."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._forget()
        self._lost = True
        if self._stall is not None:
            self._stall.cancel()

    def _hurry(self) -> None:
        if self._stall is None and not self._lost:
            self._stall = self.loop.call_later(STALL_S, self.transport.abort)

    def _expect(self) -> None:
        if self._deadline is None and not self._lost:
            self._deadline = self.loop.call_later(REQUEST_S, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
