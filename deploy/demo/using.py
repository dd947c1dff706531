"""Steps 4 and 5: uses, refusals, and the end of an agreement."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from connector.client import Refused, UseFailed, connect
from deploy.demo.cast import CLOCK, GROUP, USES, Cast, query
from deploy.demo.queries import BY_CARRIER, REFUSALS, SLOW, SLOW_SHOWN, TINY, TOURISM
from deploy.demo.space import Answer, Organisation

ATONCE = 64  # uses tried in parallel
RUNS_S = 2.0  # seconds that the long query gets; alone it takes several times as long
SPOKEN_ROWS = 5  # of a result, shown


def use(cast: Cast) -> None:
    tell = cast.tell
    tell.step(4, "The bureau asks; the data stays at the airport")
    for title, sql in TOURISM:
        tell.say()
        tell.say(title)
        found = cast.tourism.must(*query(cast.agreement, sql))
        _show(cast, found)
        if sql == BY_CARRIER:
            tell.check(
                _same_as_duckdb(cast, sql, found["rows"]),
                "the table is what plain DuckDB computes on the airport's file",
            )
    withheld = found["receipt"]["quantities"].get("groups_withheld", 0)
    tell.check(withheld > 0, f"{withheld} groups of fewer than {GROUP} aircraft are withheld")
    tell.say()
    tell.say("What is refused, and why:")
    for title, sql, purpose, terms in REFUSALS:
        answer = cast.tourism.run(*query(cast.agreement, sql, purpose))
        _refusal(cast, title, answer, terms)
    _too_late(cast)
    _at_once(cast)


def _show(cast: Cast, found: Mapping[str, Any]) -> None:
    rows = [[row[name] for name in found["columns"]] for row in found["rows"][:SPOKEN_ROWS]]
    cast.tell.table(found["columns"], rows)
    if len(found["rows"]) > SPOKEN_ROWS:
        cast.tell.say(f"... and {len(found['rows']) - SPOKEN_ROWS} more rows")
    receipt = found["receipt"]
    amounts = ", ".join(f"{name} {value:,}" for name, value in receipt["quantities"].items())
    cast.tell.check(receipt["outcome"] == "allowed", f"receipt {receipt['number']}: {amounts}")


def _same_as_duckdb(cast: Cast, sql: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    with duckdb.connect() as database:
        database.execute(
            "CREATE TABLE flights AS SELECT * FROM read_csv(?, nullstr='NA')", [str(cast.csv)]
        )
        truth = database.execute(sql).fetchall()
    return [_rounded(row.values()) for row in rows] == [_rounded(row) for row in truth]


def _refusal(cast: Cast, title: str, answer: Answer, terms: Sequence[str]) -> None:
    cast.tell.check(
        answer.code == 3 and bool(set(answer.terms) & set(terms)),
        f"{title}: refused" if answer.code == 3 else f"{title}: refused ({answer.text})",
    )
    for reason in answer.reasons:
        cast.tell.say(
            f"        {reason['term']}: observed {reason['observed']}; allowed {reason['allowed']}"
        )


def _too_late(cast: Cast) -> None:
    left = (cast.short_until - CLOCK.now()).total_seconds()
    if left > -0.2:
        with cast.tell.busy("waiting for the second agreement to end"):
            time.sleep(left + 0.2)
    answer = cast.tourism.run(*query(cast.short, TINY))
    _refusal(cast, "a use after the end", answer, ("dateTime",))


def _at_once(cast: Cast) -> None:
    tell = cast.tell
    tell.say()
    left = USES - len(TOURISM)
    with tell.busy(f"{ATONCE} uses at once (client library), {left} are left"):
        allowed, reasons = asyncio.run(_storm(cast))
    tell.check(
        allowed == left and sum(reasons.values()) == ATONCE - left,
        f"of {ATONCE} uses at once exactly {allowed} succeed; {left} were left",
    )
    for reason, times in reasons.most_common(3):
        tell.say(f"        {times} times {reason}")


async def _storm(cast: Cast) -> tuple[int, Counter[str]]:
    reasons: Counter[str] = Counter()
    async with connect(cast.tourism.data) as node:

        async def one() -> bool:
            try:
                await node.query(cast.agreement, TINY, purpose="tourism-planning")
            except Refused as refused:
                reasons.update([str(refused.reasons[0])])
                return False
            return True

        done = await asyncio.gather(*(one() for _ in range(ATONCE)))
    return sum(done), reasons


def end(cast: Cast) -> None:
    tell = cast.tell
    tell.step(5, "The airport ends an agreement while a query runs")
    tell.say(f"running (client library): {SLOW_SHOWN}")
    asyncio.run(_stop_running(cast))
    told = _told_of_end(cast)
    tell.check(
        told is not None and told["state"] == "ended",
        f"the bureau was told, with a signed notice: {told['reason'] if told else 'no'}",
    )
    again = cast.tourism.run(*query(cast.third, TINY))
    tell.check(again.code in (3, 4), f"and may not use it any more: {_first(again)}")
    for node in (cast.airport, cast.tourism):
        acts = _acts(cast, node, cast.third)
        tell.check(
            any("ended" in act for act in acts),
            f"{node.name}'s own log records it: {', '.join(acts)}",
        )


async def _stop_running(cast: Cast) -> None:
    tell = cast.tell
    async with connect(cast.tourism.data) as node:
        running = asyncio.create_task(node.query(cast.third, SLOW, purpose="tourism-planning"))
        await asyncio.sleep(RUNS_S)
        tell.check(not running.done(), f"after {RUNS_S:.0f} s it still runs")
        words = ("agreements", "end", cast.third, "--reason", "runway closed")
        ended = await asyncio.to_thread(cast.airport.must, *words)
        begun = time.monotonic()
        try:
            await running
            came = "it gave a result"
        except UseFailed as failed:
            came = failed.message
        took = time.monotonic() - begun
    tell.check(
        ended["stopped_uses"] == 1 and came.startswith("the use was interrupted"),
        f"the running query is stopped, {took:.1f} s after the command: {came}",
    )


def _told_of_end(cast: Cast) -> Mapping[str, Any] | None:
    deadline = time.monotonic() + 5.0
    found: Mapping[str, Any] | None = None
    while time.monotonic() < deadline:
        listed = cast.tourism.must("agreements", "list", quiet=True)["agreements"]
        found = next((each for each in listed if each["id"] == cast.third), None)
        if found is not None and found["state"] == "ended":
            break
    return found


def _acts(cast: Cast, node: Organisation, scope: str) -> list[str]:
    found = node.must("receipts", "list", scope, quiet=True)["receipts"]
    return [receipt["act"] for receipt in found if receipt["kind"] == "act"]


def _rounded(values: Iterable[Any]) -> list[Any]:
    return [round(value, 6) if isinstance(value, float) else value for value in values]


def _first(answer: Answer) -> str:
    if answer.reasons:
        reason = answer.reasons[0]
        return f"{reason['term']}: observed {reason['observed']}; allowed {reason['allowed']}"
    return str(answer.error.get("message", "no error"))
