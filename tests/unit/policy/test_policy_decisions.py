"""Engines' answers: exactly an allowance, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from connector.errors import Reason
from connector.model.receipt import MAX_REASONS, MAX_TEXT
from connector.model.use import Obligations
from connector.policy import decisions
from connector.policy.decisions import UNREADABLE, Outcome

DIGEST = bytes(range(32))
OBLIGATIONS = {
    "minimum_group": 10,
    "privacy_unit": "tailnum",
    "row_cap": 0,
    "hidden_columns": ["hour"],
}
ALLOWED = {"allow": True, "reasons": [], "obligations": OBLIGATIONS}
REASON = {"term": "count", "observed": "20 of 20 uses", "allowed": "at most 20 uses"}
REFUSED = {"allow": False, "reasons": [REASON], "obligations": {}}
READ = Reason("count", "20 of 20 uses", "at most 20 uses")


def test_usage() -> None:
    decision = decisions.read_usage(ALLOWED, DIGEST)
    assert decision.allow
    assert decision.reasons == ()
    assert decision.obligations == Obligations(10, "tailnum", 0, ("hour",))
    assert decision.policy_digest == DIGEST
    refused = decisions.read_usage(REFUSED, DIGEST)
    assert (refused.allow, refused.reasons) == (False, (READ,))


MALFORMED: dict[str, Any] = {
    "nothing": None,
    "undefined": "<undefined>",
    "true alone": True,
    "a list": [ALLOWED],
    "empty": {},
    "a key more": {**ALLOWED, "also": 1},
    "a key less": {"allow": True, "reasons": []},
    "one": {**ALLOWED, "allow": 1},
    "the text true": {**ALLOWED, "allow": "true"},
    "an allowance with reasons": {**ALLOWED, "reasons": [REASON]},
    "a refusal without reasons": {**REFUSED, "reasons": []},
    "no obligations": {**ALLOWED, "obligations": {}},
    "an obligation that nobody knows": {**ALLOWED, "obligations": {**OBLIGATIONS, "noise": 1}},
    "a group of text": {**ALLOWED, "obligations": {**OBLIGATIONS, "minimum_group": "10"}},
    "a group of true": {**ALLOWED, "obligations": {**OBLIGATIONS, "minimum_group": True}},
    "a negative group": {**ALLOWED, "obligations": {**OBLIGATIONS, "minimum_group": -1}},
    "a group without its unit": {**ALLOWED, "obligations": {**OBLIGATIONS, "privacy_unit": ""}},
    "half a row": {**ALLOWED, "obligations": {**OBLIGATIONS, "row_cap": 0.5}},
    "a hidden column of null": {
        **ALLOWED,
        "obligations": {**OBLIGATIONS, "hidden_columns": [None]},
    },
    "a hidden text": {**ALLOWED, "obligations": {**OBLIGATIONS, "hidden_columns": "hour"}},
    "reasons are a text": {**REFUSED, "reasons": "no"},
    "a reason is a text": {**REFUSED, "reasons": ["no"]},
    "a reason with a number": {**REFUSED, "reasons": [{**REASON, "observed": 20}]},
    "a reason without a term": {**REFUSED, "reasons": [{**REASON, "term": ""}]},
    "a reason with more": {**REFUSED, "reasons": [{**REASON, "more": ""}]},
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_is_a_refusal(answer: Any) -> None:
    usage = decisions.read_usage(answer, DIGEST)
    assert (usage.allow, usage.reasons, usage.obligations) == (False, (UNREADABLE,), Obligations())
    assert decisions.read_negotiation(answer).outcome is Outcome.REFUSE
    assert decisions.read_metering(answer) == decisions.Reportable((UNREADABLE,))


HELD_TO = {"first_ms": 5, "last_ms": 5, "limit": 0}


def test_metering() -> None:
    allowed = {**ALLOWED, "obligations": HELD_TO}
    assert decisions.read_metering(allowed) == decisions.Reportable((), 5, 5, None)
    limited = {**allowed, "obligations": {**HELD_TO, "limit": 1}}
    assert decisions.read_metering(limited).limit == 1
    assert decisions.read_metering(REFUSED) == decisions.Reportable((READ,))


@pytest.mark.parametrize(
    "obligations",
    [
        {},
        {**HELD_TO, "more": 1},
        {**HELD_TO, "first_ms": 6},
        {**HELD_TO, "first_ms": -1},
        {**HELD_TO, "limit": -1},
        {**HELD_TO, "limit": True},
        {**HELD_TO, "last_ms": "9"},
        {**HELD_TO, "last_ms": 2**53 + 1},
    ],
)
def test_what_no_record_could_be_held_to(obligations: dict[str, Any]) -> None:
    found = decisions.read_metering({**ALLOWED, "obligations": obligations})
    assert found == decisions.Reportable((UNREADABLE,))


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - {"no obligations"}))
def test_malformed_admits_and_lists_nothing(name: str) -> None:
    refusal = decisions.Verdict(False, (UNREADABLE,))
    assert decisions.read_admission(MALFORMED[name]) == refusal
    assert decisions.read_listing(MALFORMED[name]) == refusal


def test_no_answer() -> None:
    decision = decisions.no_answer(DIGEST)
    assert not decision.allow
    assert decision.reasons


def test_admission_and_listing() -> None:
    plain = {"allow": True, "reasons": [], "obligations": {}}
    assert decisions.read_admission(plain) == decisions.Verdict(True, ())
    assert decisions.read_listing(REFUSED) == decisions.Verdict(False, (READ,))
    assert not decisions.read_listing(ALLOWED).allow


def test_negotiation() -> None:
    plain = {"allow": True, "reasons": [], "obligations": {}, "outcome": "approve"}
    assert decisions.read_negotiation(plain) == decisions.Answer(Outcome.APPROVE, ())
    for outcome in (Outcome.ASK, Outcome.REFUSE):
        answer = {**REFUSED, "outcome": outcome.value}
        assert decisions.read_negotiation(answer) == decisions.Answer(outcome, (READ,))


@pytest.mark.parametrize(
    "answer",
    [
        {**REFUSED, "outcome": "approve"},
        {**REFUSED, "outcome": "maybe"},
        {**REFUSED, "outcome": ["refuse"]},
        {"allow": True, "reasons": [], "obligations": {}, "outcome": "ask"},
        {"allow": True, "reasons": [], "obligations": {}},
    ],
)
def test_negotiation_that_contradicts_itself(answer: Any) -> None:
    assert decisions.read_negotiation(answer) == decisions.Answer(Outcome.REFUSE, (UNREADABLE,))


def test_reasons_fit_a_receipt() -> None:
    long = {"term": "t" * 600, "observed": "o" * 600, "allowed": ""}
    many = {"allow": False, "reasons": [long] * 40, "obligations": {}}
    reasons = decisions.read_usage(many, DIGEST).reasons
    assert len(reasons) == MAX_REASONS
    assert reasons[-1].observed == "25 more terms that fail"
    assert len(reasons[0].term) == len(reasons[0].observed) == MAX_TEXT
