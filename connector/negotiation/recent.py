"""What was written lately, from memory: a ``NegotiationStore`` in front of another one.

A negotiation is read again at each of its steps, and a letter right after it was written. Both are
answered from here without a trip to the disk. Everything here is durable: it was written by
``commit``, or read while nothing was written. What a failed write was about is forgotten, since
the write may have happened.

Two conditions hold for it: no other process writes to the same store (a lock on the data folder
refuses a second one), and changes of one channel that overlap are of different processes
(``Ledger``). What is counted for each channel is forgotten when they do.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TypeVar

from connector.model.negotiation import Channel, Negotiation, Party, StoredAgreement
from connector.model.transfer import TransferProcess
from connector.negotiation import machine
from connector.ports.negotiation import Act, Change, Counts, Letter, NegotiationStore, Post

MAX_RECENT = 128  # negotiations, and agreements, that are remembered
MAX_LETTERS = 64  # letters that are remembered for each channel

K = TypeVar("K")
V = TypeVar("V")


class RecentStore:
    """``ports.negotiation.NegotiationStore``; durability and errors are those of ``store``."""

    def __init__(self, store: NegotiationStore) -> None:
        self._store = store
        self._negotiations: OrderedDict[str, Negotiation] = OrderedDict()
        self._agreements: OrderedDict[str, StoredAgreement] = OrderedDict()
        self._counts: dict[Channel, Counts] = {}
        self._open: dict[Channel, int] = {}
        self._letters: dict[Channel, deque[Letter]] = {}
        self._begun: Counter[Channel] = Counter()  # commits, ever
        self._busy: Counter[Channel] = Counter()  # commits that are under way
        self._writing = 0  # commits that are under way
        self._written = 0  # commits that have ended, well or not

    async def commit(self, change: Change) -> tuple[Act, ...]:
        channel, negotiation, agreement = change.channel, change.negotiation, change.agreement
        if change == Change(channel=channel, logged=change.logged):
            return await self._store.commit(change)  # of nothing that is remembered here
        counts = self._counts.pop(channel, None)
        opened = self._open.pop(channel, None)
        letters = self._letters.pop(channel, deque(maxlen=MAX_LETTERS))
        before = self._negotiations.pop(negotiation.pid, None) if negotiation else None
        if agreement:
            self._agreements.pop(agreement.terms.id, None)
        self._begun[channel] += 1
        begun, alone = self._begun[channel], not self._busy[channel]
        self._busy[channel] += 1
        self._writing += 1
        try:
            acts = await self._store.commit(change)
        finally:
            self._busy[channel] -= 1
            self._writing -= 1
            self._written += 1
        if not alone or begun != self._begun[channel]:
            counts = opened = None  # another one changed them too
        if negotiation:
            _remember(self._negotiations, negotiation.pid, negotiation)
            if opened is not None and (before or negotiation.revision == 1):
                opened += _is_open(negotiation) - (_is_open(before) if before else 0)
            else:
                opened = None
        if agreement:
            _remember(self._agreements, agreement.terms.id, agreement)
        if opened is not None:
            self._open[channel] = opened
        if counts is not None:
            for place, body in enumerate(change.outgoing, start=counts.sent + 1):
                letters.append(Letter(place, body, change.correlation_id))
            self._letters[channel] = letters
            self._counts[channel] = Counts(
                sent=counts.sent + len(change.outgoing),
                acknowledged=max(counts.acknowledged, change.acknowledged),
                received=change.received or counts.received,
            )
        return acts

    async def negotiation(self, pid: str) -> Negotiation | None:
        found = self._negotiations.get(pid)
        if found is None:
            quiet = self._quiet()
            found = await self._store.negotiation(pid)
            if found is not None and quiet():
                _remember(self._negotiations, pid, found)
        return found

    async def by_peer_pid(self, channel: Channel, peer_pid: str) -> Negotiation | None:
        return await self._store.by_peer_pid(channel, peer_pid)

    async def open_count(self, channel: Channel) -> int:
        found = self._open.get(channel)
        if found is None:
            quiet = self._quiet()
            found = await self._store.open_count(channel)
            if quiet():
                self._open[channel] = found
        return found

    async def negotiations(self, *, waiting_only: bool, limit: int) -> tuple[Negotiation, ...]:
        return await self._store.negotiations(waiting_only=waiting_only, limit=limit)

    async def agreement(self, agreement_id: str) -> StoredAgreement | None:
        found = self._agreements.get(agreement_id)
        if found is None:
            quiet = self._quiet()
            found = await self._store.agreement(agreement_id)
            if found is not None and quiet():
                _remember(self._agreements, agreement_id, found)
        return found

    async def agreements(self, *, party: Party | None, limit: int) -> tuple[StoredAgreement, ...]:
        return await self._store.agreements(party=party, limit=limit)

    async def transfer(self, pid: str) -> TransferProcess | None:
        return await self._store.transfer(pid)

    async def transfer_by_peer_pid(self, channel: Channel, peer_pid: str) -> TransferProcess | None:
        return await self._store.transfer_by_peer_pid(channel, peer_pid)

    async def open_transfers(self, channel: Channel) -> int:
        return await self._store.open_transfers(channel)

    async def transfers(
        self, *, agreement_id: str = "", open_only: bool = False, limit: int
    ) -> tuple[TransferProcess, ...]:
        return await self._store.transfers(
            agreement_id=agreement_id, open_only=open_only, limit=limit
        )

    async def unrecorded(self, *, limit: int) -> tuple[TransferProcess, ...]:
        return await self._store.unrecorded(limit=limit)

    async def recorded(self, pid: str) -> None:
        await self._store.recorded(pid)

    async def counts(self, channel: Channel) -> Counts:
        found = self._counts.get(channel)
        if found is None:
            quiet = self._quiet()
            found = await self._store.counts(channel)
            if quiet():
                self._counts[channel] = found
        return found

    async def outbox(self, channel: Channel, after: int, limit: int) -> tuple[Letter, ...]:
        counts, letters = self._counts.get(channel), self._letters.get(channel)
        if counts is not None and after >= counts.sent:
            return ()
        if counts is not None and letters and letters[0].sequence <= after + 1:
            return tuple(letter for letter in letters if letter.sequence > after)[:limit]
        return await self._store.outbox(channel, after, limit)

    async def posts(self, *, after: int = 0, pid: str = "", limit: int) -> tuple[Post, ...]:
        return await self._store.posts(after=after, pid=pid, limit=limit)

    async def post_count(self, channel: Channel) -> int:
        return await self._store.post_count(channel)

    async def pending_acts(self, channel: Channel) -> tuple[Act, ...]:
        return await self._store.pending_acts(channel)

    async def channels_with_acts(self) -> tuple[Channel, ...]:
        return await self._store.channels_with_acts()

    def _quiet(self) -> Callable[[], bool]:
        """Later says whether nothing was being written since now, so that what was read is new."""
        begun, written = self._writing, self._written
        return lambda: begun == self._writing == 0 and written == self._written


def _is_open(negotiation: Negotiation) -> int:
    return negotiation.state not in machine.FINAL


def _remember(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > MAX_RECENT:
        kept.popitem(last=False)
