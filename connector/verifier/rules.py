"""Steps 11 and 12: the provider's receipts against the agreement's terms and the requests.

What can be seen from receipts alone is checked: that uses were allowed between the conclusion and
the end, and the terms ``purpose``, ``dateTime``, ``count`` and ``tds:rowCap``, in the permission
and, where they say "use", in the prohibitions. What happened inside a result (group minimums,
hidden columns) is the provider's word, and the verdict says so.

A reported record is held to the same terms by the time when it was served. Where a term is about
what the gate sees and a report does not show, no record can keep to it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.receipt import Outcome, Quantity, RecordReceipt, UseReceipt
from connector.model.terms import Agreement, Constraint
from connector.verifier.acts import ENDED, acts_of
from connector.verifier.books import Book, Leaf
from connector.verifier.evidence import Evidence
from connector.verifier.parties import Parties
from connector.verifier.verdict import Check, Step

SEEN = frozenset({"purpose", "dateTime", "count", "tds:rowCap"})
UNREPORTABLE = frozenset({"tds:output", "tds:minimumGroup", "tds:hiddenColumns"})
GRACE = timedelta(seconds=60)  # from a decision to its receipt, beside the time that it ran
AHEAD = timedelta(minutes=5)  # that a reporter's clock may differ from the node's
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def uses_of(book: Book) -> list[tuple[Leaf, UseReceipt]]:
    """The book's uses, in order."""
    return [(leaf, use) for leaf, use in book.believed() if isinstance(use, UseReceipt)]


def records_of(book: Book) -> list[tuple[Leaf, RecordReceipt]]:
    """The book's reported records, in order."""
    return [(leaf, item) for leaf, item in book.believed() if isinstance(item, RecordReceipt)]


def check_terms(books: Sequence[Book], agreement: Agreement, parties: Parties) -> Step:
    """Step 11."""
    check = Check(11, "every allowed use keeps to the agreement's terms")
    book = next((book for book in books if book.side == "provider"), None)
    if book is None:
        return check.done("not checked: the provider's log is not in this file")
    if len(agreement.terms.permissions) != 1:
        check.fail("the agreement must have one permission")
        return check.done("")
    terms = _Terms(check, book, agreement, parties)
    for leaf, receipt in book.believed():
        if isinstance(receipt, UseReceipt):
            terms.use(leaf, receipt)
        elif isinstance(receipt, RecordReceipt):
            terms.record(leaf, receipt)
    _check_clock(book, check)
    records = records_of(book)
    counted = f"{terms.allowed - terms.reported} of {len(uses_of(book))} uses were allowed"
    if records:
        counted += f"; {terms.reported} more were reported, in {len(records)} records"
    return check.done(counted)


class _Terms:
    """Step 11 on its way through the provider's book.

    ``allowed``: allowed uses so far, ``reported``: those of them that records count.
    """

    def __init__(self, check: Check, book: Book, agreement: Agreement, parties: Parties) -> None:
        self.allowed = 0
        self.reported = 0
        self._check = check
        self._book = book
        self._agreement = agreement
        self._parties = parties
        self._digest = hashlib.sha256(agreement.document).digest()
        self._ended = min((leaf.number for leaf, _ in acts_of(book, ENDED)), default=None)
        self._unshown = sorted(
            {c.left for c in agreement.terms.permissions[0].constraints} & UNREPORTABLE
        )
        self._allowed_ids: set[str] = set()
        self._refused_ids: set[str] = set()  # and those that failed or were cut
        self._reported_ids: set[str] = set()

    def use(self, leaf: Leaf, use: UseReceipt) -> None:
        name = self._book.named(leaf.number)
        if use.agreement_digest != self._digest:
            self._check.fail(f"{name}: under other terms than the agreement's")
        if use.outcome is Outcome.REFUSED and (use.result_digest or not use.reasons):
            self._check.fail(f"{name}: refused, but with a result or without a reason")
        if use.outcome is not Outcome.ALLOWED:
            self._refused_ids.add(use.use_id)
            if use.use_id in self._reported_ids:
                self._check.fail(f"{name}: the use was reported as served")
            return
        self.allowed += 1
        self._once(name, use.use_id, self._allowed_ids)
        self._not_after_the_end(name, leaf)
        written = _time(use)
        rows = use.quantities.get(Quantity.ROWS_RETURNED, 0)
        seen = _Seen(use.purpose, rows, self.allowed)
        breaches = _breaches(self._agreement, seen, written)
        decided_in_time = _breaches(self._agreement, seen, written - GRACE)
        for problem in breaches:
            if problem in decided_in_time:
                self._check.fail(f"{name}: {problem}")
            else:
                self._check.warn(f"{name}: {problem}, by less than {GRACE.seconds} seconds")
        if written < self._agreement.timestamp:
            self._check.fail(f"{name}: before the agreement was made")
        self._not_barred(name, (use.provider, use.consumer), written)

    def record(self, leaf: Leaf, record: RecordReceipt) -> None:
        name = self._book.named(leaf.number)
        self.allowed += record.calls
        self.reported += record.calls
        self._once(name, record.use_id, self._reported_ids)
        if record.use_id in self._refused_ids:
            self._check.fail(f"{name}: reported as served, but the use has another outcome")
        self._not_after_the_end(name, leaf)
        for term in self._unshown:
            self._check.fail(f"{name}: a report does not show that {term} was kept to")
        served, written = _at(record.served_ms), _at(record.time_ms)
        if served > written + AHEAD:
            self._check.fail(f"{name}: written before it was served")
        each = -(-record.quantities.get(Quantity.ROWS_RETURNED, 0) // record.calls)
        seen = _Seen(record.purpose, each, self.allowed)
        breaches = _breaches(self._agreement, seen, served)
        for problem in breaches:
            self._check.fail(f"{name}: {problem}")
        for problem in _breaches(self._agreement, seen, written - GRACE):
            if problem not in breaches:
                self._check.warn(f"{name}: {problem} when it was written; served in time, it says")
        if served + _MILLISECOND <= self._agreement.timestamp:
            self._check.fail(f"{name}: before the agreement was made")
        self._not_barred(name, (self._agreement.assigner, self._agreement.assignee), served)

    def _once(self, name: str, use_id: str, ids: set[str]) -> None:
        if use_id in self._allowed_ids or use_id in self._reported_ids:
            self._check.fail(f"{name}: the same use is counted twice")
        ids.add(use_id)

    def _not_after_the_end(self, name: str, leaf: Leaf) -> None:
        if self._ended is not None and leaf.number > self._ended:
            self._check.fail(f"{name}: allowed after the agreement ended in receipt {self._ended}")

    def _not_barred(self, name: str, dids: tuple[str, str], time: datetime) -> None:
        for did in dids:
            member = self._parties.members.get(did)
            if member and member.barred_at(time):
                self._check.warn(f"{name}: allowed while {did} was suspended or revoked")


def check_requests(evidence: Evidence, books: Sequence[Book]) -> Step:
    """Step 12."""
    check = Check(12, "the disclosed requests are those in the receipts")
    if not evidence.requests:
        return check.done("none are disclosed")
    if not evidence.secret:
        check.fail("requests without the secret cannot be checked")
        return check.done("")
    uses = {
        leaf.number: use for book in books if book.side == "provider" for leaf, use in uses_of(book)
    }
    for request in evidence.requests:
        use = uses.get(request.number)
        if use is None:
            check.fail(f"request {request.number}: there is no such use in the provider's log")
            continue
        expected = hmac.digest(evidence.secret, request.query.encode(), "sha256")
        if not hmac.compare_digest(expected, use.request_digest):
            check.fail(f"request {request.number}: another request than the receipt's")
    return check.done(f"{len(evidence.requests)} of {len(uses)} uses")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a receipt shows of an allowed use: ``rows`` of one result (of several calls: what one
    of them had at least), ``allowed`` counts it and those before it."""

    purpose: str
    rows: int
    allowed: int


def _breaches(agreement: Agreement, seen: _Seen, time: datetime) -> list[str]:
    """What an allowed use at ``time`` breaks."""
    found = [
        f"{constraint.left} is not as agreed"
        for constraint in agreement.terms.permissions[0].constraints
        if not _holds(constraint, seen, time)
    ]
    if any(
        prohibition.action == "use"
        and all(c.left in SEEN and _holds(c, seen, time) for c in prohibition.constraints)
        for prohibition in agreement.terms.prohibitions
    ):
        found.append("it is prohibited")
    return found


def _holds(constraint: Constraint, seen: _Seen, time: datetime) -> bool:
    """Constraints that receipts do not show hold; ones of a form that is not known do not."""
    left, operator, right = constraint.left, constraint.operator, constraint.right
    if left not in SEEN:
        return True
    if left == "purpose":
        if operator == "eq" and isinstance(right, str):
            return seen.purpose == right
        return operator == "isAnyOf" and isinstance(right, tuple) and seen.purpose in right
    if left == "dateTime":
        return isinstance(right, str) and _in_time(operator, right, time)
    amount = seen.allowed if left == "count" else seen.rows
    return operator == "lteq" and isinstance(right, int) and amount <= right


def _in_time(operator: str, right: str, time: datetime) -> bool:
    try:
        bound = fields.parse_time(right)
    except InvalidInput:
        return False
    compared = {
        "lt": time < bound,
        "lteq": time <= bound,
        "gt": time > bound,
        "gteq": time >= bound,
    }
    return compared.get(operator, False)


def _time(use: UseReceipt) -> datetime:
    """When its receipt was written, less the time that it ran."""
    return _at(max(0, use.time_ms - use.quantities.get(Quantity.DURATION_MS, 0)))


def _at(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)


def _check_clock(book: Book, check: Check) -> None:
    """Clocks are set, so a step back is worth a look and no more."""
    last = 0
    for leaf, receipt in book.believed():
        if receipt.time_ms < last:
            check.warn(f"{book.named(leaf.number)}: its time is before its predecessor's")
        last = receipt.time_ms
