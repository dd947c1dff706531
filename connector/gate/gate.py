"""The gate: the way of one use, from the request to the released result.

    find -> describe -> decide -> reserve -> run -> record -> release

* A use that was recorded before gives the same receipt again, and for a while the same result.
* The policy is asked once; the allowance is checked again where it is reserved, atomically, so
  that uses in parallel cannot overshoot together.
* What is counted is reserved durably before anything runs, and the receipt is durable under a
  signed checkpoint before the first byte of the result is released.
* A refusal takes the same way and leaves a receipt with its reasons. It shows nothing of the
  data: reasons come from the request, the contract or the counters.

Everything fails closed: no policy answer, no agreement, no durable receipt, no result.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    InvalidInput,
    NotFound,
    RateLimited,
    Reason,
    Refused,
    Unavailable,
)
from connector.gate.deciding import (
    NOT_OFFERED,
    UNKNOWN_AGREEMENT,
    decide,
    exhausted,
    reservation_of,
)
from connector.gate.describe import describe
from connector.gate.plan import Plan
from connector.gate.results import KeptResults
from connector.metering.meter import Meter
from connector.metering.refusals import RefusalLimiter
from connector.metering.types import Claim, Recorded, Reservation, UseDraft
from connector.model.negotiation import Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import MAX_USE_ID, Outcome, Quantity, UseReceipt
from connector.model.use import MAX_REQUEST_BYTES, Counters, Decision, Use
from connector.negotiation.service import Negotiations
from connector.policy import inputs
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore, PublishedDataset
from connector.ports.peers import ReceiptProof
from connector.ports.policy import PolicyEngine
from connector.ports.query import QueryEngine, QueryResult

log = structlog.get_logger()

MAX_PURPOSE = 256
ENDED = Reason("agreement", "ended while the use ran", "an agreement in force")
WENT_AWAY = Reason("caller", "went away while the use ran", "a caller that waits")
UNRECORDED = Reason("log", "the provider could not record the use in time", "a new use")


@dataclass(frozen=True, slots=True)
class Released:
    """What leaves the gate. ``result`` is an Arrow IPC stream; empty where there is none."""

    receipt: UseReceipt
    proof: ReceiptProof
    result: bytes


@dataclass(eq=False, slots=True)
class _Running:
    """A use that runs now. ``stopped`` is set, before its task is cancelled, by who stops it;
    ``settled`` when it has its receipt, or cannot have one."""

    agreement_id: str
    task: asyncio.Task[QueryResult]
    stopped: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Gate:
    """One provider's gate; used from its event loop alone.

    ``folder`` holds the prepared rows; ``member`` gives the record of an active member;
    ``observe`` is told of each receipt; ``most_waiting`` uses may be inside at once, and half as
    many of one member.
    """

    did: str
    negotiations: Negotiations
    datasets: DatasetStore
    engine: PolicyEngine
    meter: Meter
    queries: QueryEngine
    refusals: RefusalLimiter
    results: KeptResults
    clock: Clock
    folder: Path
    member: Callable[[str], Participant]
    observe: Callable[[UseReceipt], None]
    most_waiting: int
    _inside: set[tuple[str, str, str]] = field(default_factory=set)
    _ending: set[tuple[str, str, str]] = field(default_factory=set)
    _running: set[_Running] = field(default_factory=set)
    _owed: dict[tuple[str, str], UseDraft] = field(default_factory=dict)

    async def use(self, use: Use) -> Released:
        """One use of an agreement; allowed, refused and failed ones alike leave a receipt.

        Raises ``InvalidInput`` for what is no use at all, ``Conflict`` while the same use runs,
        ``RateLimited`` for a member that is refused too often, and ``Unavailable`` when no
        receipt can be had: then nothing is released.
        """
        _check(use)
        with self._entered(use):
            agreement = await self._agreement(use)
            reservation = _reservation(self.did, use, agreement, self.engine.digest)
            await self._pay_owed(reservation.scope)
            found = self.meter.find(reservation.scope, use.use_id)
            if found is not None:
                return self._again(found, reservation)
            return await self._first_time(use, agreement, reservation)

    async def stop(self, agreement_id: str) -> int:
        """Stop the agreement's running uses, because it ends; how many there were.

        On return each has its receipt. A use that is still being decided will not run.
        """
        self._ending |= {key for key in self._inside if key[1] == agreement_id}
        running = [one for one in self._running if one.agreement_id == agreement_id]
        for one in running:
            one.stopped = True
            one.task.cancel()
        for one in running:
            await one.settled.wait()
        return len(running)

    async def _agreement(self, use: Use) -> StoredAgreement | None:
        """The agreement, if it is this consumer's; if it is not, it might as well not be there."""
        try:
            found = await self.negotiations.agreement(use.agreement_id)
        except NotFound:
            return None
        return found if (found.party, found.peer) == (Party.PROVIDER, use.consumer) else None

    async def _first_time(
        self, use: Use, agreement: StoredAgreement | None, reservation: Reservation
    ) -> Released:
        if agreement is None:
            return await self._refuse(reservation, (UNKNOWN_AGREEMENT,))
        published = await self.datasets.get(agreement.terms.target)
        if published is None:
            return await self._refuse(reservation, (NOT_OFFERED,))
        try:
            # Hostile text can take a tenth of a second: others must not wait for it.
            plan = await asyncio.to_thread(describe, use.query, published.dataset)
        except Refused as refusal:
            return await self._refuse(reservation, refusal.reasons)
        counters = self.meter.counters(reservation.scope)
        decision = await self._decide(use, agreement, published, plan, counters)
        if not decision.allow:
            return await self._refuse(reservation, decision.reasons)
        claimed = (await self.meter.reserve([reservation]))[0]
        match claimed.claim:
            case Claim.GRANTED:
                return await self._run(agreement, published, plan, decision, reservation)
            case Claim.EXHAUSTED:
                return await self._refuse(reservation, (exhausted(reservation, claimed.counters),))
            case Claim.DONE if claimed.recorded is not None:
                return self._again(claimed.recorded, reservation)
        raise Conflict("this use is running now", hint="ask again for its receipt in a moment")

    async def _decide(
        self,
        use: Use,
        agreement: StoredAgreement,
        published: PublishedDataset,
        plan: Plan,
        counters: Counters,
    ) -> Decision:
        document = inputs.usage_input(
            now=use.received_at,
            agreement=agreement.terms,
            state=agreement.state.value,
            provider=self.did,
            consumer=self.member(use.consumer),
            dataset=published.dataset,
            purpose=use.purpose,
            description=plan.description,
            counters=counters,
        )
        return await decide(self.engine, document)

    async def _run(
        self,
        agreement: StoredAgreement,
        published: PublishedDataset,
        plan: Plan,
        decision: Decision,
        reservation: Reservation,
    ) -> Released:
        """Run what is reserved. However it ends, it ends the reservation with a receipt."""
        if (reservation.consumer, reservation.scope, reservation.use_id) in self._ending:
            return await self._settle(reservation, Outcome.INTERRUPTED, reasons=(ENDED,))
        database = self.folder / published.database
        task = asyncio.create_task(self.queries.run(plan, decision.obligations, database))
        running = _Running(agreement.terms.id, task)
        self._running.add(running)
        try:
            return await self._finish(running, agreement, reservation)
        finally:
            self._running.discard(running)
            running.settled.set()

    async def _finish(
        self, running: _Running, agreement: StoredAgreement, reservation: Reservation
    ) -> Released:
        try:
            result = await running.task
        except asyncio.CancelledError:
            reason = ENDED if running.stopped else WENT_AWAY
            interrupted = await asyncio.shield(
                self._settle(reservation, Outcome.INTERRUPTED, reasons=(reason,))
            )
            if not running.stopped:
                raise
            return interrupted
        except Refused as refusal:
            return await self._settle(reservation, Outcome.REFUSED, reasons=refusal.reasons)
        except ConnectorError as error:
            log.warning("a query failed", code=error.code, reason=error.message)
            reason = Reason("query", error.message, "a query that ends within the node's limits")
            return await self._settle(reservation, Outcome.FAILED, reasons=(reason,))
        except Exception as error:
            log.exception("a query failed", error=type(error).__name__)
            reason = Reason("query", "the provider failed", "a query that ends")
            return await self._settle(reservation, Outcome.FAILED, reasons=(reason,))
        settling = self._settle(
            reservation,
            Outcome.ALLOWED,
            result=result.arrow,
            digest=hmac.digest(agreement.secret, result.arrow, "sha256"),
            quantities={
                Quantity.CALLS: 1,
                Quantity.ROWS_SCANNED: result.rows_scanned,
                Quantity.ROWS_RETURNED: result.rows_returned,
                Quantity.BYTES_RETURNED: len(result.arrow),
                Quantity.DURATION_MS: result.duration_ms,
                Quantity.GROUPS_WITHHELD: result.groups_withheld,
                Quantity.CELLS_WITHHELD: result.cells_withheld,
            },
        )
        return await asyncio.shield(settling)  # it counts from here on, whoever waits for it

    async def _settle(
        self,
        reservation: Reservation,
        outcome: Outcome,
        *,
        result: bytes = b"",
        digest: bytes = b"",
        quantities: dict[Quantity, int] | None = None,
        reasons: tuple[Reason, ...] = (),
    ) -> Released:
        draft = reservation.settle(
            outcome, result_digest=digest, quantities=quantities, reasons=reasons
        )
        try:
            recorded = (await self.meter.record([draft]))[0]
        except ConnectorError:
            unreleased = reservation.settle(Outcome.INTERRUPTED, reasons=(UNRECORDED,))
            owed = unreleased if outcome is Outcome.ALLOWED else draft
            self._owed[reservation.scope, reservation.use_id] = owed
            raise
        if outcome is Outcome.ALLOWED:
            now = self.clock.monotonic()
            self.results.keep(reservation.scope, reservation.use_id, result, now)
        return self._released(recorded, result)

    async def _pay_owed(self, scope: str) -> None:
        """Write the receipts of this scope that could not be written (a full disk) when their uses
        ended: nothing was released, and the allowance gets them back. Raises as ``record``."""
        owed = [key for key in self._owed if key[0] == scope]
        for key in owed:
            draft = self._owed.pop(key, None)
            if draft is None:  # another use of the scope writes it now
                continue
            try:
                await self.meter.record([draft])
            except ConnectorError:
                self._owed[key] = draft
                raise

    async def _refuse(self, reservation: Reservation, reasons: tuple[Reason, ...]) -> Released:
        """A receipt for a refusal that reserved nothing."""
        self.refusals.take(reservation.consumer)
        draft = replace(reservation.settle(Outcome.REFUSED, reasons=reasons), settles=False)
        recorded = (await self.meter.record([draft]))[0]
        return self._released(recorded, b"")

    def _again(self, recorded: Recorded, asked: Reservation) -> Released:
        """The answer that this use was given before."""
        receipt = recorded.receipt
        if (
            not isinstance(receipt, UseReceipt)
            or receipt.purpose != asked.purpose
            or not hmac.compare_digest(receipt.request_digest, asked.request_digest)
        ):
            raise Conflict("this use_id belongs to another request")
        now = self.clock.monotonic()
        result = self.results.find(receipt.scope, receipt.use_id, now)
        return Released(receipt, _proof(recorded), result or b"")

    def _released(self, recorded: Recorded, result: bytes) -> Released:
        receipt = recorded.receipt
        if not isinstance(receipt, UseReceipt):
            raise InternalError("a use left something that is no receipt of a use")
        self.observe(receipt)
        return Released(receipt, _proof(recorded), result)

    @contextmanager
    def _entered(self, use: Use) -> Iterator[None]:
        """One at a time of the same use, and not too many of all."""
        key = (use.consumer, use.agreement_id, use.use_id)
        if key in self._inside:
            raise Conflict("this use is running now", hint="ask again for its receipt in a moment")
        if len(self._inside) >= self.most_waiting:
            raise Unavailable("too many uses wait at this node", hint="try again in a moment")
        of_this_member = sum(consumer == use.consumer for consumer, _, _ in self._inside)
        if of_this_member >= max(1, self.most_waiting // 2):
            raise RateLimited("too many uses of one member wait", hint="try again in a moment")
        self._inside.add(key)
        try:
            yield
        finally:
            self._inside.discard(key)
            self._ending.discard(key)


def _check(use: Use) -> None:
    if not 1 <= len(use.use_id) <= MAX_USE_ID or not use.use_id.isprintable():
        raise InvalidInput(f"use_id: must have 1 to {MAX_USE_ID} printable characters")
    if len(use.purpose) > MAX_PURPOSE or not 1 <= len(use.agreement_id) <= MAX_PURPOSE:
        raise InvalidInput(f"purpose and agreement_id: at most {MAX_PURPOSE} characters")
    if not 1 <= len(use.query.encode()) <= MAX_REQUEST_BYTES:
        raise InvalidInput(f"query: must have 1 to {MAX_REQUEST_BYTES} bytes")


def _reservation(
    did: str, use: Use, agreement: StoredAgreement | None, policy_digest: bytes
) -> Reservation:
    return reservation_of(
        agreement,
        use_id=use.use_id,
        provider=did,
        consumer=use.consumer,
        purpose=use.purpose,
        request=use.query.encode(),
        policy_digest=policy_digest,
    )


def _proof(recorded: Recorded) -> ReceiptProof:
    return ReceiptProof(
        recorded.leaf, recorded.index, tuple(recorded.inclusion()), recorded.checkpoint
    )
