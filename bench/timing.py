"""How calls are timed: one after the other in turn with their baseline, or many at once; and what
a process used."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.figures import Figure, figure, percentile

Call = Callable[[], Awaitable[object]]


async def timed(call: Call) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


async def alternate(count: int, first: Call, second: Call) -> tuple[list[float], list[float]]:
    """Milliseconds of both, one after the other, ``count`` times."""
    pairs = [(await timed(first), await timed(second)) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def rate(call: Call, at_once: int, rounds: int) -> list[float]:
    """Calls a second with ``at_once`` of them under way, for each round of as many."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(at_once)))
        found.append(at_once / (time.perf_counter() - started))
    return found


def tail(name: str, samples: list[float], baseline: list[float], what: str) -> list[Figure]:
    """The median and the 99th percentile, each against the baseline's own."""
    return [
        figure(f"{name}_p50_ms", "ms", samples, baseline=(what, statistics.median(baseline))),
        figure(
            f"{name}_p99_ms",
            "ms",
            samples,
            value=percentile(samples, 0.99),
            baseline=(what, percentile(baseline, 0.99)),
        ),
    ]


def processor_ms(pid: int) -> float:
    """User and system time of all threads, those that ended too; in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
