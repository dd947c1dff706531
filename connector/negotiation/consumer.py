"""The consumer's side: what to ask for, what to do with a provider's message.

Every method gives a ``Draft`` and saves nothing. What a provider sends is believed only after
``agreements.verify``. Terms that this connector does not understand are never accepted, neither
by a rule nor by a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    InvalidInput,
    NotFound,
    PeerFault,
    Refused,
    Unavailable,
)
from connector.identity.datasets import read_dataset
from connector.identity.ourselves import Ourselves
from connector.model.catalog import Dataset, parse_dataset
from connector.model.negotiation import (
    Channel,
    Message,
    MessageType,
    Negotiation,
    Party,
    State,
    StoredAgreement,
)
from connector.model.participant import Participant, unb64url
from connector.model.terms import Offer, Terms, parse_offer
from connector.negotiation import agreements, machine
from connector.negotiation.automation import Automation
from connector.negotiation.draft import Draft, explain
from connector.negotiation.messages import offer_bytes
from connector.policy.constraints import check_terms
from connector.ports.clock import Clock
from connector.ports.negotiation import NegotiationStore

log = structlog.get_logger()
FetchDataset = Callable[[str, str], Awaitable[str]]


class Consumer:
    """``lookup`` gives the directory's record of an active member or raises; ``fetch`` asks a
    provider (DID) for the publisher's JWS of a dataset (id)."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        space: str,
        store: NegotiationStore,
        lookup: Callable[[str], Participant],
        fetch: FetchDataset,
        clock: Clock,
        automation: Automation,
    ) -> None:
        self._ourselves = ourselves
        self._space = space
        self._store = store
        self._lookup = lookup
        self._fetch = fetch
        self._clock = clock
        self._automation = automation

    async def request(
        self,
        provider: str,
        dataset_id: str,
        *,
        offer_id: str = "",
        terms: Terms | None = None,
        accept_offers: bool = False,
    ) -> Draft:
        """Ask for an offer of the dataset (its first, if none is named) as it stands, or with
        other ``terms``.

        Raises ``NotFound`` (no such dataset or offer), ``Refused`` (terms that we do not
        understand), ``VerificationFailed``, or what ``lookup`` and ``fetch`` raise.
        """
        record = await self._fetch(provider, dataset_id)
        dataset = self._verified_dataset(provider, dataset_id, record)
        offers = [offer for offer in dataset.offers if offer_id in ("", offer.id)]
        if not offers:
            raise NotFound("the dataset has no such offer", hint="look at the catalogue again")
        offer = offers[0] if terms is None else _with_terms(offers[0], terms)
        _require_understood(offer)
        draft = Draft(Channel(provider, Party.CONSUMER))
        draft.begin(
            Party.CONSUMER,
            MessageType.REQUEST,
            pid=agreements.new_id(),
            dataset=dataset_id,
            offer=offer_bytes(offer),
            accept_offers=accept_offers,
            dataset_record=record,
        )
        return draft

    async def accept(self, negotiation: Negotiation) -> Draft:
        """A person's word for the next step: accept the provider's offer, or sign its agreement.

        Raises ``Conflict`` where nothing is the consumer's to accept, ``Refused`` if the offer
        has terms that we do not understand, or what ``fetch`` raises.
        """
        draft = Draft(negotiation.channel, negotiation)
        if negotiation.state is State.AGREED:
            draft.keep(await self._held(negotiation))
            self._sign(draft)
        elif negotiation.state is State.OFFERED:
            _require_understood(parse_offer(negotiation.offer))
            await self._know_dataset(draft)
            draft.send(MessageType.ACCEPTED)
        else:
            raise Conflict(f"there is nothing to accept in {negotiation.state}")
        return draft

    async def counter(self, negotiation: Negotiation, terms: Terms) -> Draft:
        """Answer the provider's offer with a request of other terms. Raises as ``accept``."""
        offer = _with_terms(parse_offer(negotiation.offer), terms)
        _require_understood(offer)
        draft = Draft(negotiation.channel, negotiation)
        await self._know_dataset(draft)
        draft.send(MessageType.REQUEST, offer=offer_bytes(offer))
        return draft

    async def take(
        self, channel: Channel, negotiation: Negotiation | None, message: Message
    ) -> Draft:
        """A provider's message; ``negotiation`` is None for an offer that starts one.

        Raises what it is refused for; then nothing has changed.
        """
        draft = Draft(channel, negotiation)
        if negotiation is None:
            offer = self._offered(channel, message)
            draft.begin(
                Party.PROVIDER,
                message.type,
                pid=agreements.new_id(),
                peer_pid=message.provider_pid,
                dataset=offer.target,
                offer=message.offer,
            )
            draft.wait("approval", explain(check_terms(offer.terms)))
            return draft
        late = machine.overtaken(Party.CONSUMER, negotiation.state, negotiation.left, message.type)
        if late:
            draft.note(state=negotiation.left)
        draft.take(message.type)
        draft.note(peer_pid=message.provider_pid)
        match message.type:
            case MessageType.OFFER:
                offer = self._offered(channel, message)
                if offer.target != negotiation.dataset:
                    raise InvalidInput("offer: for another dataset than this negotiation's")
                draft.note(offer=message.offer)
                problems = check_terms(offer.terms)
                if negotiation.accept_offers and not problems:
                    draft.send(MessageType.ACCEPTED)
                else:
                    draft.wait("approval", explain(problems))
            case MessageType.AGREEMENT:
                await self._agreed(draft, message)
            case MessageType.FINALIZED:
                await self._finalized(draft, negotiation, late=late)
            case MessageType.TERMINATION:
                draft.note(code=message.code, reason=message.reason)
        return draft

    def _offered(self, channel: Channel, message: Message) -> Offer:
        offer = parse_offer(message.offer)
        if offer.assigner != channel.peer:
            raise InvalidInput("offer: its assigner is not its sender")
        return offer

    async def _agreed(self, draft: Draft, message: Message) -> None:
        """An agreement that is not what was negotiated ends the negotiation."""
        try:
            agreement = agreements.verify(
                message,
                draft.negotiation,
                parse_offer(draft.negotiation.offer),
                ourselves=self._ourselves,
                provider=self._lookup(draft.channel.peer),
                dataset=_stored_dataset(draft.negotiation),
                space=self._space,
                now=self._clock.now(),
            )
            if await self._store.agreement(agreement.terms.id) is not None:
                raise PeerFault("agreement: its id is taken")
        except Unavailable:
            raise
        except ConnectorError as error:
            log.warning("an agreement was refused", peer=draft.channel.peer, reason=error.message)
            draft.terminate("agreement", error.message)
            return
        draft.note(agreement_id=agreement.terms.id)
        draft.agreement = agreement
        if self._automation.verify:
            self._sign(draft)
        else:
            draft.wait()

    def _sign(self, draft: Draft) -> None:
        signature = agreements.countersign(self._ourselves, draft.kept.terms)
        draft.amend(consumer_signature=signature)
        draft.send(MessageType.VERIFICATION, signature=signature)

    async def _finalized(self, draft: Draft, negotiation: Negotiation, *, late: bool) -> None:
        """In force; and where our termination came too late, ended at once."""
        now = self._clock.now()
        draft.keep(await self._held(negotiation))
        draft.conclude(agreements.concluded(self._ourselves, draft.kept, now))
        if late:
            reason = negotiation.reason
            act = agreements.ended(self._ourselves, draft.kept, reason, now)
            draft.end(act, reason, tell=True)

    async def _held(self, negotiation: Negotiation) -> StoredAgreement:
        agreement = await self._store.agreement(negotiation.agreement_id)
        if agreement is None:
            raise InternalError("the negotiation has no agreement")
        return agreement

    async def _know_dataset(self, draft: Draft) -> None:
        """What an agreement will be checked against; missing where the provider began."""
        negotiation = draft.negotiation
        if not negotiation.dataset_record:
            record = await self._fetch(negotiation.peer, negotiation.dataset)
            self._verified_dataset(negotiation.peer, negotiation.dataset, record)
            draft.note(dataset_record=record)

    def _verified_dataset(self, provider: str, dataset_id: str, record: str) -> Dataset:
        dataset = read_dataset(record, self._lookup(provider).signing_keys)
        if (dataset.id, dataset.publisher) != (dataset_id, provider):
            raise PeerFault("the provider sent another dataset than the one asked for")
        return dataset


def _stored_dataset(negotiation: Negotiation) -> Dataset:
    """From our own store, where its JWS was put after the signature was verified."""
    return parse_dataset(unb64url(negotiation.dataset_record.split(".")[1]))


def _with_terms(offer: Offer, terms: Terms) -> Offer:
    return Offer(offer.id, offer.target, offer.assigner, terms)


def _require_understood(offer: Offer) -> None:
    if problems := check_terms(offer.terms):
        raise Refused(problems, hint="these terms mean nothing here, so they are not accepted")
