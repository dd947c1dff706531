"""What changes at this node, as it changes: every step of a negotiation or of a transfer.

Any number may follow. Each has a bounded queue, and one that is too slow is told so: its stream
ends with ``Gone``, and nothing is lost in silence. Events are not kept: a follower hears what
comes after it began, and asks for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from connector.errors import Gone
from connector.model.negotiation import Negotiation, Party
from connector.model.transfer import TransferProcess

MAX_BEHIND = 4096  # events that a follower may be behind


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is ``negotiation`` or ``transfer``; ``party`` says which side we are; ``number``
    counts the events since this program began, from 1."""

    kind: str
    pid: str
    peer: str
    party: Party
    state: str
    dataset_id: str
    agreement_id: str
    waiting: bool
    number: int


class Follower(AsyncIterator[Event]):
    """Hears from the moment it is made until ``close``, which MUST be called."""

    def __init__(self, followers: set[Follower]) -> None:
        self._followers = followers
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._missed = False
        followers.add(self)

    def tell(self, event: Event) -> None:
        if self._queue.qsize() < MAX_BEHIND:
            self._queue.put_nowait(event)
        else:
            self._missed = True
            self.close()

    def close(self) -> None:
        """Nothing more is heard; what waits can still be read."""
        self._followers.discard(self)
        self._queue.put_nowait(None)

    async def __anext__(self) -> Event:
        """Raises ``Gone`` where events were missed."""
        event = await self._queue.get()
        if event is not None:
            return event
        self._queue.put_nowait(None)  # the end stays the end
        if not self._missed:
            raise StopAsyncIteration
        raise Gone(
            "events were missed, because they were not read fast enough",
            hint="follow again, then list what there is",
        )


class Events:
    def __init__(self) -> None:
        self._followers: set[Follower] = set()
        self._number = 0

    def follow(self) -> Follower:
        return Follower(self._followers)

    def tell(self, now: Negotiation | TransferProcess) -> None:
        self._number += 1
        event = Event(
            kind="transfer" if isinstance(now, TransferProcess) else "negotiation",
            pid=now.pid,
            peer=now.peer,
            party=now.party,
            state=now.state.value,
            dataset_id=now.dataset,
            agreement_id=now.agreement_id,
            waiting=now.waiting,
            number=self._number,
        )
        for follower in tuple(self._followers):
            follower.tell(event)

    def close(self) -> None:
        """End every follower."""
        for follower in tuple(self._followers):
            follower.close()
