"""Evidence whose signatures and proofs all hold, from parties who do not keep to the rules.

Each function makes a file; ``CASES`` says which steps fail on it and what the verifier says.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from connector.identity.membership import Change
from connector.model.receipt import ActReceipt, Outcome, Quantity
from connector.model.terms import Constraint, Rule
from connector.tlog import merkle
from connector.verifier.evidence import Evidence
from tests.vectors import scenario
from tests.vectors.scenario import (
    CONSUMER,
    MEMBERS,
    PROVIDER,
    SPACE,
    STRANGER,
    TERMS,
    Log,
    agreement,
    evidence,
    membership,
    sign_agreement,
)


def begun(document: bytes | None = None) -> Log:
    log = Log(PROVIDER, document or agreement())
    log.conclude()
    return log


def closed(log: Log, **changes: Any) -> Evidence:
    log.close()
    return evidence(PROVIDER, log.document, log.export(SPACE), **changes)


def both(provider: Log, consumer: Log) -> Evidence:
    consumer.close()
    return evidence(CONSUMER, provider.document, consumer.export(SPACE), provider.export(SPACE))


def skips_a_number() -> Evidence:
    log = begun()
    log.use("use-1", number=3)
    return closed_as(log, receipts=3)


def closed_as(log: Log, **changes: Any) -> Evidence:
    """With a statement that agrees with the lie."""
    log.close(**changes)
    return evidence(PROVIDER, log.document, log.export(SPACE))


def breaks_the_chain() -> Evidence:
    log = begun()
    log.use("use-1", previous=b"\x07" * 32)
    return closed(log)


def allows_after_the_end() -> Evidence:
    log = begun()
    log.act("agreement.ended")
    log.use("use-1")
    return closed(log)


def allows_too_many() -> Evidence:
    log = begun()
    for number in range(4):
        log.use(f"use-{number}")
    return closed(log)


def allows_another_purpose() -> Evidence:
    log = begun()
    log.use("use-1", purpose="marketing")
    return closed(log)


def allows_too_late() -> Evidence:
    log = begun()
    log.use("use-1", time_ms=1_798_700_000_000)
    return closed(log)


def is_late_by_a_second() -> Evidence:
    log = begun()
    log.use("use-1", time_ms=1_798_675_201_000)
    return closed(log)


def allows_before_the_agreement() -> Evidence:
    log = begun()
    log.use("use-1", time_ms=1_700_000_000_000)
    return closed(log)


def returns_too_many_rows() -> Evidence:
    log = begun()
    log.use("use-1", quantities={Quantity.CALLS: 1, Quantity.ROWS_RETURNED: 1_001})
    return closed(log)


def allows_what_is_prohibited() -> Evidence:
    night = Rule("use", (Constraint("dateTime", "gteq", "2026-11-23T08:00:00Z"),))
    log = begun(agreement(dataclasses.replace(TERMS, prohibitions=(night,))))
    log.use("use-1")
    log.use("use-2", time_ms=int(scenario.at(100).timestamp() * 1000))
    return closed(log)


def counts_one_use_twice() -> Evidence:
    log = begun()
    log.use("use-1")
    log.use("use-1")
    return closed(log)


def refuses_with_a_result() -> Evidence:
    log = begun()
    log.use("use-1", Outcome.REFUSED, result_digest=b"\x01" * 32)
    return closed(log)


def refuses_without_a_reason() -> Evidence:
    log = begun()
    log.use("use-1", Outcome.REFUSED, reasons=())
    return closed(log)


def uses_other_terms() -> Evidence:
    log = begun()
    log.use("use-1", agreement_digest=b"\x01" * 32)
    return closed(log)


def states_other_totals() -> Evidence:
    log = begun()
    log.use("use-1")
    return closed_as(log, totals={"allowed": 2})


def states_another_head() -> Evidence:
    log = begun()
    return closed_as(log, head="07" * 32)


def states_another_count() -> Evidence:
    log = begun()
    return closed_as(log, receipts=7)


def goes_on_after_its_statement() -> Evidence:
    log = begun()
    log.close()
    log.use("use-1")
    return evidence(PROVIDER, log.document, log.export(SPACE))


def never_concluded() -> Evidence:
    log = Log(PROVIDER, agreement())
    log.use("use-1")
    return closed(log)


def concludes_other_terms() -> Evidence:
    log = Log(PROVIDER, agreement())
    log.conclude(agreementDigest="07" * 32)
    return closed(log)


def concludes_twice() -> Evidence:
    log = begun()
    log.conclude()
    return closed(log)


def logs_an_act_twice() -> Evidence:
    """No lie: after a crash an act may be logged once more."""
    log = Log(PROVIDER, agreement())
    digest = hashlib.sha256(log.document).hexdigest()
    statement = log.act("agreement.concluded", agreementDigest=digest)
    log.hold("agreement.concluded", PROVIDER, statement)
    return closed(log)


def ends_in_another_s_name() -> Evidence:
    log = begun()
    statement = scenario.sign_act(
        PROVIDER.key,
        scenario.Act("agreement.ended", scenario.AGREEMENT_ID, CONSUMER.did, scenario.START),
    )
    log.hold("agreement.ended", CONSUMER, statement)
    return closed(log)


def ends_by_a_stranger() -> Evidence:
    log = begun()
    log.act("agreement.ended", STRANGER)
    return closed(log, members=(*MEMBERS, membership(4, STRANGER)))


def holds_another_act() -> Evidence:
    log = begun()
    ended = log.act("agreement.ended", scope="urn:uuid:another")
    log.hold("agreement.ended", PROVIDER, ended)
    return closed(log)


def holds_a_statement_that_is_no_jws() -> Evidence:
    log = begun()
    log.add(ActReceipt, actor=PROVIDER.did, act="agreement.ended", statement=b"\xff.\xff.\xff")
    return closed(log)


def mixes_agreements() -> Evidence:
    log = begun()
    previous = merkle.leaf_hash(log.leaves[0])
    statement = log.document[:100]  # never looked at
    other = {"actor": PROVIDER.did, "act": "agreement.ended", "statement": statement}
    log.add(ActReceipt, "urn:uuid:another", number=2, previous=previous, **other)
    log.scopes[scenario.AGREEMENT_ID].append(1)
    return closed(log)


def keeps_deliveries() -> Evidence:
    log = begun()
    log.use("use-1")
    log.deliver(log, 2)
    return closed(log)


def serves_somebody_else() -> Evidence:
    log = begun()
    log.use("use-1", consumer=STRANGER.did)
    return closed(log)


def is_not_a_receipt() -> Evidence:
    log = begun()
    log.leaves.append(b"not a receipt")
    log.scopes[scenario.AGREEMENT_ID].append(1)
    return evidence(PROVIDER, log.document, log.export(SPACE))


def shows_two_histories() -> Evidence:
    shown, kept = begun(), begun()
    shown.use("use-1")
    kept.use("use-1", Outcome.FAILED)
    consumer = Log(CONSUMER, shown.document)
    consumer.conclude()
    consumer.deliver(shown, 2)
    return both(kept, consumer)


def delivered(**changes: Any) -> Evidence:
    provider = begun()
    provider.use("use-1")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.deliver(provider, 2, **changes)
    return both(provider, consumer)


def delivers_another_result() -> Evidence:
    return delivered(result_digest=b"\x07" * 32)


def delivers_another_outcome() -> Evidence:
    return delivered(outcome=Outcome.FAILED)


def delivers_from_another_place() -> Evidence:
    return delivered(leaf_index=0)


def delivers_other_bytes() -> Evidence:
    return delivered(quantities={Quantity.BYTES_RETURNED: 1_000})


def delivers_a_part() -> Evidence:
    return delivered(quantities={Quantity.BYTES_RETURNED: 1_000}, result_digest=b"\x07" * 32)


def transferred(sent: int, quantities: dict[Quantity, int]) -> Evidence:
    """Data that left in parts has no digest."""
    provider = begun()
    provider.use(
        "use-1",
        result_digest=b"",
        quantities={Quantity.CALLS: 1, Quantity.BYTES_RETURNED: sent},
    )
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.deliver(provider, 2, result_digest=b"", quantities=quantities)
    return both(provider, consumer)


def transfers_a_part() -> Evidence:
    return transferred(2_048, {Quantity.CALLS: 1, Quantity.BYTES_RETURNED: 2_000})


def transfers_less_than_arrives() -> Evidence:
    return transferred(2_048, {Quantity.CALLS: 1, Quantity.BYTES_RETURNED: 2_049})


def transfers_past_the_consumers_node() -> Evidence:
    return transferred(2_048, {Quantity.CALLS: 1})


def delivers_of_another_log() -> Evidence:
    return delivered(origin=STRANGER.origin)


def delivers_nothing() -> Evidence:
    provider = begun()
    provider.use("use-1")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    return both(provider, consumer)


def delivers_once_more() -> Evidence:
    provider = begun()
    provider.use("use-1")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.deliver(provider, 2)
    consumer.deliver(provider, 2)
    return both(provider, consumer)


def delivers_of_later() -> Evidence:
    provider = begun()
    provider.use("use-1")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.deliver(provider, 2)
    consumer.close()
    older = provider.export(SPACE, size=1)
    return evidence(CONSUMER, provider.document, consumer.export(SPACE), older)


def ends_differently() -> Evidence:
    provider = begun()
    provider.act("agreement.ended")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.act("agreement.ended")
    return both(provider, consumer)


def ends_on_one_side() -> Evidence:
    provider = begun()
    provider.act("agreement.ended")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    return both(provider, consumer)


def cosigned_by_a_stranger() -> Evidence:
    log = begun()
    log.close()
    return evidence(PROVIDER, log.document, log.export(STRANGER))


def cosigned_by_itself() -> Evidence:
    log = begun()
    log.close()
    return evidence(PROVIDER, log.document, log.export(PROVIDER))


def allows_a_suspended_member() -> Evidence:
    log = begun()
    log.use("use-1")
    suspended = membership(4, CONSUMER, Change.SUSPENDED, seconds=5)
    return closed(log, members=(*MEMBERS, suspended))


def numbers_events_twice() -> Evidence:
    return closed(begun(), members=(*MEMBERS, membership(3, STRANGER)))


def is_of_another_space() -> Evidence:
    return closed(begun(agreement(space=STRANGER.did)))


def agrees_with_itself() -> Evidence:
    document = agreement(assignee=PROVIDER.did, consumer_log=PROVIDER.origin)
    log = begun(document)
    signed = dataclasses.replace(
        sign_agreement(document), consumer_signature=sign_agreement(document).provider_signature
    )
    return closed(log, agreement=signed)


def keeps_another_log() -> Evidence:
    moved = membership(4, PROVIDER, Change.UPDATED, log_origin="elsewhere.example/log")
    return closed(begun(), members=(*MEMBERS, moved))


def replaced_its_key() -> Evidence:
    """No lie: what the old key signed still verifies."""
    new = scenario.public_bytes(STRANGER.key)
    updated = membership(4, PROVIDER, Change.UPDATED, signing_keys=(new,))
    return closed(begun(), members=(*MEMBERS, updated))


def has_no_permission() -> Evidence:
    log = begun(agreement(dataclasses.replace(TERMS, permissions=())))
    log.use("use-1")
    return closed(log)


def has_terms_of_a_new_form() -> Evidence:
    rule = Rule("use", (Constraint("count", "eq", 3),))
    log = begun(agreement(dataclasses.replace(TERMS, permissions=(rule,))))
    log.use("use-1")
    return closed(log)


def holds_an_empty_log() -> Evidence:
    log = begun()
    log.close()
    exported = dataclasses.replace(log.export(SPACE), entries=())
    return evidence(PROVIDER, log.document, exported)


def delivery_is_the_provider_s() -> Evidence:
    """A use receipt in the consumer's log."""
    provider = begun()
    provider.use("use-1")
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.use("use-1")
    return both(provider, consumer)


@dataclass(frozen=True)
class Case:
    make: Callable[[], Evidence]
    failed: tuple[int, ...]
    says: str


_PROVIDER_2 = "receipt 2 of the provider's log"
_CONSUMER_2 = "receipt 2 of the consumer's log"

CASES = (
    Case(
        skips_a_number, (8,), "receipt 2 of the provider's log is missing: numbers go from 1 to 3"
    ),
    Case(breaks_the_chain, (8,), f"{_PROVIDER_2} does not follow receipt 1"),
    Case(allows_after_the_end, (11,), "allowed after the agreement ended in receipt 2"),
    Case(allows_too_many, (11,), "receipt 5 of the provider's log: count is not as agreed"),
    Case(allows_another_purpose, (11,), f"{_PROVIDER_2}: purpose is not as agreed"),
    Case(allows_too_late, (11,), f"{_PROVIDER_2}: dateTime is not as agreed"),
    Case(is_late_by_a_second, (), "dateTime is not as agreed, by less than 60 seconds"),
    Case(allows_before_the_agreement, (11,), f"{_PROVIDER_2}: before the agreement was made"),
    Case(returns_too_many_rows, (11,), f"{_PROVIDER_2}: tds:rowCap is not as agreed"),
    Case(allows_what_is_prohibited, (11,), "receipt 3 of the provider's log: it is prohibited"),
    Case(counts_one_use_twice, (11,), "the same use is counted twice"),
    Case(refuses_with_a_result, (11,), "refused, but with a result"),
    Case(refuses_without_a_reason, (11,), "or without a reason"),
    Case(uses_other_terms, (11,), f"{_PROVIDER_2}: under other terms"),
    Case(states_other_totals, (10,), "it says 2 allowed, the receipts add up to 1"),
    Case(states_another_head, (10,), "it names another receipt as the last one before it"),
    Case(states_another_count, (10,), "it counts 7 receipts before it, and is number 2"),
    Case(goes_on_after_its_statement, (10,), "receipts at the end of the provider's log"),
    Case(never_concluded, (9,), "receipt 1 of the provider's log is not the conclusion"),
    Case(concludes_other_terms, (9,), "of other terms than the agreement's"),
    Case(concludes_twice, (9,), f"{_PROVIDER_2} concludes the agreement a second time"),
    Case(logs_an_act_twice, (), "2 acts; not ended"),
    Case(ends_in_another_s_name, (9,), "signed with a key that is not its signer's"),
    Case(ends_by_a_stranger, (9,), "neither by a party nor by the space"),
    Case(holds_another_act, (9,), "the signed statement says something else"),
    Case(holds_a_statement_that_is_no_jws, (9,), f"{_PROVIDER_2} (agreement.ended)"),
    Case(mixes_agreements, (7,), f"{_PROVIDER_2}: of another agreement"),
    Case(keeps_deliveries, (7, 10), "receipt 3 of the provider's log: of a kind that belongs"),
    Case(serves_somebody_else, (7,), f"{_PROVIDER_2}: between others"),
    Case(is_not_a_receipt, (7, 10), f"{_PROVIDER_2}: receipt:"),
    Case(shows_two_histories, (13,), "does not hold the receipt that the consumer was given"),
    Case(delivers_another_result, (13,), f"{_CONSUMER_2} and {_PROVIDER_2}: another result"),
    Case(delivers_another_outcome, (13,), "another use or outcome"),
    Case(delivers_from_another_place, (13,), "at another place in the log"),
    Case(delivers_other_bytes, (13,), "1024 bytes to one and 1000 to the other"),
    Case(delivers_a_part, (), "1000 of 1024 bytes arrived"),
    Case(transfers_a_part, (), "2000 of 2048 bytes arrived"),
    Case(transfers_less_than_arrives, (13,), "2048 bytes sent, and 2049 arrived"),
    Case(transfers_past_the_consumers_node, (), "bytes of 1 transfers are the provider's word"),
    Case(delivers_of_another_log, (7,), f"{_CONSUMER_2}: of another log than the provider's"),
    Case(delivers_nothing, (), "allowed, but the consumer recorded nothing"),
    Case(delivers_once_more, (), "receipt 2 of the provider's log once more"),
    Case(delivers_of_later, (), "of a later use than the provider's log in this file holds"),
    Case(delivery_is_the_provider_s, (7, 10), f"{_CONSUMER_2}: of a kind that belongs"),
    Case(ends_differently, (), "different notices of the agreement's end"),
    Case(ends_on_one_side, (), "only the provider's log holds the agreement's end"),
    Case(cosigned_by_a_stranger, (), "was witnessed by nobody"),
    Case(cosigned_by_itself, (), "was witnessed by nobody"),
    Case(allows_a_suspended_member, (), "was suspended or revoked"),
    Case(numbers_events_twice, (1,), "two membership events with the number 3"),
    Case(is_of_another_space, (2,), "the agreement was made in another space"),
    Case(agrees_with_itself, (2, 4), "provider and consumer are the same"),
    Case(keeps_another_log, (4,), "is not the one that the space knows it by"),
    Case(replaced_its_key, (), "complete as of"),
    Case(has_no_permission, (11,), "the agreement must have one permission"),
    Case(has_terms_of_a_new_form, (11,), "count is not as agreed"),
    Case(holds_an_empty_log, (8,), "has no receipts in this file"),
)
