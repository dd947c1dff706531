"""The metering core measured whole: ``python -m bench.metering [NAME...]``.

Receipts a second over gRPC and in one process, the time from submission to a signed checkpoint,
verification, bytes on disk, and how all of it holds as the log grows. Each figure and its baseline
take turns. ``NAME``: of ``MEASURED``, all of them otherwise. With ``BENCH_LARGE=1`` the log grows
to 1e8 receipts: 25 GB of disk and some minutes.

The gRPC figures are of real processes: a directory, a provider's and a consumer's node with an
agreement, and a reporter (``bench.load``) that is a process of its own on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from bench import baselines
from bench.baselines import CEILING, RAW, SQLITE, SYNCS, Raw, Rows
from bench.figures import Figure, figure, percentile, save, table
from bench.inside import SCOPE, Pump, opened
from bench.load import Load
from bench.proofs import proof_of
from bench.rows import Batches
from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.core.interface import Core, Keys, Place
from connector.errors import ConfigError
from connector.metering.meter import Meter
from connector.model.receipt import HASH_BYTES, NO_PREVIOUS, Outcome, Quantity
from connector.ports.segments import Form
from tests.e2e.gateway import Served, served
from tests.logs import reservation

ROUNDS = 5
IN_FLIGHT = 32  # batches in one process
GRPC_S, PROCESS_S, BASELINE_S = 3.0, 2.0, 0.5
PACE, PACED_S, PACED_ROUNDS = 500, 4.0, 3  # batches of 1000 a second
LARGE_BYTES = 40 << 30  # free on the disk before the log grows to 1e8
GROWN = [100_000, 10_000_000]


@cache
def _cores() -> tuple[str, ...]:
    """Those that are there, the fastest first."""
    try:
        choose("native")
    except ConfigError:
        return ("python",)
    return ("native", "python")


# Over gRPC


@dataclass
class Gateway:
    """A reporter and the node that it reports to."""

    node: Served
    file: Path

    async def start(self, **given: Any) -> asyncio.subprocess.Process:
        """A load on the agreement; it says one line on its standard output at its end."""
        load = Load(agreement=self.node.agreement, **given)
        command = [sys.executable, "-m", "bench.load", str(self.file), json.dumps(asdict(load))]
        return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    async def load(self, **given: Any) -> dict[str, Any]:
        """One load; what it told."""
        process = await self.start(**given)
        said, _ = await process.communicate()
        assert process.returncode == 0
        told: dict[str, Any] = json.loads(said)
        return told


@dataclass(frozen=True, slots=True)
class Shape:
    """How the reporter of one figure sends: ``rows`` in a batch."""

    name: str
    core: str
    rows: int
    streams: int
    window: int


SHAPES = (
    Shape("grpc_batch_1000_receipts_per_s", "native", 1000, 8, 8),
    Shape("grpc_batch_1000_python_core_receipts_per_s", "python", 1000, 2, 4),
    Shape("grpc_batch_100_receipts_per_s", "native", 100, 8, 8),
    Shape("grpc_unary_receipts_per_s", "native", 1, 8, 8),
)


async def grpc(folder: Path) -> list[Figure]:
    found: list[Figure] = []
    for core in _cores():
        place = folder / f"grpc-{core}"
        place.mkdir()
        async with served(place, core) as node:
            gateway = Gateway(node, node.register("gateway"))
            for shape in SHAPES:
                if shape.core == core:
                    found += await _receipts_per_s(place, gateway, shape)
            if core == _cores()[0]:
                found += await _grpc_latency(place, gateway)
        shutil.rmtree(place)
    return found


async def _receipts_per_s(folder: Path, gateway: Gateway, shape: Shape) -> list[Figure]:
    data = leaves(choose("python"), shape.rows)
    rates, raw, sqlite, client, spent = [], [], [], [], []
    with (
        closing(Raw(folder / f"{shape.name}.raw")) as file,
        closing(Rows(folder / f"{shape.name}.sqlite")) as rows,
    ):
        for _ in range(ROUNDS):
            before = ran_us(gateway.node.provider.pid)
            told = await gateway.load(
                rows=shape.rows, seconds=GRPC_S, streams=shape.streams, window=shape.window
            )
            rates.append(told["receipts"] / told["seconds"])
            client.append(told["cpu_s"] * 1e6 / told["total"])
            spent.append((ran_us(gateway.node.provider.pid) - before) / told["total"])
            raw.append(file.rate(data, shape.rows, BASELINE_S))
            sqlite.append(rows.rate(SCOPE, shape.rows, BASELINE_S))
    by_raw, by_sqlite = statistics.median(raw), statistics.median(sqlite)
    return [
        figure(shape.name, "1/s", rates, baseline=(RAW, by_raw)),
        figure(f"{shape.name}_by_sqlite", "1/s", rates, baseline=(SQLITE, by_sqlite)),
        figure(shape.name.replace("receipts_per_s", "node_cpu_us"), "us", spent),
        figure(shape.name.replace("receipts_per_s", "client_cpu_us"), "us", client),
    ]


def ran_us(pid: int) -> float:
    """Processor time of all threads of a process, in microseconds; in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


async def _grpc_latency(folder: Path, gateway: Gateway) -> list[Figure]:
    async def paced(seconds: float) -> list[float]:
        told = await gateway.load(rows=1000, seconds=seconds, rate=PACE, streams=8, samples=True)
        latencies: list[float] = told["latencies_ms"]
        return latencies

    return await _latency("submit_to_checkpoint_p99_ms", folder, paced)


async def _latency(
    name: str, folder: Path, paced: Callable[[float], Awaitable[list[float]]]
) -> list[Figure]:
    """The 99th percentile of all; its spread is that of the rounds."""
    data = leaves(choose("python"), 1000)
    times: list[list[float]] = []
    syncs: list[list[float]] = []
    with closing(Raw(folder / "paced.raw")) as file:
        for _ in range(PACED_ROUNDS):
            times.append(await paced(PACED_S))
            syncs.append(await asyncio.to_thread(file.paced, data, PACE, PACED_S))
    against = (SYNCS, percentile(list(chain(*syncs)), 0.99))
    shown = figure(
        name,
        "ms",
        [percentile(each, 0.99) for each in times],
        value=percentile(list(chain(*times)), 0.99),
        baseline=against,
    )
    middle = figure(
        name.replace("p99", "p50"),
        "ms",
        [percentile(each, 0.5) for each in times],
        baseline=(SYNCS.replace("p99", "p50"), percentile(list(chain(*syncs)), 0.5)),
    )
    return [shown, middle]


# In one process


async def process(folder: Path) -> list[Figure]:
    found = []
    for core in _cores():
        chosen, suffix = choose(core), "" if core == "native" else "_python_core"
        data = leaves(chosen, 1000)
        rates, ceiling = [], []
        async with opened(folder / core, chosen) as meter:
            pump = Pump(meter, Batches("proces", 1000, 1))
            for _ in range(ROUNDS):
                rates.append(await pump.for_seconds(PROCESS_S, IN_FLIGHT))
                ceiling.append(baselines.hashing(choose(_cores()[0]), data, 1000, BASELINE_S))
            if core == _cores()[0]:
                name = "submit_to_checkpoint_process_p99_ms"
                found += await _latency(name, folder, partial(pump.paced, PACE))
        shutil.rmtree(folder / core)
        against = (CEILING, statistics.median(ceiling))
        name = f"process_batch_1000{suffix}_receipts_per_s"
        found.append(figure(name, "1/s", rates, baseline=against))
    return found


# Verifying


async def verifying(folder: Path) -> list[Figure]:
    core, reference = choose(_cores()[0]), choose("python")
    return [*_verify_log(folder, core), *_verify_inclusion(core, reference)]


def _verify_log(folder: Path, core: Core) -> list[Figure]:
    """Packed leaves as an export has them, 64 bundles of 256 at a time."""
    rows = 64 * 256
    packed = b"".join(leaves(core, 1024, number) for number in range(16))
    tree, told, ceiling = [], [], []
    hashes = core.leaf_hashes(packed)
    subtrees, _ = core.extend(0, (), hashes)

    def verify_tree() -> None:
        found = core.leaf_hashes(packed)
        assert found == hashes
        assert core.extend(0, (), found)[0] == subtrees

    def reader(keys: Keys) -> Callable[[], None]:
        def read_too() -> None:
            verify_tree()
            core.read_records(packed, 0, keys)
            keys.discard()

        return read_too

    with (
        closing(core.open_keys(folder / "keys-1")) as first,
        closing(core.open_keys(folder / "keys-2")) as second,
    ):
        readers = [reader(first), reader(second)]
        for _ in range(ROUNDS):
            tree.append(baselines.on_two_threads([verify_tree] * 2, rows, BASELINE_S))
            ceiling.append(baselines.hashing(core, packed, rows, BASELINE_S))
            told.append(baselines.on_two_threads(readers, rows, BASELINE_S))
    against = (CEILING, statistics.median(ceiling))
    return [
        figure("verify_log_leaves_per_s", "1/s", tree, baseline=against),
        figure("verify_log_and_read_leaves_per_s", "1/s", told, baseline=against),
    ]


def _verify_inclusion(core: Core, reference: Core) -> list[Figure]:
    """Proofs as long as those of a tree of ten million leaves, at places all over it: a thousand
    in one call, and one call for each."""
    size, count = 10_000_000, 1000
    proofs = [proof_of(number * (size // count) + number, size) for number in range(count)]

    def rate(verify: Callable[[], None]) -> float:
        started = time.perf_counter()
        verify()
        return count / (time.perf_counter() - started)

    def one_by_one(by: Core) -> None:
        for proof in proofs:
            by.verify_inclusion(*proof)

    together, single, plain = [], [], []
    for _ in range(30):
        together.append(rate(partial(core.verify_inclusions, proofs)))
        single.append(rate(partial(one_by_one, core)))
        plain.append(rate(partial(one_by_one, reference)))
    against = ("the reference in Python", statistics.median(plain))
    return [
        figure("verify_inclusion_per_s", "1/s", together, baseline=against),
        figure("verify_inclusion_one_call_each_per_s", "1/s", single, baseline=against),
    ]


# On disk, and growing


async def sizes(folder: Path) -> list[Figure]:
    core = choose(_cores()[0])
    async with opened(folder / "records", core, segment_bytes=1 << 25) as meter:
        pump = Pump(meter, Batches("sizes0", 1000, 1))
        await pump.until(1_000_000, IN_FLIGHT)
        records = meter.checkpoint().size
    async with opened(folder / "uses", core, segment_bytes=1 << 22) as meter:
        uses = await _use(meter, 40, 500)
    with closing(Rows(folder / "records.sqlite")) as table_:
        for _ in range(100):
            table_.insert(table_.records(SCOPE, 1000))
    record_rows = (folder / "records.sqlite").stat().st_blocks * 512 / 100_000
    use_rows = baselines.sqlite_bytes(folder / "uses.sqlite", _use_rows(20_000), uses=True) / 20_000
    found = []
    for kind, count, rows in (("record", records, record_rows), ("use", uses, use_rows)):
        against = ("the same rows in SQLite", rows)
        hot = baselines.folder_bytes(folder / f"{kind}s") / count
        sealed = _seal(folder / f"{kind}s", core)
        found += [
            figure(f"bytes_per_receipt_hot_{kind}", "B", [hot], baseline=against),
            figure(f"bytes_per_receipt_sealed_{kind}", "B", [sealed], baseline=against),
        ]
    return found


def _seal(folder: Path, core: Core) -> float:
    """Seal all but the open segment; bytes for a receipt in a sealed one, with its share of
    everything else in the folder: hashes, keys, kept state."""
    with closing(SegmentLog(folder, core=core)) as storage:
        for segment in storage.segments():
            if segment.form is Form.COMPLETE:
                storage.seal(segment.start)
        parts = storage.segments()
        size = storage.tip.size
    sealed = [each for each in parts if each.form is Form.SEALED]
    rest = baselines.folder_bytes(folder) - sum(each.stored for each in parts)
    return sum(each.stored for each in sealed) / sum(each.leaves for each in sealed) + rest / size


async def _use(meter: Meter, rounds: int, at_once: int) -> int:
    """Uses at the gate, each reserved and then recorded; how many receipts that made."""
    for number in range(rounds):
        items = [
            reservation(f"01J9Z{number:09}{place:012}", scope=SCOPE) for place in range(at_once)
        ]
        await meter.reserve(items)
        quantities = {Quantity.CALLS: 1, Quantity.ROWS_RETURNED: 12, Quantity.DURATION_MS: 7}
        await meter.record(
            [
                item.settle(Outcome.ALLOWED, result_digest=os.urandom(32), quantities=quantities)
                for item in items
            ]
        )
    return meter.checkpoint().size


def _use_rows(count: int) -> list[tuple[object, ...]]:
    return [
        (
            *(SCOPE, number, f"01J9Z{number:021}", 1_795_435_000_000),
            *("did:web:airport.example", "did:web:tourism.example", 1, "tourism-planning"),
            *(bytes(32), b"p" * 32, os.urandom(32), os.urandom(32)),
            *(1, 12, os.urandom(16), os.urandom(32)),
        )
        for number in range(count)
    ]


async def growing(folder: Path) -> list[Figure]:
    """What a receipt costs in one log as it grows, and opening it."""
    grown = list(GROWN)
    if os.environ.get("BENCH_LARGE") == "1":
        if shutil.disk_usage(folder).free < LARGE_BYTES:
            print(f"*** 1e8 is left out: less than {LARGE_BYTES >> 30} GiB of disk are free ***")
        else:
            grown.append(100_000_000)
    found: list[Figure] = []
    for core in _cores():
        wanted = grown if core == "native" else grown[:1]
        command = [sys.executable, "-m", "bench.growing", str(folder / f"growing-{core}"), core]
        told = await asyncio.to_thread(subprocess.check_output, [*command, *map(str, wanted)])
        steps = [json.loads(line) for line in told.splitlines()]
        shutil.rmtree(folder / f"growing-{core}")
        found += _grown(steps, "" if core == "native" else "_python_core")
    return found


def _grown(steps: list[dict[str, Any]], suffix: str) -> list[Figure]:
    found: list[Figure] = []
    first = steps[0]
    for step in steps:
        name = f"1e{len(str(step['size'])) - 1}{suffix}"
        costs = ("at 1e5", statistics.median(first["us"]))
        opens = ("at 1e5", statistics.median(first["open_s"]) * 1000)
        held = ("at 1e5", first["RssAnon"])
        found += [
            figure(f"scaling_{name}", "us", step["us"], baseline=costs),
            figure(
                f"scaling_{name}_cpu",
                "us",
                step["cpu_us"],
                baseline=("at 1e5", statistics.median(first["cpu_us"])),
            ),
            figure(f"open_{name}_ms", "ms", [s * 1000 for s in step["open_s"]], baseline=opens),
            figure(f"memory_{name}_rss_anon_mb", "MB", [step["RssAnon"]], baseline=held),
            figure(f"memory_{name}_rss_file_mb", "MB", [step["RssFile"]]),
            figure(f"bytes_{name}_per_receipt", "B", [step["bytes"]]),
        ]
    return found


def leaves(core: Core, rows: int, number: int = 0) -> bytes:
    """Packed record leaves as the load makes them."""
    place = Place(
        scope=SCOPE,
        reporter="gateway",
        number=number * rows,
        head=os.urandom(HASH_BYTES) if number else NO_PREVIOUS,
        left=None,
        first_ms=0,
        last_ms=1 << 42,
        running=frozenset(),
        time_ms=1_795_435_000_000,
        index=number * rows,
        salts=os.urandom(16 * rows),
    )
    with tempfile.TemporaryDirectory() as folder, closing(core.open_keys(Path(folder))) as keys:
        return core.make_records(
            Batches("leaves", rows, 1).columns(number), place, keys
        ).leaves.packed


MEASURED = {
    "grpc": grpc,
    "process": process,
    "verifying": verifying,
    "sizes": sizes,
    "growing": growing,
}


async def main(names: list[str]) -> None:
    for name in names or list(MEASURED):
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            found = await MEASURED[name](Path(folder))
        save(found)
        print(table([each for each in save(found) if each["name"] in {one.name for one in found}]))


if __name__ == "__main__":
    if len(_cores()) == 1:
        print("*** the native core is not built: make setup, with Rust, builds it ***")
        print("*** its figures are LEFT OUT ***")
    asyncio.run(main(sys.argv[1:]))
