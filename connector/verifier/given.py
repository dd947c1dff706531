"""Step 14: receipts that the provider gave to the consumer one by one.

A consumer keeps each receipt as it was given it, with the proof and the checkpoint of that moment.
Where the provider's log is not in the file (it is not there any more, or will not show it), these
stand in: each is in the provider's log by the provider's own signature, and is the one that the
consumer recorded. They are an extract; that none is missing is not theirs to show.
"""

from __future__ import annotations

from connector.errors import ConnectorError, InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import DeliveryReceipt, UseReceipt
from connector.model.terms import Agreement
from connector.tlog import merkle
from connector.tlog.checkpoint import verify_checkpoint
from connector.verifier.books import Book
from connector.verifier.evidence import Evidence, GivenReceipt
from connector.verifier.parties import Parties
from connector.verifier.verdict import Check, Step


def check_given(
    evidence: Evidence, agreement: Agreement, parties: Parties, books: list[Book]
) -> Step:
    """Step 14."""
    check = Check(14, "every receipt that the provider gave singly is in its log")
    if not evidence.given:
        return check.done("none are in this file")
    recorded = _recorded(books)
    keys = parties.keys(agreement.assigner)
    for place, given in enumerate(evidence.given):
        try:
            use = _verify(given, agreement, keys)
        except ConnectorError as error:
            check.fail(f"given[{place}]: {error.message}")
            continue
        delivery = recorded.pop(merkle.leaf_hash(given.entry.leaf), None)
        if delivery is None:
            check.fail(f"given[{place}]: the consumer's log does not say that it was received")
        elif (delivery.use_id, delivery.outcome) != (use.use_id, use.outcome):
            check.fail(f"given[{place}]: the consumer recorded another use or outcome")
        elif delivery.result_digest not in (use.result_digest, b""):
            check.warn(f"given[{place}]: the consumer received another result, or a part of it")
    for delivery in recorded.values():
        check.warn(
            f"receipt {delivery.number} of the consumer's log: what it was given is not here"
        )
    return check.done(f"{len(evidence.given)} receipts, each under a checkpoint of its own")


def _recorded(books: list[Book]) -> dict[bytes, DeliveryReceipt]:
    return {
        receipt.leaf_hash: receipt
        for book in books
        for _, receipt in book.believed()
        if isinstance(receipt, DeliveryReceipt)
    }


def _verify(given: GivenReceipt, agreement: Agreement, keys: tuple[bytes, ...]) -> UseReceipt:
    """The receipt, proved under its checkpoint. Raises ``InvalidInput``, ``VerificationFailed``."""
    checkpoint = verify_checkpoint(given.checkpoint, agreement.provider_log, keys)
    entry = given.entry
    merkle.verify_inclusion(
        merkle.leaf_hash(entry.leaf), entry.index, checkpoint.size, entry.inclusion, checkpoint.root
    )
    receipt = receipts.decode(entry.leaf)
    if not isinstance(receipt, UseReceipt) or receipt.scope != agreement.id:
        raise InvalidInput("not a receipt of a use of this agreement")
    return receipt
