"""Steps 6 and 7: the auditor, and the closing table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deploy.demo import auditor
from deploy.demo.cast import USES, Cast


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
    changed = auditor.with_a_byte_changed(evidence, 3)
    _expect_fault(cast, changed, key, "one byte of one receipt is changed")
    removed = auditor.with_a_receipt_removed(evidence, 3)
    _expect_fault(cast, removed, key, "one receipt is removed")


def _expect_fault(cast: Cast, evidence: Path, key: str, what: str) -> None:
    tell = cast.tell
    tell.say()
    tell.command("auditor", ["connector-verify", evidence.name, "--space-key", key])
    verdict = cast.auditor.verify(evidence, key)
    tell.aside("\n".join(verdict.text.splitlines()[-4:]))
    tell.check(verdict.code != 0, f"{what}: the verifier says so, exit code {verdict.code}")


def close(cast: Cast) -> None:
    tell = cast.tell
    tell.step(7, "What both sides' own logs say")
    totals: dict[str, list[int]] = {}
    agree = True
    for agreement in (cast.agreement, cast.short, cast.third):
        found = cast.tourism.run("receipts", "reconcile", agreement).value or {}
        agree = agree and bool(found.get("agree"))
        for line in found.get("lines", []):
            entry = totals.setdefault(line["name"], [0, 0])
            entry[0] += line["provider"]
            entry[1] += line["consumer"]
    rows = [(name, *both, both[0] == both[1]) for name, both in totals.items()]
    tell.table(("counted", "by the airport", "by the bureau", "equal"), rows)
    tell.table(("refused because of", "times"), _refusals_by_reason(cast))
    tell.check(agree and bool(rows), "both sides' meters agree")
    allowed = next((both for name, both in totals.items() if name == "uses_allowed"), [0, 0])
    tell.check(allowed == [USES + 1, USES + 1], f"{USES} uses and 1 use were allowed, none twice")


def _refusals_by_reason(cast: Cast) -> list[tuple[str, int]]:
    counted: Counter[str] = Counter()
    listed = cast.airport.must("receipts", "list", "--limit", "1000", quiet=True)["receipts"]
    for receipt in listed:
        if receipt["outcome"] == "refused":
            counted.update({reason["term"] for reason in receipt["reasons"]})
    return counted.most_common()
