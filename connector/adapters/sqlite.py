"""SQLite through sqlite-utils: one writer thread, WAL, full sync, numbered migrations.

A connection belongs to its thread, so every statement runs on one thread of the database's own.
A ``write`` is on stable storage when it returns, or nothing of it happened. Reads run on the same
thread, so they see every write that was awaited before.

Writes that come while the thread is busy gather, and share one transaction and thus one sync. Each
is a savepoint of its own: one that fails leaves the others untouched. Where the transaction itself
fails, each of them is told so.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils

from connector.errors import InternalError, Unavailable

T = TypeVar("T")
Migration = Callable[[sqlite_utils.Database], None]


@dataclass(frozen=True, slots=True)
class _Write:
    change: Callable[[sqlite_utils.Database], Any]
    done: Future[Any] = field(default_factory=Future)


class Sqlite:
    """One database file. ``migrations`` are numbered by their place and run once, in order.

    Raises ``Unavailable`` when the disk refuses (full, read-only), ``InternalError`` when the
    file was written by a newer program.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{path.stem}")
        self._database = self._executor.submit(self._open, migrations).result()
        self._lock = threading.Lock()
        self._writes: list[_Write] = []  # that wait for the thread; guarded by the lock

    async def read(self, question: Callable[[sqlite_utils.Database], T]) -> T:
        loop = asyncio.get_running_loop()
        with _explained():
            return await loop.run_in_executor(self._executor, question, self._database)

    async def write(self, change: Callable[[sqlite_utils.Database], T]) -> T:
        """Run ``change`` as a transaction; durable on return."""
        write = _Write(change)
        with self._lock:
            self._writes.append(write)
            first = len(self._writes) == 1
        if first:
            self._executor.submit(self._write_all)
        with _explained():
            found: T = await asyncio.wrap_future(write.done)
            return found

    def close(self) -> None:
        self._executor.submit(self._database.close).result()
        self._executor.shutdown()

    def _write_all(self) -> None:
        """On the database's thread: the writes that wait, in one transaction."""
        with self._lock:
            waiting, self._writes = self._writes, []
        writes = [write for write in waiting if write.done.set_running_or_notify_cancel()]
        try:
            with self._database.atomic():
                alone = len(writes) == 1
                answers = [self._apply(write.change, alone=alone) for write in writes]
        except BaseException as error:  # noqa: BLE001  those who wait are told
            for write in writes:
                write.done.set_exception(error)
            return
        for write, (answer, failed) in zip(writes, answers, strict=True):
            if failed is None:
                write.done.set_result(answer)
            else:
                write.done.set_exception(failed)

    def _apply(
        self, change: Callable[[sqlite_utils.Database], T], *, alone: bool
    ) -> tuple[T | None, Exception | None]:
        """Its answer, or why nothing of it happened. Raises what ends the whole transaction."""
        if alone:
            return change(self._database), None
        try:
            with self._database.atomic():
                return change(self._database), None
        except Exception as error:
            if not self._database.conn.in_transaction:  # SQLite gave up all of it: the disk is full
                raise
            return None, error

    def _open(self, migrations: Sequence[Migration]) -> sqlite_utils.Database:
        database = sqlite_utils.Database(self._path)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA foreign_keys=ON")
        done = database.execute("PRAGMA user_version").fetchone()[0]
        if done > len(migrations):
            raise InternalError("the data folder was written by a newer version of this program")
        for number, migrate in enumerate(migrations[done:], start=done + 1):
            with database.atomic():
                migrate(database)
                database.execute(f"PRAGMA user_version={number}")
        return database


@contextmanager
def _explained() -> Iterator[None]:
    """SQLite's errors as this program's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable("the database cannot be written or read now") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise  # a constraint, say: the caller's to judge
        raise InternalError("a database file is damaged") from error
