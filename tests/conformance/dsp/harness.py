"""Plays the connector's part in the conformance suite, with what any user of the product has.

The suite starts a negotiation or a transfer by a POST to one of two addresses, and expects the
connector to go on by itself as ``script`` says. Both are done here: the product knows nothing of
the suite, its automatic steps are set to manual, and everything is asked of it through ``Node``,
its management API and its stream of events.

A step is taken ``DELAY_S`` after the event: the suite listens for the next message only once it has
dealt with the last.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connector.transport.http.server import HttpDoor
from tests.conformance.dsp.script import SCRIPT, Act

DELAY_S = 0.4  # the suite needs 0.3


@dataclass(frozen=True, slots=True)
class Event:
    """A process has come to a state, by its own side's doing or the peer's.

    ``subject`` is the dataset of a negotiation or the agreement of a transfer.
    """

    pid: str  # our side's
    state: str
    subject: str


class Node(Protocol):
    """A connector under test, over its management API.

    Each method returns when the node has taken the order, and raises if it refuses it. ``peer_url``
    is where the peer's protocol endpoints begin. Identifiers of processes are our side's.
    """

    async def negotiate(self, peer_url: str, dataset: str, offer: str) -> str: ...
    async def offer(self, pid: str) -> None: ...
    async def agree(self, pid: str) -> None: ...
    async def accept(self, pid: str) -> None: ...
    async def counter(self, pid: str) -> None: ...
    async def verify(self, pid: str) -> None: ...
    async def finalize(self, pid: str) -> None: ...
    async def terminate(self, pid: str) -> None: ...
    async def request_transfer(self, peer_url: str, agreement: str, format: str) -> str: ...
    async def start_transfer(self, pid: str) -> None: ...
    async def suspend_transfer(self, pid: str) -> None: ...
    async def complete_transfer(self, pid: str) -> None: ...
    async def terminate_transfer(self, pid: str) -> None: ...

    def events(self) -> AsyncIterator[Event]:
        """Every change of state from now on, once each, in order for each process."""
        ...


class Harness:
    """``problems`` has in words what the node refused to do; empty after a good run."""

    def __init__(self, node: Node, *, delay_s: float = DELAY_S) -> None:
        self._node = node
        self._delay_s = delay_s
        self._seen: Counter[tuple[str, str]] = Counter()  # (pid, state): how often
        self._tasks: set[asyncio.Task[None]] = set()
        self.problems: list[str] = []
        self.application = Starlette(
            routes=[
                Route("/negotiations", self._negotiate, methods=["POST"]),
                Route("/transfers", self._transfer, methods=["POST"]),
            ]
        )

    async def play(self) -> None:
        """Follow the node's events, until cancelled."""
        async for event in self._node.events():
            act = self.next_act(event)
            if act is not None:
                self._later(f"{act.value} for {event.subject}", self._act(act, event.pid))

    def next_act(self, event: Event) -> Act | None:
        """What the script has for this state, counting how often the process came to it."""
        self._seen[event.pid, event.state] += 1
        now = (event.state, self._seen[event.pid, event.state])
        steps = SCRIPT.get(event.subject, ())
        return next((step.act for step in steps if (step.state, step.nth) == now), None)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _act(self, act: Act, pid: str) -> None:
        await asyncio.sleep(self._delay_s)
        await getattr(self._node, act.value)(pid)

    async def _negotiate(self, request: Request) -> Response:
        wanted = await request.json()
        start = self._node.negotiate(
            wanted["connectorAddress"], wanted["datasetId"], wanted["offerId"]
        )
        return self._started(f"negotiate {wanted['datasetId']}", start)

    async def _transfer(self, request: Request) -> Response:
        wanted = await request.json()
        start = self._node.request_transfer(
            wanted["connectorAddress"], wanted["agreementId"], wanted["format"]
        )
        return self._started(f"transfer under {wanted['agreementId']}", start)

    def _started(self, what: str, start: Coroutine[Any, Any, str]) -> Response:
        self._later(what, start)
        return Response(status_code=202)

    def _later(self, what: str, doing: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(self._attempt(what, doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, what: str, doing: Coroutine[Any, Any, object]) -> None:
        try:
            await doing
        except Exception as error:  # noqa: BLE001 -- a finding, whatever it is
            self.problems.append(f"{what}: {type(error).__name__}: {error}")


@asynccontextmanager
async def serving(node: Node, *, delay_s: float = DELAY_S) -> AsyncIterator[tuple[Harness, str]]:
    """The harness at work, and the URL below which ``/negotiations`` and ``/transfers`` are."""
    harness = Harness(node, delay_s=delay_s)
    door = HttpDoor(harness.application, "127.0.0.1:0")
    address = await door.open()
    play = asyncio.create_task(harness.play())
    try:
        yield harness, f"http://{address}"
    finally:
        play.cancel()
        with suppress(asyncio.CancelledError):
            await play  # raises what ended it before its time
        await harness.close()
        await door.close()
