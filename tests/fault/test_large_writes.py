"""Large writes go past the page cache: the same bytes are there, whoever reads, whatever fails."""

import errno
import fcntl
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.adapters.segments import disk as disks
from connector.adapters.segments.disk import DIRECT, LARGE, Disk
from connector.core.interface import Leaves
from connector.errors import Unavailable
from tests.logs import pack, seal

Pwritev = Callable[[int, Sequence[bytes], int], int]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield found
    os.close(found)


def parts(dice: random.Random, total: int) -> list[bytes]:
    cuts = sorted(dice.choices(range(total + 1), k=dice.randrange(6)))
    data = dice.randbytes(total)
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT)


def instead(monkeypatch: pytest.MonkeyPatch, pwritev: Pwritev) -> None:
    monkeypatch.setattr(disks.os, "pwritev", pwritev)


@pytest.mark.parametrize("seed", range(12))
def test_one_write_after_the_other(fd: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_STAGED", 1 << 16)
    dice, disk, whole = random.Random(seed), Disk(), b""
    for _ in range(8):
        total = dice.choice([1, 4095, 4096, LARGE - 1, LARGE, LARGE + 1, dice.randrange(9 * LARGE)])
        written = parts(dice, total)
        disk.write(fd, written, len(whole))
        whole += b"".join(written)
        assert os.pread(fd, len(whole) + 1, 0) == whole
        assert not is_direct(fd)


@pytest.mark.skipif(not DIRECT, reason="this system has no direct writes")
def test_what_was_there_is_not_touched(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No direct write reaches into a block with bytes of an earlier or a later write."""
    reached: list[tuple[int, int]] = []
    real = os.pwritev

    def pwritev(fd: int, views: Sequence[bytes], offset: int) -> int:
        if is_direct(fd):
            reached.append((offset, offset + sum(map(len, views))))
        return real(fd, views, offset)

    instead(monkeypatch, pwritev)
    first, second = LARGE + 5000, 2 * LARGE + 77
    disk = Disk()
    disk.write(fd, b"a" * first, 0)
    disk.write(fd, b"b" * second, first)
    end = first + second
    if not reached:
        pytest.skip("the file system of the temporary folder has no direct writes")
    assert reached == [(0, first // 4096 * 4096), (-(-first // 4096) * 4096, end // 4096 * 4096)]


@pytest.mark.parametrize("sets", [True, False], ids=["no flag", "no write"])
def test_a_file_system_without(fd: int, sets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_fcntl = os.pwritev, fcntl.fcntl

    def pwritev(fd: int, views: Sequence[bytes], offset: int) -> int:
        if is_direct(fd):
            raise OSError(errno.EINVAL, "no direct writes")
        return real_write(fd, views, offset)

    def control(fd: int, command: int, flags: int = 0) -> int:
        if sets and command == fcntl.F_SETFL and flags & DIRECT:
            raise OSError(errno.EINVAL, "no such flag")
        return real_fcntl(fd, command, flags)

    instead(monkeypatch, pwritev)
    monkeypatch.setattr(disks.fcntl, "fcntl", control)
    disk, data = Disk(), random.Random(1).randbytes(3 * LARGE)
    disk.write(fd, data, 7)
    disk.write(fd, data, 7 + len(data))
    assert os.pread(fd, 7 * LARGE, 7) == 2 * data


def test_short_writes(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    instead(
        monkeypatch,
        lambda fd, views, offset: real(
            fd, [views[0][: 4096 if len(views[0]) > 4096 else 1]], offset
        ),
    )
    data = random.Random(2).randbytes(LARGE + 300)
    Disk().write(fd, data, 100)
    assert os.pread(fd, 2 * LARGE, 100) == data


def test_a_full_disk(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def pwritev(fd: int, views: Sequence[bytes], offset: int) -> int:
        if offset >= LARGE // 2:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, [view[: LARGE // 2] for view in views[:1]], offset)

    instead(monkeypatch, pwritev)
    disk = Disk()
    with pytest.raises(OSError, match="no space"):
        disk.write(fd, b"x" * 2 * LARGE, 0)
    assert not is_direct(fd)
    monkeypatch.undo()
    disk.truncate(fd, 0)
    disk.write(fd, b"y" * 2 * LARGE, 0)
    assert os.pread(fd, 3 * LARGE, 0) == b"y" * 2 * LARGE


def test_a_log_of_large_commits_and_small_ones(tmp_path: Path) -> None:
    dice, leaves = random.Random(3), []
    with closing(SegmentLog(tmp_path / "log", segment_bytes=1 << 20)) as log:
        for count in (1, 2000, 3, 1500, 2500, 1):
            more = [dice.randbytes(200) for _ in range(count)]
            log.append([b"r" * count], pack(more), seal)
            leaves += more
            assert log.leaves(0, len(leaves)) == leaves
    with closing(SegmentLog(tmp_path / "log", segment_bytes=1 << 20)) as log:
        assert log.leaves(0, len(leaves)) == leaves
        assert b"".join(each.packed for each in log.replay(everything=True)) == pack(leaves).packed


def test_readers_beside_large_commits(tmp_path: Path) -> None:
    """They see all that was committed, wherever it is: in memory, in the cache, on the disk."""
    dice = random.Random(4)
    batch = [dice.randbytes(100) for _ in range(3000)]
    leaves = pack(batch)
    done = threading.Event()

    def read(log: SegmentLog, dice: random.Random) -> int:
        looked = 0
        while not done.is_set():
            size = log.tip.size
            if not size:
                continue
            first = dice.randrange(size)
            count = min(dice.choice([1, 50, 5000]), size - first)
            hashes = (leaves.hashes * (size // 3000 + 1))[32 * first : 32 * (first + count)]
            assert log.hashes(0, first, count) == hashes
            assert log.leaves(first, 1) == [batch[first % 3000]]
            assert len(log.hashes(1, 0, size >> 8)) == 32 * (size >> 8)
            looked += 1
        return looked

    with (
        closing(SegmentLog(tmp_path / "log", segment_bytes=1 << 21)) as log,
        ThreadPoolExecutor(2) as pool,
    ):
        readers = [pool.submit(read, log, random.Random(seed)) for seed in range(2)]
        for number in range(60):
            log.append((), leaves, seal)
            if number % 20 == 19:
                log.keep(log.mark(), b"state")
        done.set()
        assert all(reader.result() for reader in readers)
        assert log.hashes(0, 0, log.tip.size) == leaves.hashes * 60
    with closing(SegmentLog(tmp_path / "log", segment_bytes=1 << 21)) as log:
        assert log.hashes(0, 0, log.tip.size) == leaves.hashes * 60


class NoRoomForCommits(Disk):
    full = False

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        if self.full and not isinstance(data, bytes):
            raise OSError(errno.ENOSPC, "no space")
        super().write(fd, data, offset)


def test_hashes_of_a_commit_that_failed_are_replaced(tmp_path: Path) -> None:
    dice, disk = random.Random(5), NoRoomForCommits()
    with closing(SegmentLog(tmp_path / "log", disk=disk)) as log:
        kept = pack([dice.randbytes(40) for _ in range(10)])
        log.append((), kept, seal)
        for count in (20, 9000, 20, 5):  # held, written, held again
            failed = pack([dice.randbytes(40) for _ in range(count)])

            disk.full = True
            with pytest.raises(Unavailable):
                log.append((), failed, seal)
            disk.full = False
            more = pack([dice.randbytes(40) for _ in range(7)])
            log.append((), more, seal)
            kept = Leaves(kept.packed + more.packed, kept.hashes + more.hashes)
            assert log.hashes(0, 0, log.tip.size) == kept.hashes
    with closing(SegmentLog(tmp_path / "log")) as log:
        assert log.hashes(0, 0, log.tip.size) == kept.hashes
