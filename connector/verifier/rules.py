"""Steps 11 and 12: the provider's receipts against the agreement's terms and the requests.

What can be seen from receipts alone is checked: that uses were allowed between the conclusion and
the end, and the terms ``purpose``, ``dateTime``, ``count`` and ``tds:rowCap``, in the permission
and, where they say "use", in the prohibitions. What happened inside a result (group minimums,
hidden columns) is the provider's word, and the verdict says so.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.receipt import Outcome, Quantity, UseReceipt
from connector.model.terms import Agreement, Constraint
from connector.verifier.acts import ENDED, acts_of
from connector.verifier.books import Book, Leaf
from connector.verifier.evidence import Evidence
from connector.verifier.parties import Parties
from connector.verifier.verdict import Check, Step

SEEN = frozenset({"purpose", "dateTime", "count", "tds:rowCap"})
GRACE = timedelta(seconds=60)  # from a decision to its receipt, beside the time that it ran
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def uses_of(book: Book) -> list[tuple[Leaf, UseReceipt]]:
    """The book's uses, in order."""
    return [(leaf, use) for leaf, use in book.believed() if isinstance(use, UseReceipt)]


def check_terms(books: Sequence[Book], agreement: Agreement, parties: Parties) -> Step:
    """Step 11."""
    check = Check(11, "every allowed use keeps to the agreement's terms")
    book = next((book for book in books if book.side == "provider"), None)
    if book is None:
        return check.done("not checked: the provider's log is not in this file")
    if len(agreement.terms.permissions) != 1:
        check.fail("the agreement must have one permission")
        return check.done("")
    digest = hashlib.sha256(agreement.document).digest()
    uses = uses_of(book)
    ended = min((leaf.number for leaf, _ in acts_of(book, ENDED)), default=None)
    allowed = 0
    times: dict[str, int] = {}
    for leaf, use in uses:
        name = book.named(leaf.number)
        if use.agreement_digest != digest:
            check.fail(f"{name}: under other terms than the agreement's")
        if use.outcome is Outcome.REFUSED and (use.result_digest or not use.reasons):
            check.fail(f"{name}: refused, but with a result or without a reason")
        if use.outcome is not Outcome.ALLOWED:
            continue
        allowed += 1
        times[use.use_id] = times.get(use.use_id, 0) + 1
        if times[use.use_id] > 1:
            check.fail(f"{name}: the same use is counted twice")
        if ended is not None and leaf.number > ended:
            check.fail(f"{name}: allowed after the agreement ended in receipt {ended}")
        written = _time(use)
        breaches = _breaches(agreement, use, written, allowed)
        decided_in_time = _breaches(agreement, use, written - GRACE, allowed)
        for problem in breaches:
            if problem in decided_in_time:
                check.fail(f"{name}: {problem}")
            else:
                check.warn(f"{name}: {problem}, by less than {GRACE.seconds} seconds")
        if written < agreement.timestamp:
            check.fail(f"{name}: before the agreement was made")
        for did in (use.provider, use.consumer):
            member = parties.members.get(did)
            if member and member.barred_at(written):
                check.warn(f"{name}: allowed while {did} was suspended or revoked")
    _check_clock(book, check)
    return check.done(f"{allowed} of {len(uses)} uses were allowed")


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


def _breaches(agreement: Agreement, use: UseReceipt, time: datetime, allowed: int) -> list[str]:
    """What an allowed use decided at ``time`` breaks; ``allowed`` counts it and those before it."""
    found = [
        f"{constraint.left} is not as agreed"
        for constraint in agreement.terms.permissions[0].constraints
        if not _holds(constraint, use, time, allowed)
    ]
    if any(
        prohibition.action == "use"
        and all(c.left in SEEN and _holds(c, use, time, allowed) for c in prohibition.constraints)
        for prohibition in agreement.terms.prohibitions
    ):
        found.append("it is prohibited")
    return found


def _holds(constraint: Constraint, use: UseReceipt, time: datetime, allowed: int) -> bool:
    """Constraints that receipts do not show hold; ones of a form that is not known do not."""
    left, operator, right = constraint.left, constraint.operator, constraint.right
    if left not in SEEN:
        return True
    if left == "purpose":
        if operator == "eq" and isinstance(right, str):
            return use.purpose == right
        return operator == "isAnyOf" and isinstance(right, tuple) and use.purpose in right
    if left == "dateTime":
        return isinstance(right, str) and _in_time(operator, right, time)
    amount = allowed if left == "count" else use.quantities.get(Quantity.ROWS_RETURNED, 0)
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
    millis = max(0, use.time_ms - use.quantities.get(Quantity.DURATION_MS, 0))
    return _EPOCH + timedelta(milliseconds=millis)


def _check_clock(book: Book, check: Check) -> None:
    """Clocks are set, so a step back is worth a look and no more."""
    last = 0
    for leaf, receipt in book.believed():
        if receipt.time_ms < last:
            check.warn(f"{book.named(leaf.number)}: its time is before its predecessor's")
        last = receipt.time_ms
