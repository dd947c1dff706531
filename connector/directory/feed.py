"""The feed: membership events to every watcher, in order, with heartbeats between.

A watcher holds one number, the last event it was given, and reads on from there: however slow it
is, nothing piles up here. It is always told the events first; a heartbeat goes out when there are
no more, so what a heartbeat says is true when it is signed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from connector.directory.register import Register
from connector.errors import InvalidInput, RateLimited, Unavailable
from connector.ports.directory import DirectoryStore

BATCH = 100
MOST_FOR_ONE = 8  # watches of one member at once


class Feed:
    """``heartbeat_s``: seconds between heartbeats, a third of what the members allow."""

    def __init__(self, register: Register, store: DirectoryStore, *, heartbeat_s: float) -> None:
        self._register = register
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._watches: Counter[str] = Counter()
        self._closed = False

    async def watch(self, caller: str, after: int) -> AsyncIterator[str]:
        """Signed events after number ``after``, then new ones as they happen, and heartbeats.

        Ends with ``Unauthenticated`` once the caller is no active member (it is given the event
        that says so first) and with ``Unavailable`` when the directory closes. Raises
        ``RateLimited`` for too many watches, ``InvalidInput`` for a number that was never given.
        """
        if not 0 <= after <= self._register.last:
            raise InvalidInput("after: not the number of an event of this directory")
        if self._watches[caller] >= MOST_FOR_ONE:
            raise RateLimited("too many watches by one member")
        self._watches[caller] += 1
        try:
            while True:
                await self._register.settle()
                changed = self._register.changed
                while events := await self._store.events_after(after, BATCH):
                    for event in events:
                        yield event
                    after += len(events)
                self._register.active(caller)
                if self._closed:
                    raise Unavailable("the directory is closing")
                if after == self._register.last:
                    yield self._register.heartbeat()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s):
                        await changed.wait()
        finally:
            self._watches[caller] -= 1
            if not self._watches[caller]:
                del self._watches[caller]

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        self._register.wake()
