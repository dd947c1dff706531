"""Uses that others than the gate served: what a report is held to, and its way into the log.

A *reporter* (an API gateway, a stream processor, a data plane of this organisation) tells what it
served, by agreement and purpose. The policy engine is asked once for each of these pairs, not for
each record: its answer holds for ``HELD_S`` seconds, and shorter if the agreement ends or the
consumer's record in the directory changes. What it says about single records (times, the
allowance) the meter holds every one of them to.

A report is refused as a whole where the agreement is unknown or over, or has terms that no report
can show to be kept; the others of its batch go in all the same. Nothing fails open: without an
answer of the engine, or a fresh view of the directory, nothing goes in.

Left out: what a record is, and when one is refused (``core``); whether the reporter may report
(the door).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

from connector.core.interface import MAX_RECORDS, Columns
from connector.errors import InvalidInput, NotFound, Reason, Refused, Unauthenticated
from connector.metering.types import Report, Reported
from connector.model.negotiation import AgreementState, Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import MAX_TEXT
from connector.policy import decisions, inputs
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore
from connector.ports.policy import PolicyEngine
from connector.ports.receipts import Tip
from connector.verifier.rules import AHEAD

MAX_REPORTS = 1000  # in one batch
MAX_UNDER_WAY = 64  # batches in the meter, whether their callers are still there or not
HELD_S = 60.0  # seconds that an answer of the policy engine holds
REFUSED_S = 1.0  # seconds that a refusal holds
MAX_RULES = 4096  # answers that are remembered
MAX_REFUSALS = 1024  # refusals that are remembered

UNKNOWN = NotFound("there is no such agreement with this node as its provider")
ENDED = Refused([Reason("agreement", "ended", "active")])
OURSELVES = Refused([Reason("member", "this node is no active member", "an active member")])
CONSUMER = Refused([Reason("member", "the consumer is no active member", "an active member")])
NOT_OFFERED = Refused([Reason("target", "a dataset not offered any more", "an offered dataset")])
NO_TIME = Refused([Reason("dateTime", "no time that has come", "a time within all terms")])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class UseReport:
    """What a reporter tells of one agreement and one purpose."""

    agreement_id: str
    columns: Columns


Answer: TypeAlias = Reported | Refused | NotFound | InvalidInput
"""What became of one report: taken (with the records that were refused), or refused as a whole."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer for each report of a batch. ``checkpoint``, a signed note over ``size`` leaves,
    covers all receipts among them."""

    answers: tuple[Answer, ...]
    size: int
    checkpoint: bytes


class Agreements(Protocol):
    async def agreement(self, agreement_id: str) -> StoredAgreement:
        """As ``negotiation.service.Negotiations``."""
        ...


class ReportMeter(Protocol):
    async def report(self, reports: Sequence[Report]) -> list[Reported]:
        """As ``metering.meter.Meter``."""
        ...

    def checkpoint(self) -> Tip: ...


@dataclass(frozen=True, slots=True)
class _Rule:
    """What reports of one agreement and purpose are held to, until ``until`` (monotonic).

    It followed from the record ``consumer`` of the participant ``peer`` (None: it was not active)
    and the policy bundle ``digest``. With a ``refusal`` the rest means nothing.
    """

    peer: str
    consumer: Participant | None
    digest: bytes
    until: float
    refusal: Refused | NotFound | None = None
    first_ms: int = 0
    last_ms: int = 0
    limit: int | None = None


class Reporting:
    """Reports into one meter; used from its event loop alone.

    ``member`` gives the record of an active member, by a fresh view, or raises
    ``Unauthenticated`` or ``Unavailable``. ``observe`` is told of each report that was taken.
    """

    def __init__(
        self,
        *,
        did: str,
        agreements: Agreements,
        datasets: DatasetStore,
        engine: PolicyEngine,
        meter: ReportMeter,
        member: Callable[[str], Participant],
        clock: Clock,
        observe: Callable[[Reported], None],
    ) -> None:
        self._did = did
        self._agreements = agreements
        self._datasets = datasets
        self._engine = engine
        self._meter = meter
        self._member = member
        self._clock = clock
        self._observe = observe
        self._rules: OrderedDict[tuple[str, str], _Rule] = OrderedDict()
        self._refusals: OrderedDict[tuple[str, str], _Rule] = OrderedDict()
        self._stops = 0
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._under_way: dict[asyncio.Task[list[Reported]], frozenset[str]] = {}

    async def report(self, reporter: str, batch: Sequence[UseReport | InvalidInput]) -> Answers:
        """One batch; what in it is an error already is answered with that.

        On return the receipts and the checkpoint are on stable storage. A caller that is cancelled
        while it waits does not stop what the meter has taken.

        Raises ``InvalidInput`` for a batch that is too large, and ``Unavailable`` or ``Conflict``
        if nothing can be issued now: some of it may have gone in all the same, and is a duplicate
        when it comes again.
        """
        records = sum(len(one.columns) for one in batch if isinstance(one, UseReport))
        if not 1 <= len(batch) <= MAX_REPORTS or records > MAX_RECORDS:
            raise InvalidInput(
                f"batch: 1 to {MAX_REPORTS} reports, of at most {MAX_RECORDS} records together"
            )
        await self._room.acquire()  # a caller that goes away keeps its place if the meter has it
        task: asyncio.Task[list[Reported]] | None = None
        try:
            held = await self._held(reporter, batch)
            reports = [one for one in held if isinstance(one, Report)]
            if reports:
                task = asyncio.create_task(self._meter.report(reports))
                self._under_way[task] = frozenset(one.scope for one in reports)
                task.add_done_callback(self._done)
        finally:
            if task is None:
                self._room.release()
        if task is None:
            tip = self._meter.checkpoint()
            refused = tuple(one for one in held if not isinstance(one, Report))
            return Answers(refused, tip.size, tip.checkpoint)
        taken = await asyncio.shield(task)
        rest = iter(taken)
        answers = tuple(next(rest) if isinstance(one, Report) else one for one in held)
        return Answers(answers, taken[-1].size, taken[-1].checkpoint)

    async def stop(self, agreement_id: str) -> None:
        """Take no more reports of an agreement that has ended; those in the meter come out first.

        The agreement's state MUST say so already.
        """
        self._stops += 1
        for known in (self._rules, self._refusals):
            for key in [key for key in known if key[0] == agreement_id]:
                del known[key]
        if tasks := [task for task, scopes in self._under_way.items() if agreement_id in scopes]:
            await asyncio.wait(tasks)

    def _done(self, task: asyncio.Task[list[Reported]]) -> None:
        """What went in is observed here: nobody may have waited for it."""
        del self._under_way[task]
        self._room.release()
        if not task.cancelled() and task.exception() is None:
            for one in task.result():
                self._observe(one)

    async def _held(
        self, reporter: str, batch: Sequence[UseReport | InvalidInput]
    ) -> list[Report | Refused | NotFound | InvalidInput]:
        """What each report is held to, or why it is refused. No agreement ended in between."""
        if self._active(self._did) is None:
            return [OURSELVES if isinstance(one, UseReport) else one for one in batch]
        while True:
            stops = self._stops
            held = [
                await self._hold(reporter, one) if isinstance(one, UseReport) else one
                for one in batch
            ]
            if stops == self._stops:
                return held

    async def _hold(self, reporter: str, report: UseReport) -> Report | Refused | NotFound:
        if len(report.agreement_id) > MAX_TEXT:  # too long to be one, or to be remembered
            return UNKNOWN
        rule = await self._rule(report.agreement_id, report.columns.purpose)
        if rule.refusal is not None:
            return rule.refusal
        last_ms = min(rule.last_ms, _millis(self._clock.now() + AHEAD))
        if last_ms < rule.first_ms:
            return NO_TIME
        return Report(
            scope=report.agreement_id,
            reporter=reporter,
            limit=rule.limit,
            first_ms=rule.first_ms,
            last_ms=last_ms,
            columns=report.columns,
        )

    async def _rule(self, agreement_id: str, purpose: str) -> _Rule:
        """The rule that holds now. Raises ``Unavailable`` if there is no telling."""
        key, now = (agreement_id, purpose), self._clock.monotonic()
        known = self._refusals.get(key) or self._rules.get(key)
        if (
            known is not None
            and now < known.until
            and known.digest == self._engine.digest
            and known.consumer is self._active(known.peer)
        ):
            return known
        stops = self._stops
        rule = await self._decide(agreement_id, purpose, now)
        if stops == self._stops:
            self._remember(key, rule)
        return rule

    def _remember(self, key: tuple[str, str], rule: _Rule) -> None:
        """Refusals apart from the others, so that no number of them drives one out."""
        self._rules.pop(key, None)
        self._refusals.pop(key, None)
        known, most = (
            (self._rules, MAX_RULES) if rule.refusal is None else (self._refusals, MAX_REFUSALS)
        )
        known[key] = rule
        while len(known) > most:
            known.popitem(last=False)

    def _active(self, did: str) -> Participant | None:
        """The record of a participant, if it is an active member. Raises ``Unavailable``."""
        try:
            return self._member(did)
        except Unauthenticated:
            return None

    async def _decide(self, agreement_id: str, purpose: str, now: float) -> _Rule:
        digest = self._engine.digest
        try:
            agreement = await self._agreements.agreement(agreement_id)
        except NotFound:
            agreement = None
        if agreement is None or agreement.party is not Party.PROVIDER:
            ours = self._active(self._did)
            return _Rule(self._did, ours, digest, now + REFUSED_S, UNKNOWN)
        peer = agreement.peer
        consumer = self._active(peer)
        published = await self._datasets.get(agreement.terms.target)
        if consumer is None or published is None or agreement.state is not AgreementState.ACTIVE:
            refusal = CONSUMER if consumer is None else NOT_OFFERED if published is None else ENDED
            return _Rule(peer, consumer, digest, now + REFUSED_S, refusal)
        document = inputs.metering_input(
            now=self._clock.now(),
            agreement=agreement.terms,
            state=agreement.state.value,
            provider=self._did,
            consumer=consumer,
            dataset=published.dataset,
            purpose=purpose,
        )
        decided = decisions.read_metering(await self._engine.evaluate(decisions.METERING, document))
        if decided.reasons:
            return _Rule(peer, consumer, digest, now + REFUSED_S, Refused(decided.reasons))
        first_ms = max(decided.first_ms, _millis(agreement.terms.timestamp))
        return _Rule(
            peer, consumer, digest, now + HELD_S, None, first_ms, decided.last_ms, decided.limit
        )


def _millis(time: datetime) -> int:
    """Milliseconds since the Unix epoch, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)
