"""The directory's registry and catalogue in SQLite (``ports.directory``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from connector.adapters.sqlite import Migration, Sqlite
from connector.errors import Conflict
from connector.model import fields
from connector.model.participant import parse_participant, participant_json
from connector.ports.directory import InvitationRecord, Listing, PendingAct, Recorded


def _registry(database: Database) -> None:
    database.executescript(
        """
        CREATE TABLE invitations (
            digest BLOB PRIMARY KEY,
            organisation TEXT NOT NULL,
            expires TEXT NOT NULL,
            spent_by TEXT NOT NULL DEFAULT '',
            spent_key BLOB NOT NULL DEFAULT x''
        ) STRICT;
        CREATE TABLE events (
            number INTEGER PRIMARY KEY,
            statement TEXT NOT NULL
        ) STRICT;
        CREATE TABLE participants (
            did TEXT PRIMARY KEY,
            revision INTEGER NOT NULL REFERENCES events (number),
            state TEXT NOT NULL,
            log_origin TEXT NOT NULL UNIQUE,
            record TEXT NOT NULL
        ) STRICT;
        CREATE TABLE signing_keys (
            key BLOB PRIMARY KEY,
            did TEXT NOT NULL REFERENCES participants (did)
        ) STRICT;
        CREATE TABLE acts (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            type TEXT NOT NULL,
            scope TEXT NOT NULL,
            statement TEXT NOT NULL,
            logged INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE INDEX acts_to_log ON acts (number) WHERE NOT logged;
        """
    )


def _catalogue(database: Database) -> None:
    """Rows of ``dataset_words`` have the rowids of ``datasets``; a newer version is a newer row."""
    database.executescript(
        """
        CREATE TABLE datasets (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            publisher TEXT NOT NULL REFERENCES participants (did),
            dataset TEXT NOT NULL,
            record TEXT NOT NULL,
            UNIQUE (publisher, dataset)
        ) STRICT;
        CREATE VIRTUAL TABLE dataset_words USING fts5 (
            title, keywords, publisher, description, tokenize = 'ascii', prefix = '2 4 6 8'
        );
        """
    )


MIGRATIONS: Sequence[Migration] = (_registry, _catalogue)

_RECORDS = (
    "SELECT record, statement FROM participants JOIN events ON events.number = revision WHERE "
)
_FOUND = (
    "SELECT record FROM dataset_words JOIN datasets ON datasets.id = dataset_words.rowid "
    "WHERE dataset_words MATCH :match AND datasets.publisher IN "
    "(SELECT did FROM participants WHERE state = 'active') "
    "ORDER BY bm25(dataset_words, 10.0, 5.0, 3.0, 1.0), datasets.id DESC "
    "LIMIT :limit OFFSET :offset"
)
_ALL = (
    "SELECT record FROM datasets WHERE publisher IN "
    "(SELECT did FROM participants WHERE state = 'active') "
    "ORDER BY id DESC LIMIT :limit OFFSET :offset"
)


class SqliteDirectoryStore:
    """``ports.directory.DirectoryStore`` and ``CatalogStore`` in one file."""

    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, MIGRATIONS)

    def close(self) -> None:
        self._sqlite.close()

    async def add_invitation(self, invitation: InvitationRecord, act: tuple[str, str, str]) -> None:
        def change(database: Database) -> None:
            database.execute(
                "INSERT INTO invitations (digest, organisation, expires) VALUES (?, ?, ?)",
                [
                    invitation.digest,
                    invitation.organisation,
                    fields.format_time(invitation.expires),
                ],
            )
            _add_act(database, act)

        await self._sqlite.write(change)

    async def invitation(self, digest: bytes) -> InvitationRecord | None:
        rows = await self._query(
            "SELECT organisation, expires, spent_by, spent_key FROM invitations WHERE digest = ?",
            [digest],
        )
        return next(
            (
                InvitationRecord(digest, organisation, fields.parse_time(expires), by, key)
                for organisation, expires, by, key in rows
            ),
            None,
        )

    async def append_event(
        self, recorded: Recorded, act: tuple[str, str, str], *, spends: bytes = b""
    ) -> None:
        def change(database: Database) -> None:
            subject = recorded.participant
            if subject.revision != _one(database, "SELECT max(number) FROM events") + 1:
                raise Conflict("the event is not the next one")
            if spends:
                _spend(database, spends, subject.did, subject.signing_keys[0])
            if _one(
                database,
                "SELECT count(*) FROM participants WHERE log_origin = ? AND did <> ?",
                [subject.log_origin, subject.did],
            ):
                raise Conflict("another participant has this log origin")
            database.execute(
                "INSERT INTO events VALUES (?, ?)", [subject.revision, recorded.statement]
            )
            database.execute(
                "INSERT OR REPLACE INTO participants VALUES (?, ?, ?, ?, ?)",
                [
                    subject.did,
                    subject.revision,
                    subject.state.value,
                    subject.log_origin,
                    fields.encode_json(participant_json(subject)).decode(),
                ],
            )
            for key in subject.signing_keys:
                _claim_key(database, key, subject.did)
            _add_act(database, act)

        await self._sqlite.write(change)

    async def last_event(self) -> int:
        return await self._sqlite.read(lambda db: _one(db, "SELECT max(number) FROM events"))

    async def events_after(self, number: int, limit: int) -> Sequence[str]:
        rows = await self._query(
            "SELECT statement FROM events WHERE number > ? ORDER BY number LIMIT ?",
            [number, limit],
        )
        return [row[0] for row in rows]

    async def records_after(self, did: str, limit: int) -> Sequence[Recorded]:
        rows = await self._query(_RECORDS + "did > ? ORDER BY did LIMIT ?", [did, limit])
        return [_recorded(row) for row in rows]

    async def record(self, did: str) -> Recorded | None:
        rows = await self._query(_RECORDS + "did = ?", [did])
        return _recorded(rows[0]) if rows else None

    async def pending_acts(self, limit: int) -> Sequence[PendingAct]:
        rows = await self._query(
            "SELECT number, type, scope, statement FROM acts WHERE NOT logged "
            "ORDER BY number LIMIT ?",
            [limit],
        )
        return [PendingAct(*row) for row in rows]

    async def act_logged(self, number: int) -> None:
        def change(database: Database) -> None:
            database.execute("UPDATE acts SET logged = 1 WHERE number = ?", [number])

        await self._sqlite.write(change)

    async def list_dataset(self, listing: Listing, most: int) -> None:
        def change(database: Database) -> None:
            _unlist(database, listing.publisher, listing.dataset)
            listed = _one(
                database, "SELECT count(*) FROM datasets WHERE publisher = ?", [listing.publisher]
            )
            if listed >= most:
                raise Conflict("too many datasets by one publisher")
            row = database.execute(
                "INSERT INTO datasets (publisher, dataset, record) VALUES (?, ?, ?)",
                [listing.publisher, listing.dataset, listing.record],
            ).lastrowid
            database.execute(
                "INSERT INTO dataset_words (rowid, title, keywords, publisher, description) "
                "VALUES (?, ?, ?, ?, ?)",
                [row, *listing.terms],
            )

        await self._sqlite.write(change)

    async def unlist_dataset(self, publisher: str, dataset: str) -> bool:
        return await self._sqlite.write(lambda db: _unlist(db, publisher, dataset))

    async def search(self, match: str, offset: int, limit: int) -> Sequence[str]:
        question = {"match": match, "offset": offset, "limit": limit}
        rows = await self._query(_FOUND if match else _ALL, question)
        return [row[0] for row in rows]

    async def _query(self, sql: str, parameters: list[Any] | dict[str, Any]) -> list[Any]:
        return await self._sqlite.read(lambda db: db.execute(sql, parameters).fetchall())


def _one(database: Database, sql: str, parameters: Sequence[Any] = ()) -> int:
    """The one number that a query gives; 0 for NULL."""
    return int(database.execute(sql, parameters).fetchone()[0] or 0)


def _recorded(row: tuple[str, str]) -> Recorded:
    record, statement = row
    value = fields.as_object(fields.parse_json(record.encode()), "participant")
    return Recorded(parse_participant(value), statement)


def _spend(database: Database, digest: bytes, did: str, key: bytes) -> None:
    spent = database.execute(
        "UPDATE invitations SET spent_by = ?, spent_key = ? WHERE digest = ? AND spent_by = ''",
        [did, key, digest],
    ).rowcount
    if spent != 1:
        raise Conflict("the invitation is spent")


def _claim_key(database: Database, key: bytes, did: str) -> None:
    """A key belongs to one participant for good, also after it was replaced."""
    database.execute("INSERT OR IGNORE INTO signing_keys VALUES (?, ?)", [key, did])
    owner = database.execute("SELECT did FROM signing_keys WHERE key = ?", [key]).fetchone()[0]
    if owner != did:
        raise Conflict("another participant has this signing key")


def _add_act(database: Database, act: tuple[str, str, str]) -> None:
    database.execute("INSERT INTO acts (type, scope, statement) VALUES (?, ?, ?)", act)


def _unlist(database: Database, publisher: str, dataset: str) -> bool:
    row = database.execute(
        "SELECT id FROM datasets WHERE publisher = ? AND dataset = ?", [publisher, dataset]
    ).fetchone()
    if row is None:
        return False
    database.execute("DELETE FROM dataset_words WHERE rowid = ?", row)
    database.execute("DELETE FROM datasets WHERE id = ?", row)
    return True
