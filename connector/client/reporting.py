"""Reporting uses to a node of one's own organisation, from Python.

    async with Reporting("gateway.reporter") as reporting:
        taken = await reporting.report([UseReport(agreement_id, columns)])

``report`` may be called many times at once: batches travel one after the other over one stream,
without waiting for each other's answers. An answer means that the receipts, and the signed
checkpoint that covers them, are on stable storage at the node.

Where the node cannot be reached, restarts or does not answer, a batch is sent again for a while.
What had gone in before is then refused as ``Fault.DUPLICATE``: such a record has its receipt. One
that is ``Fault.RUNNING`` at the node's gate has none yet, and is for the caller to report again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio
import stamina

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.client.channel import find_socket, open_channel
from connector.client.errors import ERROR_CODE_KEY, from_rpc
from connector.core.interface import Columns, Fault
from connector.errors import (
    ConnectorError,
    InvalidInput,
    PeerFault,
    Reason,
    Refused,
    Unavailable,
)
from connector.identity.reporters import DOOR_NAME, ReporterFile, read_file

WINDOW = 8  # batches under way at once; the node reads no further ones of a stream
PATIENCE_S = 60.0  # seconds that a batch is sent again before its report fails
ANSWER_S = 10.0  # seconds that an answer is waited for, however small the patience is
MAX_FILE_BYTES = 65_536
_HINT = "is the node running, and does connector reporters list show this reporter?"
_OPTIONS = [
    ("grpc.ssl_target_name_override", DOOR_NAME),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class UseReport:
    """Uses of one agreement for one purpose, by columns."""

    agreement_id: str
    columns: Columns


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a report was refused as a whole. ``code``: ``invalid_input``, ``not_found`` or
    ``refused``, and then with ``reasons``."""

    code: str
    message: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a report: ``count`` records went in, for ``calls`` calls, as the leaves from
    ``first`` on; ``refused``: the others, by fault, as row numbers from 0. With a ``refusal``
    nothing went in."""

    first: int
    count: int
    calls: int
    refused: Mapping[Fault, tuple[int, ...]]
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to a batch: one result for each report, and the signed checkpoint (a C2SP note
    over ``tree_size`` leaves) that covers every receipt among them."""

    results: tuple[Result, ...]
    tree_size: int
    checkpoint: bytes


_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ReportUsesRequest, pb.ReportUsesResponse]"


class Reporting:
    """A connection for reports, for one event loop. ``place``: the file that ``connector reporters
    add`` wrote; or a node's data folder, whose operator then reports.

    ``window``: batches under way at once; ``patience_s``: seconds that a batch is sent again where
    the node cannot be reached; an answer is waited for half of that time, ``ANSWER_S`` at least,
    and then the stream ends and the batch is sent again. Entering it raises ``InvalidInput`` for a
    file that is none, ``NodeNotRunning``, ``ConfigError``.
    """

    def __init__(
        self, place: Path | str, *, window: int = WINDOW, patience_s: float = PATIENCE_S
    ) -> None:
        self._place = Path(place)
        self._patience_s = patience_s
        self._room = asyncio.Semaphore(window)
        self._batches = itertools.count(1)
        self._opening = asyncio.Lock()
        self._stream: _Stream | None = None
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = _open(self._place)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            await self._stream.close()
        if self._channel is not None:
            await self._channel.close()

    async def report(self, reports: Sequence[UseReport]) -> Taken:
        """One batch: at most 1,000 reports, of 10,000 records together.

        Raises ``InvalidInput`` for a batch that the node does not look at, ``Unauthenticated`` if
        this reporter may not report any more, ``Conflict`` if the node cannot issue receipts, and
        ``Unavailable`` when patience ends: some of the batch may have gone in.
        """
        request = pb.ReportUsesRequest(reports=[_message(one) for one in reports])
        async with self._room:
            async for attempt in stamina.retry_context(
                on=Unavailable,
                attempts=None,
                timeout=self._patience_s,
                wait_initial=0.1,
                wait_max=2.0,
                wait_jitter=0.2,
            ):
                with attempt:
                    request.batch = next(self._batches)
                    response = await (await self._opened()).send(request)
        if response.HasField("refusal"):
            raise InvalidInput(response.refusal.message)
        if len(response.results) != len(reports):
            raise PeerFault("the node answered another number of reports")
        return Taken(
            tuple(_result(one) for one in response.results),
            response.tree_size,
            response.checkpoint,
        )

    async def _opened(self) -> _Stream:
        if self._channel is None:
            raise Unavailable("reports are made inside its async with")
        async with self._opening:
            if self._stream is None or self._stream.ended:
                call = rpc.MeteringServiceStub(self._channel).ReportUses()
                self._stream = _Stream(call, max(self._patience_s / 2, ANSWER_S))
        return self._stream


class _Stream:
    """One call of ``ReportUses``; ``ended`` once nothing more comes of it. A batch that has no
    answer after ``answer_s`` seconds ends it."""

    def __init__(self, call: Any, answer_s: float) -> None:
        self.ended = False
        self._call: _Call = call
        self._answer_s = answer_s
        self._end: ConnectorError = Unavailable("the node ended the stream")
        self._writing = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[pb.ReportUsesResponse]] = {}
        self._reader = asyncio.create_task(self._read())

    async def send(self, request: pb.ReportUsesRequest) -> pb.ReportUsesResponse:
        answer: asyncio.Future[pb.ReportUsesResponse] = asyncio.get_running_loop().create_future()
        self._waiting[request.batch] = answer
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._answered(request, answer)
        except TimeoutError:
            self._end = Unavailable("the node does not answer")
            await self.close()
            raise _again(self._end) from None

    async def _answered(
        self, request: pb.ReportUsesRequest, answer: asyncio.Future[pb.ReportUsesResponse]
    ) -> pb.ReportUsesResponse:
        try:
            async with self._writing:
                if not answer.done():
                    await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            await asyncio.wait({self._reader})  # it knows why, and has told
        if self.ended and not answer.done():
            raise Unavailable("the stream has ended")
        return await answer

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.wait({self._reader})

    async def _read(self) -> None:
        error: ConnectorError | None = None
        try:
            while isinstance(response := await self._call.read(), pb.ReportUsesResponse):
                answer = self._waiting.pop(response.batch, None)
                if answer is None:
                    error = PeerFault("the node answered a batch that was not sent")
                    break
                if not answer.done():
                    answer.set_result(response)
        except asyncio.CancelledError:
            pass  # we closed it
        except grpc.RpcError as failed:
            error = _ours(failed)
        finally:
            self.ended = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_again(error or self._end))
            self._waiting.clear()
            self._call.cancel()


def _ours(error: grpc.RpcError) -> ConnectorError:
    """What the node said; where it said nothing, that it could not be reached."""
    found = from_rpc(error)
    status: Any = error
    # A connection that breaks while we write is INTERNAL to gRPC.
    broken = status.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    if broken and ERROR_CODE_KEY not in dict(status.trailing_metadata() or ()):
        return Unavailable("the node cannot be reached, or does not know this reporter", hint=_HINT)
    return found


def _again(error: ConnectorError) -> ConnectorError:
    """For each batch its own: an exception that is raised twice drags its history along."""
    return error if isinstance(error, Refused) else type(error)(error.message, hint=error.hint)


def _open(place: Path) -> grpc.aio.Channel:
    if not place.is_file():
        return open_channel(find_socket(place))
    file = _read_file(place)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=file.door, private_key=file.key, certificate_chain=file.certificate
    )
    return grpc.aio.secure_channel(file.endpoint, credentials, options=_OPTIONS)


def _read_file(place: Path) -> ReporterFile:
    try:
        with place.open("rb") as file:
            return read_file(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise InvalidInput(f"{place} cannot be read: {error.strerror}") from error


def _message(report: UseReport) -> pb.UseReport:
    columns = report.columns
    return pb.UseReport(
        agreement_id=report.agreement_id,
        purpose=columns.purpose,
        use_ids=columns.use_ids,
        served_ms=columns.served,
        amounts=[
            pb.Amounts(unit=quantity.value, values=values)  # type: ignore[arg-type]
            for quantity, values in columns.amounts
        ],
    )


def _result(message: pb.ReportResult) -> Result:
    refusal = message.refusal
    try:
        refused = {Fault(one.fault): tuple(one.rows) for one in message.refused}
    except ValueError as error:
        raise PeerFault("the node refused a record for a reason that is not known") from error
    return Result(
        first=message.first,
        count=message.count,
        calls=message.calls,
        refused=refused,
        refusal=Refusal(
            refusal.code,
            refusal.message,
            tuple(Reason(one.term, one.observed, one.allowed) for one in refusal.reasons),
        )
        if message.HasField("refusal")
        else None,
    )
