"""Our errors as gRPC statuses, and back.

The status code says whose fault it is; trailing metadata carries the rest: ``error-code``,
``error-hint-bin`` (UTF-8) and ``error-reasons-bin`` (JSON: a list of [term, observed, allowed]).
Anything that is not a ``ConnectorError`` leaves as INTERNAL with a constant text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import grpc
import structlog

from connector import errors
from connector.model import fields

log = structlog.get_logger()

_STATUS: Mapping[type[errors.ConnectorError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Refused: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.PeerFault: grpc.StatusCode.ABORTED,
    errors.VerificationFailed: grpc.StatusCode.ABORTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_BY_CODE = {kind.code: kind for kind in _STATUS}
_BY_STATUS: Mapping[grpc.StatusCode, type[errors.ConnectorError]] = {
    status: kind
    for kind, status in _STATUS.items()
    if kind not in (errors.ConfigError, errors.VerificationFailed, errors.Refused)
} | {
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
}
_NO_ANSWER = {
    grpc.StatusCode.UNAVAILABLE: "the other side cannot be reached",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the other side did not answer in time",
}
MAX_TRAILER = 4096  # bytes of one trailing value; gRPC's default limit for all metadata is 8 KiB


def status_of(error: errors.ConnectorError) -> grpc.StatusCode:
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return grpc.StatusCode.INTERNAL


def trailers(error: errors.ConnectorError) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of an error; what does not fit is left out."""
    found: list[tuple[str, str | bytes]] = [("error-code", error.code)]
    if error.hint:
        found.append(("error-hint-bin", error.hint.encode()))
    if isinstance(error, errors.Refused):
        reasons = [[r.term, r.observed, r.allowed] for r in error.reasons]
        found.append(("error-reasons-bin", fields.encode_json(reasons)))
    return tuple((key, value) for key, value in found if len(value) <= MAX_TRAILER)


async def abort(context: grpc.aio.ServicerContext, error: errors.ConnectorError) -> NoReturn:  # type: ignore[type-arg]
    """End the call with this error."""
    await context.abort(status_of(error), error.message[:1024], trailers(error))
    raise AssertionError("abort does not return")


def from_rpc(error: grpc.aio.AioRpcError) -> errors.ConnectorError:
    """The error that the other side meant. Its texts are the other side's words."""
    metadata = dict(error.trailing_metadata() or ())
    hint = _text(metadata.get("error-hint-bin", b""))
    code = _text(metadata.get("error-code", ""))
    message = error.details() or error.code().name.lower()
    if not code and error.code() in _NO_ANSWER:  # gRPC's own words are for the log
        log.info("no answer", status=error.code().name, detail=message)
        return errors.Unavailable(_NO_ANSWER[error.code()])
    kind = _BY_CODE.get(code) or _BY_STATUS.get(error.code(), errors.PeerFault)
    if issubclass(kind, errors.Refused):
        reasons = _reasons(metadata.get("error-reasons-bin", b""))
        return errors.Refused(reasons or [errors.Reason("policy", message, "")], hint=hint)
    return kind(message, hint=hint)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _reasons(value: str | bytes) -> tuple[errors.Reason, ...]:
    try:
        items = fields.parse_json(value if isinstance(value, bytes) else value.encode())
    except errors.InvalidInput:
        return ()
    if not isinstance(items, list):
        return ()
    return tuple(
        errors.Reason(*item)
        for item in items
        if isinstance(item, list) and len(item) == 3 and all(isinstance(p, str) for p in item)
    )
