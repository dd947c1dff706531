"""``ports.datasets.DatasetStore`` on SQLite, with an index of words (``directory.words``).

What was asked for lately is answered from memory: each use and each step of a negotiation asks
for its dataset. No other process writes to the file (a lock on the data folder).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import sqlite_utils

from connector.adapters.sqlite import Sqlite
from connector.directory.words import index_terms, match_query
from connector.errors import InvalidInput
from connector.model import fields
from connector.model.catalog import Dataset, dataset_json, parse_dataset
from connector.ports.datasets import Listed, PublishedDataset, Wanted

_TABLE = "datasets"
_WORDS = "INSERT INTO dataset_words (rowid, title, keywords, description) VALUES (?, ?, ?, ?)"
_LISTED = (
    "SELECT number, dataset FROM datasets WHERE number > :after AND number < :before "
    "AND (:id = '' OR id = :id) "
    "AND (:text = '' OR number IN "
    "(SELECT rowid FROM dataset_words WHERE dataset_words MATCH :text)) "
    "AND (:keyword = '' OR number IN "
    "(SELECT rowid FROM dataset_words WHERE dataset_words MATCH :keyword)) "
)
_FORWARDS = _LISTED + "ORDER BY number LIMIT :limit OFFSET :skip"
_BACKWARDS = _LISTED + "ORDER BY number DESC LIMIT :limit OFFSET :skip"
_ENDLESS = (1 << 63) - 1
_REMEMBERED = 64  # datasets


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


def _number(database: sqlite_utils.Database) -> None:
    """A place in lists, and an index of words whose rows have the same numbers."""
    database.execute("ALTER TABLE datasets ADD COLUMN number INTEGER")
    database.execute("UPDATE datasets SET number = rowid")
    database.execute("CREATE UNIQUE INDEX dataset_numbers ON datasets (number)")
    database.execute(
        "CREATE VIRTUAL TABLE dataset_words USING fts5 "
        "(title, keywords, description, tokenize = 'ascii', prefix = '2 4 6 8')"
    )
    for number, dataset in list(database.execute("SELECT number, dataset FROM datasets")):
        _index(database, number, parse_dataset(dataset))


def _index(database: sqlite_utils.Database, number: int, dataset: Dataset) -> None:
    texts = (dataset.title, "\n".join(dataset.keywords), dataset.description)
    database.execute("DELETE FROM dataset_words WHERE rowid = ?", [number])
    database.execute(_WORDS, [number, *map(index_terms, texts)])


class SqliteDatasetStore:
    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, [_create, _number])
        self._recent: OrderedDict[str, PublishedDataset] = OrderedDict()
        self._changes = 0  # that were begun

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

        def change(database: sqlite_utils.Database) -> None:
            number = _number_of(database, published.dataset.id)
            if number is None:
                last = database.execute("SELECT coalesce(max(number), 0) FROM datasets")
                number = last.fetchone()[0] + 1
            database.table(_TABLE).upsert({**row, "number": number}, pk="id")
            _index(database, number, published.dataset)

        self._forget(published.dataset.id)
        await self._sqlite.write(change)

    async def remove(self, dataset_id: str) -> None:
        def change(database: sqlite_utils.Database) -> None:
            number = _number_of(database, dataset_id)
            if number is not None:
                database.execute("DELETE FROM dataset_words WHERE rowid = ?", [number])
                database.table(_TABLE).delete_where("id = ?", [dataset_id])

        self._forget(dataset_id)
        await self._sqlite.write(change)

    async def get(self, dataset_id: str) -> PublishedDataset | None:
        found = self._recent.get(dataset_id)
        if found is not None:
            return found
        changes = self._changes
        rows = await self._sqlite.read(
            lambda database: list(database.table(_TABLE).rows_where("id = ?", [dataset_id]))
        )
        if not rows:
            return None
        found = _published(rows[0])
        if changes == self._changes:  # else it may be an older version
            self._recent[dataset_id] = found
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return found

    def _forget(self, dataset_id: str) -> None:
        """Before it changes: who reads meanwhile, reads after the change or remembers nothing."""
        self._changes += 1
        self._recent.pop(dataset_id, None)

    async def all(self) -> tuple[PublishedDataset, ...]:
        rows = await self._sqlite.read(
            lambda database: list(database.table(_TABLE).rows_where(order_by="number"))
        )
        return tuple(_published(row) for row in rows)

    async def listed(
        self, wanted: Wanted, *, after: int = 0, before: int = 0, skip: int = 0, limit: int
    ) -> tuple[Listed, ...]:
        values = {
            "after": after,
            "before": before or _ENDLESS,
            "id": wanted.id,
            "text": _words(wanted.text),
            "keyword": f"keywords: ({_words(wanted.keyword)})" if wanted.keyword else "",
            "skip": skip,
            "limit": limit,
        }
        question = _BACKWARDS if before else _FORWARDS
        rows = await self._sqlite.read(
            lambda database: database.execute(question, values).fetchall()
        )
        found = tuple(Listed(number, dataset) for number, dataset in rows)
        return found[::-1] if before else found

    def close(self) -> None:
        self._sqlite.close()


def _number_of(database: sqlite_utils.Database, dataset_id: str) -> int | None:
    row = database.execute("SELECT number FROM datasets WHERE id = ?", [dataset_id]).fetchone()
    return None if row is None else int(row[0])


def _words(text: str) -> str:
    """What the index is asked for; empty for an empty text."""
    match = match_query(text)
    if text and not match:
        raise InvalidInput("the question has no word in it")
    return match


def _published(row: dict[str, Any]) -> PublishedDataset:
    return PublishedDataset(
        dataset=parse_dataset(row["dataset"]),
        record=row["record"],
        database=row["database"],
        rows=row["rows"],
        accept_free_sql=bool(row["accept_free_sql"]),
        manual_approval=bool(row["manual_approval"]),
    )
