"""The resumable exchange of one channel over a stream of frames, whatever carries it.

Theory of operation
-------------------
Both sides number their messages 1, 2, 3 ... for each channel, for good. A stream begins with
``Hello`` from both, which says how far each has had the other; then each sends what the other has
not had, in order, and goes on as new messages are saved. The receiver saves a message's effect
together with its sequence in one write, and then acknowledges. So a cut at any place loses
nothing and repeats nothing: what was not saved is sent again on the next stream, and what was
saved already is acknowledged and dropped. Messages that come while others are saved are taken
together, each saved as a step of its own.

A sequence that leaves a gap, a frame out of place, or an acknowledgement of what was never sent
is the peer's fault and ends the stream. A message that is refused does not: its refusal is an
effect like any other. Both sides run this same code.

Left out: who the peer is (the transport knows), and when to open the next stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import groupby
from typing import Protocol

from connector.errors import Conflict, PeerFault
from connector.negotiation.frames import Acknowledgement, Envelope, Frame, Hello

TOGETHER = 32  # frames that are taken together, and read ahead
HELLO_S = 10.0  # seconds in which the peer must say Hello

Send = Callable[[Frame], Awaitable[None]]


class Mailbox(Protocol):
    """One channel's messages. Every method may raise ``Unavailable``; the stream ends then."""

    @property
    def changed(self) -> asyncio.Event:
        """Set when there may be something new to send."""
        ...

    async def received(self) -> int:
        """The last sequence of the peer's whose effect is durable; 0 for none."""
        ...

    async def outgoing(self, after: int) -> Sequence[Envelope]:
        """Some of our messages after a sequence, in order; empty if there are none."""
        ...

    async def acknowledge(self, sequence: int) -> None:
        """The peer has had ours up to here. Raises ``PeerFault`` if that cannot be."""
        ...

    async def deliver(self, envelopes: Sequence[Envelope]) -> None:
        """In order; durable on return, and once only. Raises ``PeerFault`` for a gap; then those
        before it were delivered."""
        ...


class Session:
    """One stream of one channel."""

    def __init__(self, mailbox: Mailbox, send: Send) -> None:
        self._mailbox = mailbox
        self._send = send
        self._sent = 0  # the last sequence put on this stream, or had before
        self._received = 0  # what is durable here
        self._said = 0  # what we told the peer of that

    async def run(self, incoming: AsyncIterator[Frame]) -> None:
        """Until ``incoming`` ends. Raises what broke the stream, ``PeerFault`` and
        ``Unavailable`` among it."""
        self._received = self._said = await self._mailbox.received()
        await self._send(Hello(self._received))
        if not await self._greeted(incoming):
            return
        reading = asyncio.create_task(self._read(incoming))
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (writing, reading):
                if task.done():
                    task.result()
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _greeted(self, incoming: AsyncIterator[Frame]) -> bool:
        """False if the stream ended before a word."""
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await anext(incoming, None)
        except TimeoutError as error:
            raise PeerFault("the peer opened a stream and said nothing") from error
        if hello is None:
            return False
        if not isinstance(hello, Hello):
            raise PeerFault("the first frame must be Hello")
        await self._mailbox.acknowledge(hello.received)
        self._sent = hello.received
        return True

    async def _read(self, incoming: AsyncIterator[Frame]) -> None:
        """What came while the last messages were saved is taken together."""
        frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        room = asyncio.Semaphore(TOGETHER)
        pumping = asyncio.create_task(_pump(incoming, frames, room))
        try:
            over = False
            while not over:
                found = [await frames.get()]
                while not frames.empty():
                    found.append(frames.get_nowait())
                over = found[-1] is None
                await self._take([frame for frame in found if frame is not None])
                for _ in found:
                    room.release()
            await pumping  # raises what ended it
        finally:
            pumping.cancel()
            await asyncio.wait({pumping})

    async def _take(self, frames: Sequence[Frame]) -> None:
        for kind, group in groupby(frames, type):
            if kind is Envelope:
                envelopes = [frame for frame in group if isinstance(frame, Envelope)]
                await self._mailbox.deliver(envelopes)
                self._received = max(self._received, envelopes[-1].sequence)
                self._mailbox.changed.set()
                continue
            for frame in group:
                if not isinstance(frame, Acknowledgement):
                    raise PeerFault("a second Hello")
                if frame.received > self._sent:
                    raise PeerFault("an acknowledgement of what was not sent")
                await self._mailbox.acknowledge(frame.received)

    async def _write(self) -> None:
        """The only sender once the stream runs."""
        changed = self._mailbox.changed
        while True:
            changed.clear()
            if self._received > self._said:
                self._said = self._received
                await self._send(Acknowledgement(self._said))
            envelopes = await self._mailbox.outgoing(self._sent)
            for envelope in envelopes:
                self._sent = envelope.sequence
                await self._send(envelope)
            if not envelopes:
                await changed.wait()


class Streams:
    """At most one live stream for each key: a newer one replaces the older."""

    def __init__(self) -> None:
        self._live: dict[object, asyncio.Task[None]] = {}

    async def run(self, key: object, session: Session, incoming: AsyncIterator[Frame]) -> None:
        """As ``Session.run``. Raises ``Conflict`` when a newer stream took over, or at the end of
        the process."""
        while (older := self._live.get(key)) is not None and not older.done():
            await _stop(older)
        task = self._live[key] = asyncio.create_task(session.run(incoming))
        try:
            await asyncio.wait({task})
        finally:
            if self._live.get(key) is task:
                del self._live[key]
            await _stop(task)
        if task.cancelled():
            raise Conflict("a newer stream of this peer took over")
        task.result()

    async def close(self) -> None:
        """End all streams; what was not acknowledged is sent on the next."""
        for task in tuple(self._live.values()):
            await _stop(task)


async def _pump(
    incoming: AsyncIterator[Frame], frames: asyncio.Queue[Frame | None], room: asyncio.Semaphore
) -> None:
    """Read ahead as far as there is room; None at the end, whatever ended it."""
    try:
        async for frame in incoming:
            await room.acquire()
            frames.put_nowait(frame)
    finally:
        frames.put_nowait(None)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
