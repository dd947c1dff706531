"""Steps 6 and 7: the auditor, and the closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.demo import auditor
from deploy.demo.cast import USES, Cast
from deploy.demo.space import Organisation

MOST_FAULTS = 8  # lines of the verifier's findings shown


def audit(cast: Cast) -> None:
    tell = cast.tell
    tell.step(6, "The auditor trusts neither side: one file, the space's public key, no network")
    evidence = cast.work / "evidence.json"
    cast.airport.must("evidence", "export", cast.agreement, "--out", str(evidence))
    key = str(cast.space.must("directory", "status", quiet=True)["space_key"])
    tell.say(f"installed at the auditor: {', '.join(cast.auditor.packages())}")
    if cast.auditor.cut_off:
        door = cast.airport.ports["listen"]
        tell.check(not cast.auditor.reaches(door), "the auditor's network is cut off")
    else:
        tell.say("NOTE: this machine permits no network namespaces; the network is NOT cut off")
    tell.command("auditor", ["connector-verify", evidence.name, "--space-key", key])
    good = cast.auditor.verify(evidence, key)
    tell.aside(good.text)
    tell.check(good.code == 0, "every receipt is checked, and that none is missing")
    changed = auditor.with_a_byte_changed(evidence, 3)  # from 0: receipt 4
    _expect_fault(cast, changed, key, "one byte of receipt 4 is changed", "receipt 4", "changed")
    removed = auditor.with_a_receipt_removed(evidence, 3)
    _expect_fault(cast, removed, key, "receipt 4 is removed", "receipt 4", "is missing")


def _expect_fault(cast: Cast, evidence: Path, key: str, what: str, *words: str) -> None:
    """The verifier must fail, and name in one finding what was done to the file."""
    tell = cast.tell
    tell.say()
    tell.command("auditor", ["connector-verify", evidence.name, "--space-key", key])
    verdict = cast.auditor.verify(evidence, key)
    tell.aside(_faults(verdict.text))
    named = any(all(word in line for word in words) for line in verdict.text.splitlines())
    tell.check(
        verdict.code == 1 and named, f"{what}: the verifier says so, exit code {verdict.code}"
    )


def _faults(text: str) -> str:
    """What the verifier found wrong: its failed steps, their first findings, its last word."""
    lines = text.splitlines()
    found = [line for line in lines if "FAILED" in line or line.strip().startswith("!")]
    return "\n".join([*found[:MOST_FAULTS], *lines[-1:]])


def close(cast: Cast) -> None:
    tell = cast.tell
    tell.step(7, "What both sides' own logs say")
    agreements = (cast.agreement, cast.short, cast.third)
    airport = [each for one in agreements for each in _receipts(cast.airport, one)]
    tourism = [each for one in agreements for each in _receipts(cast.tourism, one)]
    rows: list[tuple[str, int, int | str, str]] = []
    for name, count in COUNTED:
        ours, theirs = count(airport), count(tourism)
        if name in ONLY_THE_PROVIDER:
            rows.append((name, ours, "", ""))
        else:
            rows.append((name, ours, theirs, "yes" if ours == theirs else "NO"))
    tell.table(("counted", "airport's log", "bureau's log", "equal"), rows)
    tell.say()
    reasons = _refusals_by_reason(airport), _refusals_by_reason(tourism)
    tell.table(
        ("refused because of", "airport's log", "bureau's log"),
        [(term, times, reasons[1][term]) for term, times in reasons[0].most_common()],
    )
    tell.check(reasons[0] == reasons[1], "both sides' logs give the same reasons")
    tell.check(all(row[3] != "NO" for row in rows), "both sides' logs count the same")
    verdicts = [cast.tourism.run("receipts", "reconcile", each) for each in agreements]
    tell.check(
        all(each.code == 0 and each.value["agree"] for each in verdicts),
        "and the nodes, comparing signed statements, agree on all three agreements",
    )
    tell.check(
        rows[0][1] == USES + 1,
        f"{USES} uses of the first agreement and 1 of the second were allowed: none lost, none "
        "counted twice",
    )


def _receipts(node: Organisation, agreement: str) -> list[Mapping[str, Any]]:
    """What the node's own log holds of uses under an agreement."""
    found = node.must("receipts", "list", agreement, "--limit", "1000", quiet=True)["receipts"]
    return [receipt for receipt in found if receipt["kind"] != "act"]


def _outcomes(outcome: str) -> Callable[[Sequence[Mapping[str, Any]]], int]:
    return lambda receipts: sum(1 for receipt in receipts if receipt["outcome"] == outcome)


def _amounts(name: str) -> Callable[[Sequence[Mapping[str, Any]]], int]:
    return lambda receipts: sum(receipt["quantities"].get(name, 0) for receipt in receipts)


COUNTED = (
    ("uses allowed", _outcomes("allowed")),
    ("uses refused", _outcomes("refused")),
    ("uses interrupted", _outcomes("interrupted")),
    ("uses failed", _outcomes("failed")),
    ("rows scanned", _amounts("rows_scanned")),
    ("rows returned", _amounts("rows_returned")),
    ("bytes returned", _amounts("bytes_returned")),
    ("groups withheld", _amounts("groups_withheld")),
)
ONLY_THE_PROVIDER = ("rows scanned", "groups withheld")  # can know these


def _refusals_by_reason(receipts: Sequence[Mapping[str, Any]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for receipt in receipts:
        if receipt["outcome"] == "refused":
            counted.update({reason["term"] for reason in receipt["reasons"]})
    return counted
