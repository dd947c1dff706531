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
from connector.model.catalog import Dataset, parse_dataset, parse_offers
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
from connector.model.terms import Offer, Terms
from connector.negotiation import agreements, machine
from connector.negotiation.automation import Automation
from connector.negotiation.draft import Draft, explain
from connector.negotiation.messages import offer_bytes, read_offer
from connector.policy.constraints import check_terms
from connector.ports.clock import Clock
from connector.ports.negotiation import NegotiationStore

log = structlog.get_logger()
FetchDataset = Callable[[str, str], Awaitable[str]]


class Consumer:
    """``lookup`` gives the directory's record of an active member or raises; ``fetch`` asks a
    provider (DID) for the publisher's JWS of a dataset (id), or one that signs nothing for the
    dataset's JSON (``model.catalog.parse_offers``)."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        space: str,
        store: NegotiationStore,
        lookup: Callable[[str], Participant],
        fetch: FetchDataset,
        is_scope: Callable[[str], bool],
        address: Callable[[str], Awaitable[str]],
        clock: Clock,
        automation: Automation,
    ) -> None:
        self._ourselves = ourselves
        self._space = space
        self._store = store
        self._lookup = lookup
        self._fetch = fetch
        self._is_scope = is_scope
        self._address = address
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
        accept_unenforced: bool = False,
    ) -> Draft:
        """Ask for an offer of the dataset (its first, if none is named) as it stands, or with
        other ``terms``. A provider that signs nothing is not asked for what is said here already.

        Raises ``NotFound`` (no such dataset or offer), ``Refused`` (terms that we do not
        understand), ``VerificationFailed``, or what ``lookup`` and ``fetch`` raise.
        """
        signs = self._lookup(provider).signs
        record = ""
        if offer_id and terms is not None and not signs:
            offer = Offer(offer_id, dataset_id, provider, terms)
        else:
            record = await self._fetch(provider, dataset_id)
            if signs:
                offers = self._verified_dataset(provider, dataset_id, record).offers
            else:
                offers = parse_offers(record.encode(), dataset_id, provider)
            found = next((offer for offer in offers if offer_id in ("", offer.id)), None)
            if found is None:
                raise NotFound("the dataset has no such offer", hint="look at the catalogue again")
            offer = found if terms is None else _with_terms(found, terms)
        if not accept_unenforced:
            _require_understood(offer)
        draft = Draft(Channel(provider, Party.CONSUMER))
        draft.begin(
            Party.CONSUMER,
            MessageType.REQUEST,
            pid=agreements.new_id(),
            dataset=dataset_id,
            offer=offer_bytes(offer),
            accept_offers=accept_offers,
            accept_unenforced=accept_unenforced,
            dataset_record=record if signs else "",
            address=await self._address(provider),
        )
        return draft

    async def accept(self, negotiation: Negotiation, *, accept_unenforced: bool = False) -> Draft:
        """A person's word for the next step: accept the provider's offer, or sign its agreement.

        Raises ``Conflict`` where nothing is the consumer's to accept, ``Refused`` if the offer
        has terms that we do not understand, or what ``fetch`` raises.
        """
        draft = Draft(negotiation.channel, negotiation)
        if negotiation.state is State.AGREED:
            draft.keep(await self._held(negotiation))
            self._sign(draft)
        elif negotiation.state is State.OFFERED:
            if not (accept_unenforced or negotiation.accept_unenforced):
                _require_understood(read_offer(negotiation.offer))
            await self._know_dataset(draft)
            draft.send(MessageType.ACCEPTED)
        else:
            raise Conflict(f"there is nothing to accept in {negotiation.state}")
        return draft

    async def counter(self, negotiation: Negotiation, terms: Terms) -> Draft:
        """Answer the provider's offer with a request of other terms. Raises as ``accept``."""
        offer = _with_terms(read_offer(negotiation.offer), terms)
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
                address=message.callback,
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
                if negotiation.accept_offers and (negotiation.accept_unenforced or not problems):
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
        offer = read_offer(message.offer)
        if offer.assigner != channel.peer:
            raise InvalidInput("offer: its assigner is not its sender")
        return offer

    async def _agreed(self, draft: Draft, message: Message) -> None:
        """An agreement that is not what was negotiated ends the negotiation."""
        provider = self._lookup(draft.channel.peer)
        try:
            agreement = agreements.verify(
                message,
                draft.negotiation,
                read_offer(draft.negotiation.offer),
                ourselves=self._ourselves,
                provider=provider,
                dataset=_stored_dataset(draft.negotiation) if provider.signs else None,
                space=self._space,
                now=self._clock.now(),
            )
            name = agreement.terms.id
            if await self._store.agreement(name) is not None or self._is_scope(name):
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
        # One that signs nothing has no use for it.
        shared = signature if draft.kept.peer_signs else ""
        draft.send(MessageType.VERIFICATION, signature=shared)

    async def _finalized(self, draft: Draft, negotiation: Negotiation, *, late: bool) -> None:
        """In force; and where our termination came too late, ended at once."""
        now = self._clock.now()
        draft.keep(await self._held(negotiation))
        draft.conclude(agreements.concluded(self._ourselves, draft.kept, now))
        if late:
            reason = negotiation.reason
            act = agreements.ended(self._ourselves, draft.kept, reason, now)
            draft.end(act, reason, tell=draft.kept.peer_signs)

    async def _held(self, negotiation: Negotiation) -> StoredAgreement:
        agreement = await self._store.agreement(negotiation.agreement_id)
        if agreement is None:
            raise InternalError("the negotiation has no agreement")
        return agreement

    async def _know_dataset(self, draft: Draft) -> None:
        """What an agreement will be checked against; missing where the provider began."""
        negotiation = draft.negotiation
        if not negotiation.dataset_record and self._lookup(negotiation.peer).signs:
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
