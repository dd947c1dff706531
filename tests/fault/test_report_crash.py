"""Reports under full load, killed in the middle: what was acknowledged is there, once, in place.

``make hammer`` does it three hundred times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from connector.adapters.segments import SegmentLog
from connector.core.interface import Core
from connector.model import receipt as receipts
from connector.model.receipt import RecordReceipt, UseReceipt
from tests.fault.report_writer import SCOPES
from tests.logs import open_meter, verify

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("HAMMER_ROUNDS", "5"))


def run_and_kill(folder: Path, core: Core, run: int, dice: random.Random) -> list[str]:
    """The lines that the process said before it was killed."""
    rows = dice.choice([1, 50, 1000])
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "tests.fault.report_writer"),
            *(str(folder), f"run{run}", core.name, str(rows)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(dice.random() * 0.3)
    process.send_signal(signal.SIGKILL)
    lines = [first, *process.stdout.read().splitlines(keepends=True)]
    process.wait()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in lines if line.endswith("\n")]


async def check(folder: Path, core: Core, said: list[str]) -> int:
    """Every acknowledged record one by one, and that nothing is there twice. How many leaves."""
    with (
        closing(SegmentLog(folder, core=core)) as storage,
        closing(core.open_keys(folder / "keys")) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys)
        await meter.recover()
        size = meter.checkpoint().size
        uses: list[str] = []
        seen: set[tuple[str, str]] = set()
        numbers: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for start in range(0, size, 4096):
            for leaf in storage.leaves(start, min(4096, size - start)):
                found = receipts.decode(leaf)
                assert isinstance(found, RecordReceipt | UseReceipt)
                assert (found.scope, found.use_id) not in seen, "counted twice"
                seen.add((found.scope, found.use_id))
                uses.append(found.use_id)
                numbers[found.scope] += 1
                assert found.number == numbers[found.scope]
                calls[found.scope] += found.outcome == 1 if isinstance(found, UseReceipt) else 1
        for line in said:
            batch, first, count, covered = line.split()
            assert batch != "twice"
            assert int(covered) <= size
            at, rows = int(first), int(count)
            assert uses[at : at + rows] == [f"{batch}-{row}" for row in range(rows)]
        for scope in SCOPES:
            assert meter.counters(scope).uses == calls[scope]
            assert meter.last(scope)[0] == numbers[scope]
            for recorded in meter.receipts(scope, max(1, numbers[scope] - 2), 3):
                verify(recorded)
        await meter.close()
        return size


async def test_killed_under_full_load(tmp_path: Path, core: Core) -> None:
    folder = tmp_path / "log"
    dice = random.Random(f"{core.name} {ROUNDS}")
    said: list[str] = []
    size = 0
    for run in range(ROUNDS):
        said += run_and_kill(folder, core, run, dice)
        if run % 10 == ROUNDS % 10 or run == ROUNDS - 1:
            grown = await check(folder, core, said)
            assert grown > size
            size = grown
    assert len(said) >= ROUNDS
