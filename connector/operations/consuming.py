"""Using another's data: ask the provider, believe nothing, keep our own record.

What a provider sends is checked before its result is passed on, in this order:

1. the checkpoint is signed with the provider's key for the log that the agreement names;
2. the leaf is in the tree under that checkpoint;
3. the leaf is the receipt of this very use: agreement, parties, use id, purpose, request digest;
4. at the end, the result's digest is the one in the receipt.

Then our own log records what reached us. Where the data took another way (a transfer), the receipt
is asked for when the use is over, and goes through steps 1 to 3. Apart from the use, the provider's
log is watched: each new checkpoint must be consistent with the last one that we saw, and is
cosigned if it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property

import structlog

from connector.errors import (
    NotFound,
    PeerFault,
    VerificationFailed,
)
from connector.identity.ourselves import Ourselves
from connector.metering.meter import Meter
from connector.metering.types import DeliveryDraft
from connector.model import receipt as receipts
from connector.model.negotiation import Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import Outcome, Quantity, UseReceipt
from connector.negotiation.service import Negotiations
from connector.operations.arrow import rows_of
from connector.operations.logwatch import LogWatch
from connector.ports.clock import Clock
from connector.ports.deliveries import DeliveryStore
from connector.ports.peers import ProviderPeer, ReceiptProof
from connector.tlog import merkle
from connector.tlog.checkpoint import Checkpoint, verify_checkpoint

log = structlog.get_logger()

MAX_RESULT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class VerifiedUse:
    """A provider's receipt that passed checks 1 to 3, and where it is in the provider's log."""

    receipt: UseReceipt
    leaf_hash: bytes
    proof: ReceiptProof
    checkpoint: Checkpoint


class Consumer:
    """``lookup`` gives the record of an active member or raises."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        negotiations: Negotiations,
        providers: ProviderPeer,
        deliveries: DeliveryStore,
        meter: Meter,
        lookup: Callable[[str], Participant],
        clock: Clock,
    ) -> None:
        self._ourselves = ourselves
        self._negotiations = negotiations
        self._providers = providers
        self._deliveries = deliveries
        self._meter = meter
        self._lookup = lookup
        self._watch = LogWatch(ourselves, providers, deliveries, clock)

    async def use(
        self, agreement_id: str, purpose: str, query: str, use_id: str
    ) -> AsyncIterator[VerifiedUse | bytes]:
        """First the verified receipt, then the result in pieces of an Arrow IPC stream.

        Raises ``VerificationFailed`` when the provider lies: what was yielded before MUST then be
        thrown away, as the digest of a result can only be known at its end.
        """
        agreement = await self._agreement(agreement_id)
        provider = self._lookup(agreement.peer)
        self._watch.require_trusted(provider.did)
        answer = self._providers.execute(provider.did, agreement_id, purpose, query, use_id)
        async with aclosing(answer):  # type: ignore[type-var]
            first = await anext(answer, None)
            if not isinstance(first, ReceiptProof):
                raise PeerFault("the provider's answer does not begin with a receipt")
            use = _verify(first, agreement, provider, self._ourselves.did)
            _match(use.receipt, agreement, purpose, query, use_id)
            yield use
            received = _Received(
                agreement.secret, use.receipt.quantities.get(Quantity.BYTES_RETURNED, 0)
            )
            try:
                async for piece in answer:
                    if not isinstance(piece, bytes):
                        raise PeerFault("the provider sent a second receipt")
                    received.add(piece)
                    yield piece
                received.check(use.receipt)
            finally:
                await asyncio.shield(self._record(use, received))
        self._watch.saw(provider, use.proof.checkpoint)

    async def record(
        self, agreement_id: str, purpose: str, request: str, use_id: str, moved: int | None
    ) -> VerifiedUse | None:
        """Of a use that is over and whose data took another way: ask for its receipt, and enter
        our own record. ``moved``: bytes that reached this node; None where it cannot say, and then
        the record does not either. Again is the same as once.

        None: the provider has no receipt of it, or not yet. Raises what the provider answers with,
        ``VerificationFailed`` when it lies, ``NotFound``, and as ``Meter.record`` does.
        """
        agreement = await self._agreement(agreement_id)
        provider = self._lookup(agreement.peer)
        self._watch.require_trusted(provider.did)
        page, note = await self._providers.receipts(provider.did, agreement_id, 1, 0, use_id=use_id)
        if not page:
            return None
        use = _verify(replace(page[0], checkpoint=note), agreement, provider, self._ourselves.did)
        _match(use.receipt, agreement, purpose, request, use_id)
        counted = {Quantity.CALLS: 1} if use.receipt.outcome is Outcome.ALLOWED else {}
        if moved or (counted and moved is not None):
            counted[Quantity.BYTES_RETURNED] = moved
        await self._enter(use, b"", counted)
        self._watch.saw(provider, note)
        return use

    async def close(self) -> None:
        await self._watch.close()

    async def _agreement(self, agreement_id: str) -> StoredAgreement:
        found = await self._negotiations.agreement(agreement_id)
        if found.party is not Party.CONSUMER:
            raise NotFound(
                "this node holds no such agreement as a consumer",
                hint="connector agreements list shows those it holds",
            )
        return found

    async def _record(self, use: VerifiedUse, received: _Received) -> None:
        counted = {
            Quantity.CALLS: 1,
            Quantity.ROWS_RETURNED: received.rows(),
            Quantity.BYTES_RETURNED: received.size,
        }
        allowed = use.receipt.outcome is Outcome.ALLOWED
        await self._enter(use, received.digest, counted if allowed else {})

    async def _enter(
        self, use: VerifiedUse, digest: bytes, quantities: Mapping[Quantity, int]
    ) -> None:
        """Keep the provider's proof, then enter our own record in our own log."""
        await self._deliveries.keep(use.receipt.scope, use.receipt.number, use.proof)
        await self._meter.record([_delivery(use, digest, quantities)])


class _Received:
    """Our own count of a result: of ``said`` bytes by the receipt, and ``MAX_RESULT_BYTES``."""

    def __init__(self, secret: bytes, said: int) -> None:
        self._secret = secret
        self._said = said
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > MAX_RESULT_BYTES:
            raise PeerFault("the result is larger than any that we take")
        self._pieces.append(piece)
        if self.size > self._said:
            raise VerificationFailed("the result is larger than the receipt says; do not use it")

    @cached_property
    def result(self) -> bytes:
        """All that came; asked for when nothing more comes."""
        return b"".join(self._pieces)

    @cached_property
    def digest(self) -> bytes:
        return hmac.digest(self._secret, self.result, "sha256") if self.result else b""

    def check(self, receipt: UseReceipt) -> None:
        """Step 4, and that the result is no larger than it looks."""
        if receipt.result_digest and not self.size:
            raise VerificationFailed(
                "the provider sent no result with its receipt",
                hint="a use that is repeated late gets its receipt alone: use a new use_id",
            )
        if not hmac.compare_digest(self.digest, receipt.result_digest):
            raise VerificationFailed("the result is not the one in the receipt; do not use it")
        rows_of(self.result)

    def rows(self) -> int:
        """Rows in what came, as far as it can be read."""
        try:
            return rows_of(self.result)
        except PeerFault:
            return 0


def _verify(
    proof: ReceiptProof, agreement: StoredAgreement, provider: Participant, consumer: str
) -> VerifiedUse:
    """Steps 1 and 2, and that the leaf is a receipt between the two under the agreement."""
    checkpoint = verify_checkpoint(
        proof.checkpoint, agreement.terms.provider_log, provider.signing_keys
    )
    leaf_hash = merkle.leaf_hash(proof.leaf)
    merkle.verify_inclusion(
        leaf_hash, proof.index, checkpoint.size, proof.inclusion, checkpoint.root
    )
    receipt = receipts.decode(proof.leaf)
    if (
        not isinstance(receipt, UseReceipt)
        or receipt.scope not in (agreement.terms.id, consumer)
        or (receipt.provider, receipt.consumer) != (provider.did, consumer)
    ):
        raise VerificationFailed("the receipt is not of a use under this agreement")
    return VerifiedUse(receipt, leaf_hash, proof, checkpoint)


def _match(
    receipt: UseReceipt, agreement: StoredAgreement, purpose: str, query: str, use_id: str
) -> None:
    """Step 3: the receipt is of this very use."""
    if (receipt.use_id, receipt.purpose) != (use_id, purpose):
        raise VerificationFailed("the receipt is of another use")
    if receipt.scope != agreement.terms.id:
        if receipt.outcome is Outcome.ALLOWED:
            raise VerificationFailed("the provider allowed a use outside the agreement")
        return  # the provider does not know the agreement, and has no secret to key digests with
    expected = hmac.digest(agreement.secret, query.encode(), "sha256")
    if not hmac.compare_digest(receipt.request_digest, expected):
        raise VerificationFailed("the receipt is of another request")
    if receipt.agreement_digest != hashlib.sha256(agreement.terms.document).digest():
        raise VerificationFailed("the receipt is under other terms than those we signed")


def _delivery(use: VerifiedUse, digest: bytes, quantities: Mapping[Quantity, int]) -> DeliveryDraft:
    return DeliveryDraft(
        scope=use.receipt.scope,
        use_id=use.receipt.use_id,
        provider=use.receipt.provider,
        consumer=use.receipt.consumer,
        outcome=use.receipt.outcome,
        origin=use.checkpoint.origin,
        leaf_hash=use.leaf_hash,
        leaf_index=use.proof.index,
        tree_size=use.checkpoint.size,
        result_digest=digest,
        quantities=quantities,
        reasons=use.receipt.reasons,
    )
