"""The body of a request, of bounded size and in bounded time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from connector.errors import InvalidInput

BODY_S = 10.0  # seconds in which a request's body must have come


class TooMuch(InvalidInput):
    """The rest of the body is not waited for: the connection MUST end (``CLOSE``)."""

    status = 413


class TooSlow(TooMuch):
    status = 408


CLOSE = {"Connection": "close"}


async def read_body(request: Request, limit: int, what: str) -> bytes:
    """Raises ``TooMuch`` if it has more than ``limit`` bytes, ``TooSlow`` if it does not come."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > limit:
        raise TooMuch(f"{what}: larger than {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooMuch(f"{what}: larger than {limit} bytes")
    except (TimeoutError, ClientDisconnect) as error:
        raise TooSlow(f"{what}: it did not come") from error
    return bytes(body)
