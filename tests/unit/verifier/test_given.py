"""Evidence of a consumer whose provider shows nothing any more: receipts kept one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from connector.identity.statements import public_bytes
from connector.model import receipt as receipts
from connector.model.receipt import DeliveryReceipt
from connector.verifier.evidence import Evidence, GivenReceipt, parse_evidence, write_evidence
from connector.verifier.verify import verify
from tests.vectors.scenario import CONSUMER, SPACE, STRANGER, Log, evidence, story

SPACE_KEY = public_bytes(SPACE.key)


def kept(provider: Log, consumer: Log) -> tuple[GivenReceipt, ...]:
    """What the consumer was given, each under the checkpoint of its moment."""
    given = []
    for leaf in consumer.leaves:
        receipt = receipts.decode(leaf)
        if isinstance(receipt, DeliveryReceipt):
            shown = provider.export(size=receipt.tree_size)
            entry = next(e for e in shown.entries if e.index == receipt.leaf_index)
            given.append(GivenReceipt(shown.checkpoint, entry))
    return tuple(given)


def alone() -> Evidence:
    provider, consumer = story()
    given = kept(provider, consumer)
    consumer.close()
    return evidence(CONSUMER, consumer.document, consumer.export(SPACE), given=given)


def test_receipts_given_singly_stand_in_for_the_providers_log() -> None:
    found = parse_evidence(write_evidence(alone()))
    assert found == alone()
    verdict = verify(found, SPACE_KEY)
    assert verdict.valid, verdict.as_json()
    assert verdict.steps[13].detail == "7 receipts, each under a checkpoint of its own"
    assert any("beyond what it gave singly" in said for said in verdict.assurance)


def changed_leaf(given: GivenReceipt) -> GivenReceipt:
    leaf = given.entry.leaf
    return replace(given, entry=replace(given.entry, leaf=leaf[:-1] + bytes([leaf[-1] ^ 1])))


def under_another_log(given: GivenReceipt) -> GivenReceipt:
    forged = Log(STRANGER, alone().agreement.document)
    forged.conclude()
    return replace(given, checkpoint=forged.export().checkpoint)


def moved(given: GivenReceipt) -> GivenReceipt:
    return replace(given, entry=replace(given.entry, index=given.entry.index - 1))


@pytest.mark.parametrize("change", [changed_leaf, under_another_log, moved])
def test_a_receipt_that_is_not_in_the_providers_log_is_named(
    change: Callable[[GivenReceipt], GivenReceipt],
) -> None:
    whole = alone()
    given = (whole.given[0], change(whole.given[1]), *whole.given[2:])
    verdict = verify(replace(whole, given=given), SPACE_KEY)
    assert not verdict.valid
    assert [step.number for step in verdict.steps if not step.ok] == [14]
    assert verdict.steps[13].failures[0].startswith("given[1]: ")


def test_a_receipt_that_the_consumer_did_not_record_is_named() -> None:
    provider, consumer = story()
    given = kept(provider, consumer)
    extra = provider.use("never-delivered")
    shown = provider.export()
    entry = next(e for e in shown.entries if receipts.decode(e.leaf) == extra)
    consumer.close()
    found = evidence(
        CONSUMER,
        consumer.document,
        consumer.export(SPACE),
        given=(*given, GivenReceipt(shown.checkpoint, entry)),
    )
    verdict = verify(found, SPACE_KEY)
    assert verdict.steps[13].failures == (
        "given[7]: the consumer's log does not say that it was received",
    )


def test_a_receipt_left_out_is_a_warning() -> None:
    whole = alone()
    verdict = verify(replace(whole, given=whole.given[1:]), SPACE_KEY)
    assert verdict.valid
    assert len(verdict.steps[13].warnings) == 1
