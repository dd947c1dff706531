"""Segments sealed and dropped: interrupted at every step, damaged, read meanwhile, and after."""

import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.adapters.segments.fsck import fsck
from connector.adapters.segments.sealed import BLOCK_BYTES
from connector.core.choose import choose
from connector.core.interface import Core
from connector.errors import Conflict, ConnectorError, Gone, InternalError, NotFound, Unavailable
from connector.metering.meter import Meter
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form
from connector.tlog import merkle, tiles
from tests.fault.sealing_writer import leaf
from tests.logs import SCOPE, FaultyDisk, open_meter, pack, refusal, seal, use, verify

ROOT = Path(__file__).parents[2]
SEGMENT_BYTES = 3000


class Disk(FaultyDisk):
    """Every call, and not only those that write."""

    def create(self, path: Path) -> int:
        made: list[int] = []
        self._around("create", lambda: made.append(super(Disk, self).create(path)))
        return made[0]

    def rename(self, path: Path, target: Path) -> None:
        self._around("rename", lambda: super(Disk, self).rename(path, target))

    def remove(self, path: Path) -> None:
        self._around("remove", lambda: super(Disk, self).remove(path))


def written(folder: Path, leaves: int = 300, **more: object) -> SegmentLog:
    """Some complete segments and an open one; the kept mark is in the open one."""
    log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES, **more)  # type: ignore[arg-type]
    while (first := log.tip.size) < leaves:
        log.append([b"r"] * (first % 2), pack([leaf(first + n) for n in range(7)]), seal)
    log.keep(log.mark(), b"state")
    return log


def seal_all(log: SegmentLog) -> None:
    for segment in log.segments()[:-1]:
        if segment.form is Form.COMPLETE:
            log.seal(segment.start)


def check(log: SegmentLog, size: int | None = None, left: int = 0) -> None:
    """The leaves from ``left`` on can be read, the others not; every hash is there."""
    size = log.tip.size if size is None else size
    assert log.tip.size == size
    assert log.leaves(left, size - left) == [leaf(n) for n in range(left, size)]
    for number in range(0, size, 3):
        if number >= left:
            assert log.leaves(number, 1) == [leaf(number)]
        else:
            with pytest.raises(Gone):
                log.leaves(number, 1)
    hashes = [merkle.leaf_hash(leaf(number)) for number in range(size)]
    assert log.hashes(0, 0, size) == b"".join(hashes)
    root = merkle.tree_root(size, tiles.stored_hashes(log.hashes))
    assert log.tip.checkpoint == seal(size, root)
    replayed = list(log.replay(everything=True))
    assert sum(commit.count for commit in replayed) == size
    assert [commit.first for commit in replayed if commit.count and not commit.packed] == [
        segment.first for segment in log.segments() if segment.form is Form.DROPPED
    ]


def reopened(log: SegmentLog, folder: Path) -> SegmentLog:
    log.close()
    return SegmentLog(folder, segment_bytes=SEGMENT_BYTES)


def without_marks(folder: Path) -> None:
    for path in folder.glob("kept*"):
        path.unlink()


def test_a_sealed_log_reads_as_before_and_goes_on(tmp_path: Path) -> None:
    log = written(tmp_path)
    before = sum(segment.stored for segment in log.segments())
    seal_all(log)
    check(log, 301)
    segments = log.segments()
    assert {segment.form for segment in segments[:-1]} == {Form.SEALED}
    assert segments[-1].form is Form.OPEN
    assert sum(segment.stored for segment in segments) < before
    assert [segment.first + segment.leaves for segment in segments[:-1]] == [
        segment.first for segment in segments[1:]
    ]
    log = reopened(log, tmp_path)
    check(log, 301)
    assert log.segments()[:-1] == segments[:-1]
    log.append([], pack([leaf(301)]), seal)
    log.close()
    without_marks(tmp_path)
    log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    assert log.kept is None
    check(log, 302)
    log.close()


def test_leaves_over_the_borders_of_blocks(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, segment_bytes=3 * BLOCK_BYTES)
    leaves = [b"%d " % number + random.Random(number).randbytes(9000) for number in range(120)]
    for at in range(0, 120, 10):
        log.append([], pack(leaves[at : at + 10]), seal)
    seal_all(log)
    assert len(log.segments()) == 3
    for number, expected in enumerate(leaves):
        assert log.leaves(number, 1) == [expected]
    assert log.leaves(0, 120) == leaves
    log.close()


@pytest.mark.parametrize("end", ["the mark", "the first byte"])
def test_dropped_leaves_are_gone_and_their_hashes_stay(tmp_path: Path, end: str) -> None:
    log = written(tmp_path)
    seal_all(log)
    left = 0
    for segment in log.segments()[:3]:
        dropped = log.drop(segment.start)
        assert (dropped.form, dropped.first, dropped.leaves) == (
            Form.DROPPED,
            segment.first,
            segment.leaves,
        )
        assert dropped.stored < 500
        left = segment.first + segment.leaves
        check(log, 301, left)
    log.append([], pack([leaf(301)]), seal)
    log.close()
    if end == "the first byte":
        without_marks(tmp_path)
    log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    check(log, 302, left)
    log.close()
    assert fsck(tmp_path, choose()).findings == []
    assert fsck(tmp_path, choose()).dropped == 3


def test_what_cannot_be_sealed_or_dropped(tmp_path: Path) -> None:
    log = written(tmp_path)
    segments = log.segments()
    with pytest.raises(NotFound):
        log.seal(1)
    with pytest.raises(NotFound):
        log.drop(1)
    with pytest.raises(Conflict):
        log.seal(segments[-1].start)  # open
    with pytest.raises(Conflict):
        log.drop(segments[0].start)  # not sealed
    seal_all(log)
    again = log.seal(segments[0].start)
    assert again.form is Form.SEALED
    with pytest.raises(Conflict):
        log.drop(segments[1].start)  # not the oldest
    log.drop(segments[0].start)
    with pytest.raises(Conflict):
        log.drop(segments[0].start)
    with pytest.raises(Conflict):
        log.seal(segments[0].start)
    check(log, 301, segments[1].first)
    log.close()
    with pytest.raises(Unavailable):
        log.seal(segments[1].start)


def test_nothing_above_the_kept_mark_is_dropped(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    for first in range(0, 70, 7):
        log.append([], pack([leaf(first + n) for n in range(7)]), seal)
    log.keep(log.mark(), b"state")
    kept = log.segments()[-1].start
    while len(log.segments()) < 8:
        first = log.tip.size
        log.append([], pack([leaf(first + n) for n in range(7)]), seal)
    seal_all(log)
    for segment in log.segments():
        if segment.start >= kept:
            with pytest.raises(Conflict):
                log.drop(segment.start)
            break
        assert log.drop(segment.start).kept
    check(log, left=next(s.first for s in log.segments() if s.start == kept))
    log.close()


@pytest.mark.parametrize("what", ["seal", "drop"])
def test_a_crash_at_every_call_of_the_disk(tmp_path: Path, what: str) -> None:
    """The folder as it is before and after each call opens, and nothing is missing."""
    disk = Disk()
    log = written(tmp_path / "log", disk=disk)
    if what == "drop":
        seal_all(log)
    first, second = log.segments()[:2]
    found: list[Path] = []

    def photograph(_: str) -> None:
        found.append(Path(shutil.copytree(tmp_path / "log", tmp_path / f"copy{len(found)}")))

    disk.calls.clear()
    disk.fail = disk.after = photograph
    getattr(log, what)(first.start)
    disk.fail = disk.after = lambda name: None
    assert len(disk.calls) >= 7
    log.close()
    forms = []
    for folder in found:
        assert not [x for x in fsck(folder, choose()).findings if x.damage]
        log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES)
        forms.append(log.segments()[0].form)
        check(log, 301, second.first if forms[-1] is Form.DROPPED else 0)
        names = sorted(path.name for path in (folder / "segments").iterdir())
        assert len(names) == len(log.segments())  # nothing is left over
        log.append([], pack([leaf(301)]), seal)
        seal_all(log)
        log.close()
        assert fsck(folder, choose()).findings == []
    old, new = (Form.COMPLETE, Form.SEALED) if what == "seal" else (Form.SEALED, Form.DROPPED)
    assert set(forms) == {old, new}
    assert forms == sorted(forms, key=[old, new].index)


@pytest.mark.parametrize("when", ["fail", "after"])
@pytest.mark.parametrize("what", ["seal", "drop"])
def test_a_fault_at_every_call_of_the_disk(tmp_path: Path, what: str, when: str) -> None:
    disk = Disk()
    log = written(tmp_path, disk=disk)
    calls = 0
    for segment in log.segments()[:-1]:
        if what == "drop":
            log.seal(segment.start)
        for at in range(100):
            countdown = iter(range(at, -1, -1))

            def fault(_: str, countdown: object = countdown) -> None:
                if next(countdown, None) == 0:  # type: ignore[call-overload]
                    raise OSError(28, "injected")

            setattr(disk, when, fault)
            try:
                getattr(log, what)(segment.start)
            except (Unavailable, Conflict) as error:
                assert isinstance(error, Unavailable) or log.segments()[0].form is Form.DROPPED
                calls += isinstance(error, Unavailable)
            setattr(disk, when, lambda name: None)
            form = next(x.form for x in log.segments() if x.start == segment.start)
            left = segment.first + segment.leaves if form is Form.DROPPED else segment.first
            assert log.leaves(left, 301 - left) == [leaf(n) for n in range(left, 301)]
            log.append([], pack([leaf(log.tip.size)]), seal)  # the log goes on
            if form is (Form.SEALED if what == "seal" else Form.DROPPED):
                break
        if calls > 12:
            break
    assert calls >= 5
    size = log.tip.size
    left = max((x.first + x.leaves for x in log.segments() if x.form is Form.DROPPED), default=0)
    log = reopened(log, tmp_path)
    check(log, size, left)
    log.close()
    assert not [x for x in fsck(tmp_path, choose()).findings if x.damage]


def test_of_two_forms_the_sound_one_counts(tmp_path: Path) -> None:
    log = written(tmp_path / "log")
    plain = sorted((tmp_path / "log" / "segments").iterdir())[0]
    kept = plain.read_bytes()
    seal_all(log)
    log.close()
    sealed = plain.with_suffix(".sealed")
    for name, change in DAMAGE.items():
        folder = Path(shutil.copytree(tmp_path / "log", tmp_path / name))
        (folder / "segments" / plain.name).write_bytes(kept)
        (folder / "segments" / sealed.name).write_bytes(change(sealed.read_bytes()))
        log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES)
        assert log.segments()[0].form is Form.COMPLETE, name
        check(log, 301)
        assert not (folder / "segments" / sealed.name).exists()
        log.close()
    (tmp_path / "log" / "segments" / plain.name).write_bytes(kept[:-10])
    log = SegmentLog(tmp_path / "log", segment_bytes=SEGMENT_BYTES)
    assert log.segments()[0].form is Form.SEALED
    check(log, 301)
    assert not plain.exists()
    log.close()


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << at % 8
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "another magic": lambda data: flip(data, 0),
    "its first block": lambda data: flip(data, 20),
    "its index": lambda data: flip(data, -270),
    "its check": lambda data: flip(data, -1),
    "zeros": lambda data: bytes(len(data)),
    "a hundred gigabytes": lambda data: data[:-44] + b"\xff" * 44,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_a_sealed_segment_is_found(tmp_path: Path, name: str) -> None:
    log = written(tmp_path)
    seal_all(log)
    segment = log.segments()[1]
    log.close()
    path = sorted((tmp_path / "segments").iterdir())[1]
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    found = fsck(tmp_path, choose())
    assert not found.sound
    assert {finding.segment for finding in found.findings} == {segment.start}
    assert all(finding.leaf == segment.first for finding in found.findings)
    without_marks(tmp_path)
    with pytest.raises(CorruptLog):
        SegmentLog(tmp_path)


def test_a_changed_byte_in_a_sealed_segment_never_shows_a_false_leaf(tmp_path: Path) -> None:
    log = written(tmp_path)
    seal_all(log)
    segment = log.segments()[1]
    log.close()
    path = sorted((tmp_path / "segments").iterdir())[1]
    data = path.read_bytes()
    for at in range(0, len(data), 41):
        path.write_bytes(flip(data, at))
        assert not fsck(tmp_path, choose()).sound
        try:
            log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
        except CorruptLog:  # its length is in a part that is damaged
            continue
        for number in (segment.first, segment.first + segment.leaves - 1):
            with pytest.raises(InternalError) as error:
                log.leaves(number, 1)
            assert "fsck" in error.value.hint
        assert log.leaves(0, segment.first) == [leaf(n) for n in range(segment.first)]
        with pytest.raises(CorruptLog):
            list(log.replay(everything=True))
        log.close()


def test_what_is_damaged_is_not_sealed(tmp_path: Path) -> None:
    log = written(tmp_path)
    start = log.segments()[1].start
    path = sorted((tmp_path / "segments").iterdir())[1]
    data = path.read_bytes()
    for at in (100, len(data) // 2, len(data) - 3):
        path.write_bytes(flip(data, at))
        with pytest.raises(CorruptLog):
            log.seal(start)
        assert path.read_bytes() == flip(data, at)
        assert not [name for name in path.parent.iterdir() if name.suffix]
    path.write_bytes(data)
    log.seal(start)
    check(log)
    log.close()


@pytest.mark.parametrize("lost", ["damaged", "missing"])
def test_hashes_of_dropped_leaves_cannot_be_made_anew(tmp_path: Path, lost: str) -> None:
    log = written(tmp_path)
    seal_all(log)
    log.drop(log.segments()[0].start)
    log.close()
    path = tmp_path / "hashes" / "0"
    if lost == "damaged":
        path.write_bytes(flip(path.read_bytes(), 40))
        without_marks(tmp_path)
    else:
        path.unlink()
    with pytest.raises(CorruptLog) as error:
        SegmentLog(tmp_path)
    assert "hashes" in error.value.message
    found = fsck(tmp_path, choose())
    assert not found.sound
    if lost == "damaged":
        assert found.findings[0].segment == 0


def test_reading_while_segments_are_sealed_and_dropped(tmp_path: Path) -> None:
    log = written(tmp_path, 1500)
    size, left = log.tip.size, 0
    wrong: list[object] = []
    stop = threading.Event()

    def read(seed: int) -> None:
        dice = random.Random(seed)
        while not stop.is_set():
            first = dice.randrange(size - 20)
            try:
                if log.leaves(first, 20) != [leaf(first + n) for n in range(20)]:
                    wrong.append(first)
                log.segments()
            except Gone:
                if first >= left:
                    wrong.append(first)
            except ConnectorError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    segments = log.segments()[:-1]
    for at, segment in enumerate(segments):
        log.seal(segment.start)
        log.append([], pack([leaf(log.tip.size)]), seal)
        if at % 2:
            left = segments[at // 2].first + segments[at // 2].leaves
            log.drop(segments[at // 2].start)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(segments) > 20
    check(log, left=left)
    log.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_segments_need_few_descriptors(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, segment_bytes=100)
    for number in range(300):
        log.append([], pack([leaf(number)]), seal)
    for segment in log.segments()[:200]:
        log.seal(segment.start)
    log.close()
    before = descriptors()
    log = SegmentLog(tmp_path, segment_bytes=100)
    assert [log.leaves(number, 1) for number in range(300)] == [[leaf(n)] for n in range(300)]
    assert len(log.segments()) == 300
    assert descriptors() < before + 80
    log.close()


def kill_repeatedly(folder: Path, rounds: int) -> None:
    dice = random.Random(4)
    size = left = sealed = 0
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.sealing_writer", str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(dice.randrange(20, 150))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        for line in lines:
            match line.split():
                case ["wrote", number]:
                    size = int(number)
                case ["sealed", _]:
                    sealed += 1
                case ["dropped", _, first]:
                    left = int(first)
        assert not [x for x in fsck(folder, choose()).findings if x.damage]
        log = SegmentLog(folder)
        assert log.tip.size in (size, size + 50)
        size = log.tip.size
        dropped = [x.first + x.leaves for x in log.segments() if x.form is Form.DROPPED]
        assert dropped[-1:] == [left] or (left == 0 or dropped[-2:-1] == [left])
        left = max(dropped, default=0)
        assert log.leaves(left, size - left) == [leaf(n) for n in range(left, size)]
        log.close()
    assert sealed > rounds


def test_killed_while_it_seals_and_drops(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path / "log", 4)


@pytest.mark.slow
def test_killed_while_it_seals_and_drops_a_hundred_times(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path / "log", 100)


async def metered(folder: Path, core: Core) -> tuple[SegmentLog, Meter]:
    log = SegmentLog(folder, core=core, segment_bytes=SEGMENT_BYTES)
    keys = core.open_keys(folder / "keys")
    meter = await open_meter(log, core=core, keys=keys)
    return log, meter


async def closed(log: SegmentLog, meter: Meter) -> None:
    await meter.close()
    meter._ledger._keys.close()
    log.close()


async def test_a_meter_goes_on_over_dropped_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.metering.ledger.KEPT_AT_CLOSE", 0)
    core = choose("python")
    log, meter = await metered(tmp_path, core)
    for number in range(40):
        await use(meter, f"u{number}", limit=50)
    await closed(log, meter)
    log, meter = await metered(tmp_path, core)
    seal_all(log)
    dropped = log.drop(log.segments()[0].start)
    assert 2 < dropped.leaves < 30
    for again in range(3):
        assert meter.counters(SCOPE).uses == 40 + again
        with pytest.raises(Gone):
            meter.receipts(SCOPE)
        with pytest.raises(Gone):
            meter.find(SCOPE, "u0")
        with pytest.raises(Gone):
            meter.log.bundle("tile/entries/000.p/9")
        found = meter.receipts(SCOPE, 1, 100, left=True)
        assert [item.index for item in found] == list(range(dropped.leaves, 40 + again))
        for item in found:
            verify(item)
        with pytest.raises(Gone):  # still a duplicate, and one call does not disturb the others
            await meter.record([refusal("u0")])
        (recorded,) = await meter.record([refusal("u39")])
        assert not recorded.fresh
        assert await use(meter, f"more{again}", limit=50)
        await closed(log, meter)
        if again == 1:  # the keys of what is left are made anew
            shutil.rmtree(tmp_path / "keys")
            (tmp_path / "kept").write_bytes(b"damaged")  # the copy is used
            log, meter = await metered(tmp_path, core)
            assert meter.find(SCOPE, "u39") is not None
            assert meter.find(SCOPE, "u0") is None
            break
        log, meter = await metered(tmp_path, core)
    await closed(log, meter)
    without_marks(tmp_path)
    log = SegmentLog(tmp_path, core=core, segment_bytes=SEGMENT_BYTES)
    with pytest.raises(CorruptLog) as error:
        await open_meter(log, core=core)
    assert "kept" in error.value.hint
    log.close()
