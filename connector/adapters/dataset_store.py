"""``ports.datasets.DatasetStore`` on SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlite_utils

from connector.adapters.sqlite import Sqlite
from connector.model import fields
from connector.model.catalog import dataset_json, parse_dataset
from connector.ports.datasets import PublishedDataset

_TABLE = "datasets"


def _create(database: sqlite_utils.Database) -> None:
    database.table(_TABLE).create(
        {
            "id": str,
            "dataset": bytes,
            "record": str,
            "database": str,
            "rows": int,
            "accept_free_sql": int,
            "manual_approval": int,
        },
        pk="id",
        not_null={"dataset", "record", "database", "rows"},
    )


class SqliteDatasetStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, [_create])

    async def save(self, published: PublishedDataset) -> None:
        row = {
            "id": published.dataset.id,
            "dataset": fields.encode_json(dataset_json(published.dataset)),
            "record": published.record,
            "database": published.database,
            "rows": published.rows,
            "accept_free_sql": published.accept_free_sql,
            "manual_approval": published.manual_approval,
        }
        await self._sqlite.write(lambda database: database.table(_TABLE).upsert(row, pk="id"))

    async def remove(self, dataset_id: str) -> None:
        await self._sqlite.write(
            lambda database: database.table(_TABLE).delete_where("id = ?", [dataset_id])
        )

    async def get(self, dataset_id: str) -> PublishedDataset | None:
        rows = await self._sqlite.read(
            lambda database: list(database.table(_TABLE).rows_where("id = ?", [dataset_id]))
        )
        return _published(rows[0]) if rows else None

    async def all(self) -> tuple[PublishedDataset, ...]:
        rows = await self._sqlite.read(
            lambda database: list(database.table(_TABLE).rows_where(order_by="rowid"))
        )
        return tuple(_published(row) for row in rows)

    def close(self) -> None:
        self._sqlite.close()


def _published(row: dict[str, Any]) -> PublishedDataset:
    return PublishedDataset(
        dataset=parse_dataset(row["dataset"]),
        record=row["record"],
        database=row["database"],
        rows=row["rows"],
        accept_free_sql=bool(row["accept_free_sql"]),
        manual_approval=bool(row["manual_approval"]),
    )
