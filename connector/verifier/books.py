"""Steps 4 to 8: each party's log, its checkpoint and witnesses, and that no receipt is missing.

A *book* is one party's receipts of the agreement as its log holds them. A receipt whose bytes are
not in the log is named by its place and not believed in any later step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from connector.errors import ConnectorError, InvalidInput
from connector.model import fields
from connector.model import receipt as receipts
from connector.model.receipt import (
    ActReceipt,
    DeliveryReceipt,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from connector.model.terms import Agreement
from connector.tlog import merkle
from connector.tlog.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from connector.tlog.cosignature import cosignature_time
from connector.verifier.evidence import Entry, Evidence, LogEvidence
from connector.verifier.parties import Parties, log_of, witnesses
from connector.verifier.verdict import Check, Step


@dataclass(frozen=True, slots=True)
class Leaf:
    """``receipt`` is None where the bytes are not in the log or are no receipt.

    ``number`` is then the one that its place asks for.
    """

    number: int
    index: int
    hash: bytes
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Book:
    """``side`` is ``provider`` or ``consumer``, ``owner`` its DID, ``size`` the tree's size."""

    side: str
    owner: str
    size: int
    leaves: tuple[Leaf, ...]

    def named(self, number: int) -> str:
        """A receipt, as failures name it."""
        return f"receipt {number} of the {self.side}'s log"

    def believed(self) -> list[tuple[Leaf, Receipt]]:
        """The leaves that are in the log and well-formed."""
        return [(leaf, leaf.receipt) for leaf in self.leaves if leaf.receipt is not None]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """``witness`` (a DID) cosigned the log of ``owner`` at ``time``."""

    owner: str
    witness: str
    time: datetime


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    owner: str
    log: LogEvidence
    checkpoint: Checkpoint | None


def check_books(
    evidence: Evidence, agreement: Agreement, parties: Parties
) -> tuple[list[Book], list[Witnessed], list[Step]]:
    """Steps 4 to 8, over every log in the file."""
    sides, signed = _check_checkpoints(evidence, agreement, parties)
    witnessed, cosigned = _check_witnesses(sides, parties)
    included = Check(6, "every receipt is in its log, byte for byte")
    formed = Check(7, "every receipt is well-formed and of this agreement")
    complete = Check(8, "no receipt is missing, and each follows the one before it")
    books = []
    for side in sides:
        book = Book(side.name, side.owner, side.checkpoint.size if side.checkpoint else 0, ())
        leaves = _read(side, book, agreement, included, formed, complete)
        books.append(Book(book.side, book.owner, book.size, leaves))
    count = sum(len(book.leaves) for book in books)
    steps = [
        signed,
        cosigned,
        included.done(f"{count} receipts"),
        formed.done(f"{sum(len(book.believed()) for book in books)} of {count} receipts"),
        complete.done(
            ", ".join(
                f"1 to {book.leaves[-1].number} of the {book.side}'s log"
                for book in books
                if book.leaves
            )
        ),
    ]
    return books, witnessed, steps


def _check_checkpoints(
    evidence: Evidence, agreement: Agreement, parties: Parties
) -> tuple[list[_Side], Step]:
    check = Check(4, "each log's checkpoint is signed by its owner")
    named = [
        (log_of(agreement, did, parties), side, did)
        for side, did in (("provider", agreement.assigner), ("consumer", agreement.assignee))
    ]
    owners = {origin: (side, did) for origin, side, did in named if origin}
    if len(owners) != sum(bool(origin) for origin, _, _ in named):
        check.fail("the agreement names one log for both parties")
    sides = []
    for place, log in enumerate(evidence.logs):
        if log.origin not in owners:
            check.fail(f"logs[{place}]: not a log that the agreement names")
            continue
        name, owner = owners[log.origin]
        member = parties.members.get(owner)
        if member and member.log_origin != log.origin:
            check.fail(f"the {name}'s log is not the one that the space knows it by")
        checkpoint = None
        try:
            checkpoint = parse_checkpoint(log.checkpoint)
            verify_checkpoint(log.checkpoint, log.origin, parties.keys(owner))
        except ConnectorError as error:
            check.fail(f"the {name}'s log: {error.message}")
        sides.append(_Side(name, owner, log, checkpoint))
    if evidence.exporter not in [side.owner for side in sides]:
        check.fail("the exporter's own log is not in the file")
    return sides, check.done(
        ", ".join(
            f"the {side.name}'s log at {side.checkpoint.size} leaves"
            for side in sides
            if side.checkpoint
        )
    )


def _check_witnesses(sides: Sequence[_Side], parties: Parties) -> tuple[list[Witnessed], Step]:
    check = Check(5, "every cosignature by a known witness verifies")
    found = []
    for side in sides:
        for witness in witnesses(parties, side.owner):
            try:
                time = cosignature_time(side.log.checkpoint, witness.log_origin, witness.keys)
                at = None if time is None else datetime.fromtimestamp(time, UTC)
            except ConnectorError as error:
                if side.checkpoint:  # else step 4 has said so
                    check.fail(f"the {side.name}'s log, witness {witness.did}: {error.message}")
                continue
            except (OverflowError, ValueError, OSError):
                check.fail(f"the {side.name}'s log, witness {witness.did}: a time that cannot be")
                continue
            if at is not None:
                found.append(Witnessed(side.owner, witness.did, at))
    return found, check.done(
        "; ".join(
            f"the log of {item.owner} by {item.witness} at {fields.format_time(item.time)}"
            for item in found
        )
        or "none: nobody but the logs' owners vouches that they showed everyone the same log"
    )


def _read(
    side: _Side,
    book: Book,
    agreement: Agreement,
    included: Check,
    formed: Check,
    complete: Check,
) -> tuple[Leaf, ...]:
    leaves: list[Leaf] = []
    expected, last_index = 1, -1
    for place, entry in enumerate(side.log.entries):
        receipt = None
        if _is_included(side, book, place, expected, included):
            receipt = _decode(book, entry, expected, agreement, formed)
        number = receipt.number if receipt else expected
        if number > expected:
            complete.fail(_missing(book, expected, number))
        elif number < expected:
            complete.fail(f"{book.named(number)} is there twice, or out of order")
        elif entry.index <= last_index:
            complete.fail(f"{book.named(number)} is before its predecessor in the log")
        leaf = Leaf(number, entry.index, merkle.leaf_hash(entry.leaf), receipt)
        if leaves and receipt and _breaks(leaves[-1], receipt):
            complete.fail(
                f"{book.named(number)} does not follow receipt {number - 1}: "
                "the leaf hash that it names is of another"
            )
        leaves.append(leaf)
        expected, last_index = max(expected, number + 1), max(last_index, entry.index)
    if not leaves:
        complete.fail(f"the {side.name}'s log has no receipts in this file")
    return tuple(leaves)


def _is_included(side: _Side, book: Book, place: int, expected: int, check: Check) -> bool:
    entry = side.log.entries[place]
    if side.checkpoint is None:
        check.fail(f"{book.named(expected)}: not checked, as there is no checkpoint")
        return False
    try:
        merkle.verify_inclusion(
            merkle.leaf_hash(entry.leaf),
            entry.index,
            side.checkpoint.size,
            entry.inclusion,
            side.checkpoint.root,
        )
    except ConnectorError as error:
        what = "its proof or the checkpoint" if _is_named_next(side.log, place) else "its bytes"
        check.fail(
            f"{book.named(expected)}: {what} changed: its leaf hash is not in the log under the "
            f"checkpoint ({error.message})"
        )
        return False
    return True


def _is_named_next(log: LogEvidence, place: int) -> bool:
    """Whether the next receipt names this one's leaf hash: its bytes are right then."""
    if place + 1 >= len(log.entries):
        return False
    try:
        following = receipts.decode(log.entries[place + 1].leaf)
    except InvalidInput:
        return False
    return following.previous == merkle.leaf_hash(log.entries[place].leaf)


def _decode(
    book: Book, entry: Entry, expected: int, agreement: Agreement, check: Check
) -> Receipt | None:
    try:
        receipt = receipts.decode(entry.leaf)
    except InvalidInput as error:
        check.fail(f"{book.named(expected)}: {error.message}")
        return None
    if receipt.scope != agreement.id:
        check.fail(f"{book.named(expected)}: of another agreement")
        return None
    if not isinstance(receipt, ActReceipt):
        kinds = (UseReceipt, RecordReceipt) if book.side == "provider" else (DeliveryReceipt,)
        if not isinstance(receipt, kinds):
            check.fail(f"{book.named(receipt.number)}: of a kind that belongs in the other's log")
            return None
    if isinstance(receipt, UseReceipt | DeliveryReceipt) and (
        (receipt.provider, receipt.consumer) != (agreement.assigner, agreement.assignee)
    ):
        check.fail(f"{book.named(receipt.number)}: between others than the agreement's parties")
    if isinstance(receipt, DeliveryReceipt) and receipt.origin != agreement.provider_log:
        check.fail(f"{book.named(receipt.number)}: of another log than the provider's")
    return receipt


def _missing(book: Book, first: int, found: int) -> str:
    what = (
        f"receipt {first} of the {book.side}'s log is missing"
        if found == first + 1
        else f"receipts {first} to {found - 1} of the {book.side}'s log are missing"
    )
    if first == 1:
        return f"{what}: numbers begin at {found}"
    return f"{what}: numbers go from {first - 1} to {found}"


def _breaks(before: Leaf, receipt: Receipt) -> bool:
    """Whether the chain is broken between two neighbours that are both as the log holds them."""
    return (
        before.receipt is not None
        and before.number + 1 == receipt.number
        and before.hash != receipt.previous
    )
