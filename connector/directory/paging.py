"""Page tokens: opaque to callers, and good only for the question that they came from. Pure.

A token is no secret and no permission: it says where to go on, within limits that are checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from connector.errors import ConnectorError, InvalidInput
from connector.model.participant import b64url, unb64url

MAX_PAGE_BYTES = 2 << 20  # of the statements in one page, so that it fits a message
_MAX_TOKEN = 1024
_CHECK = 8  # bytes


def page_token(question: str, position: str) -> str:
    return b64url(_check(question) + position.encode())


def read_page_token(question: str, token: str) -> str:
    """The position in it; empty for an empty token. Raises ``InvalidInput``."""
    if not token:
        return ""
    try:
        if len(token) > _MAX_TOKEN:
            raise InvalidInput("too long")
        data = unb64url(token)
        position = data[_CHECK:].decode()
    except (ConnectorError, UnicodeDecodeError) as error:
        raise InvalidInput("page token: not one of ours") from error
    if data[:_CHECK] != _check(question) or not position:
        raise InvalidInput("page token: of another question")
    return position


def page_size(asked: int, *, usual: int, most: int) -> int:
    """0 means the usual size, and too many means the most. Raises ``InvalidInput`` below 0."""
    if asked < 0:
        raise InvalidInput("page size: must not be negative")
    return min(asked or usual, most)


def fitting(statements: Iterable[str], *, budget: int = MAX_PAGE_BYTES) -> int:
    """How many of the statements, from the first on, one page may hold; one at least."""
    count = 0
    for statement in statements:
        budget -= len(statement)
        if budget < 0 and count:
            break
        count += 1
    return count


def _check(question: str) -> bytes:
    return hashlib.sha256(question.encode()).digest()[:_CHECK]
