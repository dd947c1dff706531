"""A node's verified membership events in SQLite (``ports.directory.MembershipStore``).

All of them, not the latest of each participant only: their numbers have no gaps, so a file from
which something was taken is seen to be wrong, and evidence can show what was said at the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from connector.adapters.sqlite import Migration, Sqlite
from connector.errors import Conflict


def _events(database: Database) -> None:
    database.executescript(
        """
        CREATE TABLE events (
            number INTEGER PRIMARY KEY,
            did TEXT NOT NULL,
            statement TEXT NOT NULL
        ) STRICT;
        CREATE INDEX events_by_did ON events (did, number);
        """
    )


MIGRATIONS: Sequence[Migration] = (_events,)


class SqliteMembershipStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, MIGRATIONS)

    def close(self) -> None:
        self._sqlite.close()

    async def append(self, number: int, did: str, statement: str) -> None:
        def change(database: Database) -> None:
            last = database.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0]
            if number == last + 1:
                database.execute("INSERT INTO events VALUES (?, ?, ?)", [number, did, statement])
                return
            same = "SELECT count(*) FROM events WHERE number = ? AND did = ? AND statement = ?"
            if not database.execute(same, [number, did, statement]).fetchone()[0]:
                raise Conflict("the event is not the next one")

        await self._sqlite.write(change)

    async def after(self, number: int, limit: int) -> Sequence[str]:
        return await self._statements(
            "SELECT statement FROM events WHERE number > ? ORDER BY number LIMIT ?",
            [number, limit],
        )

    async def of(self, did: str) -> Sequence[str]:
        return await self._statements(
            "SELECT statement FROM events WHERE did = ? ORDER BY number", [did]
        )

    async def _statements(self, sql: str, parameters: list[Any]) -> Sequence[str]:
        rows = await self._sqlite.read(lambda db: db.execute(sql, parameters).fetchall())
        return [row[0] for row in rows]
