"""``MeteringService.ReportUses``: batches of use records, from the wire to the meter and back.

The only call of the service that the reporters' door and the management socket offer, and one that
the members' door does not. Columns pass through as they are: nothing here looks at single records,
but for those that were refused.

Of one stream ``WINDOW`` batches are in the node at once, and ``MAX_BATCHES`` of all streams; then
no more is read. A reporter has ``MAX_STREAMS_EACH`` streams at most, so that a single one does not
shut the others out. Answers leave in the order of the batches. A batch that makes no sense is
refused and the stream goes on; where the node fails the stream ends with a status, and what was
not answered is sent again.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.core.interface import MAX_RECORDS, Columns
from connector.errors import ConnectorError, InvalidInput, RateLimited, Refused
from connector.metering.types import Reported
from connector.model.receipt import MAX_USE_ID, Quantity
from connector.operations.reporting import MAX_REPORTS, Answer, Reporting, UseReport

WINDOW = 8  # batches of one stream in the node at once
MAX_BATCHES = 64  # batches of all streams of a door in the node at once
MAX_STREAMS = 32  # at one door
MAX_STREAMS_EACH = 8  # of one reporter
MESSAGE_BYTES = 2 << 20  # of one batch; the largest that makes sense has 1.3 MB

MAX_USE_IDS_BYTES = MAX_RECORDS * (MAX_USE_ID + 1)

_QUANTITIES = {quantity.value: quantity for quantity in Quantity}
_Answering: TypeAlias = asyncio.Task[pb.ReportUsesResponse]


class ReportingServicer(rpc.MeteringServiceServicer):
    """``reporting`` gives the service, or raises ``Conflict`` before this node is a member;
    ``reporter`` the name of whoever makes the call that runs now."""

    def __init__(self, reporting: Callable[[], Reporting], reporter: Callable[[], str]) -> None:
        self._reporting = reporting
        self._reporter = reporter
        self._streams: Counter[str] = Counter()  # by reporter
        self._room = asyncio.Semaphore(MAX_BATCHES)

    async def ReportUses(
        self, request_iterator: AsyncIterator[pb.ReportUsesRequest], context: object
    ) -> AsyncIterator[pb.ReportUsesResponse]:
        service, reporter = self._reporting(), self._reporter()
        if self._streams[reporter] >= MAX_STREAMS_EACH:
            hint = f"one stream carries any number of batches; at most {MAX_STREAMS_EACH} at once"
            raise RateLimited("too many streams of this reporter", hint=hint)
        if self._streams.total() >= MAX_STREAMS:
            hint = f"at most {MAX_STREAMS} at once: try again when another has ended"
            raise RateLimited("too many streams of all reporters", hint=hint)
        window = asyncio.Semaphore(WINDOW)
        answering: asyncio.Queue[_Answering | None] = asyncio.Queue()

        async def read() -> None:
            try:
                async for request in request_iterator:
                    await window.acquire()
                    await self._room.acquire()
                    task = asyncio.create_task(_answer(service, reporter, request))
                    task.add_done_callback(self._leave)
                    answering.put_nowait(task)
            finally:
                answering.put_nowait(None)

        self._streams[reporter] += 1
        reading = asyncio.create_task(read())
        try:
            while (task := await answering.get()) is not None:
                yield await task
                window.release()
            await reading  # where reading failed, so does the call
        finally:
            self._streams -= Counter((reporter,))  # names without a stream are forgotten
            reading.cancel()
            while not answering.empty():
                if (task := answering.get_nowait()) is not None:
                    task.cancel()

    def _leave(self, task: _Answering) -> None:
        self._room.release()
        if not task.cancelled():
            task.exception()  # told by the stream, if it still goes on


async def _answer(
    service: Reporting, reporter: str, request: pb.ReportUsesRequest
) -> pb.ReportUsesResponse:
    try:
        if not 1 <= len(request.reports) <= MAX_REPORTS:  # before any of them is looked at
            raise InvalidInput(f"batch: 1 to {MAX_REPORTS} reports")
        found = await service.report(reporter, [_report(one) for one in request.reports])
    except InvalidInput as error:
        return pb.ReportUsesResponse(batch=request.batch, refusal=_refusal(error))
    return pb.ReportUsesResponse(
        batch=request.batch,
        results=[_result(one) for one in found.answers],
        tree_size=found.size,
        checkpoint=found.checkpoint,
    )


def _report(message: pb.UseReport) -> UseReport | InvalidInput:
    use_ids = message.use_ids  # a copy each time that it is asked for
    if len(use_ids) > MAX_USE_IDS_BYTES:
        return InvalidInput(f"report: use ids of more than {MAX_USE_IDS_BYTES} bytes")
    if len(message.amounts) > len(_QUANTITIES):
        return InvalidInput("report: more amounts than there are quantities")
    try:
        columns = Columns(
            purpose=message.purpose,
            use_ids=use_ids,
            served=message.served_ms,
            amounts=tuple((_QUANTITIES[one.unit], one.values) for one in message.amounts),
        )
    except KeyError:
        return InvalidInput("report: an amount of a quantity that is not known")
    except InvalidInput as error:
        return error
    return UseReport(message.agreement_id, columns)


def _result(answer: Answer) -> pb.ReportResult:
    if not isinstance(answer, Reported):
        return pb.ReportResult(refusal=_refusal(answer))
    result = pb.ReportResult(first=answer.first, count=answer.count, calls=answer.calls)
    if answer.refused:
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for row, fault in answer.refused:
            rows[fault].append(row)
        for fault in sorted(rows):
            result.refused.add(fault=fault, rows=rows[fault])
    return result


def _refusal(error: ConnectorError) -> pb.ReportRefusal:
    return pb.ReportRefusal(
        code=error.code,
        message=error.message,
        reasons=[
            pb.ReportReason(term=one.term, observed=one.observed, allowed=one.allowed)
            for one in (error.reasons if isinstance(error, Refused) else ())
        ],
    )
