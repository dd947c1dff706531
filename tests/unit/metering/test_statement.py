"""Totals, statements, and evidence that is complete."""

import asyncio

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.errors import InvalidInput, RateLimited, Reason
from connector.identity.statements import read_statement
from connector.metering.refusals import MAX_MEMBERS, RefusalLimiter
from connector.metering.statement import (
    collect,
    issue_statement,
    scope_receipts,
)
from connector.model import receipt as receipts
from connector.model.receipt import ActReceipt, Outcome
from connector.tlog import merkle
from connector.tlog.checkpoint import parse_checkpoint
from connector.verifier.totals import STATEMENT_ACT, STATEMENT_KIND, read_totals, totals
from tests.logs import (
    KEY,
    PROVIDER,
    PUBLIC,
    SCOPE,
    ManualClock,
    act,
    delivery,
    open_meter,
    refusal,
    reservation,
    use,
)

PURPOSE, COLUMN = Reason("purpose", "ads", "tourism"), Reason("column", "x", "y")


async def test_totals_of_both_sides() -> None:
    provider, consumer = await open_meter(MemoryLog()), await open_meter(MemoryLog())
    for number in range(3):
        done = await use(provider, f"u{number}", rows=10)
        assert done is not None
        await consumer.record([delivery(done, rows=10)])
    for number, reasons in enumerate([(PURPOSE,), (PURPOSE, COLUMN), (COLUMN, COLUMN)]):
        (done,) = await provider.record([refusal(f"r{number}", reasons=reasons)])
        await consumer.record([delivery(done, rows=0)])
    lost = reservation("cut")
    await provider.reserve([lost])
    await provider.record([lost.settle(Outcome.INTERRUPTED), act()])
    ours, theirs = (totals(scope_receipts(meter, SCOPE)) for meter in (provider, consumer))
    assert (ours["allowed"], ours["refused"], ours["interrupted"]) == (3, 3, 1)
    assert ours["rows_returned"] == theirs["rows_returned"] == 30
    assert (theirs["allowed"], theirs["refused"], theirs["interrupted"]) == (3, 3, 0)
    await provider.close()
    await consumer.close()


async def test_a_statement_counts_every_receipt_before_it() -> None:
    meter = await open_meter(MemoryLog())
    await use(meter, "u1", rows=4)
    await meter.record([refusal("r1", reasons=(PURPOSE,))])
    head = meter.last(SCOPE)[1]
    issued = await issue_statement(meter, SCOPE, KEY, PROVIDER)
    receipt = issued.receipt
    assert isinstance(receipt, ActReceipt)
    assert (receipt.number, receipt.act, receipt.actor) == (3, STATEMENT_ACT, PROVIDER)
    payload = read_statement(receipt.statement.decode(), STATEMENT_KIND, [PUBLIC])
    count, said, sums = read_totals(payload)
    assert (count, said) == (2, head)
    assert (sums["allowed"], sums["refused"], sums["rows_returned"]) == (1, 1, 4)
    assert payload["scope"] == SCOPE
    await meter.close()


async def test_a_statement_of_an_empty_scope() -> None:
    meter = await open_meter(MemoryLog())
    issued = await issue_statement(meter, "nothing", KEY, PROVIDER)
    assert issued.receipt.number == 1
    await meter.close()


async def test_statements_while_receipts_come_in() -> None:
    meter = await open_meter(MemoryLog())

    async def traffic() -> None:
        for number in range(20):
            await meter.record([refusal(f"r{number}")])

    issued, *_ = await asyncio.gather(issue_statement(meter, SCOPE, KEY, PROVIDER), traffic())
    receipt = issued.receipt
    assert isinstance(receipt, ActReceipt)
    payload = read_statement(receipt.statement.decode(), STATEMENT_KIND, [PUBLIC])
    count, head, sums = read_totals(payload)
    assert count == receipt.number - 1 == sums["refused"]
    assert head == receipt.previous
    await meter.close()


async def test_evidence_is_complete_under_one_checkpoint() -> None:
    meter = await open_meter(MemoryLog())
    for number in range(5):
        await meter.record([refusal(f"r{number}"), refusal(f"r{number}", scope="other")])
    cut = meter.checkpoint().checkpoint
    await meter.record([refusal("later")])
    for note, count in ((None, 6), (cut, 5)):
        parts = collect(meter, SCOPE, note)
        checkpoint = parse_checkpoint(parts.checkpoint)
        assert checkpoint.size == parts.size
        numbers = [receipts.decode(entry.leaf).number for entry in parts.entries]
        assert numbers == list(range(1, count + 1))
        for entry in parts.entries:
            leaf = merkle.leaf_hash(entry.leaf)
            merkle.verify_inclusion(leaf, entry.index, parts.size, entry.inclusion, checkpoint.root)
    smaller = await open_meter(MemoryLog())
    with pytest.raises(InvalidInput):
        collect(smaller, SCOPE, cut)
    await meter.close()
    await smaller.close()


def test_refusals_are_limited_for_each_member() -> None:
    clock = ManualClock()
    limiter = RefusalLimiter(clock, per_second=2, burst=3)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(RateLimited):
        limiter.take("a")
    limiter.take("b")
    clock.advance(0.5)
    limiter.take("a")
    with pytest.raises(RateLimited):
        limiter.take("a")
    clock.advance(3600)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(RateLimited):
        limiter.take("a")


def test_the_limiter_forgets_whom_it_has_not_seen_for_long() -> None:
    limiter = RefusalLimiter(ManualClock(), burst=1)
    for member in range(MAX_MEMBERS + 100):
        limiter.take(str(member))
    assert len(limiter._buckets) == MAX_MEMBERS
    with pytest.raises(RateLimited):
        limiter.take(str(MAX_MEMBERS + 99))
