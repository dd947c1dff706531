"""Running pulls in SQLite (``ports.pulls.PullStore``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlite_utils import Database

from connector.adapters.sqlite import Migration, Sqlite
from connector.ports.pulls import PullState, StoredPull


def _pulls(database: Database) -> None:
    database.executescript(
        """
        CREATE TABLE pulls (
            pid TEXT PRIMARY KEY,
            agreement_id TEXT NOT NULL,
            consumer TEXT NOT NULL,
            started_ms INTEGER NOT NULL,
            state TEXT NOT NULL,
            moved INTEGER NOT NULL,
            reason TEXT NOT NULL,
            tokens BLOB NOT NULL
        ) STRICT, WITHOUT ROWID;
        """
    )


MIGRATIONS: Sequence[Migration] = (_pulls,)

_SAVE = """
INSERT INTO pulls VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (pid) DO UPDATE SET
    state = excluded.state, reason = excluded.reason, tokens = excluded.tokens
"""


class SqlitePullStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, MIGRATIONS)

    def close(self) -> None:
        self._sqlite.close()

    async def all(self) -> Sequence[StoredPull]:
        sql = "SELECT * FROM pulls ORDER BY started_ms, pid"
        rows = await self._sqlite.read(lambda database: database.execute(sql).fetchall())
        return [
            StoredPull(
                pid=pid,
                agreement_id=agreement,
                consumer=consumer,
                started_ms=started,
                state=PullState(state),
                moved=moved,
                reason=reason,
                tokens=bytes(tokens),
            )
            for pid, agreement, consumer, started, state, moved, reason, tokens in rows
        ]

    async def save(self, pull: StoredPull) -> None:
        row = [
            pull.pid,
            pull.agreement_id,
            pull.consumer,
            pull.started_ms,
            pull.state.value,
            pull.moved,
            pull.reason,
            pull.tokens,
        ]
        await self._sqlite.write(lambda database: database.execute(_SAVE, row))

    async def move(self, moved: Mapping[str, int]) -> None:
        sql = "UPDATE pulls SET moved = ? WHERE pid = ?"
        rows = [(amount, pid) for pid, amount in moved.items()]
        await self._sqlite.write(lambda database: database.conn.executemany(sql, rows))

    async def remove(self, pid: str) -> None:
        await self._sqlite.write(
            lambda database: database.execute("DELETE FROM pulls WHERE pid = ?", [pid])
        )
