"""Evidence of agreements whose uses are reported: signed and proven, and not always true.

As ``liars``, of which the generator makes files likewise.
"""

from __future__ import annotations

import dataclasses

from connector.identity.membership import Change
from connector.model.receipt import Outcome, Quantity
from connector.model.terms import Constraint, Rule, Terms
from connector.verifier.evidence import Evidence
from tests.vectors import scenario
from tests.vectors.liars import Case, begun, both, closed, closed_as
from tests.vectors.scenario import (
    CONSUMER,
    MEMBERS,
    SERVED_ELSEWHERE,
    Log,
    agreement,
    membership,
)


def serving(terms: Terms = SERVED_ELSEWHERE) -> Log:
    """Of an agreement under which other systems than the gate may serve."""
    return begun(agreement(terms))


def reports_what_it_served() -> Evidence:
    """No lie."""
    log, _ = scenario.reported()
    return closed(log)


def reports_what_the_gate_must_see() -> Evidence:
    log = begun()
    log.report("gw-1", quantities={Quantity.CALLS: 1})
    return closed(log)


def reports_too_many_calls() -> Evidence:
    log = serving()
    log.use("use-1")
    log.report("gw-1", quantities={Quantity.CALLS: 99})
    log.report("gw-2", quantities={Quantity.CALLS: 1})
    return closed(log)


def reports_another_purpose() -> Evidence:
    log = serving()
    log.report("gw-1", purpose="marketing")
    return closed(log)


def reports_too_many_rows() -> Evidence:
    """5,001 rows in 5 calls of at most 1,000."""
    log = serving()
    log.report("gw-1", quantities={Quantity.CALLS: 5, Quantity.ROWS_RETURNED: 5_001})
    return closed(log)


def reports_what_was_served_too_late() -> Evidence:
    log = serving()
    log.report("gw-1", served_ms=1_798_675_200_001, time_ms=1_798_675_201_000)
    return closed(log)


def reports_late_what_was_served_in_time() -> Evidence:
    """No lie that could be shown: reports may come after the time in which uses are allowed."""
    log = serving()
    log.report("gw-1", served_ms=1_798_675_200_000, time_ms=1_798_700_000_000)
    return closed(log)


def reports_what_was_served_before_the_agreement() -> Evidence:
    log = serving()
    log.report("gw-1", served_ms=int(scenario.START.timestamp() * 1000) - 1)
    return closed(log)


def reports_what_was_not_served_yet() -> Evidence:
    log = serving()
    log.report("gw-1", served_ms=int(scenario.at(20 + 301).timestamp() * 1000))
    return closed(log)


def reports_by_a_clock_that_is_ahead() -> Evidence:
    """No lie: two clocks."""
    log = serving()
    log.report("gw-1", served_ms=int(scenario.at(20 + 300).timestamp() * 1000))
    return closed(log)


def reports_after_the_end() -> Evidence:
    log = serving()
    log.act("agreement.ended")
    log.report("gw-1")
    return closed(log)


def reports_one_use_twice() -> Evidence:
    log = serving()
    log.report("gw-1")
    log.report("gw-1")
    return closed(log)


def reports_what_the_gate_served() -> Evidence:
    log = serving()
    log.use("use-1")
    log.report("use-1", quantities={Quantity.CALLS: 1})
    return closed(log)


def serves_what_was_reported() -> Evidence:
    log = serving()
    log.report("use-1", quantities={Quantity.CALLS: 1})
    log.use("use-1")
    return closed(log)


def reports_what_the_gate_refused() -> Evidence:
    log = serving()
    log.use("use-1", Outcome.REFUSED)
    log.report("use-1", quantities={Quantity.CALLS: 1})
    return closed(log)


def refuses_what_was_reported() -> Evidence:
    log = serving()
    log.report("use-1", quantities={Quantity.CALLS: 1})
    log.use("use-1", Outcome.REFUSED)
    return closed(log)


def reports_what_is_prohibited() -> Evidence:
    night = Rule("use", (Constraint("dateTime", "gteq", "2026-11-23T08:00:00Z"),))
    log = serving(dataclasses.replace(SERVED_ELSEWHERE, prohibitions=(night,)))
    log.report("gw-1")
    return closed(log)


def reports_for_a_suspended_member() -> Evidence:
    log = serving()
    log.report("gw-1", served_ms=int(scenario.at(6).timestamp() * 1000))
    suspended = membership(4, CONSUMER, Change.SUSPENDED, seconds=5)
    return closed(log, members=(*MEMBERS, suspended))


def counts_a_record_as_one_use() -> Evidence:
    log = serving()
    log.report("gw-1")
    return closed_as(log, totals={"allowed": 1, "calls": 5})


def breaks_the_chain_with_a_record() -> Evidence:
    log = serving()
    log.report("gw-1")
    log.report("gw-2", previous=b"\x07" * 32)
    return closed(log)


def consumer_reports_for_itself() -> Evidence:
    """A record in the consumer's log."""
    provider = serving()
    consumer = Log(CONSUMER, provider.document)
    consumer.conclude()
    consumer.report("gw-1")
    return both(provider, consumer)


_PROVIDER_2 = "receipt 2 of the provider's log"
_CONSUMER_2 = "receipt 2 of the consumer's log"

CASES = (
    Case(
        reports_what_it_served, (), "1 of 2 uses were allowed; 46 more were reported, in 3 records"
    ),
    Case(
        reports_what_the_gate_must_see,
        (11,),
        f"{_PROVIDER_2}: a report does not show that tds:minimumGroup was kept to",
    ),
    Case(reports_too_many_calls, (11,), "receipt 4 of the provider's log: count is not as agreed"),
    Case(reports_another_purpose, (11,), f"{_PROVIDER_2}: purpose is not as agreed"),
    Case(reports_too_many_rows, (11,), f"{_PROVIDER_2}: tds:rowCap is not as agreed"),
    Case(reports_what_was_served_too_late, (11,), f"{_PROVIDER_2}: dateTime is not as agreed"),
    Case(reports_late_what_was_served_in_time, (), "when it was written; served in time, it says"),
    Case(
        reports_what_was_served_before_the_agreement,
        (11,),
        f"{_PROVIDER_2}: before the agreement was made",
    ),
    Case(reports_what_was_not_served_yet, (11,), f"{_PROVIDER_2}: written before it was served"),
    Case(reports_by_a_clock_that_is_ahead, (), "5 more were reported, in 1 records"),
    Case(reports_after_the_end, (11,), "allowed after the agreement ended in receipt 2"),
    Case(reports_one_use_twice, (11,), "receipt 3 of the provider's log: the same use is counted"),
    Case(reports_what_the_gate_served, (11,), "the same use is counted twice"),
    Case(serves_what_was_reported, (11,), "the same use is counted twice"),
    Case(reports_what_the_gate_refused, (11,), "but the use has another outcome"),
    Case(refuses_what_was_reported, (11,), "the use was reported as served"),
    Case(reports_what_is_prohibited, (11,), f"{_PROVIDER_2}: it is prohibited"),
    Case(reports_for_a_suspended_member, (), "was suspended or revoked"),
    Case(counts_a_record_as_one_use, (10,), "it says 1 allowed, the receipts add up to 5"),
    Case(breaks_the_chain_with_a_record, (8,), "receipt 3 of the provider's log does not follow"),
    Case(consumer_reports_for_itself, (7, 10), f"{_CONSUMER_2}: of a kind that belongs"),
)
