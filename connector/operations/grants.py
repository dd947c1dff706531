"""Grants to read the whole log over HTTPS: made, listed and revoked by the operator.

A grant is a random token, of which the SHA-256 is kept. A grant whose name is the DID of a member
also opens the whole log to that member's own tokens (``identity.tokens``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta

from connector.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from connector.ports.clock import Clock
from connector.ports.grants import Grant, GrantStore

PREFIX = "tdsg_"  # so that a scanner of leaked secrets knows what it found
MAX_NAME = 256
MAX_DAYS = 3650
MAX_GRANTS = 256
_TOKEN_BYTES = 32


class Grants:
    """For one event loop. ``open`` MUST be awaited first. ``random(n)`` gives n random bytes."""

    def __init__(self, store: GrantStore, clock: Clock, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._known: dict[str, Grant] = {}  # by name
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Raises ``Unavailable``."""
        self._take(await self._store.all())

    async def add(self, name: str, days: int) -> tuple[Grant, str]:
        """The grant and its token, which is told this once. Durable on return.

        Raises ``InvalidInput``, ``Conflict`` (the name is taken, the list is full),
        ``Unavailable``.
        """
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidInput(f"grant: a name has 1 to {MAX_NAME} printable characters")
        if not 1 <= days <= MAX_DAYS:
            raise InvalidInput(f"grant: 1 to {MAX_DAYS} days")
        secret = base64.urlsafe_b64encode(self._random(_TOKEN_BYTES)).decode().rstrip("=")
        token, now = PREFIX + secret, self._clock.now()
        grant = Grant(name, _digest(token), now, now + timedelta(days=days))
        async with self._turn:
            if name in self._known:
                raise Conflict(
                    "somebody has a grant under this name already",
                    hint="revoke it first, or choose another name",
                )
            if len(self._known) >= MAX_GRANTS:
                raise Conflict(f"there are {MAX_GRANTS} grants, and no more can be made")
            try:
                await self._store.add(grant)
            finally:
                self._take(await self._store.all())
        return grant, token

    async def revoke(self, name: str) -> None:
        """Worth nothing from now on; durable on return.

        Raises ``NotFound``; ``Unavailable``: it is shut out, and may be back after a restart.
        """
        async with self._turn:
            if name not in self._known:
                raise NotFound("no such grant", hint="connector log grants shows them")
            del self._known[name]
            await self._store.remove(name)

    def listed(self) -> tuple[Grant, ...]:
        """By name, with those that have expired."""
        return tuple(self._known[name] for name in sorted(self._known))

    def holder(self, token: str) -> Grant:
        """Whose token this is. Raises ``Unauthenticated``, also after its end."""
        digest = _digest(token)
        for grant in self._known.values():
            if grant.digest == digest and grant.expires > self._clock.now():
                return grant
        raise Unauthenticated("not a grant for this log")

    def covers(self, name: str) -> bool:
        """Whether there is a grant under this name, a member's DID, that has not expired."""
        grant = self._known.get(name)
        return grant is not None and grant.expires > self._clock.now()

    def _take(self, grants: Sequence[Grant]) -> None:
        self._known = {grant.name: grant for grant in grants}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
