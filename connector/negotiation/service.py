"""Contract negotiation at one node: every door, gRPC or HTTPS, peer or person, ends here.

A message or a person's word becomes a ``Draft`` on one side (``provider``, ``consumer``), which is
saved in one write with everything it sends (``ledger``). What peers send comes in by ``inbox``.
Transfers take the same way; what people decide about them is ``Negotiations.transfers``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from connector.errors import NotFound
from connector.identity.ourselves import Ourselves
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementState,
    Channel,
    Negotiation,
    Party,
    StoredAgreement,
)
from connector.model.participant import Participant
from connector.model.terms import Terms
from connector.model.transfer import TransferProcess
from connector.negotiation import agreements
from connector.negotiation.automation import Automation
from connector.negotiation.consumer import Consumer, FetchDataset
from connector.negotiation.draft import Draft
from connector.negotiation.events import Follower
from connector.negotiation.frames import Frame
from connector.negotiation.inbox import Inbox, Mailbox
from connector.negotiation.ledger import Ledger, StopUses
from connector.negotiation.provider import Provider
from connector.negotiation.recent import RecentStore
from connector.negotiation.session import Send, Session, Streams
from connector.negotiation.transfers import Transfers
from connector.ports.clock import Clock
from connector.ports.dataplane import DataPlane
from connector.ports.datasets import DatasetStore
from connector.ports.journal import Journal
from connector.ports.negotiation import NegotiationStore, Post
from connector.ports.policy import PolicyEngine

MAX_LISTED = 1000
MAX_POSTS = 256  # read at a time


def _no_scope(_: str) -> bool:
    return False


async def _by_stream(_: str) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaborators:
    """What negotiations need of the rest of the node.

    ``lookup`` gives the directory's record of an active member (DID) or raises; ``fetch`` asks a
    provider for the publisher's JWS of a dataset; ``stop_uses`` stops the running uses of an
    agreement and says how many there were. ``journal`` may be given an act twice. ``address``
    gives the base URL of the HTTPS binding by which a peer is reached, or "" for the stream.
    ``is_scope`` says whether our log has receipts under a name, which no agreement may take then.
    """

    ourselves: Ourselves
    space: str
    store: NegotiationStore
    datasets: DatasetStore
    engine: PolicyEngine
    journal: Journal
    lookup: Callable[[str], Participant]
    fetch: FetchDataset
    stop_uses: StopUses
    dataplane: DataPlane
    clock: Clock
    is_scope: Callable[[str], bool] = _no_scope
    address: Callable[[str], Awaitable[str]] = _by_stream


class Negotiations:
    """All methods may be called at once. ``start`` MUST be awaited first.

    Methods that a person calls raise ``NotFound`` (no such process or agreement here),
    ``Conflict`` (its state does not allow it), ``Refused`` (policy, or terms that mean nothing
    here), ``RateLimited`` (the peer leaves too much open), ``Unavailable``.
    """

    def __init__(self, with_: Collaborators, automation: Automation = Automation()) -> None:  # noqa: B008  frozen
        self._ourselves = with_.ourselves
        self._clock = with_.clock
        self._store = store = RecentStore(with_.store)
        self._ledger = Ledger(
            store=store,
            journal=with_.journal,
            stop_uses=with_.stop_uses,
            clock=with_.clock,
        )
        self._provider = Provider(
            ourselves=with_.ourselves,
            space=with_.space,
            store=store,
            datasets=with_.datasets,
            engine=with_.engine,
            lookup=with_.lookup,
            address=with_.address,
            clock=with_.clock,
            automation=automation,
        )
        self._consumer = Consumer(
            ourselves=with_.ourselves,
            space=with_.space,
            store=store,
            lookup=with_.lookup,
            fetch=with_.fetch,
            is_scope=with_.is_scope,
            address=with_.address,
            clock=with_.clock,
            automation=automation,
        )
        self.transfers = Transfers(
            ledger=self._ledger,
            store=store,
            dataplane=with_.dataplane,
            automation=automation,
        )
        self._inbox = Inbox(
            ledger=self._ledger,
            store=store,
            provider=self._provider,
            consumer=self._consumer,
            transfers=self.transfers,
            lookup=with_.lookup,
        )
        self._streams = Streams()

    async def start(self) -> None:
        """Log what a crash left to be logged, and let transfers go on. Raises ``Unavailable``:
        not ready then."""
        await self._ledger.start()
        await self.transfers.begin()

    async def close(self) -> None:
        """End all streams."""
        self._ledger.events.close()
        await self.transfers.close()
        await self._streams.close()
        await self._ledger.close()

    # What a peer may do.

    async def exchange(self, channel: Channel, incoming: AsyncIterator[Frame], send: Send) -> None:
        """Run a stream with an authenticated peer until it ends (``session``).

        Raises ``Conflict`` when a newer stream of the channel took over, ``PeerFault``, and
        ``Unavailable`` (open another one later).
        """
        session = Session(Mailbox(self._inbox, self._ledger, channel), send)
        await self._streams.run(channel, session, incoming)

    @property
    def posted(self) -> asyncio.Event:
        """Set when there may be new posts."""
        return self._ledger.posted

    async def posts(self, after: int = 0) -> Sequence[Post]:
        """Messages for HTTPS bindings, the first ones beyond the number ``after``, in order. Who
        delivers them answers each with ``delivered``, ``refused`` or ``abandon``.

        Raises ``Unavailable``: ask again later.
        """
        return await self._ledger.posts(after, MAX_POSTS)

    async def delivered(self, post: Post, peer_pid: str = "") -> None:
        """The peer took it; ``peer_pid``: its process id, where its answer said so."""
        await self._inbox.delivered(post, peer_pid)

    async def refused(self, post: Post, code: str, reason: str) -> None:
        """The peer refused it for good; the process ends here, and the peer is told."""
        await self._inbox.refused(post, code, reason)

    async def abandon(self, post: Post, reason: str) -> None:
        """It could not be delivered for too long: the process ends here. What concludes or ends an
        agreement stays among the posts for the next run."""
        await self._inbox.abandon(post, reason)

    async def receive(
        self, channel: Channel, content: Content, digest: str = ""
    ) -> Negotiation | TransferProcess | None:
        """One message of an authenticated peer that came by itself, as over HTTPS. ``digest``:
        SHA-256 (hex) of what carried it, the same when it is sent again; without it, of its words,
        and then two messages with the same words are not told apart.

        Gives its process as it is now. Raises what the message is refused for.
        """
        return await self._inbox.receive(channel, content, digest)

    # What a person may do.

    async def request(
        self,
        provider: str,
        dataset_id: str,
        *,
        offer_id: str = "",
        terms: Terms | None = None,
        accept_offers: bool = False,
        accept_unenforced: bool = False,
    ) -> Negotiation:
        """As a consumer: ask for an offer of a dataset, or for other terms.

        ``accept_offers``: accept a counter-offer without asking again. ``accept_unenforced``:
        accept terms that mean nothing to this connector; keeping them is then up to people.
        """
        draft = await self._consumer.request(
            provider,
            dataset_id,
            offer_id=offer_id,
            terms=terms,
            accept_offers=accept_offers,
            accept_unenforced=accept_unenforced,
        )
        return await self._begin(draft)

    async def propose(
        self, consumer: str, dataset_id: str, terms: Terms | None = None
    ) -> Negotiation:
        """As a provider: begin with an offer to a consumer."""
        return await self._begin(await self._provider.propose(consumer, dataset_id, terms))

    async def approve(self, pid: str, *, accept_unenforced: bool = False) -> Negotiation:
        """The next step that waits for a person: a provider agrees or finalizes, a consumer
        accepts an offer or signs the agreement; ``accept_unenforced`` as in ``request``."""

        async def step(negotiation: Negotiation) -> Draft:
            if negotiation.party is Party.PROVIDER:
                return await self._provider.approve(negotiation)
            return await self._consumer.accept(negotiation, accept_unenforced=accept_unenforced)

        return await self._step(pid, step)

    async def counter(self, pid: str, terms: Terms) -> Negotiation:
        """Other terms: a provider's offer, or a consumer's request."""

        async def step(negotiation: Negotiation) -> Draft:
            if negotiation.party is Party.PROVIDER:
                return await self._provider.counter(negotiation, terms)
            return await self._consumer.counter(negotiation, terms)

        return await self._step(pid, step)

    async def terminate(self, pid: str, code: str = "", reason: str = "") -> Negotiation:
        """End a negotiation that is not final; a rejection too."""

        async def step(negotiation: Negotiation) -> Draft:
            draft = Draft(negotiation.channel, negotiation)
            draft.terminate(code or "withdrawn", reason)
            return draft

        return await self._step(pid, step)

    async def end_agreement(self, agreement_id: str, reason: str) -> int:
        """End an agreement in force: no use begins, running ones stop, our log has it, and then
        the peer is told. Returns how many uses were stopped. Again is the same as once."""
        found = await self._store.agreement(agreement_id)
        if found is None or found.state is AgreementState.PROPOSED:
            raise NotFound("no such agreement")
        async with self._ledger.turn(found.channel):
            agreement = await self._store.agreement(agreement_id) or found
            draft = Draft(agreement.channel)
            if agreement.state is AgreementState.ACTIVE:
                act = agreements.ended(self._ourselves, agreement, reason, self._clock.now())
                await self.transfers.end_all(draft, agreement_id, reason)
                draft.keep(agreement)
                draft.end(act, reason, tell=draft.kept.peer_signs)
            return await self._ledger.save(draft)

    async def negotiation(self, pid: str) -> Negotiation:
        found = await self._store.negotiation(pid)
        if found is None:
            raise NotFound("no such negotiation")
        return found

    async def negotiations(self, *, waiting_only: bool = False) -> tuple[Negotiation, ...]:
        """Newest first, ``MAX_LISTED`` at most; ``waiting_only``: that wait for a person here."""
        return await self._store.negotiations(waiting_only=waiting_only, limit=MAX_LISTED)

    def follow(self, pid: str) -> AsyncIterator[Negotiation]:
        """The negotiation now and after each change, until it is final."""
        return self._ledger.follow(pid)

    def events(self) -> Follower:
        """Every change of a negotiation or a transfer from now on. MUST be closed."""
        return self._ledger.events.follow()

    async def agreement(self, agreement_id: str) -> StoredAgreement:
        """Active or ended, and in our log. Raises ``NotFound`` or ``Unavailable``."""
        found = await self._ledger.usable(agreement_id)
        if found is None:
            raise NotFound("no such agreement")
        return found

    async def agreements(self, party: Party | None = None) -> tuple[StoredAgreement, ...]:
        """Active or ended, newest first, ``MAX_LISTED`` at most; ``party``: where we are it."""
        return await self._store.agreements(party=party, limit=MAX_LISTED)

    async def _begin(self, draft: Draft) -> Negotiation:
        async with self._ledger.turn(draft.channel):
            await self._inbox.require_few_open(draft.channel)
            await self._ledger.require_room(draft.channel, posts=bool(draft.address))
            await self._ledger.save(draft)
        return draft.negotiation

    async def _step(self, pid: str, step: Callable[[Negotiation], Awaitable[Draft]]) -> Negotiation:
        channel = (await self.negotiation(pid)).channel
        async with self._ledger.turn(channel):
            draft = await step(await self.negotiation(pid))
            await self._ledger.save(draft)
        return draft.changed or draft.negotiation
