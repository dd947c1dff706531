"""What of the log may be dropped, and that nothing else is."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.errors import Conflict, Gone, NotFound, Unavailable
from connector.metering.meter import Meter
from connector.model.negotiation import AgreementState, StoredAgreement
from connector.operations import retention
from connector.operations.retention import Retention, seal_in_background
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form, Segment
from tests.logs import ManualClock, act, open_meter, refusal, until, use

FIRST, SECOND = "urn:uuid:first", "urn:uuid:second"
NODE = "did:web:airport.example"


@dataclass
class Agreements:
    """By id: whether it has ended; or what asking for it raises."""

    found: dict[str, bool] = field(default_factory=dict)
    error: Exception | None = None

    async def __call__(self, id: str) -> StoredAgreement:
        if self.error is not None:
            raise self.error
        if id not in self.found:
            raise NotFound("no such agreement")
        state = AgreementState.ENDED if self.found[id] else AgreementState.ACTIVE
        return cast(StoredAgreement, SimpleNamespace(state=state))


@dataclass
class Kept:
    log: SegmentLog
    meter: Meter
    clock: ManualClock
    agreements: Agreements
    retention: Retention

    @property
    def now(self) -> datetime:
        return self.clock.now()

    async def day(self, *scopes: str) -> None:
        """A day's receipts in these scopes, at least a segment of them."""
        before = len(self.log.segments())
        number = 0
        while len(self.log.segments()) == before:
            for scope in scopes:
                if number % 2:
                    await self.meter.record([act(scope)])
                else:
                    use_id = f"{self.now:%d}-{number}"
                    await self.meter.record([refusal(use_id, scope=scope)])
            number += 1
        self.clock.advance(86_400)

    def keep(self) -> None:
        self.log.keep(self.log.mark(), b"state")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with opened(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Kept]:
    clock, agreements = ManualClock(), Agreements({FIRST: True, SECOND: True})
    log = SegmentLog(folder, core=choose("python"), segment_bytes=3000)
    meter = await open_meter(log, clock)
    with ThreadPoolExecutor(1) as beside:
        find = more.get("find", agreements)
        yield Kept(log, meter, clock, agreements, Retention(log, meter, beside, find))
    await meter.close()
    log.close()


async def sealed(kept: Kept) -> list[int]:
    return [segment.start async for segment in kept.retention.seal()]


async def test_what_is_complete_is_sealed_oldest_first(kept: Kept) -> None:
    for _ in range(3):
        await kept.day(FIRST)
    starts = [segment.start for segment in await kept.retention.listed()]
    assert await sealed(kept) == starts[:-1]
    assert await sealed(kept) == []
    assert [segment.form for segment in await kept.retention.listed()] == [
        *[Form.SEALED] * 3,
        Form.OPEN,
    ]


async def test_the_oldest_days_are_dropped(kept: Kept) -> None:
    began = kept.now
    await kept.day(FIRST)
    await kept.day(FIRST)
    await kept.day(SECOND)
    await kept.day(SECOND)
    await sealed(kept)
    kept.keep()
    limit = began + timedelta(days=2)
    found = await kept.retention.droppable(limit)
    assert [segment.start for segment in found.segments] == [
        segment.start for segment in kept.log.segments()[:2]
    ]
    assert "it has a receipt of 2026-11-25" in found.kept_by
    assert kept.log.segments()[0].form is Form.SEALED  # asking changes nothing
    starts = [segment.start for segment in found.segments]
    dropped = await kept.retention.drop(limit, starts)
    assert [segment.form for segment in dropped.segments] == [Form.DROPPED] * 2
    with pytest.raises(Gone):
        kept.meter.receipts(FIRST)
    found = await kept.retention.droppable(limit)
    assert found.segments == ()
    with pytest.raises(Conflict):
        await kept.retention.drop(limit, starts)


async def test_only_what_was_agreed_on_is_dropped(kept: Kept) -> None:
    began = kept.now
    for _ in range(3):
        await kept.day(FIRST)
    await sealed(kept)
    kept.keep()
    starts = [segment.start for segment in kept.log.segments()]
    for wrong in ([starts[1]], [starts[1], starts[0]], starts, [7], [starts[0], starts[0]]):
        with pytest.raises(Conflict):
            await kept.retention.drop(began + timedelta(days=9), wrong)
    assert {segment.form for segment in kept.log.segments()} == {Form.SEALED, Form.OPEN}
    await kept.retention.drop(began + timedelta(days=9), starts[:1])
    forms = [segment.form for segment in kept.log.segments()]
    assert forms == [Form.DROPPED, Form.SEALED, Form.SEALED, Form.OPEN]


async def prepared(kept: Kept, *scopes: str) -> datetime:
    for _ in range(2):
        await kept.day(*scopes)
    await sealed(kept)
    kept.keep()
    return kept.now


async def kept_by(kept: Kept, limit: datetime) -> str:
    found = await kept.retention.droppable(limit)
    assert found.segments == ()
    return found.kept_by


async def test_an_agreement_in_force_keeps_its_receipts(kept: Kept) -> None:
    limit = await prepared(kept, FIRST, SECOND)
    kept.agreements.found[SECOND] = False
    assert await kept_by(kept, limit) == f"agreement {SECOND} has not ended"


async def test_an_agreement_that_ended_later_keeps_its_receipts(kept: Kept) -> None:
    limit = await prepared(kept, FIRST)
    await kept.meter.record([act(FIRST)])  # its end
    assert f"agreement {FIRST} ended on 2026-11-25" in await kept_by(kept, limit)
    found = await kept.retention.droppable(limit + timedelta(days=1))
    assert len(found.segments) == 2


async def test_what_is_no_agreement_counts_as_ended(kept: Kept) -> None:
    kept.agreements.found.clear()
    dataset = replace(act("urn:uuid:dataset"), act="dataset.published")
    await kept.meter.record([dataset])
    limit = await prepared(kept, NODE)
    assert len((await kept.retention.droppable(limit)).segments) == 2


async def test_an_agreement_that_the_node_does_not_know_keeps_its_receipts(kept: Kept) -> None:
    limit = await prepared(kept, FIRST)
    kept.agreements.found.clear()
    assert f"agreement {FIRST} is not in this node's books" in await kept_by(kept, limit)


async def test_nothing_is_dropped_where_agreements_cannot_be_asked_for(kept: Kept) -> None:
    limit = await prepared(kept, FIRST)
    kept.agreements.error = Unavailable("the store is away")
    with pytest.raises(Unavailable):
        await kept.retention.droppable(limit)
    with pytest.raises(Unavailable):
        await kept.retention.drop(limit, [0])
    assert kept.log.segments()[0].form is Form.SEALED


async def test_what_is_not_sealed_or_still_needed_stays(kept: Kept) -> None:
    await kept.day(FIRST)
    assert "not sealed" in await kept_by(kept, kept.now)
    await sealed(kept)
    assert "restart" in await kept_by(kept, kept.now)
    kept.keep()
    assert (await kept.retention.droppable(kept.now)).segments


async def test_a_directory_keeps_its_log_whole(tmp_path: Path) -> None:
    async with opened(tmp_path, find=None) as kept:
        limit = await prepared(kept, NODE)
        assert "register" in await kept_by(kept, limit)
        with pytest.raises(Conflict):
            await kept.retention.drop(limit, [0])


async def test_scopes_by_where_their_receipts_are(kept: Kept) -> None:
    for scope in (FIRST, SECOND, FIRST, FIRST, NODE):
        await kept.meter.record([act(scope)])
    expected = {
        (0, 1): [FIRST],
        (1, 2): [SECOND],
        (0, 2): [FIRST, SECOND],
        (2, 4): [FIRST],
        (3, 5): [FIRST, NODE],
        (4, 9): [NODE],
        (5, 9): [],
        (1, 5): [FIRST, SECOND, NODE],
    }
    assert {span: kept.meter.scopes_between(*span) for span in expected} == expected


async def test_segments_are_sealed_in_the_background(kept: Kept) -> None:
    await kept.day(FIRST)
    with ThreadPoolExecutor(1) as beside:
        task = asyncio.create_task(seal_in_background(kept.log, beside))
        await until(lambda: kept.log.segments()[0].form is Form.SEALED)
        assert kept.log.segments()[1].form is Form.OPEN
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def damage(folder: Path, start: int) -> None:
    (path,) = (path for path in folder.rglob("*") if path.name.startswith(f"{start:020}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_damaged_segment_is_left_and_the_others_are_sealed(
    kept: Kept, tmp_path: Path
) -> None:
    for _ in range(3):
        await kept.day(FIRST)
    starts = [segment.start for segment in kept.log.segments()]
    damage(tmp_path, starts[0])
    found = []
    with pytest.raises(CorruptLog):
        async for segment in kept.retention.seal():
            found.append(segment.start)
    assert found == starts[1:3]


async def test_a_damaged_segment_is_read_once(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOK_S", 0.01)
    await kept.day(FIRST)
    start = kept.log.segments()[0].start
    damage(tmp_path, start)
    asked, looks = [], 0
    seal, segments = kept.log.seal, kept.log.segments

    def counted(start: int) -> Segment:
        asked.append(start)
        return seal(start)

    def looked() -> list[Segment]:
        nonlocal looks
        looks += 1
        return segments()

    monkeypatch.setattr(kept.log, "seal", counted)
    monkeypatch.setattr(kept.log, "segments", looked)
    with ThreadPoolExecutor(1) as beside:
        task = asyncio.create_task(seal_in_background(kept.log, beside))
        await until(lambda: looks > 3)
        assert asked == [start]
        await kept.day(FIRST)
        following = segments()[1].start
        await until(lambda: segments()[1].form is Form.SEALED)
        assert asked == [start, following]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_uses_of_one_agreement_are_one_scope(kept: Kept) -> None:
    for number in range(5):
        assert await use(kept.meter, f"u{number}", scope=FIRST)
    assert kept.meter.scopes_between(0, 100) == [FIRST]
