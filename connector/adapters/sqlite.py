"""SQLite through sqlite-utils: one writer thread, WAL, full sync, numbered migrations.

A connection belongs to its thread, so every statement runs on one thread of the database's own.
``write`` is one transaction: it is on stable storage when it returns, or nothing of it happened.
Reads run on the same thread, so they see every write that was awaited before.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlite_utils

from connector.errors import InternalError, Unavailable

T = TypeVar("T")
Migration = Callable[[sqlite_utils.Database], None]


class Sqlite:
    """One database file. ``migrations`` are numbered by their place and run once, in order.

    Raises ``Unavailable`` when the disk refuses (full, read-only), ``InternalError`` when the
    file was written by a newer program.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{path.stem}")
        self._database = self._executor.submit(self._open, migrations).result()

    async def read(self, question: Callable[[sqlite_utils.Database], T]) -> T:
        return await self._run(lambda: question(self._database))

    async def write(self, change: Callable[[sqlite_utils.Database], T]) -> T:
        """Run ``change`` in one transaction; durable on return."""

        def transaction() -> T:
            with self._database.atomic():
                return change(self._database)

        return await self._run(transaction)

    def close(self) -> None:
        self._executor.submit(self._database.close).result()
        self._executor.shutdown()

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except sqlite3.OperationalError as error:
            raise Unavailable("the database cannot be written or read now") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # a constraint, say: the caller's to judge
            raise InternalError("a database file is damaged") from error

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
