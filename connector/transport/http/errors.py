"""Our errors as HTTP answers: whose fault it is in the status, the rest in JSON."""

from __future__ import annotations

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connector import errors

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {
    errors.InvalidInput: 400,
    errors.Unauthenticated: 401,
    errors.Refused: 403,
    errors.NotFound: 404,
    errors.Gone: 410,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
}


def status_of(error: Exception) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


async def answer(_: Request, error: Exception) -> Response:
    """What went wrong, in words that may leave the node."""
    message = error.message if isinstance(error, errors.ConnectorError) else "internal error"
    headers = {"Cache-Control": "no-store"}
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 500:
        log.error("the HTTP door failed", error=type(error).__name__)
    return JSONResponse({"error": message}, status_code=status, headers=headers)
