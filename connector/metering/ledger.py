"""The meter's decisions, one group of calls at a time: check, number, encode, commit, remember.

A group is tried on a state laid over the real one; only when its one commit is durable does the
real one change. What belongs together in a call happens together or not at all, and a call that
is wrong does not disturb the others in its group.

Leaves out: queueing and threads (``meter``). One thread at a time may be in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Conflict, ConnectorError, InvalidInput, Reason
from connector.metering.reader import LogReader
from connector.metering.state import (
    State,
    decode_reservation,
    encode_reservation,
)
from connector.metering.types import (
    ActDraft,
    Claim,
    Claimed,
    DeliveryDraft,
    Draft,
    Recorded,
    Reservation,
    UseDraft,
)
from connector.model import receipt as receipts
from connector.model.receipt import (
    NO_PREVIOUS,
    SALT_BYTES,
    ActReceipt,
    DeliveryReceipt,
    Kind,
    Outcome,
    Receipt,
    UseReceipt,
)
from connector.model.use import MAX_USE_ID, Counters
from connector.ports.clock import Clock
from connector.ports.receipts import CorruptLog, LogStorage, Tip
from connector.tlog.checkpoint import sign_checkpoint

Call: TypeAlias = "tuple[Reservation, ...] | tuple[Draft, ...]"
Answer: TypeAlias = "list[Claimed] | list[Recorded] | ConnectorError"

RESTARTED = Reason("restart", "the provider's node stopped while the use ran", "a new use")
ABANDONED = Reason("caller", "the caller left before the use ran", "a new use")


@dataclass(frozen=True, slots=True)
class _Place:
    """A receipt's place, and the receipt itself if this group made it. ``counters``: set where
    the question was a reservation."""

    index: int
    receipt: Receipt | None = None
    leaf: bytes = b""
    counters: Counters | None = None


@dataclass(slots=True)
class _Group:
    """What a group will commit."""

    state: State
    records: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)


class Ledger:
    """``random`` gives that many random bytes. Reads the whole log: raises ``CorruptLog``."""

    def __init__(
        self,
        storage: LogStorage,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._storage = storage
        self._origin = origin
        self._key = key
        self._clock = clock
        self._random = random
        self.state = State()
        self.reader = LogReader(storage)
        self._replay()
        if not storage.tip.checkpoint:
            storage.append((), (), self._seal)

    def commit(self, calls: Sequence[Call]) -> list[Answer]:
        """One answer for each call, in order; one commit for all that changes anything.

        Raises ``Unavailable`` when the storage refuses: then none of the calls has happened.
        """
        group = _Group(State(self.state))
        now = int(self._clock.now().timestamp() * 1000)
        group.state.time_ms = max(now, self.state.time_ms)
        plans: list[list[Claimed | _Place] | ConnectorError] = []
        for call in calls:
            trial = _Group(State(group.state))
            try:
                plans.append([self._try(item, trial) for item in call])
            except ConnectorError as error:
                plans.append(error)
                continue
            group.state.merge(trial.state)
            group.records += trial.records
            group.leaves += trial.leaves
        if group.records or group.leaves:
            self._storage.append(group.records, group.leaves, self._seal)
            self.state.merge(group.state)
        tip = self._storage.tip
        return [self._answer(plan, tip) for plan in plans]

    def recorded(self, index: int, tip: Tip) -> Recorded:
        """The receipt at this leaf, under this checkpoint."""
        return self._recorded(_Place(index), tip)

    def _replay(self) -> None:
        for commit in self._storage.replay():
            for record in commit.records:
                self.state.reserve(decode_reservation(record))
            for leaf in commit.leaves:
                try:
                    receipt = receipts.decode(leaf)
                except InvalidInput as error:
                    raise CorruptLog("the log has a leaf that is no receipt") from error
                self.state.record(receipt, leaf)

    def _seal(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(self._origin, size, root, self._key)

    def _try(self, item: Reservation | Draft, group: _Group) -> Claimed | _Place:
        if isinstance(item, Reservation):
            return self._reserve(item, group)
        return self._record(item, group)

    def _reserve(self, item: Reservation, group: _Group) -> Claimed | _Place:
        key = item.scope, item.use_id
        scope = group.state.scope(item.scope)
        counters = Counters(scope.uses, scope.reserved)
        if (done := group.state.done(Kind.USE, key)) is not None:
            return _Place(done, counters=counters)
        if group.state.reservation(key) is not None:
            return Claimed(Claim.RUNNING, counters)
        if item.limit is not None and counters.uses + counters.reserved >= item.limit:
            return Claimed(Claim.EXHAUSTED, counters)
        if len(item.use_id) > MAX_USE_ID:
            raise InvalidInput(f"use id: at most {MAX_USE_ID} characters")
        # What cannot become a receipt must not run: try the one that a crash would leave.
        draft = item.settle(Outcome.INTERRUPTED, reasons=(RESTARTED,))
        receipts.encode(_receipt(draft, bytes(SALT_BYTES), 1, 0, NO_PREVIOUS))
        group.records.append(encode_reservation(item))
        group.state.reserve(replace(item, limit=None))
        return Claimed(Claim.GRANTED, replace(counters, reserved=counters.reserved + 1))

    def _record(self, item: Draft, group: _Group) -> _Place:
        if not isinstance(item, ActDraft):
            kind = Kind.USE if isinstance(item, UseDraft) else Kind.DELIVERY
            if (done := group.state.done(kind, (item.scope, item.use_id))) is not None:
                return _Place(done)
        _check(item, group.state)
        scope = group.state.scope(item.scope)
        salt = self._random(SALT_BYTES)
        time_ms = group.state.time_ms
        receipt = _receipt(item, salt, scope.number + 1, time_ms, scope.head)
        leaf = receipts.encode(receipt)
        place = _Place(group.state.size, receipt, leaf)
        group.leaves.append(leaf)
        group.state.record(receipt, leaf)
        return place

    def _answer(self, plan: list[Claimed | _Place] | ConnectorError, tip: Tip) -> Answer:
        if isinstance(plan, ConnectorError):
            return plan
        return [self._finish(item, tip) for item in plan]  # type: ignore[return-value]

    def _finish(self, item: Claimed | _Place, tip: Tip) -> Claimed | Recorded:
        if isinstance(item, Claimed):
            return item
        recorded = self._recorded(item, tip)
        return Claimed(Claim.DONE, item.counters, recorded) if item.counters else recorded

    def _recorded(self, place: _Place, tip: Tip) -> Recorded:
        leaf = place.leaf or self.reader.leaf(place.index)
        return Recorded(
            receipt=place.receipt or receipts.decode(leaf),
            leaf=leaf,
            index=place.index,
            size=tip.size,
            checkpoint=tip.checkpoint,
            fresh=place.receipt is not None,
            log=self.reader,
        )


def _check(item: Draft, state: State) -> None:
    """What a draft must be before it may become a receipt. Raises ``Conflict``."""
    if isinstance(item, ActDraft):
        if item.follows not in (None, state.scope(item.scope).number):
            raise Conflict("a receipt came in between")
    elif isinstance(item, UseDraft):
        is_open = state.reservation((item.scope, item.use_id)) is not None
        if item.settles and not is_open:
            raise Conflict("the use was not reserved, or its reservation has ended")
        if is_open and not item.settles:
            raise Conflict("a use with this id is running")
        if item.outcome is Outcome.ALLOWED and not item.settles:
            raise Conflict("an allowed use must have been reserved")


def _receipt(item: Draft, salt: bytes, number: int, time_ms: int, previous: bytes) -> Receipt:
    if isinstance(item, ActDraft):
        return ActReceipt(
            salt=salt,
            scope=item.scope,
            number=number,
            time_ms=time_ms,
            previous=previous,
            actor=item.actor,
            act=item.act,
            statement=item.statement,
        )
    if isinstance(item, DeliveryDraft):
        return DeliveryReceipt(
            salt=salt,
            scope=item.scope,
            number=number,
            time_ms=time_ms,
            previous=previous,
            use_id=item.use_id,
            provider=item.provider,
            consumer=item.consumer,
            outcome=item.outcome,
            origin=item.origin,
            leaf_hash=item.leaf_hash,
            leaf_index=item.leaf_index,
            tree_size=item.tree_size,
            result_digest=item.result_digest,
            quantities=item.quantities,
            reasons=item.reasons,
        )
    return UseReceipt(
        salt=salt,
        scope=item.scope,
        number=number,
        time_ms=time_ms,
        previous=previous,
        use_id=item.use_id,
        provider=item.provider,
        consumer=item.consumer,
        outcome=item.outcome,
        purpose=item.purpose,
        agreement_digest=item.agreement_digest,
        policy_digest=item.policy_digest,
        request_digest=item.request_digest,
        result_digest=item.result_digest,
        quantities=item.quantities,
        reasons=item.reasons,
    )
