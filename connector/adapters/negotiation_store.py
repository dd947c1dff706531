"""``ports.negotiation.NegotiationStore`` on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlite_utils

from connector.adapters.sqlite import Sqlite
from connector.errors import Conflict
from connector.model import fields
from connector.model.negotiation import (
    AgreementState,
    Channel,
    Negotiation,
    Party,
    State,
    StoredAgreement,
)
from connector.model.terms import parse_agreement
from connector.model.transfer import (
    TransferProcess,
    TransferState,
    address_json,
    parse_address,
)
from connector.ports.negotiation import MAX_TERMINATED, Act, Change, Counts, Letter, Post


def _create(database: sqlite_utils.Database) -> None:
    for statement in (
        """CREATE TABLE negotiations (
            pid TEXT PRIMARY KEY, peer TEXT NOT NULL, party TEXT NOT NULL, peer_pid TEXT NOT NULL,
            dataset TEXT NOT NULL, state TEXT NOT NULL, offer BLOB NOT NULL,
            revision INTEGER NOT NULL, agreement_id TEXT NOT NULL, waiting INTEGER NOT NULL,
            code TEXT NOT NULL, reason TEXT NOT NULL, accept_offers INTEGER NOT NULL,
            left_state TEXT NOT NULL, dataset_record TEXT NOT NULL, updated_ms INTEGER NOT NULL)""",
        """CREATE UNIQUE INDEX negotiations_peer_pid ON negotiations (peer, party, peer_pid)
            WHERE peer_pid != ''""",
        "CREATE INDEX negotiations_state ON negotiations (peer, party, state)",
        "CREATE INDEX negotiations_waiting ON negotiations (waiting) WHERE waiting",
        """CREATE TABLE agreements (
            id TEXT PRIMARY KEY, pid TEXT NOT NULL, peer TEXT NOT NULL, party TEXT NOT NULL,
            state TEXT NOT NULL, document BLOB NOT NULL, provider_signature TEXT NOT NULL,
            consumer_signature TEXT NOT NULL, secret BLOB NOT NULL, dataset_record TEXT NOT NULL,
            ended_reason TEXT NOT NULL, notice TEXT NOT NULL, revision INTEGER NOT NULL)""",
        "CREATE INDEX agreements_pid ON agreements (pid)",
        """CREATE TABLE outbox (
            peer TEXT NOT NULL, party TEXT NOT NULL, sequence INTEGER NOT NULL,
            body BLOB NOT NULL, correlation_id TEXT NOT NULL,
            PRIMARY KEY (peer, party, sequence)) WITHOUT ROWID""",
        """CREATE TABLE channels (
            peer TEXT NOT NULL, party TEXT NOT NULL, sent INTEGER NOT NULL,
            acknowledged INTEGER NOT NULL, received INTEGER NOT NULL,
            PRIMARY KEY (peer, party)) WITHOUT ROWID""",
        """CREATE TABLE acts (
            number INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, party TEXT NOT NULL,
            type TEXT NOT NULL, scope TEXT NOT NULL, actor TEXT NOT NULL,
            statement TEXT NOT NULL)""",
    ):
        database.execute(statement)


def _add_posts(database: sqlite_utils.Database) -> None:
    """Peers that are reached over HTTPS."""
    for statement in (
        "ALTER TABLE negotiations ADD COLUMN address TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE negotiations ADD COLUMN heard TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE negotiations ADD COLUMN accept_unenforced INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE agreements ADD COLUMN address TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE posts (
            number INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, party TEXT NOT NULL,
            pid TEXT NOT NULL, address TEXT NOT NULL, body BLOB NOT NULL,
            correlation_id TEXT NOT NULL)""",
        "CREATE INDEX posts_pid ON posts (pid)",
        "CREATE INDEX posts_channel ON posts (peer, party)",
    ):
        database.execute(statement)


def _create_transfers(database: sqlite_utils.Database) -> None:
    for statement in (
        """CREATE TABLE transfers (
            pid TEXT PRIMARY KEY, peer TEXT NOT NULL, party TEXT NOT NULL, peer_pid TEXT NOT NULL,
            agreement_id TEXT NOT NULL, format TEXT NOT NULL, state TEXT NOT NULL,
            revision INTEGER NOT NULL, dataset TEXT NOT NULL, address TEXT NOT NULL,
            data_address BLOB NOT NULL, waiting INTEGER NOT NULL, code TEXT NOT NULL,
            reason TEXT NOT NULL, left_state TEXT NOT NULL, resuming INTEGER NOT NULL,
            heard TEXT NOT NULL, updated_ms INTEGER NOT NULL)""",
        """CREATE UNIQUE INDEX transfers_peer_pid ON transfers (peer, party, peer_pid)
            WHERE peer_pid != ''""",
        "CREATE INDEX transfers_state ON transfers (peer, party, state)",
    ):
        database.execute(statement)


def _add_recorded(database: sqlite_utils.Database) -> None:
    """A consumer's own record of how a transfer ended."""
    for statement in (
        "ALTER TABLE transfers ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX transfers_unrecorded ON transfers (party, state) WHERE NOT recorded",
    ):
        database.execute(statement)


_MIGRATIONS = (_create, _add_posts, _create_transfers, _add_recorded)
_FINAL = (State.FINALIZED.value, State.TERMINATED.value)
_OVER = (TransferState.COMPLETED.value, TransferState.TERMINATED.value)


class SqliteNegotiationStore:
    """``path`` may be ``:memory:`` in tests."""

    def __init__(self, path: Path) -> None:
        self._sqlite = Sqlite(path, _MIGRATIONS)

    async def commit(self, change: Change) -> tuple[Act, ...]:
        def apply(database: sqlite_utils.Database) -> tuple[Act, ...]:
            try:
                return _apply(database, change)
            except sqlite3.IntegrityError as error:
                raise Conflict("a process or an agreement of this name exists already") from error

        return await self._sqlite.write(apply)

    async def negotiation(self, pid: str) -> Negotiation | None:
        rows = await self._rows("SELECT * FROM negotiations WHERE pid = ?", (pid,))
        return _negotiation(rows[0]) if rows else None

    async def by_peer_pid(self, channel: Channel, peer_pid: str) -> Negotiation | None:
        rows = await self._rows(
            "SELECT * FROM negotiations"
            " WHERE peer = ? AND party = ? AND peer_pid = ? AND peer_pid != ''",
            (*_key(channel), peer_pid),
        )
        return _negotiation(rows[0]) if rows else None

    async def open_count(self, channel: Channel) -> int:
        rows = await self._rows(
            "SELECT count(*) AS many FROM negotiations"
            " WHERE peer = ? AND party = ? AND state NOT IN (?, ?)",
            (*_key(channel), *_FINAL),
        )
        return int(rows[0]["many"])

    async def negotiations(self, *, waiting_only: bool, limit: int) -> tuple[Negotiation, ...]:
        where = "WHERE waiting" if waiting_only else ""
        rows = await self._rows(
            f"SELECT * FROM negotiations {where} ORDER BY rowid DESC LIMIT ?",  # noqa: S608
            (limit,),
        )
        return tuple(_negotiation(row) for row in rows)

    async def agreement(self, agreement_id: str) -> StoredAgreement | None:
        rows = await self._rows("SELECT * FROM agreements WHERE id = ?", (agreement_id,))
        return _agreement(rows[0]) if rows else None

    async def agreements(self, *, party: Party | None, limit: int) -> tuple[StoredAgreement, ...]:
        parties = (party.value, party.value) if party else tuple(Party)
        rows = await self._rows(
            "SELECT * FROM agreements WHERE state != ? AND party IN (?, ?)"
            " ORDER BY rowid DESC LIMIT ?",
            (AgreementState.PROPOSED.value, *parties, limit),
        )
        return tuple(_agreement(row) for row in rows)

    async def transfer(self, pid: str) -> TransferProcess | None:
        rows = await self._rows("SELECT * FROM transfers WHERE pid = ?", (pid,))
        return _transfer(rows[0]) if rows else None

    async def transfer_by_peer_pid(self, channel: Channel, peer_pid: str) -> TransferProcess | None:
        rows = await self._rows(
            "SELECT * FROM transfers"
            " WHERE peer = ? AND party = ? AND peer_pid = ? AND peer_pid != ''",
            (*_key(channel), peer_pid),
        )
        return _transfer(rows[0]) if rows else None

    async def open_transfers(self, channel: Channel) -> int:
        rows = await self._rows(
            "SELECT count(*) AS many FROM transfers"
            " WHERE peer = ? AND party = ? AND state NOT IN (?, ?)",
            (*_key(channel), *_OVER),
        )
        return int(rows[0]["many"])

    async def transfers(
        self, *, agreement_id: str = "", open_only: bool = False, limit: int
    ) -> tuple[TransferProcess, ...]:
        rows = await self._rows(
            "SELECT * FROM transfers WHERE (? = '' OR agreement_id = ?)"
            " AND NOT (? AND state IN (?, ?)) ORDER BY rowid DESC LIMIT ?",
            (agreement_id, agreement_id, open_only, *_OVER, limit),
        )
        return tuple(_transfer(row) for row in rows)

    async def unrecorded(self, *, limit: int) -> tuple[TransferProcess, ...]:
        rows = await self._rows(
            "SELECT * FROM transfers WHERE party = ? AND state IN (?, ?) AND NOT recorded"
            " ORDER BY rowid LIMIT ?",
            (Party.CONSUMER.value, *_OVER, limit),
        )
        return tuple(_transfer(row) for row in rows)

    async def recorded(self, pid: str) -> None:
        await self._sqlite.write(
            lambda database: database.execute(
                "UPDATE transfers SET recorded = 1 WHERE pid = ?", (pid,)
            )
        )

    async def counts(self, channel: Channel) -> Counts:
        return await self._sqlite.read(lambda database: _counts(database, channel))

    async def outbox(self, channel: Channel, after: int, limit: int) -> tuple[Letter, ...]:
        rows = await self._rows(
            "SELECT sequence, body, correlation_id FROM outbox"
            " WHERE peer = ? AND party = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (*_key(channel), after, limit),
        )
        return tuple(Letter(**row) for row in rows)

    async def posts(self, *, after: int = 0, pid: str = "", limit: int) -> tuple[Post, ...]:
        rows = await self._rows(
            "SELECT * FROM posts WHERE number > ? AND ? IN ('', pid) ORDER BY number LIMIT ?",
            (after, pid, limit),
        )
        return tuple(
            Post(channel=Channel(row.pop("peer"), Party(row.pop("party"))), **row) for row in rows
        )

    async def post_count(self, channel: Channel) -> int:
        rows = await self._rows(
            "SELECT count(*) AS many FROM posts WHERE peer = ? AND party = ?", _key(channel)
        )
        return int(rows[0]["many"])

    async def pending_acts(self, channel: Channel) -> tuple[Act, ...]:
        rows = await self._rows(
            "SELECT type, scope, actor, statement, number FROM acts"
            " WHERE peer = ? AND party = ? ORDER BY number",
            _key(channel),
        )
        return tuple(Act(**row) for row in rows)

    async def channels_with_acts(self) -> tuple[Channel, ...]:
        rows = await self._rows("SELECT DISTINCT peer, party FROM acts", ())
        return tuple(Channel(row["peer"], Party(row["party"])) for row in rows)

    def close(self) -> None:
        self._sqlite.close()

    async def _rows(self, query: str, parameters: Iterable[Any]) -> list[dict[str, Any]]:
        return await self._sqlite.read(
            lambda database: list(database.query(query, tuple(parameters)))
        )


def _apply(database: sqlite_utils.Database, change: Change) -> tuple[Act, ...]:
    key = _key(change.channel)
    if change.negotiation is not None:
        _put(database, "negotiations", "pid", _negotiation_row(change.negotiation))
        if change.negotiation.revision == 1:
            _forget(database, key)
    if change.agreement is not None:
        _put(database, "agreements", "id", _agreement_row(change.agreement))
    for transfer in change.transfers:
        _put(database, "transfers", "pid", _transfer_row(transfer))
        if transfer.revision == 1:
            _forget_transfers(database, key)
    if change.outgoing or change.received or change.acknowledged:
        _pass(database, change)
    for post in change.posts:
        database.execute(
            "INSERT INTO posts (peer, party, pid, address, body, correlation_id)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*_key(post.channel), post.pid, post.address, post.body, post.correlation_id),
        )
    for number in change.posted:
        database.execute("DELETE FROM posts WHERE number = ?", (number,))
    saved = []
    for act in change.acts:
        row = database.execute(
            "INSERT INTO acts (peer, party, type, scope, actor, statement)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*key, act.type, act.scope, act.actor, act.statement),
        )
        saved.append(replace(act, number=row.lastrowid or 0))
    for number in change.logged:
        database.execute("DELETE FROM acts WHERE number = ?", (number,))
    return tuple(saved)


def _put(database: sqlite_utils.Database, table: str, key: str, row: dict[str, Any]) -> None:
    """Insert revision 1, or replace the revision before."""
    names = list(row)
    if row["revision"] == 1:
        places = ", ".join("?" for _ in names)
        database.execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})",  # noqa: S608
            tuple(row.values()),
        )
        return
    settings = ", ".join(f"{name} = ?" for name in names)
    done = database.execute(
        f"UPDATE {table} SET {settings} WHERE {key} = ? AND revision = ?",  # noqa: S608
        (*row.values(), row[key], row["revision"] - 1),
    )
    if done.rowcount != 1:
        raise Conflict("somebody else changed it first")


def _forget(database: sqlite_utils.Database, key: tuple[str, str]) -> None:
    """Terminated negotiations beyond the bound, and the agreements that they did not reach."""
    old = database.execute(
        "SELECT pid FROM negotiations WHERE peer = ? AND party = ? AND state = ?"
        " ORDER BY rowid DESC LIMIT -1 OFFSET ?",
        (*key, State.TERMINATED.value, MAX_TERMINATED),
    ).fetchall()
    for row in old:
        database.execute("DELETE FROM negotiations WHERE pid = ?", row)
        database.execute(
            "DELETE FROM agreements WHERE pid = ? AND state = ?",
            (*row, AgreementState.PROPOSED.value),
        )


def _forget_transfers(database: sqlite_utils.Database, key: tuple[str, str]) -> None:
    """Transfers that are over, beyond the bound."""
    database.execute(
        "DELETE FROM transfers WHERE rowid IN (SELECT rowid FROM transfers"
        " WHERE peer = ? AND party = ? AND state IN (?, ?)"
        " ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
        (*key, *_OVER, MAX_TERMINATED),
    )


def _pass(database: sqlite_utils.Database, change: Change) -> None:
    """Number the outgoing letters, forget acknowledged ones, note what was received."""
    key = _key(change.channel)
    counts = _counts(database, change.channel)
    if change.received and change.received != counts.received + 1:
        raise Conflict("the message is not the next one")
    for place, body in enumerate(change.outgoing, start=counts.sent + 1):
        database.execute(
            "INSERT INTO outbox (peer, party, sequence, body, correlation_id)"
            " VALUES (?, ?, ?, ?, ?)",
            (*key, place, body, change.correlation_id),
        )
    acknowledged = max(counts.acknowledged, change.acknowledged)
    if acknowledged > counts.acknowledged:
        database.execute(
            "DELETE FROM outbox WHERE peer = ? AND party = ? AND sequence <= ?",
            (*key, acknowledged),
        )
    database.execute(
        "INSERT INTO channels (peer, party, sent, acknowledged, received) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (peer, party) DO UPDATE SET sent = excluded.sent,"
        " acknowledged = excluded.acknowledged, received = excluded.received",
        (
            *key,
            counts.sent + len(change.outgoing),
            acknowledged,
            change.received or counts.received,
        ),
    )


def _counts(database: sqlite_utils.Database, channel: Channel) -> Counts:
    rows = list(
        database.query(
            "SELECT sent, acknowledged, received FROM channels WHERE peer = ? AND party = ?",
            _key(channel),
        )
    )
    return Counts(**rows[0]) if rows else Counts()


def _key(channel: Channel) -> tuple[str, str]:
    return channel.peer, channel.party.value


def _negotiation_row(value: Negotiation) -> dict[str, Any]:
    return {
        "pid": value.pid,
        "peer": value.peer,
        "party": value.party.value,
        "peer_pid": value.peer_pid,
        "dataset": value.dataset,
        "state": value.state.value,
        "offer": value.offer,
        "revision": value.revision,
        "agreement_id": value.agreement_id,
        "waiting": value.waiting,
        "code": value.code,
        "reason": value.reason,
        "accept_offers": value.accept_offers,
        "left_state": value.left.value if value.left else "",
        "dataset_record": value.dataset_record,
        "updated_ms": value.updated_ms,
        "address": value.address,
        "heard": value.heard,
        "accept_unenforced": value.accept_unenforced,
    }


def _negotiation(row: dict[str, Any]) -> Negotiation:
    left = row.pop("left_state")
    return Negotiation(
        **row
        | {
            "party": Party(row["party"]),
            "state": State(row["state"]),
            "waiting": bool(row["waiting"]),
            "accept_offers": bool(row["accept_offers"]),
            "accept_unenforced": bool(row["accept_unenforced"]),
            "left": State(left) if left else None,
        }
    )


def _agreement_row(value: StoredAgreement) -> dict[str, Any]:
    return {
        "id": value.terms.id,
        "pid": value.pid,
        "peer": value.peer,
        "party": value.party.value,
        "state": value.state.value,
        "document": value.terms.document,
        "provider_signature": value.provider_signature,
        "consumer_signature": value.consumer_signature,
        "secret": value.secret,
        "dataset_record": value.dataset_record,
        "ended_reason": value.ended_reason,
        "notice": value.notice,
        "revision": value.revision,
        "address": value.address,
    }


def _agreement(row: dict[str, Any]) -> StoredAgreement:
    del row["id"]
    return StoredAgreement(
        terms=parse_agreement(row.pop("document")),
        **row | {"party": Party(row["party"]), "state": AgreementState(row["state"])},
    )


def _transfer_row(value: TransferProcess) -> dict[str, Any]:
    address = value.data_address
    return {
        "pid": value.pid,
        "peer": value.peer,
        "party": value.party.value,
        "peer_pid": value.peer_pid,
        "agreement_id": value.agreement_id,
        "format": value.format,
        "state": value.state.value,
        "revision": value.revision,
        "dataset": value.dataset,
        "address": value.address,
        "data_address": fields.encode_json(address_json(address)) if address else b"",
        "waiting": value.waiting,
        "code": value.code,
        "reason": value.reason,
        "left_state": value.left.value if value.left else "",
        "resuming": value.resuming,
        "heard": value.heard,
        "updated_ms": value.updated_ms,
    }


def _transfer(row: dict[str, Any]) -> TransferProcess:
    left, address = row.pop("left_state"), row.pop("data_address")
    del row["recorded"]  # the store's own
    return TransferProcess(
        **row
        | {
            "party": Party(row["party"]),
            "state": TransferState(row["state"]),
            "waiting": bool(row["waiting"]),
            "resuming": bool(row["resuming"]),
            "left": TransferState(left) if left else None,
            "data_address": parse_address(fields.parse_json(address)) if address else None,
        }
    )
