"""Who may read the whole log, in SQLite (``ports.grants.GrantStore``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from connector.adapters.sqlite import Migration, Sqlite
from connector.errors import Conflict
from connector.model import fields
from connector.ports.grants import Grant


def _grants(database: Database) -> None:
    database.executescript(
        """
        CREATE TABLE grants (
            name TEXT PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE,
            made TEXT NOT NULL,
            expires TEXT NOT NULL
        ) STRICT;
        """
    )


MIGRATIONS: Sequence[Migration] = (_grants,)


class SqliteGrantStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, MIGRATIONS)

    def close(self) -> None:
        self._sqlite.close()

    async def add(self, grant: Grant) -> None:
        made, expires = fields.format_time(grant.made), fields.format_time(grant.expires)
        row = [grant.name, grant.digest, made, expires]

        def change(database: Database) -> None:
            try:
                database.execute("INSERT INTO grants VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise Conflict("somebody has a grant under this name already") from error

        await self._sqlite.write(change)

    async def remove(self, name: str) -> None:
        await self._sqlite.write(
            lambda database: database.execute("DELETE FROM grants WHERE name = ?", [name])
        )

    async def all(self) -> Sequence[Grant]:
        sql = "SELECT name, digest, made, expires FROM grants ORDER BY name"
        rows = await self._sqlite.read(lambda database: database.execute(sql).fetchall())
        return [
            Grant(name, bytes(digest), fields.parse_time(made), fields.parse_time(expires))
            for name, digest, made, expires in rows
        ]
