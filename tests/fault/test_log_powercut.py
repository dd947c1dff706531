"""A power cut at any call: the log opens by itself with every commit that was acknowledged."""

import random
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.errors import Conflict, Gone
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form
from tests.fault.powercut import SECTOR, RecordingDisk
from tests.logs import pack, seal


class Life:
    """One log from cut to cut. ``leaves``: all that may be there; ``sure``: how many must be, by
    how many calls the disk had seen; ``dropped``: leaves that a drop may have removed."""

    def __init__(self, folder: Path, dice: random.Random, leaves: list[bytes]) -> None:
        self.dice = dice
        self.disk = RecordingDisk(folder)
        self.leaves = leaves
        self.sure = [(0, len(leaves))]
        self.dropped: list[tuple[int, int]] = []
        self.log = SegmentLog(folder, disk=self.disk, segment_bytes=2500)

    def step(self) -> None:
        {1: self.keep, 2: self.seal, 3: self.drop}.get(self.dice.randrange(8), self.append)()

    def append(self) -> None:
        first, count = len(self.leaves), self.dice.choice([0, 1, 3, 17])
        texts = [f"{number} {self.dice.random()} " * 40 for number in range(first, first + count)]
        more = [text[: self.dice.choice([20, 180, 700])].encode() for text in texts]
        self.leaves += more
        self.log.append([b"record"] * self.dice.randrange(3), pack(more), seal)
        self.sure.append((len(self.disk.calls), len(self.leaves)))

    def keep(self) -> None:
        self.log.keep(self.log.mark(), b"state")

    def seal(self) -> None:
        complete = [item for item in self.log.segments() if item.form is Form.COMPLETE]
        if complete:
            self.log.seal(complete[0].start)

    def drop(self) -> None:
        sealed = [item for item in self.log.segments() if item.form is Form.SEALED and item.kept]
        if sealed:
            self.dropped.append((len(self.disk.calls), sealed[0].first + sealed[0].leaves))
            try:
                self.log.drop(sealed[0].start)
            except Conflict:  # an older one is not sealed
                self.dropped.pop()


def check(folder: Path, leaves: list[bytes], least: int, dropped: int) -> tuple[int, int]:
    """It opens and goes on; how many leaves it has, how many of them are dropped."""
    log = SegmentLog(folder, segment_bytes=2500)
    try:
        size = log.tip.size
        assert least <= size <= len(leaves)
        left = next(item.first for item in log.segments() if item.form is not Form.DROPPED)
        assert left <= dropped
        assert log.leaves(left, size - left) == leaves[left:size]
        assert log.hashes(0, 0, size) == pack(leaves[:size]).hashes
        if left:
            with pytest.raises(Gone):
                log.leaves(left - 1, 1)
        assert sum(commit.count for commit in log.replay(everything=True)) == size
        return size, left
    finally:
        log.close()


def live(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    leaves: list[bytes] = []
    dropped = 0
    (folder / "0").mkdir(parents=True)
    for round_ in range(4):
        life = Life(folder / str(round_), dice, leaves)
        for _ in range(dice.randrange(2, 14)):
            life.step()
        life.log.close()
        at = dice.randrange(len(life.disk.calls) + 1)
        life.disk.cut(at, folder / str(round_ + 1), dice)
        least = max(size for calls, size in life.sure if calls <= at)
        most = max([dropped, *(size for calls, size in life.dropped if calls < at)])
        size, dropped = check(folder / str(round_ + 1), leaves, least, most)
        del leaves[size:]


@pytest.mark.parametrize("seed", range(40))
def test_cut_at_any_call(tmp_path: Path, seed: int) -> None:
    live(tmp_path, seed)


@pytest.mark.slow
def test_cut_a_thousand_times(tmp_path: Path) -> None:
    for seed in range(100, 350):
        live(tmp_path / str(seed), seed)


def test_a_commit_written_but_for_the_sector_it_begins_in(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    path = tmp_path / "segments" / f"{0:020d}"
    log.append([], pack([b"first"]), seal)
    end = path.stat().st_size
    log.append([], pack([b"x" * 3000]), seal)
    log.close()
    assert end % SECTOR
    data = bytearray(path.read_bytes())
    boundary = end + -end % SECTOR
    data[end:boundary] = bytes(boundary - end)
    path.write_bytes(data)
    check(tmp_path, [b"first"], 1, 0)


def test_the_first_segment_is_missed_behind_a_kept_mark(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, segment_bytes=500)
    for number in range(6):
        log.append([], pack([f"leaf {number} ".encode() * 30]), seal)
    log.keep(log.mark(), b"state")
    log.close()
    (tmp_path / "segments" / f"{0:020d}").unlink()
    with pytest.raises(CorruptLog):
        SegmentLog(tmp_path)
