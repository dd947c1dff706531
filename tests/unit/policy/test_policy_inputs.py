"""What an engine is asked, and what never reaches one."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from connector.errors import InvalidInput
from connector.model.terms import Constraint, Rule, Terms
from connector.policy import inputs
from tests.policy_cases import NOW, PROVIDER, admission, dataset, listing, negotiation, usage


def test_usage_input() -> None:
    document = usage()
    assert document["now_ms"] == 1795435200000
    assert document["now"] == "2026-11-23T12:00:00.000Z"
    assert document["counters"] == {"uses": 3, "reserved": 1}
    assert document["use"] == {"purpose": "tourism-planning", "action": "use"}
    assert document["dataset"]["privacy_unit"] == "tailnum"
    assert document["dataset"]["columns"][4] == {"name": "hour", "role": "hidden"}
    assert document["request"]["columns"][2] == {
        "name": "tailnum",
        "role": "unit",
        "places": ["aggregate"],
        "aggregates": ["count_distinct"],
    }


def test_times_become_milliseconds_and_keep_their_text() -> None:
    end = usage()["agreement"]["terms"]["permission"][0]["constraint"][1]
    assert end == {
        "left": "dateTime",
        "operator": "lt",
        "right": 1798675200000,
        "unit": "",
        "text": "2026-12-31T00:00:00Z",
    }


@pytest.mark.parametrize("right", ["soon", 1798675200000, ("2026-12-31T00:00:00Z",)])
def test_a_time_that_cannot_be_read_stays_text(right: str | int | tuple[str, ...]) -> None:
    terms = Terms((Rule("use", (Constraint("dateTime", "lt", right),)),))
    found = inputs.terms_input(terms)["permission"][0]["constraint"][0]["right"]
    assert isinstance(found, str)


def test_listing_input_of_the_node_itself_and_of_another() -> None:
    assert listing()["publisher"] == {"did": PROVIDER, "state": "active", "roles": ["provider"]}
    assert [offer["id"] for offer in listing()["offers"]] == ["urn:uuid:offer"]


@pytest.mark.parametrize("document", [usage(), negotiation(), listing(), admission()])
def test_every_document_passes_the_guard(document: dict[str, object]) -> None:
    assert json.loads(inputs.encode(document)) == document


def test_a_dataset_of_the_most_columns_passes_the_guard() -> None:
    document = usage()
    document["dataset"]["columns"] = [
        {"name": f"{n:0>128}", "role": "measure"} for n in range(2000)
    ]
    inputs.encode(document)


def test_sub_millisecond_clocks_are_cut() -> None:
    document = inputs.listing_input(
        now=NOW + timedelta(microseconds=1999), dataset=dataset(), accept_free_sql=True
    )
    assert document["now_ms"] == 1795435200001


@pytest.mark.parametrize("depth", [inputs.MAX_DEPTH, 100_000])
def test_deep(depth: int) -> None:
    document: dict[str, object] = {}
    for _ in range(depth):
        document = {"x": document}
    with pytest.raises(InvalidInput, match="deeper"):
        inputs.encode(document)
    while document:  # taken apart by hand: a deep value can overflow the stack when it is freed
        document = document["x"]  # type: ignore[assignment]
