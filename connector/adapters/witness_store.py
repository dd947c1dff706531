"""``ports.witnesses.WitnessStore`` on SQLite."""

from __future__ import annotations

from pathlib import Path

import sqlite_utils

from connector.adapters.sqlite import Sqlite
from connector.ports.witnesses import Witnessed


def _create(database: sqlite_utils.Database) -> None:
    database.execute(
        "CREATE TABLE witnessed (origin TEXT PRIMARY KEY, size INTEGER NOT NULL,"
        " root BLOB NOT NULL, checkpoint BLOB NOT NULL) STRICT"
    )


class SqliteWitnessStore:
    """One file, a row for each log."""

    def __init__(self, path: Path) -> None:
        self._database = Sqlite(path, [_create])

    async def last(self, origin: str) -> Witnessed | None:
        return await self._database.read(lambda database: _last(database, origin))

    async def replace(self, origin: str, old: Witnessed | None, new: Witnessed) -> bool:
        def change(database: sqlite_utils.Database) -> bool:
            if _last(database, origin) != old:
                return False
            database.execute(
                "INSERT INTO witnessed (origin, size, root, checkpoint) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (origin) DO UPDATE SET size = excluded.size,"
                " root = excluded.root, checkpoint = excluded.checkpoint",
                (origin, new.size, new.root, new.checkpoint),
            )
            return True

        return await self._database.write(change)

    def close(self) -> None:
        self._database.close()


def _last(database: sqlite_utils.Database, origin: str) -> Witnessed | None:
    row = database.execute(
        "SELECT size, root, checkpoint FROM witnessed WHERE origin = ?", (origin,)
    ).fetchone()
    return None if row is None else Witnessed(row[0], row[1], row[2])
