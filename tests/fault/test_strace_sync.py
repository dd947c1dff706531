"""No acknowledgement before the fdatasync of the bytes that it is about.

Shown twice: from outside, by what strace sees a process do, and through the fault layer, which
holds where strace is missing. A commit's write carries its checkpoint, whose second line is the
size of the tree; an acknowledgement names the size that it is under. So the size that was synced
must have reached it first.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.adapters.segments.disk import Disk
from connector.core.interface import Core
from connector.errors import Unavailable
from connector.metering.meter import Meter
from tests.logs import ORIGIN, FaultyDisk, open_meter
from tests.reports import report

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
CALLS = "trace=pwrite64,pwritev,pwritev2,write,fdatasync,fsync"
ACKNOWLEDGED = 60  # lines that the process may say before it is stopped
NOTE = re.compile(rb"%s\n(\d+)\n" % ORIGIN.encode())
TRACED_NOTE = re.compile(rf"{re.escape(ORIGIN)}\\n(\d+)\\n")
LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((\d+)<([^>]*)>")
RESUMED = re.compile(r"<\.\.\. (\w+) resumed>")
SAID = re.compile(r"run[^ \\]* \d+ \d+ (\d+)\\n")


# From outside


class Trace:
    """What strace said, followed line by line: sizes written, sizes synced, sizes acknowledged.

    Only what was written when a sync began is synced by it; only what a sync has returned from
    counts; an acknowledgement counts from where its write begins.
    """

    def __init__(self) -> None:
        self.written: dict[str, int] = {}  # by file: as of the last write that returned
        self.durable = 0
        self.acknowledged: list[int] = []
        self._under_way: dict[str, tuple[str, str, int]] = {}  # by thread

    def follow(self, lines: Iterable[str]) -> None:
        """Raises ``AssertionError`` where an acknowledgement comes too early."""
        for line in lines:
            if not (split := LINE.fullmatch(line.rstrip("\n"))):
                continue
            thread, said = split.groups()
            if begun := CALL.match(said):
                call, fd, file = begun.groups()
                self._begin(thread, call, fd, file, said)
            elif not RESUMED.match(said):
                continue
            if "<unfinished ...>" not in said:
                self._end(thread, succeeded=re.search(r"= -1 E[A-Z]+", said) is None)

    def _begin(self, thread: str, call: str, fd: str, file: str, said: str) -> None:
        size = 0
        if call == "write" and fd == "1":
            for found in SAID.findall(said):
                assert int(found) <= self.durable, f"under {found}, synced is {self.durable}"
                self.acknowledged.append(int(found))
        elif "/segments/" not in file:
            file = ""
        elif call.startswith("pwrite"):
            size = max(map(int, TRACED_NOTE.findall(said)), default=0)
        else:
            size = self.written.get(file, 0)
        self._under_way[thread] = call, file, size

    def _end(self, thread: str, *, succeeded: bool) -> None:
        call, file, size = self._under_way.pop(thread, ("", "", 0))
        if not succeeded or not file:
            return
        if call.startswith("pwrite"):
            self.written[file] = max(self.written.get(file, 0), size)
        elif call in ("fdatasync", "fsync"):
            self.durable = max(self.durable, size)


@pytest.mark.slow
def test_strace_sees_each_sync_before_its_acknowledgement(tmp_path: Path, core: Core) -> None:
    if STRACE is None:
        pytest.skip("*** strace is not there: apt-get install strace, or your system's package ***")
    path = tmp_path / "trace"
    writer = ["-m", "tests.fault.report_writer", str(tmp_path / "log"), "run0", core.name, "20"]
    process = subprocess.Popen(
        [STRACE, "-f", "-y", "-s", "131072", "-o", str(path), "-e", CALLS, sys.executable, *writer],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [line for line, _ in zip(process.stdout, range(ACKNOWLEDGED), strict=False)]
    if not lines and "ptrace" in (said := process.stderr.read()):
        pytest.skip(f"*** strace may not trace here: {said.strip()} ***")
    os.killpg(process.pid, signal.SIGTERM)  # strace and what it traces
    process.communicate(timeout=30)
    trace = Trace()
    with path.open() as written:
        trace.follow(written)
    assert len(lines) == ACKNOWLEDGED
    assert len(trace.acknowledged) >= ACKNOWLEDGED
    assert trace.durable >= max(trace.acknowledged)


SEGMENT = "7</data/log/segments/0>"
WRITE = f'11 pwrite64({SEGMENT}, "..{ORIGIN}\\n40\\nroot..", 99, 0) = 99'
SYNC = f"11 fdatasync({SEGMENT}) = 0"
SAY = '10 write(1<pipe:[5]>, "run0-0-1 0 20 40\\n", 17) = 17'


@pytest.mark.parametrize(
    "lines",
    [
        [WRITE, SAY, SYNC],
        [SYNC, WRITE, SAY],
        [WRITE, f"11 fdatasync({SEGMENT}) = -1 EIO (Input/output error)", SAY],
        [WRITE, f"11 fdatasync({SEGMENT} <unfinished ...>", SAY, "11 <... fdatasync resumed>) = 0"],
        [WRITE, "11 fdatasync(8</data/log/hashes/0>) = 0", SAY],
        [
            WRITE.replace("= 99", "<unfinished ...>").replace(", 0) ", ", 0 "),
            f"12 fdatasync({SEGMENT}) = 0",
            "11 <... pwrite64 resumed>) = 99",
            SAY,
        ],
    ],
    ids=["no sync", "before", "failed", "not returned", "another file", "write under way"],
)
def test_a_trace_with_an_early_acknowledgement_is_found_out(lines: list[str]) -> None:
    with pytest.raises(AssertionError, match="synced is 0"):
        Trace().follow(lines)


def test_a_trace_in_order_is_accepted() -> None:
    trace = Trace()
    trace.follow(
        [
            WRITE,
            f"11 fdatasync({SEGMENT} <unfinished ...>",
            '12 write(2</dev/null>, "x", 1) = 1',
            "11 <... fdatasync resumed>) = 0",
            SAY,
        ]
    )
    assert trace.acknowledged == [40]


# Through the fault layer


class Synced(Disk):
    """``durable``: the largest size whose checkpoint was written and then synced."""

    def __init__(self) -> None:
        super().__init__()
        self.durable = 0
        self._written: dict[int, int] = {}

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        super().write(fd, data, offset)
        whole = data if isinstance(data, bytes) else b"".join(data)
        self._written[fd] = max(map(int, NOTE.findall(whole)), default=0)

    def sync(self, fd: int) -> None:
        size = self._written.get(fd, 0)
        super().sync(fd)
        self.durable = max(self.durable, size)


@pytest.fixture
def keys_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "keys"


async def test_one_report_after_the_other(tmp_path: Path, keys_folder: Path, core: Core) -> None:
    """Nothing else is written meanwhile, so nobody else's sync can stand in for a missing one."""
    disk = Synced()
    with (
        closing(SegmentLog(tmp_path / "log", core=core, disk=disk)) as storage,
        closing(core.open_keys(keys_folder)) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys)
        for number in range(20):
            sent = report([f"use-{number}-{row}" for row in range(number % 3 * 50 + 1)])
            (answer,) = await meter.report([sent])
            assert answer.count
            assert disk.durable == answer.size
        await meter.close()


async def _reporting(meter: Meter, use_id: str) -> int:
    (answer,) = await meter.report([report([use_id])])
    return answer.size


async def test_a_sync_that_takes_its_time(tmp_path: Path, keys_folder: Path, core: Core) -> None:
    """Nobody is answered while it lasts: not whose commit it is, not who comes meanwhile."""
    disk = FaultyDisk()
    begun, may_end = threading.Event(), threading.Event()

    def hold(name: str) -> None:
        if name == "sync":
            begun.set()
            assert may_end.wait(10)

    with (
        closing(SegmentLog(tmp_path / "log", core=core, disk=disk)) as storage,
        closing(core.open_keys(keys_folder)) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys)
        disk.fail = hold
        first = asyncio.create_task(_reporting(meter, "first"))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(_reporting(meter, "second"))
        done, _ = await asyncio.wait({first, second}, timeout=0.1)
        assert not done
        assert meter.checkpoint().size == 0
        may_end.set()
        assert await first == 1
        assert await second == 2
        await meter.close()


async def test_a_sync_that_fails(tmp_path: Path, keys_folder: Path, core: Core) -> None:
    disk = FaultyDisk()

    def fail(name: str) -> None:
        if name == "sync":
            raise OSError("lost")

    with (
        closing(SegmentLog(tmp_path / "log", core=core, disk=disk)) as storage,
        closing(core.open_keys(keys_folder)) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys)
        disk.fail = fail
        with pytest.raises(Unavailable):
            await _reporting(meter, "first")
        assert meter.checkpoint().size == 0
        await meter.close()
