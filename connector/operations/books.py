"""The books of an agreement: receipts, what they add up to, and evidence of them for others.

The counterparty's receipts are asked of the counterparty and verified before they are believed.
Where it cannot be reached, a consumer's evidence has the receipts that it was given one by one;
a provider's books stand alone and say so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from connector.errors import Conflict, ConnectorError, NotFound, PeerFault, VerificationFailed
from connector.identity.ourselves import Ourselves, log_origin
from connector.metering.meter import Meter
from connector.metering.statement import (
    Room,
    collect,
    issue_statement,
    require_room,
    scope_receipts,
)
from connector.metering.types import Recorded
from connector.model import receipt as receipts
from connector.model.negotiation import Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import (
    ActReceipt,
    DeliveryReceipt,
    Outcome,
    Quantity,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from connector.negotiation.service import Negotiations
from connector.operations.witnessing import Witnessing
from connector.ports.deliveries import DeliveryStore
from connector.ports.peers import ProviderPeer, ReceiptProof
from connector.tlog import merkle
from connector.tlog.checkpoint import parse_checkpoint, verify_checkpoint
from connector.verifier.evidence import (
    Entry,
    Evidence,
    GivenReceipt,
    LogEvidence,
    SignedAgreement,
    write_evidence,
)
from connector.verifier.totals import totals

log = structlog.get_logger()

LISTED = 100  # receipts, unless asked otherwise
MOST_LISTED = 10_000
# What both sides count for themselves.
COMPARED = (
    *(outcome.name.lower() for outcome in Outcome),
    *(
        quantity.name.lower()
        for quantity in (Quantity.CALLS, Quantity.ROWS_RETURNED, Quantity.BYTES_RETURNED)
    ),
)

_BYTES = Quantity.BYTES_RETURNED.name.lower()

REPORTED = "reported"  # uses that other systems of the provider served: its word alone
UNCOUNTED = "bytes_not_counted"  # pulled by a program that the consumer's node does not count for
CUT = (Outcome.FAILED.name.lower(), Outcome.INTERRUPTED.name.lower())


@dataclass(frozen=True, slots=True)
class Line:
    """One count of an agreement, by the provider's receipts and by the consumer's records."""

    name: str
    provider: int
    consumer: int

    @property
    def explained(self) -> bool:
        """The two agree, or differ as they may: a use that failed or was cut at the provider need
        not have reached the consumer, of reported ones it is given no receipt, and what other
        programs of the consumer's pulled its node did not count."""
        return self.provider == self.consumer or (
            self.name in (*CUT, REPORTED, UNCOUNTED) and self.provider > self.consumer
        )


class Books:
    """``history`` gives all signed membership events of a participant; ``lookup`` its record."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        space: str,
        meter: Meter,
        negotiations: Negotiations,
        peers: ProviderPeer,
        deliveries: DeliveryStore,
        witnessing: Witnessing,
        lookup: Callable[[str], Participant],
        history: Callable[[str], Awaitable[tuple[str, ...]]],
    ) -> None:
        self._ourselves = ourselves
        self._space = space
        self._meter = meter
        self._negotiations = negotiations
        self._peers = peers
        self._deliveries = deliveries
        self._witnessing = witnessing
        self._lookup = lookup
        self._history = history

    def listed(self, scope: str, limit: int) -> list[Recorded]:
        """The last receipts of a scope, or of the whole log, oldest first; without those that were
        dropped."""
        most = min(limit or LISTED, MOST_LISTED)
        if scope:
            last, _ = self._meter.last(scope)
            return self._meter.receipts(scope, max(1, last - most + 1), most, left=True)
        found = [
            recorded
            for name in self._meter.scopes()
            for recorded in self._meter.receipts(
                name, max(1, self._meter.last(name)[0] - most + 1), most, left=True
            )
        ]
        return sorted(found, key=lambda recorded: recorded.index)[-most:]

    async def proof(self, scope: str, number: int) -> ReceiptProof:
        """One receipt of ours, under the newest cosigned checkpoint if that covers it, else under
        the newest of all.

        Raises ``NotFound`` where there is no such scope or number, ``Gone`` if it was dropped.
        """
        return await asyncio.to_thread(self._proof, scope, number)

    def _proof(self, scope: str, number: int) -> ReceiptProof:
        last, _ = self._meter.last(scope)
        if not last:
            raise NotFound("the log has no receipts of this agreement")
        found = self._meter.receipts(scope, number, 1) if number else []
        if not found:
            raise NotFound(f"the agreement has no receipt of this number: the last is {last}")
        (recorded,) = found
        note, size = recorded.checkpoint, recorded.size
        cosigned = self._meter.latest_cosigned()
        if cosigned is not None and parse_checkpoint(cosigned).size > recorded.index:
            note, size = cosigned, parse_checkpoint(cosigned).size
        path = tuple(self._meter.inclusion(recorded.index, size))
        return ReceiptProof(recorded.leaf, recorded.index, path, note)

    async def reconcile(self, agreement_id: str) -> tuple[Line, ...]:
        """Both sides' counts. Raises what the counterparty answers with, ``VerificationFailed``
        if its receipts do not verify, ``NotFound``."""
        agreement = await self._negotiations.agreement(agreement_id)
        if not agreement.peer_signs:
            raise Conflict("the peer is from outside the space: it keeps no receipts to compare")
        theirs = [receipts.decode(e.leaf) for e in (await self._theirs(agreement)).entries]
        own = await asyncio.to_thread(scope_receipts, self._meter, agreement_id)
        sides = (own, theirs) if agreement.party is Party.PROVIDER else (theirs, own)
        provider, consumer = map(_counted, sides)
        if unknown := _uncounted(*sides):
            provider[_BYTES] -= unknown
            provider[UNCOUNTED] = unknown
        names = (*COMPARED, *sorted((provider.keys() | consumer.keys()) - set(COMPARED)))
        return tuple(Line(name, provider[name], consumer[name]) for name in names)

    async def evidence(self, agreement_id: str, *, disclose_secret: bool) -> bytes:
        """An evidence file (docs/evidence.md) with our books closed by a statement.

        Raises ``NotFound``, ``Conflict`` before both parties signed, and as ``Meter.record`` does.
        """
        agreement = await self._negotiations.agreement(agreement_id)
        signatures = (agreement.provider_signature, agreement.consumer_signature)
        if not all(signatures) if agreement.peer_signs else not any(signatures):
            raise Conflict("the agreement is not signed by both parties yet")
        require_room(self._meter, agreement_id)
        statement = await issue_statement(
            self._meter, agreement_id, self._ourselves.signing_key, self._ourselves.did
        )
        note = await self._cosigned(statement.index)
        own = await asyncio.to_thread(collect, self._meter, agreement_id, note)
        logs = [LogEvidence(self._ourselves.log_origin, own.checkpoint, own.entries)]
        given: tuple[ReceiptProof, ...] = ()
        try:
            if agreement.peer_signs:
                logs.append(await self._theirs(agreement))
        except ConnectorError as error:
            log.info("evidence without the counterparty's log", reason=error.message)
            given = await self._deliveries.of(agreement_id)
        return write_evidence(
            Evidence(
                space=self._space,
                exporter=self._ourselves.did,
                members=await self._members(agreement),
                agreement=SignedAgreement(
                    agreement.terms.document,
                    agreement.provider_signature,
                    agreement.consumer_signature,
                ),
                logs=tuple(logs),
                secret=agreement.secret if disclose_secret else b"",
                given=tuple(
                    GivenReceipt(proof.checkpoint, Entry(proof.index, proof.leaf, proof.inclusion))
                    for proof in given
                ),
            )
        )

    async def _cosigned(self, index: int) -> bytes | None:
        """A checkpoint over the leaf ``index`` that the directory cosigned, if it can be had."""
        try:
            await self._witnessing.catch_up()
        except ConnectorError as error:
            log.warning("evidence without a witness", reason=error.message)
        note = self._meter.latest_cosigned(log_origin(self._space))
        return note if note is not None and parse_checkpoint(note).size > index else None

    async def _members(self, agreement: StoredAgreement) -> tuple[str, ...]:
        events: Sequence[str] = ()
        for did in (self._space, agreement.terms.assigner, agreement.terms.assignee):
            events = (*events, *await self._history(did))
        return tuple(events)

    async def _theirs(self, agreement: StoredAgreement) -> LogEvidence:
        """The counterparty's receipts of the agreement, verified under one checkpoint of its."""
        peer = self._lookup(agreement.peer)
        scope = agreement.terms.id
        page, note = await self._peers.receipts(peer.did, scope, 1, 0)
        checkpoint = verify_checkpoint(note, peer.log_origin, peer.signing_keys)
        entries: list[Entry] = []
        room = Room()
        while page:
            for proof in page:
                merkle.verify_inclusion(
                    merkle.leaf_hash(proof.leaf),
                    proof.index,
                    checkpoint.size,
                    proof.inclusion,
                    checkpoint.root,
                )
                _require_next(receipts.decode(proof.leaf), scope, len(entries) + 1)
                entries.append(Entry(proof.index, proof.leaf, proof.inclusion))
                room.take(entries[-1])
            page, _ = await self._peers.receipts(peer.did, scope, len(entries) + 1, checkpoint.size)
        if not entries:
            raise PeerFault("the counterparty shows no receipts of the agreement")
        return LogEvidence(peer.log_origin, note, tuple(entries))


def _counted(found: Sequence[Receipt]) -> Counter[str]:
    """What ``COMPARED`` names, and ``refused: TERM`` for each term that refused a use.

    Of uses that passed the gate; ``REPORTED`` counts the others, if there are any.
    """
    sums = totals(receipt for receipt in found if not isinstance(receipt, RecordReceipt))
    counted = Counter({name: sums[name] for name in COMPARED})
    for receipt in found:
        if isinstance(receipt, RecordReceipt):
            counted[REPORTED] += receipt.calls
        elif not isinstance(receipt, ActReceipt) and receipt.outcome is Outcome.REFUSED:
            counted.update({f"refused: {reason.term}" for reason in receipt.reasons})
    return counted


def _uncounted(uses: Sequence[Receipt], deliveries: Sequence[Receipt]) -> int:
    """Bytes of the uses of which the consumer's record gives no count of bytes."""
    silent = {
        receipt.use_id
        for receipt in deliveries
        if isinstance(receipt, DeliveryReceipt)
        and receipt.outcome is Outcome.ALLOWED
        and Quantity.BYTES_RETURNED not in receipt.quantities
    }
    return sum(
        receipt.quantities.get(Quantity.BYTES_RETURNED, 0)
        for receipt in uses
        if isinstance(receipt, UseReceipt) and receipt.use_id in silent
    )


def _require_next(receipt: Receipt, scope: str, number: int) -> None:
    if (receipt.scope, receipt.number) != (scope, number):
        raise VerificationFailed("the counterparty left out a receipt")
