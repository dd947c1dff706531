"""Memory of a node under load, over time: ``python -m bench.endurance [SECONDS [BATCHES_PER_S]]``.

A provider's node takes reports of 1000 records over gRPC for ten minutes, or for ``SECONDS``; all
that go, or ``BATCHES_PER_S`` of them. Every five seconds its own pages (RssAnon), its pages of
mapped files (RssFile, which the system takes back when it needs them) and its open files are
noted. What is printed is how they grow: the slope of a straight line, without the first tenth,
in which caches and tables fill. It ends early, and says so, where the disk would fill.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import figure, save, table
from bench.growing import memory_mb
from bench.metering import Gateway
from tests.e2e.gateway import served

SECONDS = 600.0
EVERY_S = 5.0
LEAST_FREE = 16 << 30  # bytes of disk


@dataclass(frozen=True, slots=True)
class Sample:
    """``seconds`` since the load began; memory in MB."""

    seconds: float
    rss_anon: float
    rss_file: float
    fds: int


def sample(pid: int, seconds: float) -> Sample:
    found = memory_mb(pid)
    return Sample(
        seconds, found["RssAnon"], found["RssFile"], len(list(Path(f"/proc/{pid}/fd").iterdir()))
    )


def per_minute(samples: Sequence[Sample], name: str) -> float:
    """The slope of the least squares line, without the first tenth of the samples."""
    later = samples[len(samples) // 10 :]
    values = [float(getattr(each, name)) for each in later]
    return statistics.linear_regression([each.seconds / 60 for each in later], values).slope


async def watch(
    gateway: Gateway, folder: Path, every_s: float, **load: Any
) -> tuple[list[Sample], dict[str, Any]]:
    """Samples of the node while the reporter runs; what the reporter told."""
    started = time.perf_counter()
    client = await gateway.start(**load)
    samples = []
    while client.returncode is None:
        samples.append(sample(gateway.node.provider.pid, time.perf_counter() - started))
        if shutil.disk_usage(folder).free < LEAST_FREE:
            print(f"*** ended early: less than {LEAST_FREE >> 30} GiB of disk are free ***")
            client.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(client.wait()), every_s)
        except TimeoutError:
            continue
    assert client.stdout is not None
    said = await client.stdout.read()
    return samples, json.loads(said) if said else {}


async def main(seconds: float, rate: float) -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        async with served(Path(name), "auto") as node:
            gateway = Gateway(node, node.register("gateway"))
            load = {"rows": 1000, "seconds": seconds, "rate": rate, "streams": 8, "window": 8}
            samples, told = await watch(gateway, Path(name), EVERY_S, **load)
    for each in samples:
        print(
            f"{each.seconds:7.1f} s  RssAnon {each.rss_anon:7.1f} MB  "
            f"RssFile {each.rss_file:8.1f} MB  {each.fds} files"
        )
    minutes = samples[-1].seconds / 60
    receipts = told.get("total", 0)
    print(f"{receipts:,} receipts in {minutes:.1f} minutes")
    found = [
        figure(f"endurance_{shown}_per_minute", unit, [per_minute(samples, name)])
        for shown, name, unit in (
            ("rss_anon_mb", "rss_anon", "MB"),
            ("rss_file_mb", "rss_file", "MB"),
            ("open_files", "fds", "1"),
        )
    ]
    save(found)
    print(table([each for each in save(found) if each["name"].startswith("endurance_")]))


if __name__ == "__main__":
    asked = [float(each) for each in sys.argv[1:3]]
    asyncio.run(main(*(asked + [SECONDS, 0.0][len(asked) :])))
