"""Our errors as HTTP answers: whose fault it is in the status, the rest in JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connector import errors
from connector.transport.http.body import TooLarge, TooMuch, TooSlow, WrongType

PROBLEM = "application/problem+json"

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {
    TooLarge: 413,
    TooSlow: 408,
    WrongType: 415,
    errors.InvalidInput: 400,
    errors.Unauthenticated: 401,
    errors.Refused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.RateLimited: 429,
    errors.PeerFault: 502,
    errors.Unavailable: 503,
}


def status_of(error: Exception) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def headers_of(error: Exception, status: int) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMuch):
        headers["Connection"] = "close"
    return headers


async def answer(_: Request, error: Exception) -> Response:
    """What went wrong, in words that may leave the node."""
    message = error.message if isinstance(error, errors.ConnectorError) else "internal error"
    status = status_of(error)
    if status == 500:
        log.error("the HTTP door failed", error=type(error).__name__)
    return JSONResponse({"error": message}, status_code=status, headers=headers_of(error, status))


def problem(error: errors.ConnectorError, status: int = 0) -> dict[str, Any]:
    """The error as the members of an ``application/problem+json`` document (RFC 9457), with
    ``code``, ``hint`` and, of a refusal, its ``reasons``. It has no type of its own.

    ``status``: instead of the one that is the error's."""
    status = status or status_of(error)
    found: dict[str, Any] = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
    }
    if isinstance(error, errors.Refused):
        found["reasons"] = [dataclasses.asdict(reason) for reason in error.reasons]
    return found


def problem_response(
    error: errors.ConnectorError, status: int = 0, more: Mapping[str, Any] = MappingProxyType({})
) -> Response:
    """``more``: further members."""
    found = {**problem(error, status), **more}
    headers = headers_of(error, found["status"])
    return JSONResponse(found, found["status"], headers, media_type=PROBLEM)
