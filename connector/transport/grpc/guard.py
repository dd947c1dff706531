"""Who may call, and who is cut off.

Every call through a guarded door is authenticated before its handler runs, and stays known while
it runs: a membership event or the end of the process cuts it with a status that says why.
Authentication of a participant takes three things that must name it: the TLS certificate, the
token bound to it, and the directory's record. A reporter is known by its certificate, which is on
the node's own list.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from connector.errors import (
    ConnectorError,
    InternalError,
    InvalidInput,
    Unauthenticated,
    Unavailable,
)
from connector.identity.certificates import PeerCertificate, read_peer_certificate
from connector.identity.reporters import Reporter, pem_thumbprint
from connector.identity.tokens import TokenVerifier
from connector.model.participant import Participant
from connector.ports.clock import Clock
from connector.transport.grpc.errors import abort

log = structlog.get_logger()

TOKEN_KEY = "authorization"  # noqa: S105  a metadata key's name
CORRELATION_KEY = "x-correlation-id"
MAX_CORRELATION = 64
UNREADABLE = "the message cannot be read"
_REPORTER = "reporter:"  # before a reporter's name, where else a DID would stand

_caller: contextvars.ContextVar[Participant] = contextvars.ContextVar("caller")
_reporter: contextvars.ContextVar[Reporter] = contextvars.ContextVar("reporter")
_correlation: contextvars.ContextVar[str] = contextvars.ContextVar("correlation", default="")


def caller() -> Participant:
    """The authenticated participant of the call that runs now."""
    return _caller.get()


def reporter() -> Reporter:
    """The authenticated reporter of the call that runs now."""
    return _reporter.get()


def correlation_id() -> str:
    """The id that log lines of this work carry on every node; a fresh one if there is none."""
    found = _correlation.get()
    if not found:
        found = secrets.token_hex(8)
        _correlation.set(found)
    return found


def bind_correlation(value: str) -> None:
    """Go on under a correlation id that came from elsewhere."""
    usable = len(value) <= MAX_CORRELATION and value.isascii() and value.isalnum()
    _correlation.set(value if usable else "")
    structlog.contextvars.bind_contextvars(correlation_id=correlation_id())


class Authenticate(Protocol):
    def __call__(self, context: grpc.aio.ServicerContext[Any, Any]) -> Participant | Reporter:
        """The caller, or ``Unauthenticated`` or ``Unavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class MutualTls:
    """``Authenticate`` for doors that ask for a certificate.

    ``lookup`` gives the record of an active member or raises ``Unauthenticated`` (unknown,
    suspended) or ``Unavailable`` (no fresh view of the directory).
    """

    did: str
    lookup: Callable[[str], Participant]
    tokens: TokenVerifier
    clock: Clock

    def __call__(self, context: grpc.aio.ServicerContext[Any, Any]) -> Participant:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        if not pem:
            raise Unauthenticated("a client certificate is required")
        certificate = _read_certificate(pem)
        now = self.clock.now()
        if certificate.not_after <= now:
            raise Unauthenticated("the client certificate has expired")
        participant = self.lookup(certificate.did)
        self.tokens.verify(
            _token(context),
            issuer=participant.did,
            keys=participant.signing_keys,
            thumbprint=certificate.thumbprint,
            now=now,
        )
        return participant


@dataclass(frozen=True, slots=True)
class ReporterTls:
    """``Authenticate`` for the reporters' door. ``known`` gives the reporter whose certificate has
    this thumbprint, or raises ``Unauthenticated``."""

    known: Callable[[str], Reporter]

    def __call__(self, context: grpc.aio.ServicerContext[Any, Any]) -> Reporter:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        return self.known(pem_thumbprint(pem))


@functools.lru_cache(maxsize=1024)
def _read_certificate(pem: bytes) -> PeerCertificate:
    return read_peer_certificate(pem)


def _token(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == TOKEN_KEY and isinstance(value, str) and value.startswith("Bearer "):
            return value.removeprefix("Bearer ")
    raise Unauthenticated("a token is required")


@dataclass(eq=False, slots=True)
class _Call:
    task: asyncio.Task[Any]
    caller: str
    streaming: bool
    cut: ConnectorError | None = None


@dataclass(slots=True)
class OpenCalls:
    """The calls that run now. Used from the event loop alone."""

    _calls: set[_Call] = field(default_factory=set)

    @contextmanager
    def entered(self, caller: str, *, streaming: bool) -> Iterator[_Call]:
        task = asyncio.current_task()
        if task is None:
            raise InternalError("a call runs in a task")
        call = _Call(task, caller, streaming)
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
        return self._cut(lambda call: call.caller == _REPORTER + name, error)

    def cut_streams(self) -> int:
        """Cut every stream, because the process ends: they would outlast any grace."""
        return self._cut(lambda call: call.streaming, Unavailable("the node is shutting down"))

    def _cut(self, chosen: Callable[[_Call], bool], error: ConnectorError) -> int:
        calls = [call for call in self._calls if call.cut is None and chosen(call)]
        for call in calls:
            call.cut = error
            call.task.cancel()
        return len(calls)


class Guard(grpc.aio.ServerInterceptor):
    """Authenticates, correlates, logs and counts every call; turns errors into statuses.

    ``observe`` is told (method, status name, seconds) of each finished call.
    """

    def __init__(
        self,
        authenticate: Authenticate | None,
        calls: OpenCalls,
        clock: Clock,
        observe: Callable[[str, str, float], None],
    ) -> None:
        self._authenticate = authenticate
        self._calls = calls
        self._clock = clock
        self._observe = observe

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith("/grpc.health.v1."):
            return handler
        inner: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        coders = {
            "request_deserializer": _reader(handler),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                async with self._call(method, context, streaming=True):
                    async for response in inner(_readable(request), context):
                        yield response

            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, **coders)
            return grpc.unary_stream_rpc_method_handler(stream, **coders)

        async def unary(request: Any, context: Any) -> Any:
            async with self._call(method, context, streaming=False):
                return await inner(_readable(request), context)

        return grpc.unary_unary_rpc_method_handler(unary, **coders)

    @asynccontextmanager
    async def _call(self, method: str, context: Any, *, streaming: bool) -> AsyncIterator[None]:
        started = self._clock.monotonic()
        structlog.contextvars.clear_contextvars()
        bind_correlation(_correlation_of(context))
        failure: ConnectorError | None = None
        name = ""
        try:
            if self._authenticate is not None:
                found = self._authenticate(context)
                if isinstance(found, Reporter):
                    _reporter.set(found)
                    name = _REPORTER + found.name
                else:
                    _caller.set(found)
                    name = found.did
            with self._calls.entered(name, streaming=streaming) as call:
                try:
                    yield
                except asyncio.CancelledError:
                    if call.cut is None:
                        raise  # the caller went away
                    call.task.uncancel()
                    raise call.cut from None
        except ConnectorError as error:
            failure = error
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except NotImplementedError:  # a call of the service that this door does not offer
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this door does not do that")
        except Exception as error:
            log.exception("call failed", method=method, error=type(error).__name__)
            failure = InternalError("the node failed to answer; its log says more")
        finally:
            seconds = self._clock.monotonic() - started
            status = failure.code if failure else "ok"
            self._observe(method, status, seconds)
            log.debug(
                "call", method=method, caller=name, status=status, ms=round(seconds * 1000, 1)
            )
        if failure is not None:
            await abort(context, failure)


class _Unreadable:
    """In place of a single message whose bytes are none: gRPC decodes it before the guard is asked,
    and would answer by itself. Messages of a stream are decoded within the call."""


def _reader(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[[bytes], Any] | None:
    decode = handler.request_deserializer
    if decode is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            if handler.request_streaming:
                raise InvalidInput(UNREADABLE) from None
            return _Unreadable()

    return read


def _readable(request: Any) -> Any:
    """A message, or a stream of them, that can be read; else ``InvalidInput``."""
    if isinstance(request, _Unreadable):
        raise InvalidInput(UNREADABLE)
    return request


def _correlation_of(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == CORRELATION_KEY and isinstance(value, str):
            return value
    return ""
