"""Inputs of the five decisions for tests: one good one of each, and what changes the answer.

The expected answers are what a person reads in ``docs/policy.md``, not what an engine said.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.participant import Membership, Participant
from connector.model.terms import (
    Agreement,
    Constraint,
    Offer,
    Rule,
    Terms,
    agreement_document,
    parse_agreement,
)
from connector.model.use import ColumnUse, Counters, Description
from connector.policy import constraints, decisions, inputs

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROVIDER = "did:web:airport.example"
CONSUMER = "did:web:tourism.example"

TERMS = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "isAnyOf", ("tourism-planning",)),
                Constraint("dateTime", "lt", "2026-12-31T00:00:00Z"),
                Constraint("count", "lteq", 20),
                Constraint("tds:output", "eq", "aggregate"),
                Constraint("tds:minimumGroup", "gteq", 10, "tailnum"),
                Constraint("tds:hiddenColumns", "isNoneOf", ("flight",)),
                Constraint("tds:rowCap", "lteq", 500),
            ),
        ),
    ),
    prohibitions=(Rule("tds:reidentify"),),
    obligations=(Rule("attribute"),),
)


def participant(did: str = CONSUMER, roles: tuple[str, ...] = ("consumer",)) -> Participant:
    return Participant(
        did=did,
        name="A member",
        roles=roles,
        state=Membership.ACTIVE,
        signing_keys=(bytes(32),),
        endpoint="",
        log_origin="member.example/log",
        revision=1,
    )


def dataset(
    classification: Classification = Classification.IMPORTANT, terms: Terms = TERMS
) -> Dataset:
    return Dataset(
        id="urn:uuid:flights",
        title="Flights",
        description="",
        keywords=(),
        publisher=PROVIDER,
        classification=classification,
        table="flights",
        columns=(
            Column("dest", "VARCHAR", Role.DIMENSION),
            Column("month", "BIGINT", Role.DIMENSION),
            Column("dep_delay", "BIGINT", Role.MEASURE),
            Column("tailnum", "VARCHAR", Role.UNIT),
            Column("hour", "BIGINT", Role.HIDDEN),
            Column("flight", "BIGINT", Role.MEASURE),
        ),
        offers=(Offer("urn:uuid:offer", "urn:uuid:flights", PROVIDER, terms),),
    )


def agreement(terms: Terms = TERMS) -> Agreement:
    return parse_agreement(
        agreement_document(
            id="urn:uuid:agreement",
            offer=dataset(terms=terms).offers[0],
            assignee=CONSUMER,
            timestamp=NOW,
            space="did:web:space.example",
            classification="important",
            secret_commitment="00" * 32,
            provider_log="airport.example/log",
            consumer_log="tourism.example/log",
        )
    )


GROUPED = Description(
    output="aggregate",
    tables=("flights",),
    columns=(
        ColumnUse("dest", "dimension", ("filter", "group")),
        ColumnUse("dep_delay", "measure", ("aggregate",), ("avg",)),
        ColumnUse("tailnum", "unit", ("aggregate",), ("count_distinct",)),
    ),
    aggregates=("avg", "count_distinct"),
    functions=(),
)


def usage(terms: Terms = TERMS, description: Description = GROUPED) -> dict[str, Any]:
    return inputs.usage_input(
        now=NOW,
        agreement=agreement(terms),
        state="active",
        provider=PROVIDER,
        consumer=participant(),
        dataset=dataset(),
        purpose="tourism-planning",
        description=description,
        counters=Counters(uses=3, reserved=1),
    )


TRANSFERRED = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "isAnyOf", ("routing",)),
                Constraint("dateTime", "lt", "2026-12-31T00:00:00Z"),
                Constraint("count", "lteq", 5),
            ),
        ),
    ),
    prohibitions=(Rule("sell"),),
)
_OPEN_COLUMNS = [
    {"name": "dest", "role": "dimension"},
    {"name": "dep_delay", "role": "measure"},
]


def transfer(terms: Terms = TRANSFERRED) -> dict[str, Any]:
    """The whole file of a general dataset without columns that are kept back."""
    data = dataset(Classification.GENERAL, terms)
    shown = replace(data, columns=(data.columns[0], data.columns[2]))
    document = usage(terms, constraints.whole(shown))
    document = changed(document, "use/purpose", constraints.only_purpose(terms))
    document = changed(document, "dataset/columns", _OPEN_COLUMNS)
    document = changed(document, "dataset/classification", "general")
    document = changed(document, "dataset/privacy_unit", "")
    return changed(document, "agreement/classification", "general")


REPORTED = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "isAnyOf", ("routing",)),
                Constraint("dateTime", "lt", "2026-12-31T00:00:00Z"),
                Constraint("count", "lteq", 1_000_000),
            ),
        ),
    ),
    prohibitions=(
        Rule(
            "use",
            (
                Constraint("dateTime", "gteq", "2026-12-24T00:00:00Z"),
                Constraint("dateTime", "lt", "2026-12-26T00:00:00Z"),
            ),
        ),
    ),
)


def metering(terms: Terms = REPORTED) -> dict[str, Any]:
    document = inputs.metering_input(
        now=NOW,
        agreement=agreement(terms),
        state="active",
        provider=PROVIDER,
        consumer=participant(),
        dataset=dataset(Classification.GENERAL),
        purpose="routing",
    )
    return changed(document, "agreement/classification", "general")


def negotiation(requested: Terms = TERMS, *, manual_approval: bool = False) -> dict[str, Any]:
    return inputs.negotiation_input(
        now=NOW,
        provider=PROVIDER,
        consumer=participant(),
        dataset=dataset(),
        offer=TERMS,
        requested=requested,
        manual_approval=manual_approval,
    )


def listing(
    classification: Classification = Classification.IMPORTANT, *, accept_free_sql: bool = True
) -> dict[str, Any]:
    return inputs.listing_input(
        now=NOW, dataset=dataset(classification), accept_free_sql=accept_free_sql
    )


def admission() -> dict[str, Any]:
    return inputs.admission_input(
        now=NOW,
        invited_organisation="Tourism bureau",
        invited_did=CONSUMER,
        invited_roles=("consumer",),
        expires=NOW + timedelta(days=1),
        spent=False,
        did=CONSUMER,
        name="Tourism bureau",
        roles=("consumer",),
        endpoint="",
    )


def changed(document: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value replaced; list indices are numbers in the path."""
    result: dict[str, Any] = copy.deepcopy(dict(document))
    node: Any = result
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    for key in parents:
        node = node[key]
    node[last] = value
    return result


def column(name: str, *places: str, aggregates: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "role": "", "places": list(places), "aggregates": list(aggregates)}


@dataclass(frozen=True, slots=True)
class Case:
    """``terms``: the failing terms, in order; empty means that it is allowed."""

    entry: str
    document: Mapping[str, Any]
    terms: list[str]
    outcome: str = ""
    reasons: list[tuple[str, str, str]] = field(default_factory=list)


_ANY_TIME = Terms((Rule("use"),))
_NO_MARKETING = Terms(
    (Rule("use"),), prohibitions=(Rule("use", (Constraint("purpose", "eq", "marketing"),)),)
)
_TWO_PURPOSES = Terms((Rule("use", (Constraint("purpose", "isAnyOf", ("routing", "audit")),)),))
_RESULTS = Terms(
    (
        Rule(
            "use",
            (
                Constraint("tds:output", "eq", "aggregate"),
                Constraint("tds:hiddenColumns", "isNoneOf", ("dep_delay",)),
                Constraint("tds:rowCap", "lteq", 500),
            ),
        ),
    )
)
_ONLY_PURPOSE = Terms((Rule("use", TERMS.permissions[0].constraints[:1]),))
_C = "agreement/terms/permission/0/constraint"
_R = "requested/terms/permission/0/constraint"

CASES: dict[str, Case] = {
    "usage: allowed": Case(decisions.USAGE, usage(), []),
    "usage: agreement ended": Case(
        decisions.USAGE, changed(usage(), "agreement/state", "ended"), ["agreement"]
    ),
    "usage: our agreement is with somebody else": Case(
        decisions.USAGE, changed(usage(), "consumer/did", "did:web:x.example"), ["assignee"]
    ),
    "usage: somebody else's agreement": Case(
        decisions.USAGE, changed(usage(), "provider", "did:web:x.example"), ["assigner"]
    ),
    "usage: suspended": Case(
        decisions.USAGE, changed(usage(), "consumer/state", "suspended"), ["member"]
    ),
    "usage: purpose": Case(
        decisions.USAGE,
        changed(usage(), "use/purpose", "marketing"),
        ["purpose"],
        reasons=[("purpose", "marketing", "one of: tourism-planning")],
    ),
    "usage: after the end": Case(
        decisions.USAGE,
        {**usage(), "now_ms": 1798675200000, "now": "2026-12-31T00:00:00.000Z"},
        ["dateTime"],
        reasons=[("dateTime", "2026-12-31T00:00:00.000Z", "before 2026-12-31T00:00:00Z")],
    ),
    "usage: the last millisecond": Case(
        decisions.USAGE, changed(usage(), "now_ms", 1798675199999), []
    ),
    "usage: the last use": Case(decisions.USAGE, changed(usage(), "counters/uses", 18), []),
    "usage: used up": Case(
        decisions.USAGE,
        changed(usage(), "counters/uses", 19),
        ["count"],
        reasons=[("count", "20 of 20 uses", "at most 20 uses")],
    ),
    "usage: raw rows": Case(
        decisions.USAGE,
        changed(usage(), "request/output", "rows"),
        ["tds:minimumGroup", "tds:output"],
        reasons=[
            ("tds:minimumGroup", "rows", "groups of at least 10 distinct tailnum"),
            ("tds:output", "rows", "aggregates only"),
        ],
    ),
    "usage: raw rows where terms and space are silent": Case(
        decisions.USAGE,
        changed(usage(_ONLY_PURPOSE), "request/output", "rows"),
        ["tds:minimumGroup", "tds:output", "tds:output"],
    ),
    "usage: a column hidden by the terms, one by the owner": Case(
        decisions.USAGE,
        changed(
            usage(),
            "request/columns",
            [column("flight", "aggregate", aggregates=("avg",)), column("hour", "group")],
        ),
        ["tds:hiddenColumns"],
        reasons=[("tds:hiddenColumns", "flight, hour", "columns other than: flight, hour")],
    ),
    "usage: an individual as group key": Case(
        decisions.USAGE,
        changed(usage(), "request/columns", [column("tailnum", "group", "select")]),
        ["tds:privacyUnit"],
        reasons=[
            ("tds:privacyUnit", "tailnum in group, select", "only counted: count, count_distinct")
        ],
    ),
    "usage: the largest individual": Case(
        decisions.USAGE,
        changed(usage(), "request/columns", [column("tailnum", "aggregate", aggregates=("max",))]),
        ["tds:privacyUnit"],
    ),
    "usage: a measure as filter": Case(
        decisions.USAGE,
        changed(usage(), "request/columns", [column("dep_delay", "aggregate", "filter")]),
        ["tds:columnRole"],
    ),
    "usage: the largest value": Case(
        decisions.USAGE, changed(usage(), "request/aggregates", ["avg", "max"]), ["tds:aggregates"]
    ),
    "usage: a column that is not there": Case(
        decisions.USAGE,
        changed(usage(), "request/columns", [column("x", "group")]),
        ["tds:columnRole"],
    ),
    "usage: a term from another profile": Case(
        decisions.USAGE, changed(usage(), f"{_C}/0/left", "spatial"), ["spatial"]
    ),
    "usage: a time that is text": Case(
        decisions.USAGE, changed(usage(), f"{_C}/1/right", "soon"), ["dateTime"]
    ),
    "usage: prohibited purpose": Case(
        decisions.USAGE,
        changed(
            usage(),
            "agreement/terms/prohibition",
            [
                {
                    "action": "use",
                    "constraint": [usage()["agreement"]["terms"]["permission"][0]["constraint"][0]],
                }
            ],
        ),
        ["prohibition"],
    ),
    "usage: an obligation that nobody keeps": Case(
        decisions.USAGE,
        changed(usage(), "agreement/terms/obligation/0/action", "compensate"),
        ["obligation"],
    ),
    "usage: became core": Case(
        decisions.USAGE, changed(usage(), "dataset/classification", "core"), ["tds:classification"]
    ),
    "usage: terms are a text": Case(
        decisions.USAGE, changed(usage(), "agreement/terms", "all"), ["policy"]
    ),
    "usage: columns are a text": Case(
        decisions.USAGE, changed(usage(), "request/columns", "x"), ["policy"]
    ),
    "usage: a place that nobody knows": Case(
        decisions.USAGE, changed(usage(), "request/columns", [column("dest", "having")]), ["policy"]
    ),
    "usage: a column in two roles": Case(
        decisions.USAGE, changed(usage(), "dataset/columns/0/name", "hour"), ["policy"]
    ),
    "transfer: allowed": Case(decisions.USAGE, transfer(), []),
    "transfer: of terms that say nothing": Case(decisions.USAGE, transfer(_ANY_TIME), []),
    "transfer: important data": Case(
        decisions.USAGE,
        changed(transfer(), "dataset/classification", "important"),
        ["tds:minimumGroup", "tds:output", "tds:output", "tds:privacyUnit"],
    ),
    "transfer: agreed when it was important": Case(
        decisions.USAGE,
        changed(transfer(), "agreement/classification", "important"),
        ["tds:output"],
        reasons=[("tds:output", "the whole dataset", "aggregates only")],
    ),
    "transfer: terms that speak of results": Case(
        decisions.USAGE,
        transfer(_RESULTS),
        ["tds:hiddenColumns", "tds:output", "tds:rowCap"],
        reasons=[
            ("tds:hiddenColumns", "dep_delay", "columns other than: dep_delay"),
            ("tds:output", "the whole dataset", "aggregates only"),
            ("tds:rowCap", "the whole dataset", "at most 500 rows"),
        ],
    ),
    "transfer: a column that the owner hides": Case(
        decisions.USAGE,
        changed(transfer(), "dataset/columns/1/role", "hidden"),
        ["tds:hiddenColumns"],
    ),
    "transfer: a privacy unit": Case(
        decisions.USAGE, changed(transfer(), "dataset/columns/0/role", "unit"), ["tds:privacyUnit"]
    ),
    "transfer: one of several purposes": Case(
        decisions.USAGE,
        transfer(_TWO_PURPOSES),
        ["purpose"],
        reasons=[("purpose", "none", "one of: audit, routing")],
    ),
    "transfer: a purpose is prohibited, and none is stated": Case(
        decisions.USAGE,
        transfer(_NO_MARKETING),
        ["prohibition"],
        reasons=[
            ("prohibition", "a transfer, which states no purpose", "any purpose but: marketing")
        ],
    ),
    "transfer: used up": Case(
        decisions.USAGE,
        changed(transfer(), "counters/uses", 4),
        ["count"],
        reasons=[("count", "5 of 5 uses", "at most 5 uses")],
    ),
    "transfer: after the end": Case(
        decisions.USAGE, changed(transfer(), "now_ms", 1798675200000), ["dateTime"]
    ),
    "transfer: suspended": Case(
        decisions.USAGE, changed(transfer(), "consumer/state", "suspended"), ["member"]
    ),
    "transfer: a column that is not told": Case(
        decisions.USAGE,
        changed(transfer(), "request/columns", [column("dest", "select")]),
        ["policy"],
    ),
    "transfer: of groups": Case(
        decisions.USAGE, changed(transfer(), "request/output", "aggregate"), ["policy"]
    ),
    "usage: without a word of what it is": Case(
        decisions.USAGE, changed(usage(), "request/whole", "no"), ["policy"]
    ),
    "usage: nothing": Case(decisions.USAGE, {}, ["policy"]),
    "metering: allowed": Case(decisions.METERING, metering(), []),
    "metering: agreement ended": Case(
        decisions.METERING, changed(metering(), "agreement/state", "ended"), ["agreement"]
    ),
    "metering: somebody else's agreement": Case(
        decisions.METERING, changed(metering(), "provider", "did:web:x.example"), ["assigner"]
    ),
    "metering: suspended": Case(
        decisions.METERING, changed(metering(), "consumer/state", "suspended"), ["member"]
    ),
    "metering: purpose": Case(
        decisions.METERING,
        changed(metering(), "use/purpose", "marketing"),
        ["purpose"],
        reasons=[("purpose", "marketing", "one of: routing")],
    ),
    "metering: used before the end, told after it": Case(
        decisions.METERING, changed(metering(), "now_ms", 1798675200000), []
    ),
    "metering: no time is left": Case(
        decisions.METERING, changed(metering(), f"{_C}/1/right", -1), ["prohibition"]
    ),
    "metering: terms that no report shows": Case(
        decisions.METERING,
        changed(metering(TERMS), "use/purpose", "tourism-planning"),
        ["tds:hiddenColumns", "tds:minimumGroup", "tds:output", "tds:rowCap"],
    ),
    "metering: important data": Case(
        decisions.METERING,
        changed(metering(), "dataset/classification", "important"),
        ["tds:minimumGroup", "tds:output", "tds:output"],
    ),
    "metering: prohibited": Case(
        decisions.METERING,
        changed(metering(), "agreement/terms/prohibition/0/constraint", []),
        ["prohibition"],
    ),
    "metering: a term from another profile": Case(
        decisions.METERING, changed(metering(), f"{_C}/0/left", "spatial"), ["spatial"]
    ),
    "metering: a count that is text": Case(
        decisions.METERING, changed(metering(), f"{_C}/2/right", "many"), ["count"]
    ),
    "metering: a result that is known": Case(
        decisions.METERING, changed(metering(), "request/output", "aggregate"), ["policy"]
    ),
    "metering: nothing": Case(decisions.METERING, {}, ["policy"]),
    "negotiation: the offer": Case(decisions.NEGOTIATION, negotiation(), [], "approve"),
    "negotiation: fewer uses": Case(
        decisions.NEGOTIATION, changed(negotiation(), f"{_R}/2/right", 5), [], "approve"
    ),
    "negotiation: more uses": Case(
        decisions.NEGOTIATION,
        changed(negotiation(), f"{_R}/2/right", 21),
        ["count"],
        "ask",
        [("count", "at most 21 uses", "at most 20 uses")],
    ),
    "negotiation: no purpose": Case(
        decisions.NEGOTIATION,
        changed(
            negotiation(),
            _R,
            negotiation()["requested"]["terms"]["permission"][0]["constraint"][1:],
        ),
        ["purpose"],
        "ask",
        [("purpose", "no such term", "one of: tourism-planning")],
    ),
    "negotiation: by hand": Case(
        decisions.NEGOTIATION, negotiation(manual_approval=True), ["approval"], "ask"
    ),
    "negotiation: unknown term": Case(
        decisions.NEGOTIATION,
        changed(negotiation(), f"{_R}/2/left", "spatial"),
        ["spatial"],
        "refuse",
    ),
    "negotiation: rows of important data": Case(
        decisions.NEGOTIATION,
        negotiation(_ONLY_PURPOSE),
        ["tds:minimumGroup", "tds:output"],
        "refuse",
    ),
    "negotiation: group below the floor": Case(
        decisions.NEGOTIATION,
        changed(negotiation(), f"{_R}/4/right", 4),
        ["tds:minimumGroup"],
        "refuse",
    ),
    "negotiation: over already": Case(
        decisions.NEGOTIATION, changed(negotiation(), f"{_R}/1/right", 1), ["dateTime"], "refuse"
    ),
    "negotiation: no consumer": Case(
        decisions.NEGOTIATION, changed(negotiation(), "consumer/roles", []), ["role"], "refuse"
    ),
    "negotiation: revoked": Case(
        decisions.NEGOTIATION,
        changed(negotiation(), "consumer/state", "revoked"),
        ["member"],
        "refuse",
    ),
    "negotiation: nothing": Case(decisions.NEGOTIATION, {}, ["policy"], "refuse"),
    "listing: allowed": Case(decisions.LISTING, listing(), []),
    "listing: without the owner's word": Case(
        decisions.LISTING, listing(accept_free_sql=False), ["tds:freeSql"]
    ),
    "listing: general needs no word": Case(
        decisions.LISTING, listing(Classification.GENERAL, accept_free_sql=False), []
    ),
    "listing: core": Case(decisions.LISTING, listing(Classification.CORE), ["tds:classification"]),
    "listing: a hidden column with a slip of the pen": Case(
        decisions.LISTING,
        changed(listing(), "offers/0/terms/permission/0/constraint/5/right", ["fligth"]),
        ["tds:hiddenColumns"],
    ),
    "listing: nothing": Case(decisions.LISTING, {}, ["policy"]),
    "admission: allowed": Case(decisions.ADMISSION, admission(), []),
    "admission: spent": Case(
        decisions.ADMISSION, changed(admission(), "invitation/spent", True), ["invitation"]
    ),
    "admission: expired": Case(
        decisions.ADMISSION, changed(admission(), "invitation/expires_ms", 1), ["invitation"]
    ),
    "admission: another organisation": Case(
        decisions.ADMISSION, changed(admission(), "request/name", "Airport"), ["organisation"]
    ),
    "admission: more roles than invited": Case(
        decisions.ADMISSION,
        changed(admission(), "request/roles", ["consumer", "provider"]),
        ["endpoint", "role"],
    ),
    "admission: revoked once": Case(
        decisions.ADMISSION, changed(admission(), "existing", "revoked"), ["member"]
    ),
    "admission: again, with new keys": Case(
        decisions.ADMISSION, changed(admission(), "existing", "active"), []
    ),
    "admission: nothing": Case(decisions.ADMISSION, {}, ["policy"]),
}


def check(case: Case, answer: Mapping[str, Any]) -> None:
    """The answer is the case's, exactly."""
    found = [(r["term"], r["observed"], r["allowed"]) for r in answer["reasons"]]
    assert [reason[0] for reason in found] == case.terms
    assert found == sorted(found)
    assert answer["allow"] is (not case.terms)
    if case.reasons:
        assert found == case.reasons
    if case.outcome:
        assert answer["outcome"] == case.outcome
    if not answer["allow"]:
        assert answer["obligations"] == {}
