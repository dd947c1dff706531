"""Reports at the meter: what goes in, what is refused by name, what is there after a restart."""

import asyncio
import random
import sys
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.core.interface import Columns, Core, Fault, Leaves
from connector.errors import Gone, InternalError, InvalidInput, Unavailable
from connector.metering.meter import MAX_ROWS, Meter
from connector.metering.state import Places, Scope, State
from connector.metering.types import Claim, Report
from connector.model.receipt import Outcome, Quantity, RecordReceipt
from connector.model.use import Counters
from connector.ports.receipts import Seal, Tip
from connector.tlog import merkle
from tests.logs import SCOPE, MemoryKeys, open_meter, refusal, reservation, until, verify
from tests.reports import SERVED, columns, report

OTHER = "urn:uuid:agreement-2"


@pytest.fixture
async def meter() -> AsyncIterator[Meter]:
    meter = await open_meter(MemoryLog())
    yield meter
    await meter.close()


async def test_every_row_becomes_a_receipt_of_its_agreement(meter: Meter) -> None:
    sent = report(["a", "b", "c"], calls=[1, 5, 2], bytes_returned=[10, 20, 30])
    (answer,) = await meter.report([sent])
    assert (answer.first, answer.count, answer.calls, answer.refused) == (0, 3, 8, [])
    found = meter.receipts(SCOPE)
    assert [item.receipt.number for item in found] == [1, 2, 3]
    second = found[1].receipt
    assert isinstance(second, RecordReceipt)
    assert (second.use_id, second.reporter, second.served_ms) == ("b", "gateway-1", SERVED)
    assert second.quantities == {Quantity.CALLS: 5, Quantity.BYTES_RETURNED: 20}
    assert second.previous == merkle.leaf_hash(found[0].leaf)
    assert meter.counters(SCOPE).uses == 8
    for item in found:
        verify(item)


async def test_the_answer_names_a_checkpoint_that_covers_it(meter: Meter) -> None:
    (answer,) = await meter.report([report(["a"])])
    assert answer.size >= answer.first + answer.count
    assert answer.checkpoint == meter.checkpoint().checkpoint


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (report(["a", "a"]), [(1, Fault.DUPLICATE)]),
        (report(["a", "", "b"]), [(1, Fault.MALFORMED)]),
        (report(["a", "x" * 65, "b"]), [(1, Fault.MALFORMED)]),
        (report(["a", "two words"]), [(1, Fault.MALFORMED)]),
        (report(["a", "b"], calls=[1, 0]), [(1, Fault.MALFORMED)]),
        (report(["a", "b"], calls=[1, 2**53 + 1]), [(1, Fault.MALFORMED)]),
        (report(["a", "b"], served=[SERVED, 2**64 - 1]), [(1, Fault.MALFORMED)]),
        (report(["a", "b"], served=[SERVED, 5], first_ms=6), [(1, Fault.OUT_OF_TIME)]),
        (report(["a", "b"], served=[5, SERVED], last_ms=5), [(1, Fault.OUT_OF_TIME)]),
        (report(["a", "b", "c"], calls=[2, 3, 2], limit=4), [(1, Fault.EXHAUSTED)]),
    ],
)
async def test_a_row_is_refused_by_name_and_the_rest_goes_in(
    meter: Meter, sent: Report, refused: list[tuple[int, Fault]]
) -> None:
    (answer,) = await meter.report([sent])
    assert answer.refused == refused
    assert answer.count == len(sent.columns) - len(refused)
    assert meter.last(SCOPE)[0] == answer.count


async def test_a_repeated_report_is_refused_whole_and_counts_nothing(meter: Meter) -> None:
    sent = report(["a", "b"])
    await meter.report([sent])
    (again,) = await meter.report([sent])
    assert (again.count, again.calls) == (0, 0)
    assert again.refused == [(0, Fault.DUPLICATE), (1, Fault.DUPLICATE)]
    assert meter.counters(SCOPE).uses == 2


async def test_uses_at_the_gate_and_records_share_their_use_ids(meter: Meter) -> None:
    held = reservation("running")
    (claimed,) = await meter.reserve([held])
    assert claimed.claim is Claim.GRANTED
    await meter.record([refusal("refused")])
    (answer,) = await meter.report([report(["refused", "running", "mine"])])
    assert answer.refused == [(0, Fault.DUPLICATE), (1, Fault.RUNNING)]
    (done,) = await meter.reserve([reservation("mine")])
    assert done.claim is Claim.DONE
    assert done.recorded is not None and isinstance(done.recorded.receipt, RecordReceipt)
    await meter.record([held.settle(Outcome.ALLOWED)])
    assert meter.counters(SCOPE).uses == 2
    (answer,) = await meter.report([report(["running"])])
    assert answer.refused == [(0, Fault.DUPLICATE)]


async def test_open_reservations_count_against_the_allowance(meter: Meter) -> None:
    await meter.reserve([reservation("running", limit=3)])
    (answer,) = await meter.report([report(["a", "b", "c"], limit=3)])
    assert answer.refused == [(2, Fault.EXHAUSTED)]
    (claimed,) = await meter.reserve([reservation("late", limit=3)])
    assert claimed.claim is Claim.EXHAUSTED


async def test_agreements_in_one_call_are_numbered_apart(meter: Meter) -> None:
    first, second = await meter.report([report(["a", "b"]), report(["a"], scope=OTHER)])
    assert (first.first, first.count, second.first, second.count) == (0, 2, 2, 1)
    (third,) = await meter.report([report(["c"])])
    assert third.first == 3
    assert [item.index for item in meter.receipts(SCOPE)] == [0, 1, 3]
    assert [item.index for item in meter.receipts(SCOPE, 2, 1)] == [1]


async def test_many_reporters_at_once_never_pass_the_limit(meter: Meter) -> None:
    reports = [report([f"{n}-{row}" for row in range(40)], limit=500) for n in range(32)]
    answers = await asyncio.gather(*(meter.report([item]) for item in reports))
    assert sum(answer.count for (answer,) in answers) == 500
    assert meter.counters(SCOPE).uses == 500
    assert meter.last(SCOPE)[0] == 500


async def test_too_many_rows_are_refused_at_once(meter: Meter) -> None:
    rows = report([str(n) for n in range(MAX_ROWS)])
    with pytest.raises(InvalidInput):
        await meter.report([rows, report(["one more"])])
    assert meter.checkpoint().size == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: columns([]),
        lambda: columns(["a", "b"], calls=[1]),
        lambda: columns(["a"], served=[1, 2]),
        lambda: Columns("", b"a", bytes(8), ()),
        lambda: Columns("", b"a", bytes(8), ((Quantity.DURATION_MS, bytes(8)),)),
        lambda: columns(["a"], purpose="x" * 513),
        lambda: report(["a"], scope=""),
        lambda: report(["a"], reporter="x" * 65),
        lambda: report(["a"], scope="half \ud800"),
        lambda: report(["a"], last_ms=2**60),
    ],
)
def test_what_cannot_be_a_report_is_none(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()


async def test_a_restart_knows_numbers_counters_and_use_ids(tmp_path: Path, core: Core) -> None:
    chosen = core
    for turn in range(3):
        with (
            closing(SegmentLog(tmp_path, core=chosen)) as storage,
            closing(chosen.open_keys(tmp_path / "keys")) as keys,
        ):
            meter = await open_meter(storage, core=chosen, keys=keys)
            sent = report([f"{turn}-{row}" for row in range(50)])
            (answer,) = await meter.report([sent])
            assert (answer.first, answer.count) == (50 * turn, 50)
            (again,) = await meter.report([report(["0-7", f"{turn}-8"], calls=[2, 2])])
            assert again.refused == [(0, Fault.DUPLICATE), (1, Fault.DUPLICATE)]
            await meter.close()


async def test_a_state_that_was_kept_gives_the_same_as_the_whole_log(
    tmp_path: Path, core: Core
) -> None:
    chosen = core
    with (
        closing(SegmentLog(tmp_path, core=chosen)) as storage,
        closing(chosen.open_keys(tmp_path / "keys")) as keys,
    ):
        meter = await open_meter(storage, core=chosen, keys=keys)
        await meter.reserve([reservation("open")])
        for turn in range(12):
            await meter.report([report([f"{turn}-{row}" for row in range(1000)])])
            await meter.record([refusal(f"r{turn}")])
        numbers = meter.last(SCOPE)
        await meter.close()
    with (
        closing(SegmentLog(tmp_path, core=chosen)) as storage,
        closing(chosen.open_keys(tmp_path / "keys")) as keys,
    ):
        assert storage.kept is not None and storage.kept[0] == 12_012
        assert list(storage.replay()) == []
        meter = await open_meter(storage, core=chosen, keys=keys)
        assert meter.last(SCOPE) == numbers
        assert meter.counters(SCOPE) == Counters(uses=12_000, reserved=1)
        assert [item.index for item in meter.receipts(SCOPE, 1000, 3)] == [999, 1000, 1001]
        assert await meter.recover() == 1
        (answer,) = await meter.report([report(["11-999", "r3", "new"])])
        assert answer.refused == [(0, Fault.DUPLICATE), (1, Fault.DUPLICATE)]
        await meter.close()


class Failing(MemoryLog):
    """Refuses every append while ``broken``."""

    broken = False

    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        if self.broken:
            raise Unavailable("the disk is full")
        return super().append(records, leaves, seal)


async def test_a_refused_commit_leaves_nothing_behind() -> None:
    storage = Failing()
    meter = await open_meter(storage)
    storage.broken = True
    with pytest.raises(Unavailable):
        await meter.report([report(["a", "b"])])
    assert meter.trouble == "the disk is full"
    storage.broken = False
    (answer,) = await meter.report([report(["a", "b"])])
    assert (answer.first, answer.count, answer.refused) == (0, 2, [])
    assert meter.trouble == ""
    await meter.close()


class Slow(Failing):
    """An append waits until it is let go; it fails then if ``broken``."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        self.begun.set()
        self.go.wait(10)
        return super().append(records, leaves, seal)


@pytest.mark.parametrize("broken", [False, True])
async def test_what_was_planned_on_a_commit_shares_its_fate(broken: bool) -> None:
    storage = Slow()
    meter = await open_meter(storage, core=choose("python"))
    await meter.report([report(["before"])])
    storage.go.clear()
    storage.begun.clear()
    storage.broken = broken
    first = asyncio.create_task(meter.report([report(["a", "b"], limit=4)]))
    await asyncio.to_thread(storage.begun.wait, 10)
    second = asyncio.create_task(meter.report([report(["b", "c", "d"], limit=4)]))
    third = asyncio.create_task(meter.reserve([reservation("a")]))
    await until(lambda: not meter._writer._waiting)
    await asyncio.sleep(0.05)  # it is planned meanwhile
    assert meter.counters(SCOPE).uses == 1
    assert meter.last(SCOPE)[0] == 1
    storage.go.set()
    answers = await asyncio.gather(first, second, third, return_exceptions=True)
    if broken:
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert meter.last(SCOPE)[0] == 1
        storage.broken = False
        (again,) = await meter.report([report(["b", "c", "d"], limit=4)])
        assert (again.first, again.count, again.refused) == (1, 3, [])
        (claimed,) = await meter.reserve([reservation("a")])
        assert claimed.claim is Claim.GRANTED
    else:
        assert not isinstance(answers[1], BaseException)
        assert (answers[1][0].first, answers[1][0].count) == (3, 1)
        assert answers[1][0].refused == [(0, Fault.DUPLICATE), (2, Fault.EXHAUSTED)]
        assert meter.last(SCOPE)[0] == 4
    await meter.close()


@pytest.mark.parametrize("broken", [False, True])
async def test_many_commits_of_which_some_fail(broken: bool) -> None:
    """What was acknowledged is there, once, and what was not can be sent again."""
    storage = Failing()
    meter = await open_meter(storage)
    dice = random.Random(5)

    async def reporter(name: str) -> None:
        for number in range(40):
            rows = [f"{name}-{number}-{row}" for row in range(5)]
            while True:
                storage.broken = broken and dice.random() < 0.3
                try:
                    (answer,) = await meter.report([report(rows)])
                except Unavailable:
                    continue
                assert answer.count == 5 or answer.refused == [
                    (row, Fault.DUPLICATE) for row in range(5)
                ]
                break

    await asyncio.gather(*(reporter(str(n)) for n in range(6)))
    storage.broken = False
    found = [item.receipt for item in meter.receipts(SCOPE, 1, 5000)]
    assert [item.number for item in found] == list(range(1, 1201))
    assert len({item.use_id for item in found if isinstance(item, RecordReceipt)}) == 1200
    assert meter.counters(SCOPE).uses == 1200
    await meter.close()


async def test_what_is_not_durable_is_not_found() -> None:
    storage = Slow()
    meter = await open_meter(storage)
    storage.go.clear()
    storage.begun.clear()
    writing = asyncio.create_task(meter.report([report(["a"])]))
    await asyncio.to_thread(storage.begun.wait, 10)
    assert meter.find(SCOPE, "a") is None
    assert meter.receipts(SCOPE) == []
    storage.go.set()
    await writing
    assert meter.find(SCOPE, "a") is not None
    await meter.close()


class Bug(Slow):
    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        tip = super().append(records, leaves, seal)
        if self.begun.is_set() and self.tip.size > 1:
            raise RuntimeError("a bug")
        return tip


async def test_nobody_waits_for_a_writer_that_died() -> None:
    storage = Bug()
    meter = await open_meter(storage)
    await meter.report([report(["a"])])
    storage.go.clear()
    storage.begun.clear()
    calls = [asyncio.create_task(meter.report([report([f"b{n}"])])) for n in range(5)]
    await asyncio.to_thread(storage.begun.wait, 10)
    calls += [asyncio.create_task(meter.report([report([f"c{n}"])])) for n in range(5)]
    await asyncio.sleep(0.05)
    storage.go.set()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert {type(answer) for answer in answers} <= {InternalError, Unavailable}
    with pytest.raises(Unavailable):
        await meter.report([report(["d"])])
    await asyncio.wait_for(meter.close(), 10)


class Forgetful(MemoryLog):
    """Cannot read its first leaf."""

    def leaves(self, start: int, count: int) -> list[bytes]:
        if start == 0:
            raise Gone("dropped")
        return super().leaves(start, count)


async def test_a_call_whose_earlier_receipt_is_gone_changes_nothing() -> None:
    meter = await open_meter(Forgetful())
    await meter.report([report(["old"])])
    with pytest.raises(Gone):
        await meter.reserve([reservation("new"), reservation("old")])
    with pytest.raises(Gone):
        await meter.record([refusal("new"), refusal("old")])
    assert meter.counters(SCOPE) == Counters(uses=1, reserved=0)
    assert meter.last(SCOPE)[0] == 1
    await meter.close()


def test_a_reader_never_sees_a_number_before_its_place() -> None:
    """Commits are merged while another thread reads."""
    keys = MemoryKeys()
    base = State(keys)
    base.scopes["other"] = Scope()
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            number = base.scope("mine").number
            found = base.leaves_of("mine", max(1, number - 3), 10)
            wrong.extend(index for index in found if index % 2)

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        for turn in range(3000):
            layer = base.over()
            layer.places["mine"] = Places(array("Q", [turn + 1]), array("Q", [2 * turn]))
            layer.scopes["mine"] = Scope(number=turn + 1)
            base.merge(layer)
    finally:
        stop.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not wrong
    assert base.leaves_of("mine", 2999, 2) == [5996, 5998]
