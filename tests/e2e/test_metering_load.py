"""A hostile reporter at a real node, while a good one goes on and loses nothing.

The hostile one is registered, so that nothing but its own messages speaks against it. What it
sends is made by hand. Afterwards the whole log is read: every leaf, number and hash, and every
acknowledgement that the good one got.
"""

import asyncio
import itertools
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.adapters.clock import SystemClock
from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.core.interface import Fault
from connector.model import receipt as receipts
from tests.e2e.gateway import Served, channel_of, served
from tests.e2e.space import PURPOSE, connector

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ROWS, EVERY_S = 200, 0.05  # what the good reporter sends
STREAMS = 64
HUGE = 2**64 - 1


def now_ms() -> int:
    return int(SystemClock().now().timestamp() * 1000)


def numbers(values: Iterable[int]) -> bytes:
    return array("Q", values).tobytes()


def report(agreement: str, names: list[str], **other: Any) -> pb.UseReport:
    """Uses with these ids; all is well but for what is ``other``."""
    calls = pb.Amounts(unit=pb.QUANTITY_CALLS, values=numbers([1] * len(names)))
    fields: dict[str, Any] = {
        "agreement_id": agreement,
        "purpose": PURPOSE,
        "use_ids": "\n".join(names).encode(),
        "served_ms": numbers([now_ms()] * len(names)),
        "amounts": [calls],
    }
    return pb.UseReport(**fields | other)


def batch(number: int, *reports: pb.UseReport) -> pb.ReportUsesRequest:
    return pb.ReportUsesRequest(batch=number, reports=reports)


@dataclass
class Good:
    """A reporter that sends, waits for its answer, and keeps what it was told."""

    file: Path
    agreement: str
    told: list[tuple[list[str], int]] = field(default_factory=list)  # use ids, first leaf
    size: int = 0  # of the tree that the last answer was under
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with channel_of(self.file) as channel:
            call = rpc.MeteringServiceStub(channel).ReportUses()
            for number in itertools.count():
                use_ids = [f"good-{number}-{row}" for row in range(ROWS)]
                await call.write(batch(number, report(self.agreement, use_ids)))
                answer = await call.read()
                assert isinstance(answer, pb.ReportUsesResponse), answer
                (result,) = answer.results
                assert (answer.batch, result.count, len(result.refused)) == (number, ROWS, 0)
                assert answer.tree_size >= result.first + ROWS
                self.told.append((use_ids, result.first))
                self.size = answer.tree_size
                self.answered.set()
                if self.stopping.is_set():
                    return
                await asyncio.sleep(EVERY_S)

    async def goes_on(self) -> None:
        """Wait for two further answers."""
        async with asyncio.timeout(20):
            for _ in range(2):
                self.answered.clear()
                await self.answered.wait()


@dataclass
class Attacked:
    node: Served
    hostile: Path
    good: Good
    sending: asyncio.Task[None]

    def channel(self) -> grpc.aio.Channel:
        return channel_of(self.hostile)

    @property
    def agreement(self) -> str:
        return self.node.agreement


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    async with served(tmp_path_factory.mktemp("attacked"), "auto") as node:
        good = Good(node.register("good"), node.agreement)
        sending = asyncio.create_task(good.run())
        yield Attacked(node, node.register("hostile"), good, sending)
        good.stopping.set()
        await sending


async def answers(
    attacked: Attacked, requests: list[pb.ReportUsesRequest]
) -> list[pb.ReportUsesResponse]:
    """To all of them, on one stream."""
    async with attacked.channel() as channel:
        stub = rpc.MeteringServiceStub(channel)
        return [answer async for answer in stub.ReportUses(iter(requests))]


def faults(answer: pb.ReportUsesResponse) -> list[tuple[int, list[int]]]:
    return [(one.fault, list(one.rows)) for result in answer.results for one in result.refused]


ROW_FAULTS: dict[str, tuple[Fault, list[str], dict[str, Any]]] = {
    "a space in a use id": (Fault.MALFORMED, ["a b"], {}),
    "a zero byte in a use id": (Fault.MALFORMED, ["a\0b"], {}),
    "a use id too long": (Fault.MALFORMED, ["x" * 65], {}),
    "not ASCII": (Fault.MALFORMED, ["ü"], {}),
    "no calls": (
        Fault.MALFORMED,
        ["zero"],
        {"amounts": [pb.Amounts(unit=pb.QUANTITY_CALLS, values=numbers([0]))]},
    ),
    "more calls than can be": (
        Fault.MALFORMED,
        ["many"],
        {"amounts": [pb.Amounts(unit=pb.QUANTITY_CALLS, values=numbers([HUGE]))]},
    ),
    "a time that cannot be": (Fault.MALFORMED, ["late"], {"served_ms": numbers([HUGE])}),
    "before the agreement": (Fault.OUT_OF_TIME, ["early"], {"served_ms": numbers([1])}),
    "tomorrow": (Fault.OUT_OF_TIME, ["soon"], {"served_ms": numbers([now_ms() + 86_400_000])}),
    "more than the allowance": (
        Fault.EXHAUSTED,
        ["all"],
        {"amounts": [pb.Amounts(unit=pb.QUANTITY_CALLS, values=numbers([1 << 53]))]},
    ),
}
REPORTS_REFUSED: dict[str, dict[str, Any]] = {
    "no rows": {"use_ids": b"", "served_ms": b""},
    "columns of other lengths": {"served_ms": numbers([1, 1])},
    "half a number": {"served_ms": b"1234"},
    "no amounts": {"amounts": []},
    "an unknown quantity": {"amounts": [pb.Amounts(unit=99, values=numbers([1]))]},  # type: ignore[arg-type]
    "a quantity twice": {
        "amounts": [pb.Amounts(unit=pb.QUANTITY_CALLS, values=numbers([1]))] * 2,
    },
    "another purpose": {"purpose": "insurance-pricing"},
    "a purpose too long": {"purpose": "x" * 10_000},
    "an unknown agreement": {"agreement_id": "urn:uuid:6f1c5e4e-6c54-4f0e-8ad6-000000000000"},
    "an agreement's id too long": {"agreement_id": "x" * 100_000},
    "no agreement": {"agreement_id": ""},
}


@pytest.mark.parametrize("name", ROW_FAULTS)
async def test_malformed_records(attacked: Attacked, name: str) -> None:
    """The record is refused by name; its neighbours in the batch go in."""
    fault, use_ids, other = ROW_FAULTS[name]
    bad = report(attacked.agreement, use_ids, **other)
    fine = report(attacked.agreement, [f"beside-{list(ROW_FAULTS).index(name)}"])
    (answer,) = await answers(attacked, [batch(1, bad, fine)])
    assert faults(answer) == [(fault, [0])]
    assert [result.count for result in answer.results] == [0, 1]
    await attacked.good.goes_on()


@pytest.mark.parametrize("name", REPORTS_REFUSED)
async def test_malformed_reports(attacked: Attacked, name: str) -> None:
    """The report is refused, with a reason; the stream goes on."""
    bad = report(attacked.agreement, ["x"], **REPORTS_REFUSED[name])
    fine = report(attacked.agreement, [f"after-{list(REPORTS_REFUSED).index(name)}"])
    first, second = await answers(attacked, [batch(1, bad), batch(2, fine)])
    told = first.refusal if first.HasField("refusal") else first.results[0].refusal
    assert told.code in ("invalid_input", "not_found", "refused")
    assert [result.count for result in second.results] == [1]


async def test_batches_that_are_too_large(attacked: Attacked) -> None:
    one = report(attacked.agreement, ["x"])
    rows = report(attacked.agreement, [f"large-{row}" for row in range(10_001)])
    halves = [report(attacked.agreement, [f"{n}-{row}" for row in range(5_001)]) for n in "ab"]
    requests = [batch(1), batch(2, *[one] * 1001), batch(3, rows), batch(4, *halves)]
    found = await answers(attacked, requests)
    assert [answer.batch for answer in found] == [1, 2, 3, 4]
    for answer in found:
        refused = [answer.refusal, *(result.refusal for result in answer.results)]
        assert "invalid_input" in [each.code for each in refused]
        assert sum(result.count for result in answer.results) == 0


@pytest.mark.parametrize("size", [3 << 20, 40 << 20])
async def test_messages_over_the_limit(attacked: Attacked, size: int) -> None:
    """Refused by the wire; nothing of it is kept."""
    before = memory_mb(attacked)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answers(attacked, [batch(1, report(attacked.agreement, ["x"], use_ids=bytes(size)))])
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await attacked.good.goes_on()
    assert memory_mb(attacked) < before + 100


@pytest.mark.parametrize(
    "data", [b"\xff" * 40, b"\x12\xff\xff\xff\xff\x0f", b"\x12\x04\x0a\x02\xff\xfe"]
)
async def test_bytes_that_are_no_message(attacked: Attacked, data: bytes) -> None:
    """No message at all, one that ends too early, a text that is not UTF-8."""
    async with attacked.channel() as channel:
        call: Any = channel.stream_stream("/dataspace.metering.v1.MeteringService/ReportUses")
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call(iter([data])):
                raise AssertionError("it was answered")
    await attacked.good.goes_on()


async def test_duplicates(attacked: Attacked) -> None:
    """Of itself in one report, of itself later, of what the good one reported."""
    await attacked.good.goes_on()
    known, _ = attacked.good.told[0]
    same = report(attacked.agreement, ["same"] * 1000)
    again = [batch(number, same) for number in range(1, 4)]
    found = await answers(attacked, [*again, batch(4, report(attacked.agreement, known))])
    assert [answer.results[0].count for answer in found] == [1, 0, 0, 0]
    assert faults(found[0]) == [(Fault.DUPLICATE, list(range(1, 1000)))]
    assert faults(found[3]) == [(Fault.DUPLICATE, list(range(ROWS)))]


async def test_batches_out_of_order(attacked: Attacked) -> None:
    """A batch's number is the reporter's own: answers come in the order of sending."""
    sent = [9, 3, 3, 0, HUGE, 1]
    requests = [
        batch(number, report(attacked.agreement, [f"order-{place}"]))
        for place, number in enumerate(sent)
    ]
    found = await answers(attacked, requests)
    assert [answer.batch for answer in found] == sent
    firsts = [answer.results[0].first for answer in found]
    assert firsts == sorted(firsts)


async def test_streams_that_are_abandoned(attacked: Attacked) -> None:
    """Opened, written to, never read, cancelled or cut with the connection."""
    for number in range(40):
        async with attacked.channel() as channel:
            call = rpc.MeteringServiceStub(channel).ReportUses()
            for place in range(number % 4):
                use_ids = [f"left-{number}-{place}-{row}" for row in range(500)]
                await call.write(batch(place, report(attacked.agreement, use_ids)))
            if number % 2:
                call.cancel()
    await attacked.good.goes_on()
    (answer,) = await answers(attacked, [batch(1, report(attacked.agreement, ["there"]))])
    assert answer.results[0].count == 1


LATE = "a write into a call that was refused meanwhile"
OF_THE_CLIENT = "Internal error from Core"  # grpc.aio's own words, for such a write; no answer


async def test_many_streams_at_once(attacked: Attacked) -> None:
    """Some are told that there are too many; none waits for ever; the good one goes on."""

    async def one(stub: Any, number: int) -> str:
        call = stub.ReportUses()
        try:
            for place in range(5):
                use_ids = [f"stream-{number}-{place}-{row}" for row in range(50)]
                await call.write(batch(place, report(attacked.agreement, use_ids)))
                answer = await call.read()
                assert answer.results[0].count == 50
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # A write into a call that was refused meanwhile fails for a reason of its own.
            code = await call.code()
            return LATE if await call.details() == OF_THE_CLIENT else str(code.name)
        return "served"

    async with attacked.channel() as channel:
        stub = rpc.MeteringServiceStub(channel)
        async with asyncio.timeout(30):
            found = Counter(await asyncio.gather(*(one(stub, n) for n in range(STREAMS))))
    assert set(found) <= {"served", "RESOURCE_EXHAUSTED", LATE}
    assert found["served"]
    assert (
        "call failed" not in attacked.node.provider.log
    )  # what a fault of the node's leaves there
    await attacked.good.goes_on()


async def test_the_whole_log_afterwards(attacked: Attacked, tmp_path: Path) -> None:
    """An auditor finds every leaf, number and hash of it in order; what was acknowledged is there,
    once, in place."""
    good, data = attacked.good, attacked.node.provider.data
    good.stopping.set()
    await attacked.sending
    key = connector("log", "keys", "--data", data)["log"]
    for _ in range(20):  # a checkpoint is witnessed a little later
        exported = connector("log", "export", tmp_path, "--data", data)["size"]
        if exported >= good.size:
            break
        await asyncio.sleep(0.2)
    assert exported >= good.size
    command = [sys.executable, "-m", "connector.verifier.cli", "log", str(tmp_path), "--vkey", key]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    attacked.node.provider.stop()
    with closing(SegmentLog(data / "log", core=choose("auto"))) as log:
        size = log.tip.size
        use_ids = [
            getattr(receipts.decode(leaf), "use_id", "")
            for start in range(0, size, 4096)
            for leaf in log.leaves(start, min(4096, size - start))
        ]
    assert max(Counter(filter(None, use_ids)).values()) == 1
    for wanted, first in good.told:
        assert use_ids[first : first + len(wanted)] == wanted
    assert len(good.told) > 10


def memory_mb(attacked: Attacked) -> float:
    lines = Path(f"/proc/{attacked.node.provider.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024
