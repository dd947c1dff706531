"""Who may call, and who is cut off.

Every call through a guarded door is authenticated before its handler runs, and stays known while
it runs: a membership event or the end of the process cuts it with a status that says why.
Authentication of a participant takes three things that must name it: the TLS certificate, the
token bound to it, and the directory's record. A reporter is known by its certificate, which is on
the node's own list.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from connector.errors import ConnectorError, InvalidInput, Unauthenticated
from connector.identity.certificates import PeerCertificate, read_peer_certificate
from connector.identity.reporters import Reporter, pem_thumbprint
from connector.identity.tokens import TokenVerifier
from connector.model.participant import Participant
from connector.ports.clock import Clock
from connector.transport.calls import REPORTER, OpenCalls, Watch
from connector.transport.grpc.errors import abort

TOKEN_KEY = "authorization"  # noqa: S105  a metadata key's name
CORRELATION_KEY = "x-correlation-id"
UNREADABLE = "the message cannot be read"

_caller: contextvars.ContextVar[Participant] = contextvars.ContextVar("caller")
_reporter: contextvars.ContextVar[Reporter] = contextvars.ContextVar("reporter")


def caller() -> Participant:
    """The authenticated participant of the call that runs now."""
    return _caller.get()


def reporter() -> Reporter:
    """The authenticated reporter of the call that runs now."""
    return _reporter.get()


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


class Guard(grpc.aio.ServerInterceptor):
    """Authenticates and watches (``calls.Watch``) every call; turns errors into statuses.

    ``observe`` is told (method, error code or ok, seconds) of each finished call.
    """

    def __init__(
        self,
        authenticate: Authenticate | None,
        calls: OpenCalls,
        clock: Clock,
        observe: Callable[[str, str, float], None],
    ) -> None:
        self._authenticate = authenticate
        self._watch = Watch(calls, clock, observe)

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
        def caller() -> str:
            return "" if self._authenticate is None else _known(self._authenticate(context))

        correlation = _correlation_of(context)
        try:
            async with self._watch.over(method, correlation, streaming=streaming, caller=caller):
                yield
        except ConnectorError as error:
            await abort(context, error)
        except NotImplementedError:  # a call of the service that this door does not offer
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this door does not do that")


def _known(found: Participant | Reporter) -> str:
    """The name of whoever calls, which ``caller`` or ``reporter`` tell from here on."""
    if isinstance(found, Reporter):
        _reporter.set(found)
        return REPORTER + found.name
    _caller.set(found)
    return found.did


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
