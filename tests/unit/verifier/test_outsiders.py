"""Evidence of dealings with one who is no member of the space: it signed nothing, and the verdict
says what that is worth: the exporter's word, also for that the other is no member."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from connector.metering.statement import issue_statement
from connector.model import fields
from connector.model.receipt import Outcome
from connector.verifier.evidence import Evidence, parse_evidence, write_evidence
from connector.verifier.verdict import Verdict
from connector.verifier.verify import verify
from tests.unit.verifier.test_what_nodes_write import (
    concluded,
    exported,
    meter_of,
    reservation,
    signed_act,
)
from tests.vectors import scenario
from tests.vectors.scenario import CONSUMER, PROVIDER, SECRET, SPACE, membership

OUTSIDER = "BPNL00000003CRHK"
MEMBERS = (membership(1, SPACE), membership(2, PROVIDER))


async def provider_s(monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """A provider's evidence: it alone signed, and its log alone is there."""
    document = scenario.agreement(assignee=OUTSIDER, consumer_log="")
    monkeypatch.setattr("tests.unit.verifier.test_what_nodes_write.DOCUMENT", document)
    meter = await meter_of(PROVIDER)
    await meter.record([concluded(PROVIDER)])
    use = replace(reservation("use-1"), consumer=OUTSIDER)
    await meter.reserve([use])
    await meter.record([use.settle(Outcome.FAILED)])
    await issue_statement(meter, scenario.AGREEMENT_ID, PROVIDER.key, PROVIDER.did)
    log = await exported(meter, PROVIDER, SPACE)
    await meter.close()
    signed = replace(scenario.sign_agreement(document), consumer_signature="")
    made = scenario.evidence(PROVIDER, document, log, secret=SECRET)
    return replace(made, agreement=signed, members=MEMBERS)


def verdict(evidence: Evidence) -> Verdict:
    return verify(parse_evidence(write_evidence(evidence)), scenario.SPACE_KEY)


async def test_one_who_is_no_member_signs_nothing_and_the_verdict_says_so(monkeypatch) -> None:
    found = verdict(await provider_s(monkeypatch))
    assert found.valid, [step.failures for step in found.steps if not step.ok]
    assert found.assurance[0].startswith(f"ours signed, peer authenticated: {OUTSIDER} is no")
    assert PROVIDER.did in found.assurance[0]
    agreed = found.steps[1]
    assert agreed.title == "the party that exported this signed the agreement"
    assert agreed.warnings == (
        f"{OUTSIDER} is no member of the space by this file, and signed nothing",
    )


async def test_a_member_s_signature_cannot_be_left_out(monkeypatch) -> None:
    document = scenario.agreement()
    made = scenario.provider_export()
    unsigned = replace(scenario.sign_agreement(document), consumer_signature="")
    found = verdict(replace(made, agreement=unsigned))
    assert not found.valid
    assert not found.steps[1].ok
    # Nor the exporter's own.
    outside = await provider_s(monkeypatch)
    found = verdict(replace(outside, agreement=replace(outside.agreement, provider_signature="")))
    assert not found.steps[1].ok


async def test_a_member_who_is_left_out_of_the_file_is_shown_as_no_member(monkeypatch) -> None:
    """The exporter alone chooses the events in the file: without the other's, what it says of the
    other is its word, and that is what the verdict says."""
    made = scenario.provider_export()
    hidden = replace(
        made,
        members=MEMBERS,
        logs=tuple(log for log in made.logs if log.origin == PROVIDER.origin),
        agreement=replace(made.agreement, consumer_signature=""),
    )
    found = verdict(hidden)
    assert found.assurance[0].startswith(f"ours signed, peer authenticated: {CONSUMER.did} is no")
    assert found.assurance[0].endswith(
        f"by this file and signed nothing; that, and to what it agreed, is {PROVIDER.did}'s word"
    )


async def test_a_foreign_signature_is_not_passed_over(monkeypatch) -> None:
    outside = await provider_s(monkeypatch)
    stray = replace(outside.agreement, consumer_signature=outside.agreement.provider_signature)
    found = verdict(replace(outside, agreement=stray))
    assert not found.steps[1].ok


async def test_as_the_consumer_of_one_who_is_no_member(monkeypatch) -> None:
    """The document is its provider's: it names no space and no log."""
    document = fields.encode_json(
        {
            "@type": "Agreement",
            "@id": scenario.AGREEMENT_ID,
            "target": "dataset-7",
            "assigner": OUTSIDER,
            "assignee": CONSUMER.did,
            "timestamp": "2026-11-23T08:00:00Z",
            "permission": [{"action": "use"}],
        }
    )
    monkeypatch.setattr("tests.unit.verifier.test_what_nodes_write.DOCUMENT", document)
    meter = await meter_of(CONSUMER)
    await meter.record([concluded(CONSUMER)])
    await meter.record([signed_act(CONSUMER, "agreement.ended", reason="over")])
    await issue_statement(meter, scenario.AGREEMENT_ID, CONSUMER.key, CONSUMER.did)
    log = await exported(meter, CONSUMER, SPACE)
    await meter.close()
    signed = replace(scenario.sign_agreement(document), provider_signature="")
    made = replace(
        scenario.evidence(CONSUMER, document, log),
        agreement=signed,
        members=(membership(1, SPACE), membership(3, CONSUMER)),
    )
    found = verdict(made)
    assert found.valid, [step.failures for step in found.steps if not step.ok]
    assert found.assurance[0].startswith("ours signed, peer authenticated")
    assert json.loads(document)["assigner"] == found.provider
