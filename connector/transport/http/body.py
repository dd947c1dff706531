"""A request's body, read whole: bounded in bytes and seconds."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from connector.errors import InvalidInput

BODY_S = 10.0  # seconds in which a request's body must have come


class TooMuch(InvalidInput):
    """The rest of the body is not waited for: the connection ends with the answer."""


class TooLarge(TooMuch):
    pass


class TooSlow(TooMuch):
    pass


class WrongType(InvalidInput):
    """Not the media type that is read here."""


async def read(request: Request, most: int) -> bytes:
    """At most ``most`` bytes. Raises ``TooLarge``, or ``TooSlow`` if it does not come."""
    length = request.headers.get("content-length", "")
    body = bytearray()
    try:
        if length.isdecimal() and len(length) < 20 and int(length) > most:
            raise TooLarge("the request is too large", hint=f"{most} bytes at most")
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise TooLarge("the request is too large", hint=f"{most} bytes at most")
    except (TimeoutError, ClientDisconnect) as error:
        raise TooSlow("the request did not come") from error
    return bytes(body)
