"""One log as it grows: ``python -m bench.growing FOLDER CORE SIZE...``, a process of its own.

Reports go in until the log has each of the sizes; there it is measured what a receipt costs, what
the process holds in memory, what the folder holds on the disk. Then the log is closed and opened
again, timed, by another process: ``python -m bench.growing FOLDER CORE open``. One line of JSON
for each.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.baselines import folder_bytes
from bench.inside import Pump, opened
from bench.rows import Batches
from connector.core.choose import choose
from connector.core.interface import Core

ROWS, IN_FLIGHT = 1000, 32
ROUNDS, ROUND_S = 5, 0.6


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """RssAnon and RssFile of a process: its own pages, and those of files that it has mapped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {
        line.split(":")[0]: int(line.split()[1]) / 1024
        for line in lines
        if line.startswith(("RssAnon", "RssFile"))
    }


async def grow(folder: Path, core: Core, sizes: list[int]) -> None:
    for size in sizes:
        async with opened(folder, core) as meter:
            # The run's name makes use ids that no earlier step had.
            pump = Pump(meter, Batches(f"{meter.checkpoint().size % 10**6:06}", ROWS, 1))
            reach = await pump.until(size, IN_FLIGHT)
            rates, cpu = [], []
            for _ in range(ROUNDS):
                before, ran = pump.receipts, time.process_time()
                rates.append(await pump.for_seconds(ROUND_S, IN_FLIGHT))
                cpu.append((time.process_time() - ran) * 1e6 / (pump.receipts - before))
            told: dict[str, Any] = {
                "size": size,
                "rate_until": reach,
                "us": [1e6 / rate for rate in rates],
                "cpu_us": cpu,
                **memory_mb(),
            }
            reached = meter.checkpoint().size
        told["bytes"] = folder_bytes(folder) / reached
        command = [sys.executable, "-m", "bench.growing", str(folder), core.name, "open"]
        opens = [
            json.loads(await asyncio.to_thread(subprocess.check_output, command)) for _ in range(3)
        ]
        told["open_s"] = [each["open_s"] for each in opens]
        told["opened_mb"] = statistics.median(each["RssAnon"] for each in opens)
        print(json.dumps(told), flush=True)


async def reopen(folder: Path, core: Core) -> None:
    started = time.perf_counter()
    async with opened(folder, core) as meter:
        took = time.perf_counter() - started
        assert meter.checkpoint().size
        print(json.dumps({"open_s": took, **memory_mb()}))


if __name__ == "__main__":
    place, chosen = Path(sys.argv[1]), choose(sys.argv[2])
    if sys.argv[3] == "open":
        asyncio.run(reopen(place, chosen))
    else:
        asyncio.run(grow(place, chosen, [int(float(size)) for size in sys.argv[3:]]))
