"""Who may report uses, in SQLite (``ports.reporters.ReporterStore``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from connector.adapters.sqlite import Migration, Sqlite
from connector.errors import Conflict
from connector.identity.reporters import Reporter, read_certificate
from connector.model import fields


def _reporters(database: Database) -> None:
    database.executescript(
        """
        CREATE TABLE reporters (
            name TEXT PRIMARY KEY,
            thumbprint TEXT NOT NULL UNIQUE,
            certificate BLOB NOT NULL,
            added TEXT NOT NULL
        ) STRICT;
        """
    )


MIGRATIONS: Sequence[Migration] = (_reporters,)


class SqliteReporterStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, MIGRATIONS)

    def close(self) -> None:
        self._sqlite.close()

    async def add(self, reporter: Reporter) -> None:
        row = [
            reporter.name,
            reporter.thumbprint,
            reporter.certificate,
            fields.format_time(reporter.added),
        ]

        def change(database: Database) -> None:
            try:
                database.execute("INSERT INTO reporters VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise Conflict("a reporter has this name or certificate already") from error

        await self._sqlite.write(change)

    async def remove(self, name: str) -> None:
        await self._sqlite.write(
            lambda database: database.execute("DELETE FROM reporters WHERE name = ?", [name])
        )

    async def all(self) -> Sequence[Reporter]:
        sql = "SELECT name, certificate, added FROM reporters ORDER BY name"
        rows = await self._sqlite.read(lambda database: database.execute(sql).fetchall())
        return [
            read_certificate(name, certificate, fields.parse_time(added))
            for name, certificate, added in rows
        ]
