"""What a machine can do at best with the same bytes and rows: the baselines of the metering core.

Each takes its turn with what it is the baseline of, so that load on the machine moves both.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from connector.core.interface import Core
from connector.model.receipt import HASH_BYTES

RAW = "the same bytes by append and fdatasync"
SQLITE = "the same rows in SQLite, WAL, synchronous=FULL"
CEILING = "leaf hashes and tree of the same leaves, two threads"
SYNCS = "append and fdatasync of the same bytes at the same rate, p99"

_RECORDS = (
    "CREATE TABLE records (scope TEXT, number INTEGER, use_id TEXT, time_ms INTEGER, "
    "served_ms INTEGER, purpose TEXT, reporter TEXT, calls INTEGER, salt BLOB, previous BLOB, "
    "PRIMARY KEY (scope, use_id))"
)
_USES = (
    "CREATE TABLE uses (scope TEXT, number INTEGER, use_id TEXT, time_ms INTEGER, "
    "provider TEXT, consumer TEXT, outcome INTEGER, purpose TEXT, agreement_digest BLOB, "
    "policy_digest BLOB, request_digest BLOB, result_digest BLOB, calls INTEGER, rows INTEGER, "
    "salt BLOB, previous BLOB, PRIMARY KEY (scope, use_id))"
)


class Raw:
    """A file that is appended to."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, data: bytes) -> None:
        os.write(self._fd, data)
        os.fdatasync(self._fd)

    def rate(self, data: bytes, rows: int, seconds: float) -> float:
        """Rows a second; ``data`` is what ``rows`` of them come to."""
        return per_second(lambda: self.append(data), rows, seconds)

    def paced(self, data: bytes, rate: float, seconds: float) -> list[float]:
        """Milliseconds of each append, ``rate`` of them a second, from when it was due."""
        found = []
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            self.append(data)
            found.append((time.perf_counter() - due) * 1000)
        return found

    def close(self) -> None:
        os.close(self._fd)


class Rows:
    """A table of receipts with its unique key, durable at every commit."""

    def __init__(self, path: Path, *, uses: bool = False) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(_USES if uses else _RECORDS)
        columns = len(
            self._database.execute(
                "SELECT * FROM pragma_table_info(?)", ["uses" if uses else "records"]
            ).fetchall()
        )
        table = "uses" if uses else "records"
        marks = ",".join("?" * columns)
        self._insert = f"INSERT INTO {table} VALUES ({marks})"  # noqa: S608
        self._number = 0

    def insert(self, rows: Iterable[Sequence[object]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(self._insert, rows)
        self._database.execute("COMMIT")

    def records(self, scope: str, count: int) -> list[Sequence[object]]:
        """As many as a batch of the load has, with use ids as long as the load's."""
        first, self._number = self._number, self._number + count
        salts = os.urandom(16 * count)
        return [
            (
                *(scope, first + n, f"bench-{first + n:020}", 1_795_435_000_000, 1_795_435_000_000),
                *("tourism-planning", "gateway", 1, salts[16 * n : 16 * n + 16], bytes(32)),
            )
            for n in range(count)
        ]

    def rate(self, scope: str, count: int, seconds: float) -> float:
        """Rows a second in batches of ``count``; making them is not counted."""
        spent, done = 0.0, 0
        while spent < seconds:
            rows = self.records(scope, count)
            started = time.perf_counter()
            self.insert(rows)
            spent += time.perf_counter() - started
            done += count
        return done / spent

    def close(self) -> None:
        """Everything is in the one file then."""
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()


def per_second(call: Callable[[], object], size: int, seconds: float) -> float:
    done = 0
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        call()
        done += size
    return done / spent


def on_two_threads(calls: Sequence[Callable[[], object]], size: int, seconds: float) -> float:
    """The rate of both calls together, each on a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        rates = [pool.submit(per_second, call, size, seconds) for call in calls]
        return sum(rate.result() for rate in rates)


def hashing(core: Core, packed: bytes, rows: int, seconds: float) -> float:
    """Leaves a second: their hashes and the tree above them, each thread its own."""

    def hash_them() -> None:
        hashes = core.leaf_hashes(packed)
        assert len(hashes) == rows * HASH_BYTES
        core.extend(0, (), hashes)

    return on_two_threads([hash_them, hash_them], rows, seconds)


def folder_bytes(folder: Path) -> int:
    """What the files in it take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def sqlite_bytes(path: Path, rows: Iterable[Sequence[object]], *, uses: bool = False) -> int:
    with closing(Rows(path, uses=uses)) as table:
        table.insert(rows)
    return path.stat().st_blocks * 512
