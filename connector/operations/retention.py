"""How long receipts are kept: segments of the log are sealed, and dropped when the operator says.

Only what nobody needs any more can be dropped: all receipts of a segment are older than the time
that the operator gives, and every agreement with a receipt in it has ended before that time.
Scopes that are no agreements (a participant's DID, a dataset) count as ended; an agreement that
the node does not know counts as running.

Leaves out: how segments are stored (``ports.segments``). Nothing is dropped by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

import structlog

from connector.errors import Conflict, ConnectorError, NotFound
from connector.metering.meter import Meter
from connector.model import fields
from connector.model.negotiation import AgreementState, StoredAgreement
from connector.model.receipt import ActReceipt, decode
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form, Segment, Segments

LOOK_S = 60.0  # seconds between looks for segments to seal; one of them fills in minutes at most

log = structlog.get_logger()

Find = Callable[[str], Awaitable[StoredAgreement]]
"""An agreement by its id. Raises ``NotFound``, and what else hinders: then nothing is dropped."""


@dataclass(frozen=True, slots=True)
class Droppable:
    """The oldest segments that can go, and why the one behind them stays."""

    segments: tuple[Segment, ...]
    kept_by: str


class Retention:
    """``beside`` is where blocking work runs, one piece at a time. Without ``find`` nothing can be
    dropped: a directory's log is the register of its space."""

    def __init__(
        self, segments: Segments, meter: Meter, beside: Executor, find: Find | None
    ) -> None:
        self._segments = segments
        self._meter = meter
        self._beside = beside
        self._find = find
        self._dropping = asyncio.Lock()

    async def listed(self) -> list[Segment]:
        """All segments, from the first on. Raises ``Unavailable``."""
        return await asyncio.to_thread(self._segments.segments)

    async def seal(self) -> AsyncIterator[Segment]:
        """Seal what is complete, oldest first; each as it is afterwards. Raises as
        ``Segments.seal`` does; for a damaged one after the others were sealed."""
        async for segment in _sealed(self._segments, self._beside, set()):
            yield segment

    async def droppable(self, before: datetime) -> Droppable:
        """What ``drop`` would take."""
        before_ms = int(before.timestamp() * 1000)
        found: list[Segment] = []
        for segment in await self.listed():
            if segment.form is Form.DROPPED:
                continue
            if kept_by := await self._kept_by(segment, before_ms):
                return Droppable(tuple(found), kept_by)
            found.append(segment)
        return Droppable(tuple(found), "")

    async def drop(self, before: datetime, starts: Sequence[int]) -> Droppable:
        """Drop these segments: the oldest ones, in order, all of them ``droppable``.

        Raises ``Conflict`` if they are not (any more), ``CorruptLog`` or ``Unavailable``: those
        before it are dropped then.
        """
        async with self._dropping:
            found = await self.droppable(before)
            if [segment.start for segment in found.segments[: len(starts)]] != list(starts):
                raise Conflict(
                    "not all of these segments can be dropped",
                    hint="ask again which can be: connector log drop --before TIME",
                )
            dropped = []
            for segment in found.segments[: len(starts)]:
                loop = asyncio.get_running_loop()
                dropped.append(
                    await loop.run_in_executor(self._beside, self._segments.drop, segment.start)
                )
                log.info(
                    "a segment of the log was dropped",
                    start=segment.start,
                    first=segment.first,
                    leaves=segment.leaves,
                    before=fields.format_time(before),
                )
            return Droppable(tuple(dropped), found.kept_by)

    async def _kept_by(self, segment: Segment, before_ms: int) -> str:
        """Why the segment stays; empty if it can go."""
        if self._find is None:
            return "a directory's log is its space's register, and is kept whole"
        if segment.form is Form.OPEN:
            return "it is still written to"
        if segment.form is not Form.SEALED:
            return "it is not sealed yet: connector log seal"
        if not segment.kept:
            return "the node still needs it when it starts; restart it once"
        end = segment.first + segment.leaves
        if not segment.leaves:
            return ""
        newest = decode(await asyncio.to_thread(self._meter.log.leaf, end - 1))
        if newest.time_ms >= before_ms:  # times do not go back in a log
            return f"it has a receipt of {fields.format_millis(newest.time_ms)}"
        for scope in self._meter.scopes_between(segment.first, end):
            if kept_by := await self._in_force(self._find, scope, before_ms):
                return kept_by
        return ""

    async def _in_force(self, find: Find, scope: str, before_ms: int) -> str:
        if scope.startswith("did:"):
            return ""
        (last,) = self._meter.receipts(scope, self._meter.last(scope)[0], 1)
        try:
            agreement = await find(scope)
        except NotFound:
            act = last.receipt.act if isinstance(last.receipt, ActReceipt) else ""
            if act.startswith("dataset."):
                return ""
            return f"agreement {scope} is not in this node's books: was a store lost?"
        if agreement.state is not AgreementState.ENDED:
            return f"agreement {scope} has not ended"
        if last.receipt.time_ms >= before_ms:  # its end is a receipt, too
            return f"agreement {scope} ended on {fields.format_millis(last.receipt.time_ms)}"
        return ""


async def seal_in_background(segments: Segments, beside: Executor) -> None:
    """Seal what becomes complete, until cancelled. A damaged segment is read once."""
    damaged: set[int] = set()
    while True:
        try:
            async for segment in _sealed(segments, beside, damaged):
                log.info("a segment of the log was sealed", start=segment.start)
        except ConnectorError as error:
            log.warning("a segment of the log is not sealed", reason=error.message)
        await asyncio.sleep(LOOK_S)


async def _sealed(
    segments: Segments, beside: Executor, damaged: set[int]
) -> AsyncIterator[Segment]:
    """Those that start at ``damaged`` are left alone; it gains those that raise ``CorruptLog``,
    which is raised when the others are sealed."""
    loop = asyncio.get_running_loop()
    found: CorruptLog | None = None
    for segment in await asyncio.to_thread(segments.segments):
        if segment.form is not Form.COMPLETE or segment.start in damaged:
            continue
        try:
            sealed = await loop.run_in_executor(beside, segments.seal, segment.start)
        except CorruptLog as error:
            log.error("a segment of the log is damaged", start=segment.start)
            damaged.add(segment.start)
            found = error
        else:
            yield sealed
    if found is not None:
        raise found
