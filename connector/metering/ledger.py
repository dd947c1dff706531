"""The meter's decisions, one group of calls at a time: check, number, encode, commit, remember.

A group is planned on a state laid over the real one; only when its one commit is durable does the
real one change. The next group may be planned meanwhile, on what the first one will leave: if
that is not committed, neither is this. What belongs together in a call happens together or not
at all, and a call that is wrong does not disturb the others in its group. The rows of a report
stand for themselves: the core makes leaves of those that nothing speaks against, many at a time.

Leaves out: queueing (``writer``), the start (``replay``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.core.interface import (
    NO_LEAVES,
    Core,
    Keys,
    Leaves,
    Place,
)
from connector.errors import Conflict, ConnectorError, InvalidInput, Reason, Unavailable
from connector.metering.drafts import receipt_of
from connector.metering.kept import (
    encode_reservation,
    encode_state,
)
from connector.metering.reader import LogReader
from connector.metering.replay import restored
from connector.metering.state import State
from connector.metering.types import (
    ActDraft,
    Claim,
    Claimed,
    Draft,
    Recorded,
    Report,
    Reported,
    Reservation,
    UseDraft,
)
from connector.model import receipt as receipts
from connector.model.receipt import (
    MAX_USE_ID,
    NO_PREVIOUS,
    SALT_BYTES,
    Kind,
    Outcome,
    Receipt,
)
from connector.model.use import Counters
from connector.ports.clock import Clock
from connector.ports.receipts import LogStorage, Mark, Tip
from connector.tlog import merkle
from connector.tlog.checkpoint import sign_checkpoint

Call: TypeAlias = "tuple[Reservation, ...] | tuple[Draft, ...] | tuple[Report, ...]"
Answer: TypeAlias = "list[Claimed] | list[Recorded] | list[Reported] | ConnectorError"

log = structlog.get_logger()

KEPT_AT_CLOSE = 10_000  # receipts that a start would replay

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


@dataclass(frozen=True, slots=True)
class _Rows:
    """A report's place: from leaf ``first`` on."""

    first: int
    count: int
    calls: int
    refused: list[tuple[int, int]]


Plan: TypeAlias = "list[Claimed | _Place | _Rows] | ConnectorError"


@dataclass(slots=True)
class _Group:
    """What a group will commit. ``packed`` and ``hashes`` are parts of its leaves, in order."""

    state: State
    records: list[bytes] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def leaves(self) -> Leaves:
        return Leaves(b"".join(self.packed), b"".join(self.hashes))

    def merge(self, above: _Group) -> None:
        self.state.merge(above.state)
        self.records += above.records
        self.packed += above.packed
        self.hashes += above.hashes


@dataclass(frozen=True, slots=True)
class Planned:
    """A group that is ready to be committed. ``epoch``: of the ledger when it was planned."""

    group: _Group
    plans: list[Plan]
    epoch: int


class _Salts:
    """Random bytes ahead of their use: the system takes a tenth of the time of a report to make
    them, which the committing thread has and the planning one has not."""

    ROWS = 1024  # in a piece
    PIECES = 48

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._wanted = 0  # pieces to have; none before the first report
        self._pieces: deque[bytes] = deque()

    def take(self, rows: int) -> bytes:
        """Salts for as many rows; none of them is given again."""
        self._wanted = self.PIECES
        if rows > self.ROWS or not self._pieces:
            return self._random(SALT_BYTES * rows)
        return self._pieces.popleft()[: SALT_BYTES * rows]

    def refill(self) -> None:
        while len(self._pieces) < self._wanted:
            self._pieces.append(self._random(SALT_BYTES * self.ROWS))


class Ledger:
    """``random`` gives that many random bytes. Reads the log as far as ``keys`` and what the
    storage kept do not reach; raises ``CorruptLog``."""

    def __init__(
        self,
        storage: LogStorage,
        core: Core,
        keys: Keys,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._storage = storage
        self._core = core
        self._keys = keys
        self._origin = origin
        self._key = key
        self._clock = clock
        self._random = random
        self._salts = _Salts(random)
        self._keeping: tuple[Mark, bytes] | None = None  # until the keys are written out
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")
        self.reader = LogReader(storage)
        self.state = restored(storage, core, keys)
        self._turning = threading.Lock()  # around a change of the four below
        self._newest = self.state  # what the next plan is made on
        self._epoch = 0  # commits that failed, and with them what was planned on them
        self._has_failed = False  # since the last plan
        if not storage.tip.checkpoint:
            storage.append((), NO_LEAVES, self._seal)

    def plan(self, calls: Sequence[Call]) -> Planned:
        """What becomes of these calls, if what was planned before is committed.

        One thread at a time plans, another may commit meanwhile. MUST be followed by ``commit``.
        """
        with self._turning:
            self._forget_failed()
            epoch, group = self._epoch, _Group(self._newest.over())
        now = int(self._clock.now().timestamp() * 1000)
        group.state.time_ms = max(now, group.state.time_ms)
        try:
            plans = [self._plan(call, group) for call in calls]
        except BaseException:
            self._keys.unstage()
            raise
        self._keys.seal()
        with self._turning:
            self._forget_failed()
            if epoch == self._epoch:
                self._newest = group.state
        return Planned(group, plans, epoch)

    def commit(self, planned: Planned) -> list[Answer]:
        """One answer for each call, in order; one commit for all that changes anything.

        In the order of the plans. Raises ``Unavailable`` when the storage refuses: then none of
        the calls has happened, nor those of a plan that was made on this one.
        """
        group = planned.group
        if planned.epoch != self._epoch:
            raise Unavailable("the log could not be written", hint="try again in a moment")
        group.state.rebase(self.state)  # whatever it was planned on is committed
        try:
            if group.records or group.hashes:
                self._storage.append(group.records, group.leaves(), self._seal)
        except BaseException:
            with self._turning:
                self._epoch += 1
                self._newest = self.state
                self._has_failed = True
            raise
        with self._turning:
            self._keys.settle()
            self.state.merge(group.state)
            if self._newest is group.state:
                self._newest = self.state
        tip = self._storage.tip
        self._salts.refill()
        self._write_down_if_frozen()
        return [self._answer(plan, tip) for plan in planned.plans]

    def _forget_failed(self) -> None:
        """Drop the keys of commits that failed and of what was planned on them: the planning
        thread does, as it is the one that stages."""
        if self._has_failed:
            self._has_failed = False
            self._keys.discard()

    def is_due(self) -> bool:
        """Whether it is time to ``keep``."""
        return self._keys.pending >= self._keys.freeze_at

    def keep(self) -> None:
        """Have the keys written out, and when they are, the state beside them; between commits,
        when nothing is planned."""
        with self._turning:
            self._forget_failed()
        if self._keys.trouble:
            log.warning("which uses were recorded is kept in memory", reason=self._keys.trouble)
        self._keeping = self._storage.mark(), encode_state(self.state)
        self._keys.freeze(self.state.size)

    def close(self) -> None:
        """Write down what would make the next start slow."""
        if self._keeping is None and self._keys.pending > KEPT_AT_CLOSE:
            self.keep()
        self._keys.wait()
        self._write_down_if_frozen()
        self._keeper.shutdown()

    def recorded(self, index: int, tip: Tip) -> Recorded:
        """The receipt at this leaf, under this checkpoint."""
        return self._recorded(_Place(index), tip)

    def _write_down_if_frozen(self) -> None:
        if self._keeping is not None and self._keys.covered >= self._keeping[0].size:
            mark, state = self._keeping
            self._keeping = None
            try:
                self._keeper.submit(self._write_down, mark, state)
            except RuntimeError:  # no thread to be had: the next time
                log.warning("the log's state is not kept: there is no thread for it")

    def _write_down(self, mark: Mark, state: bytes) -> None:
        try:
            self._storage.keep(mark, state)
        except Unavailable as error:
            log.warning("the log's state is not kept: a start is slow", reason=error.message)

    def _seal(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(self._origin, size, root, self._key)

    def _plan(self, call: Call, group: _Group) -> Plan:
        """What becomes of a call, entered in the group if it is not refused as a whole."""
        trial = _Group(group.state.over())
        plan: list[Claimed | _Place | _Rows] = []
        try:
            for item in call:
                if isinstance(item, Report):
                    plan.append(self._report(item, trial))
                elif isinstance(item, Reservation):
                    plan.append(self._reserve(item, trial))
                else:
                    plan.append(self._record(item, trial))
        except ConnectorError as error:
            if isinstance(call[0], Report):
                raise  # the keys of its rows are staged: the group cannot go on without them
            return error
        group.merge(trial)
        return plan

    def _reserve(self, item: Reservation, group: _Group) -> Claimed | _Place:
        key = item.scope, item.use_id
        scope = group.state.scope(item.scope)
        counters = Counters(scope.uses, scope.reserved)
        if (done := group.state.done(Kind.USE, key)) is not None:
            return self._earlier(done, counters)
        if group.state.reservation(key) is not None:
            return Claimed(Claim.RUNNING, counters)
        if item.limit is not None and counters.uses + counters.reserved >= item.limit:
            return Claimed(Claim.EXHAUSTED, counters)
        if len(item.use_id) > MAX_USE_ID:
            raise InvalidInput(f"use id: at most {MAX_USE_ID} characters")
        # What cannot become a receipt must not run: try the one that a crash would leave.
        draft = item.settle(Outcome.INTERRUPTED, reasons=(RESTARTED,))
        receipts.encode(receipt_of(draft, bytes(SALT_BYTES), 1, 0, NO_PREVIOUS))
        group.records.append(encode_reservation(item))
        group.state.reserve(replace(item, limit=None))
        return Claimed(Claim.GRANTED, replace(counters, reserved=counters.reserved + 1))

    def _record(self, item: Draft, group: _Group) -> _Place:
        if not isinstance(item, ActDraft):
            kind = Kind.USE if isinstance(item, UseDraft) else Kind.DELIVERY
            if (done := group.state.done(kind, (item.scope, item.use_id))) is not None:
                return self._earlier(done)
        _check(item, group.state)
        scope = group.state.scope(item.scope)
        salt = self._random(SALT_BYTES)
        time_ms = group.state.time_ms
        receipt = receipt_of(item, salt, scope.number + 1, time_ms, scope.head)
        leaf = receipts.encode(receipt)
        hashed = merkle.leaf_hash(leaf)
        place = _Place(group.state.size, receipt, leaf)
        group.packed.append(len(leaf).to_bytes(2) + leaf)
        group.hashes.append(hashed)
        group.state.record(receipt, hashed)
        return place

    def _earlier(self, index: int, counters: Counters | None = None) -> _Place:
        """The place of a receipt that is there; read now, so that a call whose earlier receipts
        cannot be read changes nothing. One that is not durable yet is read when it is."""
        leaf = self.reader.leaf(index) if index < self.reader.tip.size else b""
        return _Place(index, leaf=leaf, counters=counters)

    def _report(self, item: Report, group: _Group) -> _Rows:
        state = group.state
        scope = state.scope(item.scope)
        taken = scope.uses + scope.reserved
        place = Place(
            scope=item.scope,
            reporter=item.reporter,
            number=scope.number,
            head=scope.head,
            left=None if item.limit is None else max(0, item.limit - taken),
            first_ms=item.first_ms,
            last_ms=item.last_ms,
            running=state.running(item.scope),
            time_ms=state.time_ms,
            index=state.size,
            salts=self._salts.take(len(item.columns)),
        )
        made = self._core.make_records(item.columns, place, self._keys)
        rows = _Rows(state.size, made.leaves.count, made.calls, made.refused)
        group.packed.append(made.leaves.packed)
        group.hashes.append(made.leaves.hashes)
        state.take(item.scope, made)
        return rows

    def _answer(self, plan: Plan, tip: Tip) -> Answer:
        if isinstance(plan, ConnectorError):
            return plan
        return [self._finish(item, tip) for item in plan]  # type: ignore[return-value]

    def _finish(self, item: Claimed | _Place | _Rows, tip: Tip) -> Claimed | Recorded | Reported:
        if isinstance(item, Claimed):
            return item
        if isinstance(item, _Rows):
            return Reported(
                item.first, item.count, item.calls, item.refused, tip.size, tip.checkpoint
            )
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
    if isinstance(item, UseDraft):
        is_open = state.reservation((item.scope, item.use_id)) is not None
        if item.settles and not is_open:
            raise Conflict("the use was not reserved, or its reservation has ended")
        if is_open and not item.settles:
            raise Conflict("a use with this id is running")
        if item.outcome is Outcome.ALLOWED and not item.settles:
            raise Conflict("an allowed use must have been reserved")
