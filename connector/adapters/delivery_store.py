"""``ports.deliveries.DeliveryStore`` on SQLite."""

from __future__ import annotations

from pathlib import Path

import sqlite_utils

from connector.adapters.sqlite import Sqlite
from connector.ports.deliveries import Pulled
from connector.ports.peers import ReceiptProof
from connector.tlog.merkle import HASH_BYTES

_TABLE = "deliveries"
_LOGS = "logs"
_PULLED = "pulled"


def _create(database: sqlite_utils.Database) -> None:
    database.table(_TABLE).create(
        {
            "scope": str,
            "number": int,
            "leaf": bytes,
            "leaf_index": int,
            "inclusion": bytes,
            "checkpoint": bytes,
        },
        pk=("scope", "number"),
        not_null={"leaf", "leaf_index", "inclusion", "checkpoint"},
    )


def _create_logs(database: sqlite_utils.Database) -> None:
    database.table(_LOGS).create(
        {"origin": str, "checkpoint": bytes}, pk="origin", not_null={"checkpoint"}
    )


def _create_pulled(database: sqlite_utils.Database) -> None:
    database.table(_PULLED).create(
        {"pid": str, "moved": int, "open": int}, pk="pid", not_null={"moved", "open"}
    )


class SqliteDeliveryStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, [_create, _create_logs, _create_pulled])

    async def keep(self, scope: str, number: int, proof: ReceiptProof) -> None:
        row = {
            "scope": scope,
            "number": number,
            "leaf": proof.leaf,
            "leaf_index": proof.index,
            "inclusion": b"".join(proof.inclusion),
            "checkpoint": proof.checkpoint,
        }
        await self._sqlite.write(lambda db: db.table(_TABLE).insert(row, ignore=True))

    async def of(self, scope: str) -> tuple[ReceiptProof, ...]:
        rows = await self._sqlite.read(
            lambda db: list(db.table(_TABLE).rows_where("scope = ?", [scope], order_by="number"))
        )
        return tuple(
            ReceiptProof(
                row["leaf"], row["leaf_index"], _hashes(row["inclusion"]), row["checkpoint"]
            )
            for row in rows
        )

    async def trust(self, origin: str, note: bytes) -> None:
        row = {"origin": origin, "checkpoint": note}
        await self._sqlite.write(lambda db: db.table(_LOGS).upsert(row, pk="origin"))

    async def trusted(self, origin: str) -> bytes | None:
        rows = await self._sqlite.read(
            lambda db: list(db.table(_LOGS).rows_where("origin = ?", [origin]))
        )
        return bytes(rows[0]["checkpoint"]) if rows else None

    async def pull_began(self, pid: str) -> None:
        await self._pull(pid, 0, 1)

    async def pull_ended(self, pid: str, moved: int) -> None:
        await self._pull(pid, moved, -1)

    async def _pull(self, pid: str, moved: int, more: int) -> None:
        await self._sqlite.write(
            lambda db: db.execute(
                "INSERT INTO pulled (pid, moved, open) VALUES (:pid, :moved, :more)"
                " ON CONFLICT (pid) DO UPDATE SET moved = moved + :moved, open = open + :more",
                {"pid": pid, "moved": moved, "more": more},
            )
        )

    async def pulled(self, pid: str) -> Pulled | None:
        rows = await self._sqlite.read(
            lambda db: list(db.table(_PULLED).rows_where("pid = ?", [pid]))
        )
        return Pulled(rows[0]["moved"], rows[0]["open"]) if rows else None

    async def forget_pulled(self, pid: str) -> None:
        await self._sqlite.write(lambda db: db.table(_PULLED).delete_where("pid = ?", [pid]))

    def close(self) -> None:
        self._sqlite.close()


def _hashes(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[start : start + HASH_BYTES] for start in range(0, len(joined), HASH_BYTES))
