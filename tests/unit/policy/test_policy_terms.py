"""The registry of terms: what is understood, what is not, and that Rego says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.bundle import load_bundle
from connector.errors import InvalidInput
from connector.model.terms import Constraint, Operand, Rule, Terms
from connector.policy import inputs
from connector.policy.constraints import REGISTRY, check_terms, let_whole, millis
from tests.policy_cases import TERMS

UNKNOWN: dict[str, Constraint] = {
    "another profile's operand": Constraint("spatial", "eq", "CN"),
    "another operator": Constraint("count", "lt", 20),
    "a number as text": Constraint("count", "lteq", "20"),
    "no uses": Constraint("count", "lteq", 0),
    "a unit where none belongs": Constraint("count", "lteq", 20, "day"),
    "a list for eq": Constraint("purpose", "eq", ("a",)),
    "a text for isAnyOf": Constraint("purpose", "isAnyOf", "a"),
    "an empty list": Constraint("purpose", "isAnyOf", ()),
    "a time without a zone": Constraint("dateTime", "lt", "2026-12-31T00:00:00"),
    "a time as a number": Constraint("dateTime", "lt", 1798675200000),
    "a time finer than a millisecond": Constraint("dateTime", "lt", "2026-12-31T00:00:00.0005Z"),
    "a time before all times": Constraint("dateTime", "gt", "0001-01-01T00:00:00+14:00"),
    "rows as output": Constraint("tds:output", "eq", "rows"),
    "a group of one": Constraint("tds:minimumGroup", "gteq", 1, "tailnum"),
    "a group of nobody knows whom": Constraint("tds:minimumGroup", "gteq", 10),
    "one hidden column as text": Constraint("tds:hiddenColumns", "isNoneOf", "a"),
    "the prefix left out": Constraint("rowCap", "lteq", 5),
}


def _terms(*constraints: Constraint) -> Terms:
    return Terms((Rule("use", constraints),))


def test_everything_in_the_registry_is_understood() -> None:
    assert check_terms(TERMS) == ()
    assert {c.left for c in TERMS.permissions[0].constraints} == set(REGISTRY)


def test_which_terms_a_whole_file_breaks() -> None:
    """As ``test_whole_breaks_terms_of_results`` has it of the policy that decides."""
    breaks = {c.left for c in TERMS.permissions[0].constraints if not let_whole(_terms(c))}
    assert breaks == {"tds:output", "tds:minimumGroup", "tds:hiddenColumns", "tds:rowCap"}
    assert not let_whole(TERMS)
    assert let_whole(Terms((Rule("use"),)))


@pytest.mark.parametrize("constraint", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_not_understood(constraint: Constraint) -> None:
    problems = check_terms(_terms(constraint))
    assert [problem.term for problem in problems] == [constraint.left]


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        (Terms(), "permission"),
        (Terms((Rule("use"), Rule("use"))), "permission"),
        (Terms((Rule("sell"),)), "permission"),
        (Terms((Rule("use"),), (Rule("print"),)), "prohibition"),
        (Terms((Rule("use"),), (Rule("sell", (Constraint("count", "lteq", 1),)),)), "prohibition"),
        (Terms((Rule("use"),), (Rule("use", (Constraint("count", "lteq", 1),)),)), "prohibition"),
        (Terms((Rule("use"),), (), (Rule("compensate"),)), "obligation"),
    ],
)
def test_rules_that_are_not_understood(terms: Terms, wanted: str) -> None:
    assert [problem.term for problem in check_terms(terms)] == [wanted]


def test_the_documentation_says_how_far_each_term_binds() -> None:
    rows = (Path(__file__).parents[3] / "docs" / "policy.md").read_text().splitlines()
    for left, meaning in REGISTRY.items():
        (row,) = (row for row in rows if row.startswith(f"| `{left}` | `"))
        assert f" | {meaning.binding} | " in row
        assert all(f"`{operator}`" in row for operator in meaning.operators)


def test_millis() -> None:
    assert millis("1970-01-01T00:00:00.001Z") == 1
    assert millis("2026-12-31T08:00:00+08:00") == 1798675200000
    assert millis("1969-12-31T23:59:59.999Z") == -1


@pytest.mark.parametrize("text", ["", "soon", "2026-12-31", "0001-01-01T00:00:00+14:00"])
def test_millis_refuses(text: str) -> None:
    with pytest.raises(InvalidInput):
        millis(text)


OPERANDS: st.SearchStrategy[Operand] = st.one_of(
    st.sampled_from(["aggregate", "rows", "2026-12-31T00:00:00Z", "a", ""]),
    st.integers(0, 30),
    st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
)
CONSTRAINTS = st.builds(
    Constraint,
    left=st.sampled_from([*REGISTRY, "spatial"]),
    operator=st.sampled_from(["eq", "lt", "lteq", "gt", "gteq", "isAnyOf", "isNoneOf"]),
    right=OPERANDS,
    unit=st.sampled_from(["", "", "tailnum"]),
)
RULES = st.lists(
    st.builds(
        Rule,
        action=st.sampled_from(["use", "use", "sell", "attribute", "print"]),
        constraints=st.lists(CONSTRAINTS, max_size=2).map(tuple),
    ),
    max_size=2,
).map(tuple)


@settings(max_examples=300, deadline=None)
@given(terms=st.builds(Terms, permissions=RULES, prohibitions=RULES, obligations=RULES))
def test_rego_says_the_same(terms: Terms) -> None:
    engine = _ENGINE
    engine.set_input_json(json.dumps(inputs.terms_input(terms)))
    found = json.loads(engine.eval_rule_as_json("data.probe.problems"))
    assert found == [[p.term, p.observed, p.allowed] for p in check_terms(terms)]


def _engine() -> regorus.Engine:
    engine = regorus.Engine()
    for name, text in load_bundle().modules.items():
        engine.add_policy(name, text)
    probe = "package probe\nproblems := sort(data.dataspace.terms.problems(input))"
    engine.add_policy("probe.rego", probe)
    return engine


_ENGINE = _engine()
