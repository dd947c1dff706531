"""What was acknowledged is there, once, whatever stopped the process or failed in the disk."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.adapters.segments.disk import Disk
from connector.errors import ConnectorError, Unavailable
from connector.model.receipt import Outcome, UseReceipt
from connector.model.use import Counters
from connector.tlog.merkle import leaf_hash
from tests.logs import SCOPE, FaultyDisk, open_meter, pack, refusal, reservation, seal, use, verify

ROOT = Path(__file__).parents[2]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fault.log_writer", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


async def check(folder: Path, said: list[str]) -> None:
    """Opens by itself; compares every acknowledged receipt; every number and counter fits."""
    storage = SegmentLog(folder)
    meter = await open_meter(storage)
    await meter.recover()
    found = meter.receipts(SCOPE, 1, 10**6)
    assert [item.receipt.number for item in found] == list(range(1, len(found) + 1))
    by_use: dict[str, str] = {}
    outcomes: Counter[Outcome] = Counter()
    for item in found:
        assert isinstance(item.receipt, UseReceipt)
        assert item.receipt.use_id not in by_use, "counted twice"
        by_use[item.receipt.use_id] = leaf_hash(item.leaf).hex()
        outcomes[item.receipt.outcome] += 1
    assert meter.counters(SCOPE) == Counters(uses=outcomes[Outcome.ALLOWED], reserved=0)
    for line in said:
        match line.split():
            case ["done", use_id, leaf]:
                assert by_use[use_id] == leaf
            case ["reserved", use_id]:
                assert use_id in by_use
    if found:
        verify(found[-1])
    await meter.close()
    storage.close()


async def kill_repeatedly(folder: Path, rounds: int) -> None:
    dice = random.Random(3)
    said: list[str] = []
    for round_ in range(rounds):
        process = start(folder, f"run{round_}")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(dice.randrange(2, 400))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        assert len(lines) > 1
        said += [line.strip() for line in lines]
    assert sum(line.startswith("done") for line in said) > rounds
    await check(folder, said)


async def test_killed_again_and_again(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path / "log", 4)


@pytest.mark.slow
async def test_killed_a_hundred_times(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path / "log", 100)


async def test_a_full_disk(tmp_path: Path) -> None:
    """A real refusal of the system in the middle of a write; then there is room again."""
    process = start(tmp_path / "log", "run", "15000")
    said = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert said.count("full") == 1
    assert said[-1].startswith("done run-after-19")
    assert any(line.startswith("done run-before") for line in said)
    await check(tmp_path / "log", said)


async def story(folder: Path, disk: Disk) -> tuple[list[str], bool]:
    """A few uses; what was acknowledged, and whether it came to its end."""
    said: list[str] = []
    try:
        storage = SegmentLog(folder, disk=disk, segment_bytes=900)
    except Unavailable:
        return said, False
    try:
        meter = await open_meter(storage)
    except Unavailable:
        storage.close()
        return said, False
    complete = True
    for number in range(3):
        try:
            recorded = await use(meter, f"u{number}")
            assert recorded is not None
            said.append(f"done u{number} {leaf_hash(recorded.leaf).hex()}")
            (recorded,) = await meter.record([refusal(f"r{number}")])
            said.append(f"done r{number} {leaf_hash(recorded.leaf).hex()}")
        except ConnectorError as error:
            assert isinstance(error, Unavailable)
            complete = False
    await meter.close()
    storage.close()
    return said, complete


async def test_a_fault_at_every_call_of_the_disk(tmp_path: Path) -> None:
    """Before the call happens, and after: then it failed, but it was persisted."""
    quiet = FaultyDisk()
    assert (await story(tmp_path / "quiet", quiet))[1]
    calls = len(quiet.calls)
    assert calls > 25
    for when in ("fail", "after"):
        for at in range(calls):
            disk = FaultyDisk()
            setattr(disk, when, once(iter(range(at, -1, -1))))
            folder = tmp_path / f"{when}-{at}"
            said, complete = await story(folder, disk)
            assert not complete or len(said) == 6
            await check(folder, said)


def once(countdown: Iterator[int]) -> Callable[[str], None]:
    def fault(_: str) -> None:
        if next(countdown, None) == 0:
            raise OSError(28, "injected")

    return fault


def refuse(call: str) -> Callable[[str], None]:
    def fault(name: str) -> None:
        if name == call:
            raise OSError(5, "injected")

    return fault


async def test_after_a_failed_write_there_is_room_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    storage = SegmentLog(tmp_path, disk=disk)
    meter = await open_meter(storage)
    disk.fail = refuse("write")
    with pytest.raises(Unavailable) as error:
        await use(meter, "u1", limit=1)
    assert error.value.hint
    disk.fail = lambda name: None
    assert await use(meter, "u1", limit=1)
    await meter.close()
    storage.close()
    await check(tmp_path, [])


async def test_after_a_failed_sync_nothing_is_written(tmp_path: Path) -> None:
    """Nobody knows then what the disk has: see the PostgreSQL project's fsync findings."""
    disk = FaultyDisk()
    storage = SegmentLog(tmp_path, disk=disk)
    meter = await open_meter(storage)
    await use(meter, "u1")
    disk.fail = refuse("sync")
    with pytest.raises(Unavailable):
        await use(meter, "u2")
    disk.fail = lambda name: None
    disk.calls.clear()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await meter.reserve([reservation("u3")])
    assert disk.calls == []
    assert meter.checkpoint().size == 1
    assert meter.find(SCOPE, "u1") is not None
    await meter.close()
    storage.close()
    await check(tmp_path, [])


def test_no_acknowledgement_before_the_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    storage = SegmentLog(tmp_path, disk=disk, segment_bytes=2000)
    shown: list[tuple[str, int]] = []
    disk.after = lambda name: shown.append((name, storage.tip.size))
    for number in range(20):
        before = storage.tip.size
        shown.clear()
        storage.append([b"r"], pack([b"leaf"] * (number % 3)), seal)
        assert shown[-2:] == [("write", before), ("sync", before)]
    assert len(list((tmp_path / "segments").iterdir())) > 2
    storage.close()


async def test_many_callers_share_a_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    storage = SegmentLog(tmp_path, disk=disk)
    meter = await open_meter(storage)
    disk.calls.clear()
    await asyncio.gather(*(meter.record([refusal(str(n))]) for n in range(200)))
    assert disk.calls.count("sync") <= 4
    await meter.close()
    storage.close()


async def test_64_at_once_are_exact_on_disk(tmp_path: Path) -> None:
    storage = SegmentLog(tmp_path)
    meter = await open_meter(storage)
    for round_ in range(20):
        scope = f"round-{round_}"
        done = await asyncio.gather(
            *(use(meter, f"u{n}", scope=scope, limit=round_) for n in range(64))
        )
        assert sum(item is not None for item in done) == round_
    await meter.close()
    storage.close()
    storage = SegmentLog(tmp_path)
    meter = await open_meter(storage)
    for round_ in range(20):
        assert meter.counters(f"round-{round_}") == Counters(uses=round_, reserved=0)
    await meter.close()
    storage.close()
