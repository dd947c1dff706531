"""Statements and evidence: what a scope's receipts add up to, and the proofs that they are all.

The sums and the statement's payload are ``verifier.totals``: the node writes what the auditor's
tool reads, with the same lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Conflict, InvalidInput
from connector.identity.statements import sign_statement
from connector.metering.meter import Meter
from connector.metering.types import ActDraft, Recorded
from connector.model.receipt import Receipt
from connector.tlog.checkpoint import parse_checkpoint
from connector.verifier.evidence import MAX_EVIDENCE_BYTES, Entry
from connector.verifier.totals import (
    STATEMENT_ACT,
    STATEMENT_KIND,
    add,
    statement_payload,
    totals,
)

LEAST_ENTRY_BYTES = 256  # of a receipt and its proof in an evidence file; most have 1,000 and more
MAX_RECEIPTS = MAX_EVIDENCE_BYTES // LEAST_ENTRY_BYTES
_FRAME_BYTES = 40  # the names and punctuation around a leaf in the file
_PROOF_HASH_BYTES = 48  # in base64, with its punctuation
_PAGE = 256
_LATE = 4096  # receipts that may come in while the others are counted


@dataclass(frozen=True, slots=True)
class ScopeEvidence:
    """Every receipt of a scope up to one checkpoint, in order, with its proof under it."""

    checkpoint: bytes
    size: int
    entries: tuple[Entry, ...]


class Room:
    """How much of one evidence file is still free. It is filled from one thread."""

    def __init__(self) -> None:
        self._left = MAX_EVIDENCE_BYTES

    def take(self, entry: Entry) -> None:
        """Raises ``Conflict`` if the file certainly has no room for the entry any more."""
        leaf = -(-len(entry.leaf) // 3) * 4  # in base64
        self._left -= leaf + len(entry.inclusion) * _PROOF_HASH_BYTES + _FRAME_BYTES
        if self._left < 0:
            raise _too_many()


def require_room(meter: Meter, scope: str) -> None:
    """Raises ``Conflict`` for a scope with more receipts than any evidence file holds: before
    anything is read or signed."""
    if meter.last(scope)[0] > MAX_RECEIPTS:
        raise _too_many()


def _too_many() -> Conflict:
    return Conflict(
        "the agreement has more receipts than an evidence file holds",
        hint="export the log with `connector log export` and have it checked with "
        "`connector-verify log`",
    )


def scope_receipts(meter: Meter, scope: str) -> list[Receipt]:
    """All the scope's receipts as they are now, in order."""
    return [recorded.receipt for recorded in _all(meter, scope)]


async def issue_statement(meter: Meter, scope: str, key: Ed25519PrivateKey, did: str) -> Recorded:
    """Close the books of a scope: log a signed statement that counts every receipt before it.

    ``key`` signs as ``did``. Raises ``Conflict`` if receipts come in faster than they can be
    counted, and as ``Meter.record`` does.
    """
    sums = _Sums()

    def statement(number: int, head: bytes) -> bytes:
        if number - sums.receipts > _LATE:
            raise Conflict(
                "receipts keep coming in", hint="try again when the agreement is less busy"
            )
        sums.catch_up(meter, scope)
        payload = statement_payload(
            scope=scope,
            actor=did,
            time=meter.clock.now(),
            receipts=number,
            head=head,
            totals=sums.totals,
        )
        return sign_statement(key, STATEMENT_KIND, payload).encode()

    await asyncio.to_thread(sums.catch_up, meter, scope)
    draft = ActDraft(scope=scope, actor=did, act=STATEMENT_ACT, statement=statement)
    return (await meter.record([draft]))[0]


def collect(meter: Meter, scope: str, checkpoint: bytes | None = None) -> ScopeEvidence:
    """All receipts of a scope under one checkpoint of this log: the newest, or the one given,
    which MUST be this log's (a cosigned one, say).

    Raises ``InvalidInput`` if it covers more than the log has, and ``Conflict`` as soon as it is
    clear that the receipts are too many for one evidence file.
    """
    require_room(meter, scope)
    note = checkpoint or meter.checkpoint().checkpoint
    size = parse_checkpoint(note).size
    if size > meter.checkpoint().size:
        raise InvalidInput("checkpoint: of a larger tree than this log's")
    entries = []
    room = Room()
    for recorded in _all(meter, scope):
        if recorded.index >= size:
            break
        proof = meter.inclusion(recorded.index, size)
        entry = Entry(recorded.index, recorded.leaf, tuple(proof))
        room.take(entry)
        entries.append(entry)
    return ScopeEvidence(note, size, tuple(entries))


class _Sums:
    """Totals of a scope, brought up to date as receipts come."""

    def __init__(self) -> None:
        self.receipts = 0
        self.totals = totals(())

    def catch_up(self, meter: Meter, scope: str) -> None:
        for recorded in _all(meter, scope, self.receipts + 1):
            self.receipts += 1
            add(self.totals, recorded.receipt)


def _all(meter: Meter, scope: str, first: int = 1) -> Iterator[Recorded]:
    """The scope's receipts from number ``first`` to what is the last one when it gets there."""
    while page := meter.receipts(scope, first, _PAGE):
        yield from page
        first += len(page)
