"""Evidence out of two nodes' meters, as they are built, gets through the verifier."""

import hashlib
import hmac
import random
from dataclasses import replace

from connector.adapters.memory_log import MemoryLog
from connector.core.choose import choose
from connector.errors import Reason
from connector.identity.acts import Act, sign_act
from connector.metering.meter import Meter
from connector.metering.statement import collect, issue_statement
from connector.metering.types import ActDraft, DeliveryDraft, Recorded, Reservation
from connector.model.receipt import Outcome, Quantity, UseReceipt
from connector.tlog import merkle
from connector.tlog.cosignature import add_line, cosign
from connector.verifier.evidence import (
    Evidence,
    LogEvidence,
    Request,
    parse_evidence,
    write_evidence,
)
from connector.verifier.verify import verify
from tests.logs import ManualClock, MemoryKeys
from tests.vectors import scenario
from tests.vectors.scenario import CONSUMER, PROVIDER, SECRET, SPACE, Party, query

DOCUMENT = scenario.agreement()


async def meter_of(party: Party) -> Meter:
    return await Meter.open(
        MemoryLog(),
        core=choose("python"),
        keys=MemoryKeys(),
        origin=party.origin,
        key=party.key,
        clock=ManualClock(),
        random=random.Random(party.seed).randbytes,
    )


def signed_act(party: Party, type: str, **details: str) -> ActDraft:
    act = Act(type, scenario.AGREEMENT_ID, party.did, scenario.START, details)
    return ActDraft(
        scope=act.scope,
        actor=party.did,
        act=type,
        statement=sign_act(party.key, act).encode(),
    )


def concluded(party: Party) -> ActDraft:
    digest = hashlib.sha256(DOCUMENT).hexdigest()
    return signed_act(party, "agreement.concluded", agreementDigest=digest)


def reservation(use_id: str) -> Reservation:
    return Reservation(
        scope=scenario.AGREEMENT_ID,
        use_id=use_id,
        limit=3,
        provider=PROVIDER.did,
        consumer=CONSUMER.did,
        purpose=scenario.PURPOSE,
        agreement_digest=hashlib.sha256(DOCUMENT).digest(),
        policy_digest=scenario.POLICY,
        request_digest=hmac.digest(SECRET, query(use_id).encode(), "sha256"),
    )


def delivery(recorded: Recorded) -> DeliveryDraft:
    use = recorded.receipt
    assert isinstance(use, UseReceipt)
    return DeliveryDraft(
        scope=use.scope,
        use_id=use.use_id,
        provider=use.provider,
        consumer=use.consumer,
        outcome=use.outcome,
        origin=PROVIDER.origin,
        leaf_hash=merkle.leaf_hash(recorded.leaf),
        leaf_index=recorded.index,
        tree_size=recorded.size,
        result_digest=use.result_digest,
        reasons=use.reasons,
        quantities={
            Quantity.CALLS: 1,
            Quantity.BYTES_RETURNED: use.quantities.get(Quantity.BYTES_RETURNED, 0),
        },
    )


async def exported(meter: Meter, party: Party, *witnesses: Party) -> LogEvidence:
    parts = collect(meter, scenario.AGREEMENT_ID)
    note = parts.checkpoint
    for witness in witnesses:
        note = add_line(note, cosign(note, witness.origin, witness.key, 1_795_500_000))
    return LogEvidence(party.origin, note, parts.entries)


async def made() -> Evidence:
    """Three uses, each with another outcome, an end, and a refusal after it; both sides."""
    provider, consumer = await meter_of(PROVIDER), await meter_of(CONSUMER)
    await provider.record([concluded(PROVIDER)])
    await consumer.record([concluded(CONSUMER)])
    for use_id, outcome in (
        ("use-1", Outcome.ALLOWED),
        ("use-2", Outcome.FAILED),
        ("use-3", Outcome.INTERRUPTED),
    ):
        item = reservation(use_id)
        await provider.reserve([item])
        allowed = outcome is Outcome.ALLOWED
        draft = item.settle(
            outcome,
            result_digest=hmac.digest(SECRET, b"arrow", "sha256") if allowed else b"",
            quantities={Quantity.CALLS: 1, Quantity.BYTES_RETURNED: 5 if allowed else 0},
        )
        await consumer.record([delivery((await provider.record([draft]))[0])])
    end = signed_act(PROVIDER, "agreement.ended", reason="over")
    await provider.record([end])
    await consumer.record([end])
    late = reservation("use-4").settle(
        Outcome.REFUSED, reasons=(Reason("agreement", "ended", "active"),)
    )
    (refused,) = await provider.record([replace(late, settles=False)])
    await consumer.record([delivery(refused)])
    await issue_statement(provider, scenario.AGREEMENT_ID, PROVIDER.key, PROVIDER.did)
    await issue_statement(consumer, scenario.AGREEMENT_ID, CONSUMER.key, CONSUMER.did)
    evidence = scenario.evidence(
        CONSUMER,
        DOCUMENT,
        await exported(consumer, CONSUMER, SPACE),
        await exported(provider, PROVIDER, SPACE, CONSUMER),
        secret=SECRET,
        requests=(Request(2, query("use-1")),),
    )
    await provider.close()
    await consumer.close()
    return evidence


async def test_what_nodes_write_is_valid() -> None:
    evidence = parse_evidence(write_evidence(await made()))
    verdict = verify(evidence, scenario.SPACE_KEY)
    assert verdict.valid, [step.failures for step in verdict.steps if not step.ok]
    assert not [step.warnings for step in verdict.steps if step.warnings]
    assert verdict.totals["provider"]["bytes_returned"] == 5
    assert verdict.totals["consumer"]["bytes_returned"] == 5


async def test_either_party_may_be_the_exporter() -> None:
    evidence = replace(await made(), exporter=PROVIDER.did)
    assert verify(evidence, scenario.SPACE_KEY).valid
