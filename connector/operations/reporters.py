"""The list of those who may report uses: changed by the operator, asked at every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from connector.errors import Conflict, NotFound, Unauthenticated
from connector.identity.reporters import Reporter, read_certificate
from connector.ports.clock import Clock
from connector.ports.reporters import ReporterStore

MAX_REPORTERS = 256


class Reporters:
    """For one event loop. ``open`` MUST be awaited first. ``cut`` ends the open calls of a
    reporter and says how many there were.

    ``endpoint`` (host:port) and ``door`` (the certificate in PEM) are what a reporter needs to
    find the door; both are empty where this node has none.
    """

    def __init__(
        self,
        store: ReporterStore,
        clock: Clock,
        *,
        endpoint: str,
        door: bytes,
        cut: Callable[[str], int],
    ) -> None:
        self.endpoint = endpoint
        self.door = door
        self._store = store
        self._clock = clock
        self._cut = cut
        self._listed: dict[str, Reporter] = {}
        self._known: dict[str, Reporter] = {}  # by thumbprint
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Raises ``Unavailable``, ``InvalidInput``."""
        self._take(await self._store.all())

    def listed(self) -> tuple[Reporter, ...]:
        """By name."""
        return tuple(self._listed[name] for name in sorted(self._listed))

    def roots(self) -> bytes:
        """What the door's TLS trusts, in PEM: each reporter's certificate, and the door's own, so
        that it is never empty."""
        return b"".join((self.door, *(one.certificate for one in self._known.values())))

    def known(self, thumbprint: str) -> Reporter:
        """Whose certificate this is. Raises ``Unauthenticated``, also after its end."""
        found = self._known.get(thumbprint)
        if found is None:
            raise Unauthenticated("not a reporter of this node")
        if found.expires <= self._clock.now():
            raise Unauthenticated("the reporter's certificate has expired")
        return found

    async def add(self, name: str, certificate: bytes) -> Reporter:
        """Durable on return, and known at the door.

        Raises ``InvalidInput``, ``Conflict`` (the name or the certificate is taken, the list is
        full, this node has no door), ``Unavailable``.
        """
        if not self.endpoint:
            raise Conflict(
                "this node has no reporters' door",
                hint="set listen in [reporting] of connector.toml, and start the node again",
            )
        reporter = read_certificate(name, certificate, self._clock.now())
        async with self._turn:
            if len(self._listed) >= MAX_REPORTERS:
                raise Conflict(f"there are {MAX_REPORTERS} reporters, and no more can be added")
            try:
                await self._store.add(reporter)
            finally:
                self._take(await self._store.all())
        return reporter

    async def remove(self, name: str) -> int:
        """Nothing more goes in, at once; durable on return. How many open calls were cut.

        Raises ``NotFound``; ``Unavailable``: it is shut out, and may be back after a restart.
        """
        async with self._turn:
            if name not in self._listed:
                raise NotFound("no such reporter", hint="connector reporters list shows them")
            self._known.pop(self._listed[name].thumbprint, None)
            cut = self._cut(name)
            await self._store.remove(name)
            del self._listed[name]
        return cut

    def _take(self, reporters: Sequence[Reporter]) -> None:
        self._listed = {one.name: one for one in reporters}
        self._known = {one.thumbprint: one for one in reporters}
