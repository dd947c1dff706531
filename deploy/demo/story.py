"""The seven steps. Each tells what happens, does it, and checks that it happened as told."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from connector.adapters.clock import SystemClock
from connector.client import Refused, connect
from deploy.demo import auditor, flights
from deploy.demo.queries import BY_CARRIER, REFUSALS, SLOW, TINY, TOURISM
from deploy.demo.space import Answer, Organisation, finish
from deploy.demo.tell import Teller

CLOCK = SystemClock()
USES = 20  # that the offer allows
ATONCE = 64  # uses tried in parallel
SHORT_USES = 5  # of the second agreement
SHORT_LIFE_S = 9  # seconds that the second agreement lasts
GROUP = 10  # aircraft that each group must have
HIDDEN = ("flight", "time_hour")
DIMENSIONS = ("year", "month", "day", "hour", "carrier", "origin", "dest")
SPOKEN_ROWS = 5  # of a result, shown


class Story:
    def __init__(self, tell: Teller, work: Path, root: Path, csv: Path) -> None:
        self.tell = tell
        self.work = work
        self.csv = csv
        self.auditor = auditor.Auditor(root / ".venv-auditor")
        self.space = self._organisation("space", "Qilu Data Space", directory=True)
        self.airport = self._organisation("airport", "New York Airport Operator")
        self.tourism = self._organisation("tourism", "Tourism Bureau")
        self.stranger = self._organisation("stranger", "Somebody Else")
        self.everybody = [self.stranger, self.tourism, self.airport, self.space]  # stop order
        self.dataset: Mapping[str, Any] = {}
        self.agreement = ""  # as offered
        self.short = ""  # after a counter-offer; ends soon
        self.third = ""  # as offered; ended by its provider
        self.short_until = CLOCK.now()

    def _organisation(self, nick: str, name: str, *, directory: bool = False) -> Organisation:
        did = f"did:web:{nick}.example"
        return Organisation(self.tell, nick, name, did, self.work / nick, directory)

    # 1 ------------------------------------------------------------------------------------------

    def found_the_space(self) -> None:
        tell = self.tell
        tell.step(1, "A directory and two connectors start, and both join the space")
        self.space.init()
        self.space.serve()
        for node in (self.airport, self.tourism, self.stranger):
            node.init()
            node.serve()
        with tell.busy("starting four processes"):
            waits = [n.wait_ready() for n in (self.space, self.airport, self.tourism)]
            self.stranger.wait_ready()
        tell.check(True, f"all answer after {max(waits):.1f} s, each in a folder of its own")
        spent = ""
        for node, role in ((self.airport, "provider"), (self.tourism, "consumer")):
            paper = self.work / f"{node.nick}.invitation"
            invite = ("directory", "invite", node.name, "--role", role, "--valid", "10m")
            self.space.must(*invite, "--out", str(paper))
            joined = node.must("enrol", "--file", str(paper))
            state = node.must("status", quiet=True)
            tell.need(
                state["state"] == "ready" and bool(joined["space"]),
                f"{node.name} is a member, as {role}; its certificate holds until "
                f"{joined['certificate_expires'][:10]}",
                json.dumps(state),
            )
            spent = str(paper)
        refused = self.stranger.run("enrol", "--file", spent)
        tell.check(
            refused.code not in (0, 1, 2),
            f"a third node with the spent invitation is refused: {refused.error.get('message')}",
        )
        self.stranger.stop()
        self.stranger.process = None
        tell.check(
            not _greets(self.airport.ports["listen"]),
            "without a member's certificate the airport's door does not even say hello",
        )

    # 2 ------------------------------------------------------------------------------------------

    def publish(self) -> None:
        tell = self.tell
        tell.step(2, "The airport publishes its flights, under terms")
        until = (CLOCK.now() + timedelta(days=90)).date().isoformat()
        words = ["publish", str(self.csv), "--title", "Flights from New York 2013 (纽约航班)"]
        words += ["--description", "On-time data of all departures from EWR, JFK and LGA"]
        words += ["--keyword", "aviation", "--keyword", "旅游", "--csv-null", "NA"]
        words += ["--classification", "important", "--purpose", "tourism-planning"]
        words += ["--aggregates-only", "--minimum-group", str(GROUP), "--privacy-unit", "tailnum"]
        words += ["--uses", str(USES), "--until", until, "--accept-free-sql"]
        words += [word for column in HIDDEN for word in ("--hide", column)]
        words += [word for column in DIMENSIONS for word in ("--dimension", column)]
        found = self.airport.must(*words)
        tell.check(found["rows"] == flights.ROWS, f"{found['rows']:,} rows, read where they lie")
        for warning in found["warnings"]:
            tell.say(f"warning: {warning}")
        tell.check(
            any("differen" in warning.lower() for warning in found["warnings"]),
            "the owner is warned that differences of answers can reveal",
        )
        self.dataset = found

    # 3 ------------------------------------------------------------------------------------------

    def agree(self) -> None:
        tell = self.tell
        tell.step(3, "The bureau finds the offer, and the two make agreements")
        found = self._search("航班")
        tell.need(
            [each["@id"] for each in found] == [self.dataset["dataset_id"]],
            "the directory's catalogue finds it by a Chinese word",
            json.dumps(found),
        )
        self._read_offer(found[0])
        first = self.tourism.must("negotiate", self.dataset["dataset_id"])
        tell.check(
            first["states"] == ["REQUESTED", "AGREED", "VERIFIED", "FINALIZED"],
            f"as offered: {' -> '.join(first['states'])}",
        )
        self.agreement = first["negotiation"]["agreement_id"]
        tell.need(bool(self.agreement), f"agreement {self.agreement}")
        self._bargain()
        third = self.tourism.must("negotiate", self.dataset["dataset_id"])
        self.third = third["negotiation"]["agreement_id"]
        held = {a["id"]: a for a in self.tourism.must("agreements", "list")["agreements"]}
        given = {
            a["id"]: a for a in self.airport.must("agreements", "list", quiet=True)["agreements"]
        }
        tell.check(
            set(held) == set(given) == {self.agreement, self.short, self.third}
            and all(held[each]["document"] == given[each]["document"] for each in held),
            "both hold the same three agreements, byte for byte, signed by both",
        )

    def _search(self, words: str) -> Sequence[Mapping[str, Any]]:
        """The catalogue, as soon as the directory has what was just published."""
        self.tell.command("tourism", ["connector", "catalog", "search", words])
        deadline = time.monotonic() + 5.0
        while True:
            found = self.tourism.must("catalog", "search", words, quiet=True)["datasets"]
            if found or time.monotonic() > deadline:
                return list(found)

    def _read_offer(self, dataset: Mapping[str, Any]) -> None:
        offer = dataset["hasPolicy"][0]
        self.tell.say(f"offer: {dataset['title']}, class {dataset['tds:classification']}")
        for constraint in offer["permission"][0]["constraint"]:
            right = constraint["rightOperand"]
            shown = ", ".join(right) if isinstance(right, list) else right
            unit = f" {constraint['unit']}" if constraint.get("unit") else ""
            self.tell.say(f"  {constraint['leftOperand']} {constraint['operator']} {shown}{unit}")

    def _bargain(self) -> None:
        """The bureau asks for more, the airport's person offers less, the bureau accepts."""
        tell = self.tell
        ask = ("negotiate", self.dataset["dataset_id"], "--uses", "50", "--follow", "20")
        tell.command("tourism", ["connector", *ask])
        asked = self.tourism.start_command(*ask)
        waiting = self._first_waiting(self.airport)
        until = CLOCK.now() + timedelta(seconds=SHORT_LIFE_S)
        self.short_until = until
        counter = ("approvals", "counter", waiting, "--uses", str(SHORT_USES))
        self.airport.must(*counter, "--until", until.isoformat(timespec="milliseconds"))
        offered = finish(asked)
        states = list((offered.value or {}).get("states", []))
        pid = (offered.value or {}).get("negotiation", {}).get("pid", "")
        tell.need(
            states[-1:] == ["OFFERED"], "50 uses are asked; a person offers 5 instead", offered.text
        )
        accepted = self.tourism.must("negotiate", "--accept", pid)
        states += [s for s in accepted["states"] if s != states[-1]]
        tell.check(
            states == ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED"],
            f"with a counter-offer: {' -> '.join(states)}",
        )
        self.short = accepted["negotiation"]["agreement_id"]
        early = self.tourism.run(*self._query(self.short, TINY), quiet=True)
        left = (until - CLOCK.now()).total_seconds()
        tell.check(early.code == 0, f"the second agreement works; it ends in {left:.0f} s")

    def _first_waiting(self, node: Organisation) -> str:
        node.tell.command(node.nick, ["connector", "approvals", "list"])
        deadline = time.monotonic() + 15.0
        while time.monotonic() < deadline:
            found = node.must("approvals", "list", quiet=True)["negotiations"]
            if found:
                return str(found[0]["pid"])
        self.tell.need(False, "the request waits for a person at the airport")
        return ""

    # 4 ------------------------------------------------------------------------------------------

    def use(self) -> None:
        tell = self.tell
        tell.step(4, "The bureau asks; the data stays at the airport")
        for title, sql in TOURISM:
            tell.say()
            tell.say(title)
            found = self.tourism.must(*self._query(self.agreement, sql))
            self._show(found)
            if sql == BY_CARRIER:
                tell.check(
                    self._same_as_duckdb(sql, found["rows"]),
                    "the table is what plain DuckDB computes on the airport's file",
                )
        withheld = found["receipt"]["quantities"].get("groups_withheld", 0)
        tell.check(withheld > 0, f"{withheld} groups of fewer than {GROUP} aircraft are withheld")
        tell.say()
        tell.say("What is refused, and why:")
        for title, sql, purpose, terms in REFUSALS:
            answer = self.tourism.run(*self._query(self.agreement, sql, purpose))
            self._refusal(title, answer, terms)
        self._too_late()
        self._at_once()

    def _query(self, agreement: str, sql: str, purpose: str = "tourism-planning") -> list[str]:
        return ["query", agreement, "--purpose", purpose, "--sql", sql]

    def _show(self, found: Mapping[str, Any]) -> None:
        rows = [[row[name] for name in found["columns"]] for row in found["rows"][:SPOKEN_ROWS]]
        self.tell.table(found["columns"], rows)
        if len(found["rows"]) > SPOKEN_ROWS:
            self.tell.say(f"... and {len(found['rows']) - SPOKEN_ROWS} more rows")
        receipt = found["receipt"]
        amounts = ", ".join(f"{name} {value:,}" for name, value in receipt["quantities"].items())
        self.tell.check(receipt["outcome"] == "allowed", f"receipt {receipt['number']}: {amounts}")

    def _same_as_duckdb(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        with duckdb.connect() as database:
            database.execute(
                "CREATE TABLE flights AS SELECT * FROM read_csv(?, nullstr='NA')", [str(self.csv)]
            )
            truth = database.execute(sql).fetchall()
        return [_rounded(row.values()) for row in rows] == [_rounded(row) for row in truth]

    def _refusal(self, title: str, answer: Answer, terms: Sequence[str]) -> None:
        self.tell.check(
            answer.code == 3 and bool(set(answer.terms) & set(terms)),
            f"{title}: refused" if answer.code == 3 else f"{title}: refused ({answer.text})",
        )
        for reason in answer.reasons:
            self.tell.say(
                f"        {reason['term']}: observed {reason['observed']}; "
                f"allowed {reason['allowed']}"
            )

    def _too_late(self) -> None:
        left = (self.short_until - CLOCK.now()).total_seconds()
        if left > -0.2:
            with self.tell.busy("waiting for the second agreement to end"):
                time.sleep(left + 0.2)
        answer = self.tourism.run(*self._query(self.short, TINY))
        self._refusal("a use after the end", answer, ("dateTime",))

    def _at_once(self) -> None:
        tell = self.tell
        tell.say()
        left = USES - len(TOURISM)
        with tell.busy(f"{ATONCE} uses at once (client library), {left} are left"):
            allowed, reasons = asyncio.run(self._storm())
        tell.check(
            allowed == left and sum(reasons.values()) == ATONCE - left,
            f"of {ATONCE} uses at once exactly {allowed} succeed; {left} were left",
        )
        for reason, times in reasons.most_common(3):
            tell.say(f"        {times} times {reason}")

    async def _storm(self) -> tuple[int, Counter[str]]:
        reasons: Counter[str] = Counter()
        async with connect(self.tourism.data) as node:

            async def one() -> bool:
                try:
                    await node.query(self.agreement, TINY, purpose="tourism-planning")
                except Refused as refused:
                    reasons.update([str(refused.reasons[0])])
                    return False
                return True

            done = await asyncio.gather(*(one() for _ in range(ATONCE)))
        return sum(done), reasons

    # 5 ------------------------------------------------------------------------------------------

    def end(self) -> None:
        tell = self.tell
        tell.step(5, "The airport ends an agreement while a query runs")
        tell.command("tourism", ["connector", *self._query(self.third, "SELECT ... (slow)"), "&"])
        running = self.tourism.start_command(*self._query(self.third, SLOW))
        time.sleep(2.0)
        tell.check(running.poll() is None, "a long query is running")
        begun = time.monotonic()
        ended = self.airport.must("agreements", "end", self.third, "--reason", "runway closed")
        answer = finish(running)
        took = time.monotonic() - begun
        tell.check(
            ended["stopped_uses"] == 1 and answer.code != 0,
            f"the running query stopped; both commands were back after {took:.1f} s: "
            f"{answer.error.get('message', answer.text)}",
        )
        told = self._told_of_end()
        tell.check(
            told is not None and told["state"] == "ended",
            f"the bureau was told, with a signed notice: {told['reason'] if told else 'no'}",
        )
        again = self.tourism.run(*self._query(self.third, TINY))
        tell.check(again.code in (3, 4), f"and may not use it any more: {_first(again)}")
        for node in (self.airport, self.tourism):
            acts = self._acts(node, self.third)
            tell.check(
                any("ended" in act for act in acts),
                f"{node.name}'s own log records it: {', '.join(acts)}",
            )

    def _told_of_end(self) -> Mapping[str, Any] | None:
        deadline = time.monotonic() + 5.0
        found: Mapping[str, Any] | None = None
        while time.monotonic() < deadline:
            listed = self.tourism.must("agreements", "list", quiet=True)["agreements"]
            found = next((each for each in listed if each["id"] == self.third), None)
            if found is not None and found["state"] == "ended":
                break
        return found

    def _acts(self, node: Organisation, scope: str) -> list[str]:
        found = node.must("receipts", "list", scope, quiet=True)["receipts"]
        return [receipt["act"] for receipt in found if receipt["kind"] == "act"]

    # 6 ------------------------------------------------------------------------------------------

    def audit(self) -> None:
        tell = self.tell
        tell.step(
            6, "The auditor trusts neither side: one file, the space's public key, no network"
        )
        evidence = self.work / "evidence.json"
        self.airport.must("evidence", "export", self.agreement, "--out", str(evidence))
        key = str(self.space.must("directory", "status", quiet=True)["space_key"])
        tell.say(f"installed at the auditor: {', '.join(self.auditor.packages())}")
        if self.auditor.cut_off:
            door = self.airport.ports["listen"]
            tell.check(not self.auditor.reaches(door), "the auditor's network is cut off")
        else:
            tell.say("NOTE: this machine permits no network namespaces; the network is NOT cut off")
        tell.command("auditor", ["connector-verify", evidence.name, "--space-key", key])
        good = self.auditor.verify(evidence, key)
        tell.aside(good.text)
        tell.check(good.code == 0, "every receipt is checked, and that none is missing")
        changed = auditor.with_a_byte_changed(evidence, 3)
        self._expect_fault(changed, key, "one byte of one receipt is changed")
        removed = auditor.with_a_receipt_removed(evidence, 3)
        self._expect_fault(removed, key, "one receipt is removed")

    def _expect_fault(self, evidence: Path, key: str, what: str) -> None:
        tell = self.tell
        tell.say()
        tell.command("auditor", ["connector-verify", evidence.name, "--space-key", key])
        verdict = self.auditor.verify(evidence, key)
        tell.aside("\n".join(verdict.text.splitlines()[-4:]))
        tell.check(verdict.code != 0, f"{what}: the verifier says so, exit code {verdict.code}")

    # 7 ------------------------------------------------------------------------------------------

    def close(self) -> None:
        tell = self.tell
        tell.step(7, "What both sides' own logs say")
        totals: dict[str, list[int]] = {}
        agree = True
        for agreement in (self.agreement, self.short, self.third):
            found = self.tourism.run("receipts", "reconcile", agreement).value or {}
            agree = agree and bool(found.get("agree"))
            for line in found.get("lines", []):
                entry = totals.setdefault(line["name"], [0, 0])
                entry[0] += line["provider"]
                entry[1] += line["consumer"]
        rows = [(name, *both, both[0] == both[1]) for name, both in totals.items()]
        tell.table(("counted", "by the airport", "by the bureau", "equal"), rows)
        tell.table(("refused because of", "times"), self._refusals_by_reason())
        tell.check(agree and bool(rows), "both sides' meters agree")
        allowed = next((both for name, both in totals.items() if name == "uses_allowed"), [0, 0])
        tell.check(
            allowed == [USES + 1, USES + 1], f"{USES} uses and 1 use were allowed, none twice"
        )

    def _refusals_by_reason(self) -> list[tuple[str, int]]:
        counted: Counter[str] = Counter()
        listed = self.airport.must("receipts", "list", "--limit", "1000", quiet=True)["receipts"]
        for receipt in listed:
            if receipt["outcome"] == "refused":
                counted.update({reason["term"] for reason in receipt["reasons"]})
        return counted.most_common()


def _rounded(values: Iterable[Any]) -> list[Any]:
    return [round(value, 6) if isinstance(value, float) else value for value in values]


def _first(answer: Answer) -> str:
    if answer.reasons:
        reason = answer.reasons[0]
        return f"{reason['term']}: observed {reason['observed']}; allowed {reason['allowed']}"
    return str(answer.error.get("message", answer.text))


def _greets(address: str) -> bool:
    """Whether a TLS client without a certificate gets as far as reading from the door."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), 5) as plain,
            context.wrap_socket(plain) as door,
        ):
            door.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            return bool(door.recv(1))
    except OSError:
        return False
