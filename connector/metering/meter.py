"""The meter: reserve, record, prove. What a node's services and doors call.

Many callers at once share one commit: while one is being written, the next collects. An answer
means that everything in it is on stable storage, receipts under a signed checkpoint. Nothing is
counted anywhere but in the log.

The interface takes batches; a single use is a batch of one. What the decisions are is
``ledger``'s, what is remembered is ``state``'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.core.interface import MAX_RECORDS, Core, Keys
from connector.errors import (
    Conflict,
    ConnectorError,
    Gone,
    InternalError,
    InvalidInput,
    Unavailable,
)
from connector.metering.cosigned import Cosigned
from connector.metering.ledger import ABANDONED, RESTARTED, Answer, Call, Ledger, Planned
from connector.metering.reader import LogReader
from connector.metering.types import (
    ActDraft,
    Claim,
    Claimed,
    Draft,
    Recorded,
    Report,
    Reported,
    Reservation,
)
from connector.model.receipt import Kind, Outcome
from connector.model.use import Counters
from connector.ports.clock import Clock
from connector.ports.receipts import LogStorage, Tip
from connector.tlog.checkpoint import verify_checkpoint

MAX_CALL = 1024  # items in one call
MAX_ROWS = MAX_RECORDS  # rows in one call's reports
MAX_GROUP = 16_384  # weight of one commit, reached or passed by its last call
ITEM_WEIGHT = 8  # of an item, as a row of a report weighs 1: about what it costs
MAX_CALLS = 1024  # calls under way; further callers wait in line, without a place in memory
MAX_REPORTS = 64  # of them calls with reports, which may be large

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    weight: int
    answer: asyncio.Future[Answer]


class Meter:
    """Made by ``open``; belongs to one event loop. ``log`` reads leaves, proofs and tiles."""

    def __init__(
        self, ledger: Ledger, cosigned: Cosigned, executor: ThreadPoolExecutor, clock: Clock
    ) -> None:
        self.log: LogReader = ledger.reader
        self.clock = clock
        self._ledger = ledger
        self._cosigned = cosigned
        self._executor = executor
        self._planning = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._room_to_plan = asyncio.Semaphore(1)
        self._planned: asyncio.Queue[tuple[Sequence[_Waiting], Planned] | None] = asyncio.Queue()
        self._idle = asyncio.Event()  # nothing is planned and not committed
        self._idle.set()
        self._left_open = ledger.state.open_reservations()
        self._barred: ConnectorError | None = None
        self._room = asyncio.Semaphore(MAX_CALLS)
        self._room_for_reports = asyncio.Semaphore(MAX_REPORTS)
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()  # a new one for each commit
        self._stopped = False
        self._closed = False
        self._background: set[asyncio.Task[Any]] = set()
        self._writer = asyncio.create_task(self._write())

    @classmethod
    async def open(
        cls,
        storage: LogStorage,
        *,
        core: Core,
        keys: Keys,
        origin: str,
        key: Ed25519PrivateKey,
        clock: Clock,
        random: Callable[[int], bytes],
        former_keys: Sequence[bytes] = (),
        await_witness: bool = False,
    ) -> Meter:
        """Read what came into the log since its state was kept last, and make ready to write.

        ``keys`` are this log's, from ``core.open_keys``; the caller closes them after the meter.
        ``former_keys``: public keys (32 bytes each) that signed this log's checkpoints before.
        ``random(n)`` gives n random bytes. With ``await_witness`` nothing is issued before
        ``require_not_behind``. If the log does not match what witnesses saw of it the meter opens
        for reading alone: everything that would write raises ``Conflict``.

        Raises ``CorruptLog`` if the log does not make sense, ``Conflict`` if it is another
        participant's, ``Unavailable`` if it cannot be read.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="meter")
        loop = asyncio.get_running_loop()
        signers = (key.public_key().public_bytes_raw(), *former_keys)

        def read() -> tuple[Ledger, Cosigned]:
            if storage.tip.checkpoint:
                _require_own(storage.tip, origin, signers)
            ledger = Ledger(storage, core, keys, origin=origin, key=key, clock=clock, random=random)
            return ledger, Cosigned(storage, ledger.reader, origin, signers)

        try:
            ledger, cosigned = await loop.run_in_executor(executor, read)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        meter = cls(ledger, cosigned, executor, clock)
        if await_witness:
            meter._barred = Unavailable(
                "the log was not yet compared with what its witness has seen",
                hint="wait until the directory can be reached",
            )
        try:
            cosigned.require_own_past()
        except Conflict as error:
            meter._barred = error
        return meter

    async def close(self) -> None:
        """Finish what was begun; afterwards every call that writes raises ``Unavailable``.

        The storage stays open: close it next.
        """
        self._stopped = True
        self._wake.set()
        self._tell()
        await asyncio.gather(self._writer, *self._background, return_exceptions=True)
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, self._ledger.close)
            self._executor.shutdown()
            self._planning.shutdown()

    # Using an agreement

    def counters(self, scope: str) -> Counters:
        """Allowed uses and open reservations of the scope, as of the last commit."""
        found = self._ledger.state.scope(scope)
        return Counters(uses=found.uses, reserved=found.reserved)

    async def reserve(self, reservations: Sequence[Reservation]) -> list[Claimed]:
        """Claim a place in the allowance for each use that is about to run; durable on return.

        One answer for each, in order: each is granted or not by itself, exactly up to its limit.
        A granted one MUST be ended by a ``record`` of its ``settle`` draft, whatever happens; if
        the caller is cancelled while it waits here, the meter does that.

        Raises ``InvalidInput`` (and grants none) if one could not become a receipt,
        ``Unavailable`` or ``Conflict`` if nothing can be issued now.
        """
        answers = await self._submit(tuple(reservations))
        return [answer for answer in answers if isinstance(answer, Claimed)]

    async def record(self, drafts: Sequence[Draft]) -> list[Recorded]:
        """Make each draft the next receipt of its scope; durable, under a checkpoint, on return.

        All of them or none. A use that has its receipt gets that one again (``fresh`` is False),
        whatever its outcome was; so does a delivery. A caller that is cancelled while it waits
        does not stop it: a reservation that was to end, ends.

        Raises ``InvalidInput`` if one cannot be a receipt, ``Conflict`` if a reservation is not
        as the draft says, ``Unavailable`` if nothing can be issued
        now. After ``Unavailable`` the receipts may be there all the same: ask ``find``.
        """
        task = asyncio.create_task(self._submit(tuple(drafts)))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        answers = await asyncio.shield(task)
        return [answer for answer in answers if isinstance(answer, Recorded)]

    async def report(self, reports: Sequence[Report]) -> list[Reported]:
        """Make each row of the reports that nothing speaks against the next receipt of its scope;
        durable, under a checkpoint, on return. One answer for each report, in order.

        Rows stand for themselves: one that is refused does not disturb the others. A repeated
        call is harmless, as its rows are then duplicates. At most ``MAX_ROWS`` rows in all.

        Raises ``InvalidInput`` if there are more, ``Unavailable`` or ``Conflict`` if nothing can
        be issued now. After ``Unavailable`` the receipts may be there all the same.
        """
        if sum(len(report.columns) for report in reports) > MAX_ROWS:
            raise InvalidInput(f"report: at most {MAX_ROWS} records at a time")
        async with self._room_for_reports:
            answers = await self._submit(tuple(reports))
        return [answer for answer in answers if isinstance(answer, Reported)]

    def find(self, scope: str, use_id: str, kind: Kind = Kind.USE) -> Recorded | None:
        """The receipt of this use, under the newest checkpoint."""
        index = self._ledger.state.done(kind, (scope, use_id))
        return None if index is None else self._ledger.recorded(index, self.log.tip)

    async def recover(self) -> int:
        """Close each reservation that an earlier run left open with an INTERRUPTED receipt.

        Nothing of their results was released, as a receipt comes before that; so the allowance
        gets them back. Returns how many. Call it once, before the first use.
        """
        left, self._left_open = self._left_open, []
        for at in range(0, len(left), MAX_CALL):
            await self.record(
                [
                    reservation.settle(Outcome.INTERRUPTED, reasons=(RESTARTED,))
                    for reservation in left[at : at + MAX_CALL]
                ]
            )
        return len(left)

    # What is there

    def scopes(self) -> list[str]:
        """Every scope with a receipt, in the order of their first ones."""
        return list(self._ledger.state.places)

    def last(self, scope: str) -> tuple[int, bytes]:
        """Number and leaf hash of the scope's last receipt; 0 and zeros if there is none."""
        found = self._ledger.state.scope(scope)
        return found.number, found.head

    def scopes_between(self, first: int, end: int) -> list[str]:
        """The scopes with a receipt in a leaf from ``first`` to ``end - 1``."""
        return self._ledger.state.scopes_between(first, end)

    def receipts(
        self, scope: str, first: int = 1, limit: int = 100, *, left: bool = False
    ) -> list[Recorded]:
        """At most ``limit`` receipts from number ``first`` on, all under one checkpoint.

        Raises ``Gone`` if one of them was dropped; with ``left`` those are left out.
        """
        if first < 1 or limit < 0:
            raise InvalidInput("receipts: numbers begin at 1")
        places = self._ledger.state.leaves_of(scope, first, limit)
        tip, found = self.log.tip, []
        for index in places:
            try:
                found.append(self._ledger.recorded(index, tip))
            except Gone:
                if not left:
                    raise
        return found

    def checkpoint(self) -> Tip:
        """The newest signed checkpoint and its size."""
        return self.log.tip

    async def grown_beyond(self, size: int) -> None:
        """Wait until the log has more than ``size`` leaves. Raises ``Unavailable`` at the end."""
        while self.log.tip.size <= size:
            if self._stopped:
                raise Unavailable("the node is stopping")
            await self._committed.wait()

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return self.log.inclusion(index, size)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        return self.log.consistency(old_size, new_size)

    # Witnesses

    def require_not_behind(self, size: int, note: bytes) -> None:
        """Compare with the last checkpoint that a witness cosigned, as the witness tells.

        ``size`` 0: it never saw this log. Raises ``Conflict`` if the log is behind it or has
        another past: nothing is issued then until the node starts again with the right log.
        ``VerificationFailed`` or ``InvalidInput`` (the note is not this log's) change nothing.
        """
        try:
            self._cosigned.require_own_past()
            if (size or note) and self._cosigned.require_past(note).size != size:
                raise InvalidInput("the witness's size is not its checkpoint's")
        except Conflict as error:
            self._barred = error
        if isinstance(self._barred, Conflict):
            raise _again(self._barred)
        self._barred = None

    async def add_cosignature(self, note: bytes, witness: str, keys: Iterable[bytes]) -> None:
        """Keep a witness's cosignature of one of our checkpoints; durable on return.

        ``witness``: its name; ``keys``: its public keys, 32 bytes each. Raises as
        ``Cosigned.add`` does. A checkpoint signed by us that is not of this log's past bars the
        meter, as in ``require_not_behind``.
        """
        known = tuple(keys)
        try:
            await asyncio.to_thread(self._cosigned.add, note, witness, known)
        except Conflict as error:
            self._barred = error
            raise

    def latest_cosigned(self, witness: str | None = None) -> bytes | None:
        """See ``Cosigned.latest``."""
        return self._cosigned.latest(witness)

    # Writing

    async def _submit(self, call: Call) -> list[Claimed] | list[Recorded] | list[Reported]:
        if len(call) > MAX_CALL:
            raise InvalidInput(f"meter: at most {MAX_CALL} items in one call")
        if not call:
            return []
        async with self._room:
            if self._stopped:
                raise Unavailable("the node is stopping")
            if self._barred is not None:
                raise _again(self._barred)
            waiting = _Waiting(call, _weight(call), asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            self._wake.set()
            try:
                answer = await waiting.answer
            except asyncio.CancelledError:
                if waiting.answer.done() and not waiting.answer.cancelled():
                    self._abandon(call, waiting.answer.result())
                raise
        if isinstance(answer, ConnectorError):
            raise _again(answer)
        return answer

    async def _write(self) -> None:
        """Two things at a time: one group is planned while the one before it is committed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._plan_all())
                tasks.create_task(self._commit_all())
        finally:
            self._stopped = True
            for waiting in self._waiting:
                _answer(waiting, InternalError("the meter has stopped", hint="restart the node"))
            self._waiting.clear()
            self._tell()

    async def _plan_all(self) -> None:
        while self._waiting or not self._stopped:
            await self._room_to_plan.acquire()
            if self._ledger.is_due():
                await self._idle.wait()
                await self._in_thread(self._planning, self._ledger.keep)
            group = self._next_group()
            if group and _looks_back(group[0].call):
                await self._idle.wait()
            if not group:
                self._room_to_plan.release()
                if not self._stopped:
                    self._wake.clear()
                    await self._wake.wait()
                continue
            calls = [waiting.call for waiting in group]
            with _answered(group):
                planned = await self._in_thread(self._planning, self._ledger.plan, calls)
                self._idle.clear()
                self._planned.put_nowait((group, planned))
        self._planned.put_nowait(None)

    async def _commit_all(self) -> None:
        while (item := await self._planned.get()) is not None:
            self._room_to_plan.release()
            await self._commit(*item)
            if self._planned.empty():
                self._idle.set()

    async def _in_thread(
        self, executor: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **named: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, lambda: call(*args, **named))

    def _tell(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        weight = 0
        while self._waiting and weight < MAX_GROUP:
            if group and _looks_back(self._waiting[0].call):
                break
            waiting = self._waiting.popleft()
            if waiting.answer.cancelled():
                continue
            group.append(waiting)
            weight += waiting.weight
            if _looks_back(waiting.call):
                break
        return group

    async def _commit(self, group: Sequence[_Waiting], planned: Planned) -> None:
        answers: Sequence[Answer] = []
        with _answered(group):
            try:
                answers = await self._in_thread(self._executor, self._ledger.commit, planned)
            except ConnectorError as error:
                answers = [error] * len(group)
            for waiting, answer in zip(group, answers, strict=True):
                if not _answer(waiting, answer):
                    self._abandon(waiting.call, answer)
        self._tell()

    def _abandon(self, call: Call, answer: Answer) -> None:
        """Nobody waits any more for what was granted: give it back."""
        if isinstance(answer, ConnectorError):
            return
        drafts = [
            item.settle(Outcome.INTERRUPTED, reasons=(ABANDONED,))
            for item, claimed in zip(call, answer, strict=True)
            if isinstance(item, Reservation)
            and isinstance(claimed, Claimed)
            and claimed.claim is Claim.GRANTED
        ]
        if drafts:
            task = asyncio.create_task(self._give_back(drafts))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _give_back(self, drafts: Sequence[Draft]) -> None:
        try:
            await self.record(drafts)
        except ConnectorError as error:  # the next start recovers them
            log.warning("reservations of a caller that left stay open", reason=error.message)


@contextmanager
def _answered(group: Sequence[_Waiting]) -> Iterator[None]:
    """Nobody of the group waits for ever, whatever happens inside."""
    try:
        yield
    except BaseException:
        for waiting in group:
            if not waiting.answer.done():
                waiting.answer.set_result(InternalError("the meter has stopped"))
        raise


def _looks_back(call: Call) -> bool:
    """Whether it wants what comes before it durable: then it is a group of its own."""
    return any(isinstance(item, ActDraft) and callable(item.statement) for item in call)


def _weight(call: Call) -> int:
    return sum(len(item.columns) if isinstance(item, Report) else ITEM_WEIGHT for item in call)


def _again(error: ConnectorError) -> ConnectorError:
    """For each caller its own: an exception that is raised twice drags its history along."""
    return type(error)(error.message, hint=error.hint)


def _answer(waiting: _Waiting, answer: Answer) -> bool:
    """False if the caller is gone."""
    if waiting.answer.cancelled():
        return False
    waiting.answer.set_result(answer)
    return True


def _require_own(tip: Tip, origin: str, keys: Sequence[bytes]) -> None:
    try:
        verify_checkpoint(tip.checkpoint, origin, keys)
    except ConnectorError as error:
        raise Conflict(
            "the log in the data folder is not signed by this node's key",
            hint="a data folder and its keys belong together; do not mix copies",
        ) from error
