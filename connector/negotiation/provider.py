"""The provider's side: what to do with a consumer's message, and what its people may decide.

Every method gives a ``Draft`` and saves nothing. The space's and the owner's policy judges each
request (``dataspace/negotiation/decision``): approve, ask a person, or refuse. It judges a
person's decision too: nobody at this node may agree to what the policy refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from connector.errors import Conflict, InternalError, InvalidInput, NotFound, Refused, Unavailable
from connector.identity.ourselves import Ourselves
from connector.identity.statements import verify_document
from connector.model.negotiation import (
    Channel,
    Message,
    MessageType,
    Negotiation,
    Party,
    State,
    StoredAgreement,
)
from connector.model.participant import Participant
from connector.model.terms import Offer, Terms
from connector.negotiation import agreements
from connector.negotiation.automation import Automation
from connector.negotiation.draft import Draft, explain
from connector.negotiation.messages import offer_bytes, read_offer
from connector.policy import inputs
from connector.policy.constraints import check_terms
from connector.policy.decisions import NEGOTIATION, Answer, Outcome, read_negotiation
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore, PublishedDataset
from connector.ports.negotiation import NegotiationStore
from connector.ports.policy import PolicyEngine


class Provider:
    """``lookup`` gives the directory's record of an active member or raises; ``space`` is the
    identifier of the data space, which agreements name."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        space: str,
        store: NegotiationStore,
        datasets: DatasetStore,
        engine: PolicyEngine,
        lookup: Callable[[str], Participant],
        address: Callable[[str], Awaitable[str]],
        clock: Clock,
        automation: Automation,
    ) -> None:
        self._ourselves = ourselves
        self._space = space
        self._store = store
        self._datasets = datasets
        self._engine = engine
        self._lookup = lookup
        self._address = address
        self._clock = clock
        self._automation = automation

    async def take(
        self, channel: Channel, negotiation: Negotiation | None, message: Message
    ) -> Draft:
        """A consumer's message; ``negotiation`` is None for a first request.

        Raises what it is refused for; then nothing has changed.
        """
        draft = Draft(channel, negotiation)
        if negotiation is None:
            offer = read_offer(message.offer)
            draft.begin(
                Party.CONSUMER,
                message.type,
                pid=agreements.new_id(),
                peer_pid=message.consumer_pid,
                dataset=offer.target,
                offer=message.offer,
                address=message.callback,
            )
            await self._consider(draft, offer)
            return draft
        draft.take(message.type)
        draft.note(peer_pid=message.consumer_pid)
        match message.type:
            case MessageType.REQUEST:
                offer = read_offer(message.offer)
                if offer.target != negotiation.dataset:
                    raise InvalidInput("offer: for another dataset than this negotiation's")
                draft.note(offer=message.offer)
                await self._consider(draft, offer)
            case MessageType.ACCEPTED:
                if self._automation.agree:
                    await self._agree(draft)
                else:
                    draft.wait()
            case MessageType.VERIFICATION:
                await self._verified(draft, message)
            case MessageType.TERMINATION:
                draft.note(code=message.code, reason=message.reason)
        return draft

    async def propose(self, consumer: str, dataset_id: str, terms: Terms | None) -> Draft:
        """Start with an offer of ours: the dataset's first, or one with other ``terms``.

        Raises ``NotFound``, ``Refused`` (by policy) or what ``lookup`` raises.
        """
        published = await self._published(dataset_id)
        offer = _first_offer(published) if terms is None else self._offer(dataset_id, terms)
        await self._require_allowed(consumer, published, _first_offer(published), offer)
        draft = Draft(Channel(consumer, Party.PROVIDER))
        draft.begin(
            Party.PROVIDER,
            MessageType.OFFER,
            pid=agreements.new_id(),
            dataset=dataset_id,
            offer=offer_bytes(offer),
            address=await self._address(consumer),
        )
        return draft

    async def approve(self, negotiation: Negotiation) -> Draft:
        """A person's word for the next step: agree to what is on the table, or finalize.

        Raises ``Conflict`` in a state where nothing is the provider's to approve, ``Refused`` if
        the policy forbids it, ``Unavailable`` if it does not answer.
        """
        draft = Draft(negotiation.channel, negotiation)
        if negotiation.state is State.VERIFIED:
            draft.keep(await self._held(negotiation))
            self._finalize(draft)
        elif negotiation.state in (State.REQUESTED, State.ACCEPTED):
            offer = read_offer(negotiation.offer)
            published = await self._published(negotiation.dataset)
            baseline = _matching(published, offer.id) or _first_offer(published)
            await self._require_allowed(negotiation.peer, published, baseline, offer)
            await self._agree(draft)
        else:
            raise Conflict(f"there is nothing to approve in {negotiation.state}")
        return draft

    async def counter(self, negotiation: Negotiation, terms: Terms) -> Draft:
        """Offer other terms instead. Raises ``Conflict``, ``Refused`` or ``Unavailable``."""
        published = await self._published(negotiation.dataset)
        offer = self._offer(negotiation.dataset, terms)
        await self._require_allowed(negotiation.peer, published, _first_offer(published), offer)
        draft = Draft(negotiation.channel, negotiation)
        draft.send(MessageType.OFFER, offer=offer_bytes(offer))
        return draft

    async def _consider(self, draft: Draft, offer: Offer) -> None:
        """A request: the checks that need no judgement, then the policy."""
        if offer.assigner != self._ourselves.did:
            raise InvalidInput("offer: its assigner is not this provider")
        published = await self._published(offer.target)
        baseline = _matching(published, offer.id)
        if baseline is None and draft.before is not None:
            ours = read_offer(draft.before.offer)
            baseline = ours if ours.id == offer.id else None
        if baseline is None:
            raise NotFound("no such offer", hint="ask for one that the catalogue lists")
        consumer = self._lookup(draft.channel.peer)
        if not consumer.signs and agreements.restates(offer, baseline):
            offer = baseline
            draft.note(offer=offer_bytes(baseline))
        if problems := check_terms(offer.terms):
            draft.terminate("terms", explain(problems))
            return
        try:
            answer = await self._judge(consumer, published, baseline, offer)
        except Unavailable:
            draft.wait("policy", "the policy engine gave no answer; a person must decide")
            return
        match answer.outcome:
            case Outcome.APPROVE if self._automation.decide:
                await self._agree(draft)
            case Outcome.REFUSE:
                draft.terminate("policy", explain(answer.reasons))
            case _:
                draft.wait("approval", explain(answer.reasons))

    async def _judge(
        self, consumer: Participant, published: PublishedDataset, baseline: Offer, offer: Offer
    ) -> Answer:
        document = inputs.negotiation_input(
            now=self._clock.now(),
            provider=self._ourselves.did,
            consumer=consumer,
            dataset=published.dataset,
            offer=baseline.terms,
            requested=offer.terms,
            manual_approval=published.manual_approval,
        )
        return read_negotiation(await self._engine.evaluate(NEGOTIATION, document))

    async def _require_allowed(
        self, consumer: str, published: PublishedDataset, baseline: Offer, offer: Offer
    ) -> None:
        if problems := check_terms(offer.terms):
            raise Refused(problems, hint="use terms that this node can enforce")
        answer = await self._judge(self._lookup(consumer), published, baseline, offer)
        if answer.outcome is Outcome.REFUSE:
            raise Refused(answer.reasons, hint="offer terms that the policy allows")

    async def _agree(self, draft: Draft) -> None:
        """Make the agreement from the offer on the table, and sign it."""
        published = await self._published(draft.negotiation.dataset)
        consumer = self._lookup(draft.channel.peer)
        agreement = agreements.make(
            self._ourselves,
            consumer,
            draft.negotiation,
            read_offer(draft.negotiation.offer),
            dataset=published.dataset,
            dataset_record=published.record,
            space=self._space,
            now=self._clock.now(),
        )
        shared: dict[str, Any] = {}  # what a peer that signs nothing has no use for
        if consumer.signs:
            shared = {"signature": agreement.provider_signature, "secret": agreement.secret}
        draft.send(MessageType.AGREEMENT, agreement=agreement.terms.document, **shared)
        draft.note(agreement_id=agreement.terms.id)
        draft.agreement = agreement

    async def _verified(self, draft: Draft, message: Message) -> None:
        agreement = await self._held(draft.negotiation)
        consumer = self._lookup(draft.channel.peer)
        draft.keep(agreement)
        if consumer.signs:
            verify_document(
                message.signature,
                agreements.SIGNATURE_KIND,
                agreement.terms.document,
                consumer.signing_keys,
            )
            draft.amend(consumer_signature=message.signature)
        if self._automation.finalize:
            self._finalize(draft)
        else:
            draft.wait()

    def _finalize(self, draft: Draft) -> None:
        draft.send(MessageType.FINALIZED)
        draft.conclude(agreements.concluded(self._ourselves, draft.kept, self._clock.now()))

    async def _held(self, negotiation: Negotiation) -> StoredAgreement:
        agreement = await self._store.agreement(negotiation.agreement_id)
        if agreement is None:
            raise InternalError("the negotiation has no agreement")
        return agreement

    async def _published(self, dataset_id: str) -> PublishedDataset:
        published = await self._datasets.get(dataset_id)
        if published is None:
            raise NotFound("no such dataset", hint="search the catalogue")
        return published

    def _offer(self, dataset_id: str, terms: Terms) -> Offer:
        return Offer(agreements.new_id(), dataset_id, self._ourselves.did, terms)


def _matching(published: PublishedDataset, offer_id: str) -> Offer | None:
    return next((offer for offer in published.dataset.offers if offer.id == offer_id), None)


def _first_offer(published: PublishedDataset) -> Offer:
    if not published.dataset.offers:
        raise NotFound("the dataset has no offer")
    return published.dataset.offers[0]
