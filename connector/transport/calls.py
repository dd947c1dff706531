"""The calls that run now, whatever door they came through: correlated, logged, counted, and cut
with a reason when a membership or the process ends."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from connector.errors import ConnectorError, InternalError, Unauthenticated, Unavailable
from connector.model.correlation import CORRELATION, is_usable
from connector.ports.clock import Clock

log = structlog.get_logger()

REPORTER = "reporter:"  # before a reporter's name, where else a DID would stand

_correlation: contextvars.ContextVar[str] = contextvars.ContextVar("correlation", default="")


def correlation_id() -> str:
    """The id that log lines of this work carry on every node; a fresh one if there is none."""
    found = _correlation.get()
    if not found:
        found = secrets.token_hex(8)
        _correlation.set(found)
    return found


def bind_correlation(value: str) -> None:
    """Go on under a correlation id that came from elsewhere."""
    _correlation.set(value if is_usable(value) else "")
    structlog.contextvars.bind_contextvars(**{CORRELATION: correlation_id()})


@dataclass(eq=False, slots=True)
class Call:
    """``caller``: may be told once it is known; nobody cuts a call of whom nothing is known."""

    task: asyncio.Task[Any]
    caller: str
    streaming: bool
    cut: ConnectorError | None = None


@dataclass(slots=True)
class OpenCalls:
    """The calls that run now. Used from the event loop alone."""

    _calls: set[Call] = field(default_factory=set)

    @contextmanager
    def entered(self, caller: str, *, streaming: bool) -> Iterator[Call]:
        task = asyncio.current_task()
        if task is None:
            raise InternalError("a call runs in a task")
        call = Call(task, caller, streaming)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    def cut_participant(self, did: str) -> int:
        """Cut every call of a participant that lost its membership; how many there were."""
        return self._cut(lambda call: call.caller == did, Unauthenticated("membership has ended"))

    def cut_reporter(self, name: str) -> int:
        """Cut every call of a reporter that was taken off the list; how many there were."""
        error = Unauthenticated("the reporter was removed")
        return self._cut(lambda call: call.caller == REPORTER + name, error)

    def cut_streams(self) -> int:
        """Cut every stream, because the process ends: they would outlast any grace."""
        return self._cut(lambda call: call.streaming, Unavailable("the node is shutting down"))

    def _cut(self, chosen: Callable[[Call], bool], error: ConnectorError) -> int:
        calls = [call for call in self._calls if call.cut is None and chosen(call)]
        for call in calls:
            call.cut = error
            call.task.cancel()
        return len(calls)


class Watch:
    """``observe`` is told (method, error code or ok, seconds) of each finished call."""

    def __init__(
        self, calls: OpenCalls, clock: Clock, observe: Callable[[str, str, float], None]
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._observe = observe

    @asynccontextmanager
    async def over(
        self,
        method: str,
        correlation: str,
        *,
        streaming: bool,
        caller: Callable[[], str] = str,
    ) -> AsyncIterator[Call]:
        """One call, from its authentication (``caller`` gives a name, or raises) to its end.

        A door whose authentication has to wait does it inside, and sets ``Call.caller``.

        Raises ``ConnectorError`` for whatever failed or cut it, and nothing else but
        ``NotImplementedError``, for a call that a door does not offer, and cancellations.
        """
        started = self._clock.monotonic()
        structlog.contextvars.clear_contextvars()
        bind_correlation(correlation)
        name, status = "", "ok"
        try:
            name = caller()
            with self._calls.entered(name, streaming=streaming) as call:
                try:
                    yield call
                except asyncio.CancelledError:
                    if call.cut is None:
                        raise  # the caller went away
                    call.task.uncancel()
                    raise call.cut from None
                finally:
                    name = call.caller
        except ConnectorError as error:
            status = error.code
            raise
        except (GeneratorExit, NotImplementedError):
            raise
        except Exception as error:
            status = InternalError.code
            log.exception("call failed", method=method, error=type(error).__name__)
            raise InternalError("the node failed to answer; its log says more") from error
        finally:
            seconds = self._clock.monotonic() - started
            self._observe(method, status, seconds)
            log.debug(
                "call", method=method, caller=name, status=status, ms=round(seconds * 1000, 1)
            )
