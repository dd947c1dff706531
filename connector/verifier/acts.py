"""Steps 9 and 10: the signed acts in a book, and the statement that closes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from connector.errors import ConnectorError, VerificationFailed
from connector.identity.acts import read_act
from connector.identity.statements import read_statement
from connector.model import fields
from connector.model.receipt import ActReceipt
from connector.model.terms import Agreement
from connector.verifier.books import Book, Leaf
from connector.verifier.parties import Parties
from connector.verifier.totals import STATEMENT_ACT, STATEMENT_KIND, add, read_totals, totals
from connector.verifier.verdict import Check, Step

CONCLUDED = "agreement.concluded"
ENDED = "agreement.ended"


def acts_of(book: Book, act: str) -> list[tuple[Leaf, ActReceipt]]:
    """The book's acts of one type, in order."""
    return [
        (leaf, receipt)
        for leaf, receipt in book.believed()
        if isinstance(receipt, ActReceipt) and receipt.act == act
    ]


def check_acts(books: Sequence[Book], agreement: Agreement, parties: Parties) -> Step:
    """Step 9."""
    check = Check(9, "every act is signed by its actor, and the agreement was concluded first")
    count = 0
    for book in books:
        for leaf, receipt in book.believed():
            if isinstance(receipt, ActReceipt) and receipt.act != STATEMENT_ACT:
                count += 1
                problem = _act_problem(book, leaf, receipt, agreement, parties)
                if problem:
                    check.fail(f"{book.named(leaf.number)} ({receipt.act}): {problem}")
        concluded = acts_of(book, CONCLUDED)
        first = book.leaves[0] if book.leaves else None
        opens = bool(concluded) and concluded[0][0] is first
        if first and first.number == 1 and first.receipt and not opens:
            check.fail(f"{book.named(1)} is not the conclusion of the agreement")
        for leaf, receipt in concluded[1:]:
            if receipt.statement != concluded[0][1].statement:
                check.fail(f"{book.named(leaf.number)} concludes the agreement a second time")
    ends = [
        f"ended in {book.named(leaf.number)}" for book in books for leaf, _ in acts_of(book, ENDED)
    ]
    return check.done(f"{count} acts; {', '.join(ends) or 'not ended'}")


def _act_problem(
    book: Book, leaf: Leaf, receipt: ActReceipt, agreement: Agreement, parties: Parties
) -> str:
    if receipt.act == CONCLUDED and receipt.actor != book.owner:
        return "not by the log's owner"
    if receipt.act == ENDED and receipt.actor not in (
        agreement.assigner,
        agreement.assignee,
        agreement.space,
    ):
        return "neither by a party nor by the space"
    try:
        act = read_act(_text(receipt), parties.keys(receipt.actor))
    except ConnectorError as error:
        return error.message
    if (act.type, act.scope, act.actor) != (receipt.act, receipt.scope, receipt.actor):
        return "the signed statement says something else than the receipt"
    digest = hashlib.sha256(agreement.document).hexdigest()
    if receipt.act == CONCLUDED and act.details.get("agreementDigest") != digest:
        return "of other terms than the agreement's"
    return ""


def check_statements(books: Sequence[Book], exporter: str, parties: Parties) -> tuple[str, Step]:
    """Step 10. Also the time of the exporter's closing statement, empty if there is none."""
    check = Check(10, "the exporter closed its books: its statement counts every receipt")
    closed = ""
    for book in books:
        before = totals(())
        time: str | None = None  # of the statement, while it is the last receipt
        for leaf, receipt in book.believed():
            time = None
            if isinstance(receipt, ActReceipt) and receipt.act == STATEMENT_ACT:
                try:
                    time = _statement(book, receipt, before, parties)
                except ConnectorError as error:
                    time = ""
                    check.fail(f"{book.named(leaf.number)} (statement): {error.message}")
            add(before, receipt)
        if book.owner != exporter or not book.leaves:
            continue
        closed = time or ""
        last = book.leaves[-1]
        if last.receipt is None:
            check.fail(f"{book.named(last.number)} should be the statement, and is not believed")
        elif time is None:
            check.fail(
                f"receipts at the end of the {book.side}'s log are missing: "
                "the last one is not the exporter's statement"
            )
    return closed, check.done(f"as of {closed}" if closed else "")


def _statement(book: Book, receipt: ActReceipt, before: Mapping[str, int], parties: Parties) -> str:
    """The time of a statement, if it is true of the totals ``before`` it; else raises."""
    payload = read_statement(_text(receipt), STATEMENT_KIND, parties.keys(book.owner))
    count, head, stated = read_totals(payload)
    time = fields.parse_time(fields.text(payload, "time", limit=40))
    if receipt.actor != book.owner:
        raise VerificationFailed("not by the log's owner")
    if payload.get("scope") != receipt.scope:
        raise VerificationFailed("of another agreement")
    if count != receipt.number - 1:
        raise VerificationFailed(
            f"it counts {count} receipts before it, and is number {receipt.number}"
        )
    if head != receipt.previous:
        raise VerificationFailed("it names another receipt as the last one before it")
    for name, amount in before.items():
        if stated.get(name, 0) != amount:
            raise VerificationFailed(
                f"it says {stated.get(name, 0)} {name}, the receipts add up to {amount}"
            )
    return fields.format_time(time)


def _text(receipt: ActReceipt) -> str:
    """A JWS is ASCII; whatever is not will not verify."""
    return receipt.statement.decode("ascii", "replace")
