"""What a caller of the client library may have to catch, and how a gRPC status becomes it.

The node maps its exceptions to gRPC status codes with trailing metadata; here they become the
classes of ``connector.errors`` again. ``Refused`` and ``UseFailed`` also carry the receipt that
the use left. Anything that does not decode becomes the class that fits the status code, so that
no gRPC exception reaches a caller.
"""

from __future__ import annotations

import json
from typing import Any

import grpc

from connector import errors
from connector.client.types import Receipt

ERROR_CODE_KEY = "error-code"  # ConnectorError.code
ERROR_HINT_KEY = "error-hint-bin"  # UTF-8
ERROR_REASONS_KEY = "error-reasons-bin"  # UTF-8 JSON: a list of [term, observed, allowed]


class Refused(errors.Refused):
    """A policy or a contract says no. ``receipt`` is the refusal's own receipt, if one was
    issued: a refusal that came before the provider's gate (no such agreement) leaves none."""

    def __init__(
        self, reasons: tuple[errors.Reason, ...], *, hint: str = "", receipt: Receipt | None = None
    ) -> None:
        super().__init__(reasons, hint=hint)
        self.receipt = receipt


class UseFailed(errors.ConnectorError):
    """The use was allowed but gave no result; it does not count against the allowance.

    The same ``use_id`` would return this receipt again: ask anew, with a fresh one.
    """

    code = "use_failed"

    def __init__(self, message: str, *, hint: str = "", receipt: Receipt) -> None:
        super().__init__(message, hint=hint)
        self.receipt = receipt


class NodeNotRunning(errors.Unavailable):
    """Nothing listens on the node's management socket."""

    code = "not_running"


_BY_STATUS: dict[grpc.StatusCode, type[errors.ConnectorError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.PeerFault,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.RateLimited,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
}
_BY_CODE: dict[str, type[errors.ConnectorError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidInput,
        errors.ConfigError,
        errors.Unauthenticated,
        errors.NotFound,
        errors.Gone,
        errors.Conflict,
        errors.RateLimited,
        errors.PeerFault,
        errors.VerificationFailed,
        errors.Unavailable,
        errors.InternalError,
    )
}


def from_rpc(error: grpc.RpcError) -> errors.ConnectorError:
    """The exception that the node raised, from the status that arrived."""
    status: Any = error  # grpc's own types say nothing of what an RpcError carries
    metadata = _metadata(status.trailing_metadata())
    message = status.details() or "the node gave no reason"
    hint = metadata.get(ERROR_HINT_KEY, "")
    code = metadata.get(ERROR_CODE_KEY, "")
    if code == Refused.code or status.code() == grpc.StatusCode.PERMISSION_DENIED:
        reasons = _reasons(metadata.get(ERROR_REASONS_KEY, ""))
        return Refused(reasons or (errors.Reason("policy", message, "nothing"),), hint=hint)
    if status.code() == grpc.StatusCode.UNIMPLEMENTED:
        return errors.Conflict(
            "this node does not do that",
            hint="a directory's commands start with `connector directory`, a node's do not",
        )
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status.code(), errors.InternalError)
    return kind(message, hint=hint)


def raise_for(error: grpc.RpcError) -> None:
    """Raises what ``from_rpc`` finds."""
    raise from_rpc(error) from error


def _metadata(trailing: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in trailing or ():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        found[str(key)] = text
    return found


def _reasons(text: str) -> tuple[errors.Reason, ...]:
    try:
        rows = json.loads(text) if text else []
        return tuple(
            errors.Reason(str(term), str(observed), str(allowed))
            for term, observed, allowed in rows
        )
    except (ValueError, TypeError):
        return ()
