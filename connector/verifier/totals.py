"""What a party's receipts of one agreement add up to, and the statement that says so.

``statement.issued`` is the act with which a party closes its books for an export: a JWS of kind
``statement``, logged in the agreement's scope, whose payload counts every receipt before it
(docs/evidence.md, section 2.5). The node issues it and the verifier checks it with this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.receipt import (
    HASH_BYTES,
    ActReceipt,
    Outcome,
    Quantity,
    Receipt,
    RecordReceipt,
)

STATEMENT_ACT = "statement.issued"
STATEMENT_KIND = "statement"

OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
_ALLOWED = Outcome.ALLOWED.name.lower()
QUANTITIES = tuple(quantity.name.lower() for quantity in Quantity)


def totals(receipts: Iterable[Receipt]) -> dict[str, int]:
    """Counts by outcome (``allowed``, ``refused`` ...) and sums by quantity (``calls`` ...).

    Of uses and reported records in a provider's log, of deliveries in a consumer's; acts do not
    count. A record is of ``calls`` allowed uses, not of one. Every key is there, zero or not.
    """
    sums = dict.fromkeys((*OUTCOMES, *QUANTITIES), 0)
    for receipt in receipts:
        add(sums, receipt)
    return sums


def add(sums: dict[str, int], receipt: Receipt) -> None:
    """One more receipt into what ``totals`` gave."""
    if isinstance(receipt, ActReceipt):
        return
    if isinstance(receipt, RecordReceipt):
        sums[_ALLOWED] += receipt.calls
    else:
        sums[receipt.outcome.name.lower()] += 1
    for quantity, amount in receipt.quantities.items():
        sums[quantity.name.lower()] += amount


def statement_payload(
    *,
    scope: str,
    actor: str,
    time: datetime,
    receipts: int,
    head: bytes,
    totals: Mapping[str, int],
) -> dict[str, Any]:
    """The payload of a statement over the ``receipts`` leaves 1 .. n of ``scope``.

    ``head`` is the leaf hash of number n; the statement itself becomes number n + 1.
    """
    return {
        "type": STATEMENT_ACT,
        "scope": scope,
        "actor": actor,
        "time": fields.format_time(time),
        "receipts": receipts,
        "head": head.hex(),
        "totals": dict(totals),
    }


def read_totals(payload: Mapping[str, Any]) -> tuple[int, bytes, dict[str, int]]:
    """``(receipts, head, totals)`` of a statement's payload. Raises ``InvalidInput``."""
    receipts = fields.integer(payload, "receipts")
    try:
        head = bytes.fromhex(fields.text(payload, "head", limit=2 * HASH_BYTES))
    except ValueError as error:
        raise InvalidInput("head: must be a leaf hash in hexadecimal") from error
    amounts = fields.as_object(payload.get("totals"), "totals")
    fields.only_keys(amounts, frozenset((*OUTCOMES, *QUANTITIES)), "totals")
    return receipts, head, {name: fields.integer(amounts, name, default=0) for name in amounts}
