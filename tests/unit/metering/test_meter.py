"""What a service sees of the meter: exact counters, one receipt for each use, proofs."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.core.choose import choose
from connector.errors import Conflict, InvalidInput, NotFound, Reason, Unavailable
from connector.metering import ledger
from connector.metering import writer as writers
from connector.metering.meter import MAX_CALL, Meter
from connector.metering.types import Claim
from connector.model.receipt import NO_PREVIOUS, ActReceipt, Kind, Outcome, UseReceipt
from connector.model.use import Counters
from connector.tlog import merkle, tiles
from tests.logs import (
    KEY,
    ORIGIN,
    SCOPE,
    ManualClock,
    MemoryKeys,
    act,
    delivery,
    open_meter,
    refusal,
    reservation,
    test_key,
    until,
    use,
    verify,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def storage() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def meter(storage: MemoryLog, clock: ManualClock) -> AsyncIterator[Meter]:
    meter = await open_meter(storage, clock)
    yield meter
    await meter.close()


async def test_a_new_log_has_a_signed_checkpoint(meter: Meter) -> None:
    assert meter.checkpoint().size == 0
    assert meter.checkpoint().checkpoint.startswith(f"{ORIGIN}\n0\n".encode())
    assert meter.scopes() == []
    assert meter.last(SCOPE) == (0, NO_PREVIOUS)


async def test_a_use_is_reserved_recorded_and_proved(meter: Meter) -> None:
    item = reservation("u1", limit=2)
    (claimed,) = await meter.reserve([item])
    assert claimed.claim is Claim.GRANTED
    assert claimed.counters == meter.counters(SCOPE) == Counters(uses=0, reserved=1)
    (recorded,) = await meter.record([item.settle(Outcome.ALLOWED, result_digest=b"r" * 32)])
    assert meter.counters(SCOPE) == Counters(uses=1, reserved=0)
    assert recorded.fresh
    verify(recorded)
    receipt = recorded.receipt
    assert isinstance(receipt, UseReceipt)
    assert (receipt.number, receipt.previous) == (1, NO_PREVIOUS)
    assert (receipt.use_id, receipt.outcome) == ("u1", Outcome.ALLOWED)
    assert receipt.request_digest == item.request_digest


async def test_receipts_of_a_scope_are_numbered_and_chained(meter: Meter) -> None:
    for number in range(1, 6):
        await meter.record([refusal(f"a{number}", scope="a"), refusal(f"b{number}", scope="b")])
    found = meter.receipts("a", 1, 100)
    assert [item.receipt.number for item in found] == [1, 2, 3, 4, 5]
    for before, after in itertools.pairwise(found):
        assert after.receipt.previous == merkle.leaf_hash(before.leaf)
    assert meter.last("a") == (5, merkle.leaf_hash(found[-1].leaf))
    assert meter.scopes() == ["a", "b"]
    assert len({item.receipt.salt for item in found}) == 5
    for item in found:
        verify(item)


async def test_pages(meter: Meter) -> None:
    await meter.record([refusal(str(number)) for number in range(10)])
    assert [r.receipt.number for r in meter.receipts(SCOPE, 4, 3)] == [4, 5, 6]
    assert [r.receipt.number for r in meter.receipts(SCOPE, 9, 100)] == [9, 10]
    assert meter.receipts(SCOPE, 11, 100) == []
    assert meter.receipts("unknown", 1, 100) == []
    with pytest.raises(InvalidInput):
        meter.receipts(SCOPE, 0, 1)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED, Outcome.INTERRUPTED])
async def test_only_an_allowed_use_consumes(meter: Meter, outcome: Outcome) -> None:
    item = reservation("u1", limit=1)
    await meter.reserve([item])
    await meter.record([item.settle(outcome)])
    assert meter.counters(SCOPE) == Counters(uses=0, reserved=0)
    assert await use(meter, "u2", limit=1)
    assert await use(meter, "u3", limit=1) is None


async def test_one_call_with_many_is_exact(meter: Meter) -> None:
    claims = await meter.reserve([reservation(str(n), limit=3) for n in range(5)])
    assert [item.claim for item in claims] == [Claim.GRANTED] * 3 + [Claim.EXHAUSTED] * 2
    assert claims[-1].counters == Counters(uses=0, reserved=3)


async def test_64_at_once_never_overshoot(meter: Meter) -> None:
    for round_ in range(100):
        scope, left = f"round-{round_}", round_ % 9
        done = await asyncio.gather(
            *(use(meter, f"u{n}", scope=scope, limit=left) for n in range(64))
        )
        assert sum(item is not None for item in done) == left
        assert meter.counters(scope) == Counters(uses=left, reserved=0)


async def test_a_use_id_gives_one_receipt_for_ever(meter: Meter, storage: MemoryLog) -> None:
    first = await use(meter, "u1", limit=5)
    assert first is not None
    (claimed,) = await meter.reserve([reservation("u1", limit=5)])
    assert claimed.claim is Claim.DONE
    assert claimed.recorded is not None
    assert not claimed.recorded.fresh
    assert claimed.recorded.leaf == first.leaf
    (again,) = await meter.record([refusal("u1")])
    assert (again.leaf, again.fresh) == (first.leaf, False)
    assert meter.counters(SCOPE) == Counters(uses=1)
    await meter.close()
    reopened = await open_meter(storage)
    found = reopened.find(SCOPE, "u1")
    assert found is not None
    assert found.leaf == first.leaf
    verify(found)
    (claimed,) = await reopened.reserve([reservation("u1", limit=5)])
    assert claimed.claim is Claim.DONE
    await reopened.close()


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_whatever_the_outcome_was(meter: Meter, outcome: Outcome) -> None:
    item = reservation("u1")
    await meter.reserve([item])
    (first,) = await meter.record([item.settle(outcome)])
    (claimed,) = await meter.reserve([item])
    assert claimed.recorded is not None
    assert claimed.recorded.leaf == first.leaf


async def test_a_use_id_is_of_its_scope_and_kind(meter: Meter) -> None:
    first = await use(meter, "u1")
    assert first is not None
    assert meter.find("other", "u1") is None
    assert meter.find(SCOPE, "u1", Kind.DELIVERY) is None
    (record,) = await meter.record([delivery(first)])
    assert record.fresh
    (again,) = await meter.record([delivery(first)])
    assert (again.leaf, again.fresh) == (record.leaf, False)
    found = meter.find(SCOPE, "u1", Kind.DELIVERY)
    assert found is not None
    assert found.leaf == record.leaf


async def test_the_same_use_twice_at_once_runs_once(meter: Meter) -> None:
    claims = await asyncio.gather(*(meter.reserve([reservation("u1")]) for _ in range(8)))
    found = sorted(item.claim.value for (item,) in claims)
    assert found == ["granted"] + ["running"] * 7
    with pytest.raises(Conflict):
        await meter.record([refusal("u1")])  # would end the one that runs
    assert meter.counters(SCOPE).reserved == 1


async def test_a_refusal_twice_at_once_is_one_receipt(meter: Meter) -> None:
    answers = await asyncio.gather(*(meter.record([refusal("u1")]) for _ in range(8)))
    assert len({item.leaf for (item,) in answers}) == 1
    assert sum(item.fresh for (item,) in answers) == 1
    assert meter.last(SCOPE)[0] == 1


NOT_ALLOWED = {
    "never reserved": reservation("u9").settle(Outcome.ALLOWED),
    "allowed without a reservation": refusal("u9", outcome=Outcome.ALLOWED),
}


@pytest.mark.parametrize("name", NOT_ALLOWED)
async def test_a_wrong_draft_changes_nothing(meter: Meter, name: str) -> None:
    with pytest.raises(Conflict):
        await meter.record([refusal("u1"), NOT_ALLOWED[name]])
    assert meter.checkpoint().size == 0
    assert meter.find(SCOPE, "u1") is None


INVALID = {
    "no use id": refusal(""),
    "long use id": refusal("u" * 600),
    "no scope": refusal("u1", scope=""),
    "short digest": refusal("u1", result_digest=b"short"),
    "too many reasons": refusal("u1", reasons=(Reason("t", "o", "a"),) * 17),
    "a long reason": refusal("u1", reasons=(Reason("t", "o" * 513, "a"),)),
}


@pytest.mark.parametrize("name", INVALID)
async def test_what_cannot_be_a_receipt(meter: Meter, name: str) -> None:
    good = meter.record([refusal("good")])
    bad = meter.record([refusal("u2"), INVALID[name]])
    answers = await asyncio.gather(good, bad, return_exceptions=True)
    assert isinstance(answers[0], list)
    assert isinstance(answers[1], InvalidInput)
    assert meter.checkpoint().size == 1
    assert meter.find(SCOPE, "u2") is None


async def test_what_cannot_be_a_receipt_does_not_run(meter: Meter) -> None:
    for item in (reservation("u" * 65), reservation(""), reservation("u", scope="s" * 600)):
        with pytest.raises(InvalidInput):
            await meter.reserve([reservation("fine"), item])
    assert meter.counters(SCOPE) == Counters()


async def test_a_call_has_a_limit(meter: Meter) -> None:
    with pytest.raises(InvalidInput):
        await meter.record([refusal(str(n)) for n in range(MAX_CALL + 1)])
    assert await meter.record([]) == []
    assert await meter.reserve([]) == []


async def test_time_never_goes_back(meter: Meter, storage: MemoryLog, clock: ManualClock) -> None:
    (first,) = await meter.record([refusal("u1")])
    clock.advance(-3600)
    (second,) = await meter.record([refusal("u2")])
    assert second.receipt.time_ms == first.receipt.time_ms
    await meter.close()
    reopened = await open_meter(storage, clock)
    (third,) = await reopened.record([refusal("u3")])
    assert third.receipt.time_ms == first.receipt.time_ms
    clock.advance(7200)
    (fourth,) = await reopened.record([refusal("u4")])
    assert fourth.receipt.time_ms == first.receipt.time_ms + 3_600_000
    await reopened.close()


async def test_a_restart_gives_back_what_was_running(
    meter: Meter, storage: MemoryLog, clock: ManualClock
) -> None:
    await use(meter, "u1", limit=3)
    await meter.reserve([reservation("u2", limit=3), reservation("u3", limit=3)])
    await meter.close()
    reopened = await open_meter(storage, clock)
    assert reopened.counters(SCOPE) == Counters(uses=1, reserved=2)
    (claimed,) = await reopened.reserve([reservation("u4", limit=3)])
    assert claimed.claim is Claim.EXHAUSTED
    assert await reopened.recover() == 2
    assert reopened.counters(SCOPE) == Counters(uses=1, reserved=0)
    found = reopened.find(SCOPE, "u2")
    assert found is not None
    receipt = found.receipt
    assert isinstance(receipt, UseReceipt)
    assert receipt.outcome is Outcome.INTERRUPTED
    assert receipt.reasons == (ledger.RESTARTED,)
    assert receipt.request_digest == reservation("u2").request_digest
    verify(found)
    assert await reopened.recover() == 0
    await reopened.close()


async def test_recovery_leaves_what_runs_now_alone(meter: Meter) -> None:
    await meter.reserve([reservation("u1")])
    assert await meter.recover() == 0
    assert meter.counters(SCOPE).reserved == 1


async def test_replay_says_what_the_meter_said(meter: Meter, storage: MemoryLog) -> None:
    for number in range(30):
        item = reservation(f"u{number}", scope=f"s{number % 4}")
        await meter.reserve([item])
        if number % 5:
            outcome = Outcome(1 + number % 4)
            await meter.record([item.settle(outcome), act(item.scope)])
    reopened = await open_meter(storage)
    assert reopened.scopes() == meter.scopes()
    for scope in meter.scopes():
        assert reopened.counters(scope) == meter.counters(scope)
        assert reopened.last(scope) == meter.last(scope)
        assert [r.leaf for r in reopened.receipts(scope)] == [r.leaf for r in meter.receipts(scope)]
    await reopened.close()


async def test_acts_are_receipts(meter: Meter) -> None:
    (recorded,) = await meter.record([act()])
    assert isinstance(recorded.receipt, ActReceipt)
    verify(recorded)


async def test_a_statement_is_made_when_all_before_it_is_durable(meter: Meter) -> None:
    seen: list[tuple[int, bytes, int]] = []

    def statement(number: int, head: bytes) -> bytes:
        seen.append((number, head, meter.last(SCOPE)[0]))
        return b"e30.e30.e30"

    calls = []
    for turn in range(3):
        calls += [meter.record([refusal(f"r{turn}-{n}")]) for n in range(15)]
        calls.append(meter.record([replace(act(), statement=statement)]))
    await asyncio.gather(*calls)
    assert len(seen) == 3
    for number, head, durable in seen:
        assert durable == number
        (after,) = meter.receipts(SCOPE, number + 1, 1)
        assert isinstance(after.receipt, ActReceipt)
        assert after.receipt.previous == head


async def test_a_statement_that_cannot_be_made_leaves_no_receipt(meter: Meter) -> None:
    def refuse(number: int, head: bytes) -> bytes:
        raise Conflict("not now")

    with pytest.raises(Conflict):
        await meter.record([refusal("r1"), replace(act(), statement=refuse)])
    assert meter.checkpoint().size == 0


@pytest.mark.parametrize("moment", ["at once", "in line", "answered"])
async def test_a_caller_that_leaves_gives_back(
    meter: Meter, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = asyncio.create_task(meter.reserve([reservation("u1", limit=1)]))
    if moment == "in line":
        await asyncio.sleep(0)
    elif moment == "answered":
        answer = writers._answer

        def answer_and_cancel(*args: Any) -> bool:
            monkeypatch.undo()
            answered = answer(*args)
            task.cancel()
            return answered

        monkeypatch.setattr(writers, "_answer", answer_and_cancel)
        await until(task.done)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not meter._writer._waiting and not meter.counters(SCOPE).reserved)
    assert meter.counters(SCOPE) == Counters()
    assert await use(meter, "u2", limit=1)


async def test_a_caller_that_leaves_does_not_keep_a_receipt_from_being_written(
    meter: Meter,
) -> None:
    item = reservation("u1", limit=1)
    await meter.reserve([item])
    task = asyncio.create_task(meter.record([item.settle(Outcome.FAILED)]))
    await asyncio.sleep(0)  # it has begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: meter.find(SCOPE, "u1") is not None)
    assert meter.counters(SCOPE) == Counters()


async def test_waiting_for_growth(meter: Meter) -> None:
    await meter.record([refusal("u1")])
    await meter.grown_beyond(0)
    waiting = asyncio.create_task(meter.grown_beyond(2))
    await meter.record([refusal("u2")])
    await asyncio.sleep(0)
    assert not waiting.done()
    await meter.record([refusal("u3")])
    await waiting
    waiting = asyncio.create_task(meter.grown_beyond(3))
    await asyncio.sleep(0)
    await meter.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_after_close_nothing_is_written(meter: Meter) -> None:
    running = asyncio.create_task(meter.record([refusal("u1")]))
    for _ in range(3):
        await asyncio.sleep(0)  # it is in line, or being written
    await meter.close()
    assert (await running)[0].fresh
    with pytest.raises(Unavailable):
        await meter.record([refusal("u2")])
    await meter.close()


async def test_another_nodes_log_is_refused(meter: Meter, storage: MemoryLog) -> None:
    await meter.record([refusal("u1")])
    with pytest.raises(Conflict):
        await Meter.open(
            storage,
            core=choose("python"),
            keys=MemoryKeys(),
            origin=ORIGIN,
            key=test_key("other"),
            clock=ManualClock(),
            random=bytes,
        )
    with pytest.raises(Conflict):
        await Meter.open(
            storage,
            core=choose("python"),
            keys=MemoryKeys(),
            origin="other.example/log",
            key=KEY,
            clock=ManualClock(),
            random=bytes,
        )


async def test_a_new_key_goes_on(meter: Meter, storage: MemoryLog) -> None:
    await meter.record([refusal("u1")])
    former = KEY.public_key().public_bytes_raw()
    rotated = await Meter.open(
        storage,
        core=choose("python"),
        keys=MemoryKeys(),
        origin=ORIGIN,
        key=test_key("new"),
        former_keys=[former],
        clock=ManualClock(),
        random=bytes,
    )
    (recorded,) = await rotated.record([refusal("u2")])
    assert recorded.receipt.number == 2
    await rotated.close()


async def test_tiles_and_bundles(meter: Meter) -> None:
    for first in range(0, 600, 300):
        await meter.record([refusal(str(n)) for n in range(first, first + 300)])
    leaves = [item.leaf for item in meter.receipts(SCOPE, 1, 600)]
    full = meter.log.tile("tile/0/000")
    assert full == b"".join(map(merkle.leaf_hash, leaves[:256]))
    assert meter.log.tile("tile/0/002.p/88") == b"".join(map(merkle.leaf_hash, leaves[512:]))
    top = [merkle.root_of([merkle.leaf_hash(x) for x in leaves[a : a + 256]]) for a in (0, 256)]
    assert meter.log.tile("tile/1/000.p/2") == b"".join(top)
    bundle = meter.log.bundle("tile/entries/001")
    assert tiles.parse_bundle(bundle, 256) == leaves[256:512]
    for path in ("tile/0/002", "tile/0/002.p/89", "tile/1/000", "tile/2/000.p/1", "tile/9/000"):
        with pytest.raises(NotFound):
            meter.log.tile(path)
    for path in ("tile/entries/002", "tile/entries/003.p/1"):
        with pytest.raises(NotFound):
            meter.log.bundle(path)
    with pytest.raises(InvalidInput):
        meter.log.tile("tile/entries/000")
    with pytest.raises(InvalidInput):
        meter.log.bundle("tile/0/000")


async def test_proofs_out_of_the_tree(meter: Meter) -> None:
    await meter.record([refusal("u1")])
    for call in (
        lambda: meter.inclusion(1, 1),
        lambda: meter.inclusion(0, 2),
        lambda: meter.inclusion(-1, 1),
        lambda: meter.consistency(2, 1),
        lambda: meter.consistency(0, 9),
        lambda: meter.log.leaf(1),
        lambda: meter.log.root(-1),
    ):
        with pytest.raises(InvalidInput):
            call()
