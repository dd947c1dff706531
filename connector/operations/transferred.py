"""What our own log has of transfers whose consumer we are: a record of each, when it is over.

The provider's log has one receipt of a transfer, under the provider's process id. When the process
is over here, that receipt is asked for, verified (``consuming``), kept, and entered in our log with
what this node can say for itself: the bytes that it pulled. A data address may be given to any
program of the organisation's; of what such a one pulled the record says nothing.

* Nothing polls: a change of a process begins it, a provider that is away or has not heard yet is
  asked again ever more rarely, for a day at most, and the next change of a transfer with it, or the
  next start of this node, begins anew. One provider's absence is nobody else's.
* Which transfers are still to be recorded is the store's to know, so a crash loses none; and a
  record is entered once, whatever happens.
* The control plane waits for none of this.

Left out: peers that sign nothing, which keep no log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from connector.errors import ConnectorError, Gone, InvalidInput, NotFound, VerificationFailed
from connector.metering.meter import Meter
from connector.model.negotiation import Party
from connector.model.receipt import Kind
from connector.model.transfer import TransferProcess, TransferState
from connector.negotiation import transfer_machine as machine
from connector.negotiation.service import Negotiations
from connector.negotiation.transfers import Transfers
from connector.operations.consuming import Consumer
from connector.policy.constraints import only_purpose
from connector.ports.clock import Clock
from connector.ports.deliveries import DeliveryStore
from connector.ports.peers import PullBegun, PullPeer

log = structlog.get_logger()

FIRST_S = 0.1  # seconds until a provider is asked again for the first time
MOST_S = 600.0  # seconds between two questions, at most
GIVE_UP_S = 86_400.0  # seconds after which nothing is asked until something happens
ABSENT = 12  # answers without a receipt, after which there is none of a withdrawn request

_LIES = (VerificationFailed, InvalidInput, NotFound, Gone)  # asking again would not help


@dataclass(eq=False, slots=True)
class _Provider:
    """``open``: our processes that are to be recorded, and how often there was no receipt yet."""

    did: str
    open: dict[str, int] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None


class Transferred:
    """``pulls`` gets the data; ``pull`` is the same, counted."""

    def __init__(
        self,
        *,
        negotiations: Negotiations,
        transfers: Transfers,
        consumer: Consumer,
        pulls: PullPeer,
        deliveries: DeliveryStore,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._negotiations = negotiations
        self._transfers = transfers
        self._consumer = consumer
        self._pulls = pulls
        self._deliveries = deliveries
        self._meter = meter
        self._clock = clock
        self._providers: dict[str, _Provider] = {}
        self._pulling: Counter[str] = Counter()  # pulls under way

    async def pull(
        self, pid: str, *, offset: int = 0, etag: str = ""
    ) -> AsyncIterator[PullBegun | bytes]:
        """As ``ports.peers.PullPeer.pull``. That it begins is noted before the first byte: after a
        crash the count is known not to be whole."""
        moved, noted = 0, False
        self._pulling[pid] += 1
        try:
            pieces = self._pulls.pull(pid, offset=offset, etag=etag)
            async with aclosing(pieces):  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, bytes):
                        moved += len(piece)
                    elif not noted:
                        await self._deliveries.pull_began(pid)
                        noted = True
                    yield piece
        finally:
            await asyncio.shield(self._ended(pid, moved, noted=noted))

    async def _ended(self, pid: str, moved: int, *, noted: bool) -> None:
        try:
            if noted:
                await self._deliveries.pull_ended(pid, moved)
        finally:
            self._pulling[pid] -= 1
            if not self._pulling[pid]:
                del self._pulling[pid]
            for provider in self._providers.values():
                if pid in provider.open:
                    provider.woken.set()

    async def run(self) -> None:
        """Record every transfer that is over, for ever. Raises ``Gone`` where it was too slow to
        hear of all: begin again."""
        events = self._negotiations.events()
        try:
            for process in await self._transfers.unrecorded():
                self._add(process.peer, process.pid)
            async for event in events:
                ours = event.kind == "transfer" and event.party is Party.CONSUMER
                if ours and TransferState(event.state) in machine.FINAL:
                    self._add(event.peer, event.pid)
        finally:
            events.close()
            works = [one.work for one in self._providers.values() if one.work is not None]
            self._providers.clear()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    def _add(self, peer: str, pid: str) -> None:
        provider = self._providers.setdefault(peer, _Provider(peer))
        provider.open.setdefault(pid, 0)
        provider.woken.set()
        if provider.work is None or provider.work.done():
            provider.work = asyncio.create_task(self._work(provider))

    async def _work(self, provider: _Provider) -> None:
        """Until there is nothing left to record of this provider, or it is given up for now."""
        wait, since = FIRST_S, self._clock.monotonic()
        while provider.open and self._clock.monotonic() - since < GIVE_UP_S:
            provider.woken.clear()
            try:
                await self._record_all(provider)
            except ConnectorError as error:
                log.info("a receipt is asked for later", peer=provider.did, reason=error.message)
            except Exception:
                log.exception("transfers are not recorded", peer=provider.did)
            if not provider.open:
                break
            try:
                await asyncio.wait_for(provider.woken.wait(), wait)
                wait, since = FIRST_S, self._clock.monotonic()
            except TimeoutError:
                wait = min(2 * wait, MOST_S)

    async def _record_all(self, provider: _Provider) -> None:
        """Raises what may be over when it is asked again."""
        for pid in list(provider.open):
            try:
                done = await self._record(provider, await self._transfers.transfer(pid))
            except _LIES as error:
                log.warning("a transfer is not recorded", pid=pid, reason=error.message)
                done = True
            if done:
                provider.open.pop(pid, None)

    async def _record(self, provider: _Provider, process: TransferProcess) -> bool:
        """Whether there is nothing more to do. Raises ``_LIES``, and what may be over later."""
        pid = process.pid
        agreement = await self._negotiations.agreement(process.agreement_id)
        known = self._meter.find(process.agreement_id, process.peer_pid, Kind.DELIVERY)
        if not agreement.peer_signs or not process.peer_pid or known is not None:
            await self._close(pid)
            return True
        if self._pulling[pid]:
            return False  # ``_ended`` wakes us
        use = await self._consumer.record(
            process.agreement_id,
            only_purpose(agreement.terms.terms),
            process.format,
            process.peer_pid,
            await self._moved(pid),
        )
        if use is None:
            provider.open[pid] += 1
            if not _has_none(process, provider.open[pid]):
                return False
            log.info("the provider has no receipt of a transfer", pid=pid)
        await self._close(pid)
        return True

    async def _close(self, pid: str) -> None:
        await self._deliveries.forget_pulled(pid)
        await self._transfers.recorded(pid)

    async def _moved(self, pid: str) -> int | None:
        """What this node pulled; None if that was nothing, or not all of it was counted."""
        pulled = await self._deliveries.pulled(pid)
        return None if pulled is None or pulled.open else pulled.moved


def _has_none(process: TransferProcess, answers: int) -> bool:
    """Whether a provider that answered so often without a receipt will have none later either.

    It writes the receipt before it says that a process is over. Where we said it, the provider may
    not have heard yet; one of a request that was withdrawn may never have been started.
    """
    if process.left is None:
        return True
    return process.left is TransferState.REQUESTED and answers >= ABSENT
