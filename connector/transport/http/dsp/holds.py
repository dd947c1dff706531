"""No message of ours overtakes our answer to the one that it follows.

A peer that has not seen our 2xx has not moved yet, and would refuse what comes next. So ``door``
holds a process from the moment that a message for it is taken until the answer to it was handed
to the network, and ``courier`` waits until the process is free. For one event loop.

A first message has no process of ours yet: until it is known which, its hold is on every process
with its sender, and on none with others. Who waits, waits for the holds that were there when it
began: a busy peer cannot keep it waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Hold:
    """``pid`` is empty until it is known."""

    peer: str
    pid: str
    known: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def began(self, pid: str) -> None:
        """The process of a first message."""
        self.pid = pid
        self.known.set()


class Holds:
    def __init__(self) -> None:
        self._holds: set[Hold] = set()

    @contextmanager
    def answering(self, peer: str, pid: str = "") -> Iterator[Hold]:
        """While a message of ``peer`` for our process ``pid`` is taken and answered; empty for a
        first one."""
        hold = Hold(peer, pid)
        if pid:
            hold.known.set()
        self._holds.add(hold)
        try:
            yield hold
        finally:
            self._holds.discard(hold)
            hold.known.set()
            hold.over.set()

    async def free(self, peer: str, pid: str) -> None:
        """Until our process ``pid`` with ``peer`` is free for a message of ours."""
        for hold in [one for one in self._holds if one.peer == peer]:
            await hold.known.wait()
            if hold.pid == pid:
                await hold.over.wait()
