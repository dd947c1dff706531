"""Step 13: both parties' books of the same uses, receipt by receipt.

A contradiction (another leaf, outcome or result) fails the step. A use that only one side holds,
or a result that arrived in part, is a warning: connections break, and the parties then have
something to talk about.

A transfer has no digest, as it left in parts: fewer bytes may have arrived than were sent, which is
a warning, and not more. The consumer's record need not say how many, for programs of its own may
have pulled the data without its node.

Reported records are no part of this: nobody gives the consumer a receipt of them, and so its log
has nothing that could be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from connector.model.receipt import DeliveryReceipt, Outcome, Quantity, UseReceipt
from connector.verifier.acts import ENDED, acts_of
from connector.verifier.books import Book, Leaf
from connector.verifier.rules import records_of, uses_of
from connector.verifier.verdict import Check, Step


def check_sides(books: Sequence[Book]) -> Step:
    """Step 13."""
    check = Check(13, "both parties' records agree")
    by_side = {book.side: book for book in books}
    if len(by_side) != 2:
        return check.done("not checked: one party's log is not in this file")
    provider, consumer = by_side["provider"], by_side["consumer"]
    uses = {leaf.hash: (leaf, use) for leaf, use in uses_of(provider)}
    delivered: set[bytes] = set()
    uncounted = 0
    for leaf, receipt in consumer.believed():
        if not isinstance(receipt, DeliveryReceipt):
            continue
        name = consumer.named(leaf.number)
        found = uses.get(receipt.leaf_hash)
        if found is None:
            _check_absent(check, name, receipt, provider)
            continue
        if receipt.leaf_hash in delivered:
            check.warn(f"{name}: receipt {found[0].number} of the provider's log once more")
        delivered.add(receipt.leaf_hash)
        _compare(check, name, receipt, *found)
        uncounted += _is_uncounted(receipt, found[1])
    for leaf, use in uses.values():
        if use.outcome is Outcome.ALLOWED and leaf.hash not in delivered:
            check.warn(f"{provider.named(leaf.number)}: allowed, but the consumer recorded nothing")
    _compare_ends(check, provider, consumer)
    compared = f"{len(delivered)} of {len(uses)} uses are in both logs"
    if records := records_of(provider):
        compared += f"; {len(records)} reported records are in the provider's alone"
    if uncounted:
        compared += f"; bytes of {uncounted} transfers are the provider's word alone"
    return check.done(compared)


def _check_absent(check: Check, name: str, receipt: DeliveryReceipt, provider: Book) -> None:
    if receipt.leaf_index >= provider.size:
        check.warn(f"{name}: of a later use than the provider's log in this file holds")
    else:
        check.fail(
            f"{name}: the provider's log does not hold the receipt that the consumer was given "
            f"(leaf {receipt.leaf_index})"
        )


def _compare(
    check: Check, name: str, delivery: DeliveryReceipt, leaf: Leaf, use: UseReceipt
) -> None:
    where = f"{name} and receipt {leaf.number} of the provider's log"
    if delivery.leaf_index != leaf.index:
        check.fail(f"{where}: the receipt was at another place in the log")
    if (delivery.use_id, delivery.outcome) != (use.use_id, use.outcome):
        check.fail(f"{where}: another use or outcome")
    if delivery.reasons != use.reasons:
        check.fail(f"{where}: other reasons")
    sent = use.quantities.get(Quantity.BYTES_RETURNED, 0)
    received = delivery.quantities.get(Quantity.BYTES_RETURNED, 0)
    if _is_uncounted(delivery, use):
        return
    if not (delivery.result_digest or use.result_digest):
        if received < sent:
            check.warn(f"{where}: {received} of {sent} bytes arrived")
        elif received > sent:
            check.fail(f"{where}: {sent} bytes sent, and {received} arrived")
    elif delivery.result_digest == use.result_digest:
        if sent != received:
            check.fail(f"{where}: one result, {sent} bytes to one and {received} to the other")
    elif received < sent:
        check.warn(f"{where}: {received} of {sent} bytes arrived")
    else:
        check.fail(f"{where}: another result")


def _is_uncounted(delivery: DeliveryReceipt, use: UseReceipt) -> bool:
    """Whether bytes left in parts, and the consumer's record does not say how many arrived."""
    return (
        not (delivery.result_digest or use.result_digest)
        and use.quantities.get(Quantity.BYTES_RETURNED, 0) > 0
        and Quantity.BYTES_RETURNED not in delivery.quantities
    )


def _compare_ends(check: Check, provider: Book, consumer: Book) -> None:
    ends = [
        {hashlib.sha256(act.statement).digest() for _, act in acts_of(book, ENDED)}
        for book in (provider, consumer)
    ]
    if ends[0] and ends[1] and not ends[0] & ends[1]:
        check.warn("the two logs hold different notices of the agreement's end")
    elif bool(ends[0]) != bool(ends[1]):
        side = "provider" if ends[0] else "consumer"
        check.warn(f"only the {side}'s log holds the agreement's end")
