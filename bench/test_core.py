"""The core's parts, a thousand records at a time, in Python and native; and storage under them.

Each native figure has the Python one as its baseline, whose own is what hashlib does with the same
bytes, or a plain append and fdatasync. Run with ``pytest bench/test_core.py``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.inside import SCOPE
from bench.proofs import proof_of
from bench.rows import Batches
from connector.adapters.segments import SegmentLog
from connector.core.interface import Core, Keys, Leaves, Place
from connector.model.receipt import HASH_BYTES, NO_PREVIOUS, SALT_BYTES
from tests.cores import CORES
from tests.logs import seal

ROWS = 1000
LARGE = 10_000_000


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> Core:
    found: Core = request.param
    return found


@pytest.fixture
def keys(core: Core, tmp_path: Path) -> Iterator[Keys]:
    with closing(core.open_keys(tmp_path / "keys")) as keys:
        yield keys


@pytest.fixture
def leaves(core: Core, keys: Keys) -> Leaves:
    made = core.make_records(Batches("leaves", ROWS, 1).columns(1), place(0), keys).leaves
    keys.discard()
    return made


def place(index: int) -> Place:
    return Place(
        scope=SCOPE,
        reporter="gateway",
        number=index,
        head=os.urandom(HASH_BYTES) if index else NO_PREVIOUS,
        left=None,
        first_ms=0,
        last_ms=1 << 42,
        running=frozenset(),
        time_ms=1_795_435_000_000,
        index=index,
        salts=os.urandom(SALT_BYTES * ROWS),
    )


def measure(
    benchmark: BenchmarkFixture,
    core: Core | None,
    part: str,
    call: Callable[[], object],
    size: int = ROWS,
) -> None:
    benchmark.pedantic(call, rounds=100, warmup_rounds=5)
    benchmark.extra_info["size"] = size
    if core is not None:
        against = f"test_{part}[python]" if core.name == "native" else f"test_plain_{part}"
        benchmark.extra_info["baseline"] = against


def test_plain_leaf_hashes(benchmark: BenchmarkFixture) -> None:
    """hashlib over as many leaves of the same length."""
    data = [os.urandom(193) for _ in range(ROWS)]
    measure(benchmark, None, "", lambda: [hashlib.sha256(each).digest() for each in data])


def test_plain_append(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    data = os.urandom(194 * ROWS)

    def append() -> None:
        os.write(fd, data)
        os.fdatasync(fd)

    measure(benchmark, None, "", append)
    os.close(fd)


def test_make_records(benchmark: BenchmarkFixture, core: Core, keys: Keys) -> None:
    """Validated, deduplicated, encoded, hashed; their keys staged and settled."""
    batches, numbers = Batches("makeit", ROWS, 1), itertools.count()

    def make() -> None:
        number = next(numbers)
        made = core.make_records(batches.columns(number), place(number * ROWS), keys)
        assert made.leaves.count == ROWS
        keys.settle()

    measure(benchmark, core, "make_records", make)


def test_leaf_hashes(benchmark: BenchmarkFixture, core: Core, leaves: Leaves) -> None:
    measure(benchmark, core, "leaf_hashes", lambda: core.leaf_hashes(leaves.packed))
    assert core.leaf_hashes(leaves.packed) == leaves.hashes


def test_extend(benchmark: BenchmarkFixture, core: Core, leaves: Leaves) -> None:
    subtrees, _ = core.extend(0, (), leaves.hashes)
    measure(benchmark, core, "extend", lambda: core.extend(ROWS, subtrees, leaves.hashes))


def test_read_records(benchmark: BenchmarkFixture, core: Core, keys: Keys, leaves: Leaves) -> None:
    """As at a start, or by a verifier: parsed, numbered, deduplicated."""

    def read() -> None:
        (run,) = core.read_records(leaves.packed, 0, keys)
        assert not isinstance(run, bytes)
        assert run.count == ROWS
        keys.discard()

    measure(benchmark, core, "read_records", read)


def test_keys(benchmark: BenchmarkFixture, core: Core, keys: Keys) -> None:
    """Looked for, one call each, among a million that are in files and in memory."""
    total = 1_000_000
    for first in range(0, total, 50_000):
        for number in range(first, first + 50_000):
            keys.stage(_key(number), number)
        keys.settle()
        if keys.pending >= keys.freeze_at:
            keys.freeze(first + 50_000)
    keys.wait()
    wanted = [_key(number * 997 % total) for number in range(ROWS // 2)]
    wanted += [_key(total + number) for number in range(ROWS - len(wanted))]

    def find() -> None:
        found = [keys.find(key) for key in wanted]
        assert found[0] == 0
        assert found[-1] is None

    measure(benchmark, core, "keys", find)


def test_append(benchmark: BenchmarkFixture, core: Core, leaves: Leaves, tmp_path: Path) -> None:
    """The log: the tree grown, one durable write with a signed checkpoint."""
    with closing(SegmentLog(tmp_path / "log", core=core)) as storage:
        measure(benchmark, core, "append", lambda: storage.append((), leaves, seal))
        assert storage.tip.size >= ROWS


def test_verify_inclusion(benchmark: BenchmarkFixture, core: Core) -> None:
    """One proof after the other, in a tree of ten million leaves."""
    proof = proof_of(LARGE // 3, LARGE)

    def verify() -> None:
        for _ in range(100):
            core.verify_inclusion(*proof)

    measure(benchmark, core, "verify_inclusion", verify, size=100)


def test_verify_inclusions(benchmark: BenchmarkFixture, core: Core) -> None:
    """As many in one call."""
    proofs = [proof_of(number * LARGE // 100 + number, LARGE) for number in range(100)]
    measure(benchmark, core, "verify_inclusions", lambda: core.verify_inclusions(proofs), size=100)


def _key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()[:10]
