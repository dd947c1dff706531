"""The meter: reserve, record, prove. What a node's services and doors call.

Many callers at once share one commit: while one is being written, the next collects. An answer
means that everything in it is on stable storage, receipts under a signed checkpoint. Nothing is
counted anywhere but in the log.

The interface takes batches; a single use is a batch of one. What the decisions are is
``ledger``'s, what is remembered ``state``'s, how calls become commits ``writer``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
from connector.metering.ledger import ABANDONED, RESTARTED, Answer, Call, Ledger
from connector.metering.reader import LogReader
from connector.metering.types import (
    Claim,
    Claimed,
    Draft,
    Recorded,
    Report,
    Reported,
    Reservation,
)
from connector.metering.writer import Writer
from connector.model.receipt import Kind, Outcome
from connector.model.use import Counters
from connector.ports.clock import Clock
from connector.ports.receipts import LogStorage, Tip
from connector.tlog.checkpoint import verify_checkpoint

MAX_CALL = 1024  # items in one call
MAX_ROWS = MAX_RECORDS  # rows in one call's reports
MAX_CALLS = 1024  # calls under way; further callers wait in line, without a place in memory
MAX_REPORTS = 64  # of them calls with reports, which may be large

log = structlog.get_logger()


class Meter:
    """Made by ``open``; belongs to one event loop. ``log`` reads leaves, proofs and tiles."""

    def __init__(
        self, ledger: Ledger, cosigned: Cosigned, executor: ThreadPoolExecutor, clock: Clock
    ) -> None:
        self.log: LogReader = ledger.reader
        self.clock = clock
        self._ledger = ledger
        self._cosigned = cosigned
        self._writer = Writer(ledger, executor, self._abandon)
        self._left_open = ledger.state.open_reservations()
        self._barred: ConnectorError | None = None
        self._room = asyncio.Semaphore(MAX_CALLS)
        self._room_for_reports = asyncio.Semaphore(MAX_REPORTS)
        self._background: set[asyncio.Task[Any]] = set()

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
        self._writer.stop()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._writer.close()

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
        index, tip = self._ledger.state.done(kind, (scope, use_id)), self.log.tip
        if index is None or index >= tip.size:  # not durable, and perhaps never
            return None
        return self._ledger.recorded(index, tip)

    def reservation(self, scope: str, use_id: str) -> Reservation | None:
        """The open one of this use, without its limit."""
        return self._ledger.state.reservation((scope, use_id))

    async def recover(self, go_on: Collection[tuple[str, str]] = ()) -> int:
        """Close each reservation that an earlier run left open with an INTERRUPTED receipt.

        Nothing of their results was released, as a receipt comes before that; so the allowance
        gets them back. Those of ``go_on`` (scope and use id), whose results leave before their
        receipts, stay open: who kept account of them ends them. Returns how many were closed.
        Call it once, before the first use.
        """
        left = [one for one in self._left_open if (one.scope, one.use_id) not in go_on]
        self._left_open = []
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
                recorded = self._ledger.recorded(index, tip)
            except Gone:
                if not left:
                    raise
                continue
            if recorded.receipt.scope != scope:
                raise InternalError("a receipt is not where it was noted", hint="restart the node")
            found.append(recorded)
        return found

    @property
    def trouble(self) -> str:
        """Why the last commit failed (a full disk, say); empty if it did not, or none was tried."""
        return self._writer.trouble

    def checkpoint(self) -> Tip:
        """The newest signed checkpoint and its size."""
        return self.log.tip

    async def grown_beyond(self, size: int) -> None:
        """Wait until the log has more than ``size`` leaves. Raises ``Unavailable`` at the end."""
        while self.log.tip.size <= size:
            await self._writer.committed()

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
            if self._barred is not None:
                raise _again(self._barred)
            answer = await self._writer.submit(call)
        if isinstance(answer, ConnectorError):
            raise _again(answer)
        return answer

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


def _again(error: ConnectorError) -> ConnectorError:
    """For each caller its own: an exception that is raised twice drags its history along."""
    return type(error)(error.message, hint=error.hint)


def _require_own(tip: Tip, origin: str, keys: Sequence[bytes]) -> None:
    try:
        verify_checkpoint(tip.checkpoint, origin, keys)
    except ConnectorError as error:
        raise Conflict(
            "the log in the data folder is not signed by this node's key",
            hint="a data folder and its keys belong together; do not mix copies",
        ) from error
