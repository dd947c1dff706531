"""Steps 1 to 3: joining the space, publishing, agreeing."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from deploy.demo import flights
from deploy.demo.cast import CLOCK, GROUP, USES, Cast, query
from deploy.demo.queries import TINY
from deploy.demo.space import Organisation, finish

SHORT_USES = 5  # of the second agreement
SHORT_LIFE_S = 9  # seconds that the second agreement lasts

HIDDEN = ("flight", "time_hour")
DIMENSIONS = ("year", "month", "day", "hour", "carrier", "origin", "dest")


def found_the_space(cast: Cast) -> None:
    tell = cast.tell
    tell.step(1, "A directory and two connectors start, and both join the space")
    cast.space.init()
    cast.space.serve()
    for node in (cast.airport, cast.tourism, cast.stranger):
        node.init()
        node.serve()
    with tell.busy("starting four processes"):
        waits = [n.wait_ready() for n in (cast.space, cast.airport, cast.tourism)]
        cast.stranger.wait_ready()
    tell.check(True, f"all answer after {max(waits):.1f} s, each in a folder of its own")
    spent = ""
    for node, role in ((cast.airport, "provider"), (cast.tourism, "consumer")):
        paper = cast.work / f"{node.nick}.invitation"
        invite = ("directory", "invite", node.name, "--role", role, "--valid", "10m")
        cast.space.must(*invite, "--out", str(paper))
        joined = node.must("enrol", "--file", str(paper))
        state = node.must("status", quiet=True)
        tell.need(
            state["state"] == "ready" and bool(joined["space"]),
            f"{node.name} is a member, as {role}; its certificate holds until "
            f"{joined['certificate_expires'][:10]}",
            json.dumps(state),
        )
        spent = str(paper)
    refused = cast.stranger.run("enrol", "--file", spent)
    tell.check(
        refused.code not in (0, 1, 2),
        f"a third node with the spent invitation is refused: {refused.error.get('message')}",
    )
    cast.stranger.stop()
    cast.stranger.process = None
    tell.check(
        not _greets(cast.airport.ports["listen"]),
        "without a member's certificate the airport's door does not even say hello",
    )


def publish(cast: Cast) -> None:
    tell = cast.tell
    tell.step(2, "The airport publishes its flights, under terms")
    until = (CLOCK.now() + timedelta(days=90)).date().isoformat()
    words = ["publish", str(cast.csv), "--title", "Flights from New York 2013 (纽约航班)"]
    words += ["--description", "On-time data of all departures from EWR, JFK and LGA"]
    words += ["--keyword", "aviation", "--keyword", "旅游", "--csv-null", "NA"]
    words += ["--classification", "important", "--purpose", "tourism-planning"]
    words += ["--aggregates-only", "--minimum-group", str(GROUP), "--privacy-unit", "tailnum"]
    words += ["--uses", str(USES), "--until", until, "--accept-free-sql"]
    words += [word for column in HIDDEN for word in ("--hide", column)]
    words += [word for column in DIMENSIONS for word in ("--dimension", column)]
    found = cast.airport.must(*words)
    tell.check(
        found["rows"] == flights.ROWS,
        f"{found['rows']:,} rows; the node keeps a copy without the hidden columns",
    )
    for warning in found["warnings"]:
        tell.say(f"warning: {warning}")
    tell.check(
        any("compares the answers" in warning for warning in found["warnings"]),
        "the owner is warned that differences of answers can reveal",
    )
    cast.dataset = found["dataset_id"]


def agree(cast: Cast) -> None:
    tell = cast.tell
    tell.step(3, "The bureau finds the offer, and the two make agreements")
    found = _search(cast, "航班")
    tell.need(
        [each["@id"] for each in found] == [cast.dataset],
        "the directory's catalogue finds it by a Chinese word",
        json.dumps(found),
    )
    _read_offer(cast, found[0])
    first = cast.tourism.must("negotiate", cast.dataset)
    tell.check(
        first["states"] == ["REQUESTED", "AGREED", "VERIFIED", "FINALIZED"],
        f"as offered: {' -> '.join(first['states'])}",
    )
    cast.agreement = first["negotiation"]["agreement_id"]
    tell.need(bool(cast.agreement), f"agreement {cast.agreement}")
    _bargain(cast)
    third = cast.tourism.must("negotiate", cast.dataset)
    cast.third = third["negotiation"]["agreement_id"]
    held = {a["id"]: a for a in cast.tourism.must("agreements", "list")["agreements"]}
    given = {a["id"]: a for a in cast.airport.must("agreements", "list", quiet=True)["agreements"]}
    tell.check(
        set(held) == set(given) == {cast.agreement, cast.short, cast.third}
        and all(held[each]["document"] == given[each]["document"] for each in held),
        "both hold the same three agreements, byte for byte, signed by both",
    )


def _search(cast: Cast, words: str) -> Sequence[Mapping[str, Any]]:
    """The catalogue, as soon as the directory has what was just published."""
    cast.tell.command("tourism", ["connector", "catalog", "search", words])
    deadline = time.monotonic() + 5.0
    while True:
        found = cast.tourism.must("catalog", "search", words, quiet=True)["datasets"]
        if found or time.monotonic() > deadline:
            return list(found)


def _read_offer(cast: Cast, dataset: Mapping[str, Any]) -> None:
    offer = dataset["hasPolicy"][0]
    cast.tell.say(f"offer: {dataset['title']}, class {dataset['tds:classification']}")
    for constraint in offer["permission"][0]["constraint"]:
        right = constraint["rightOperand"]
        shown = ", ".join(right) if isinstance(right, list) else right
        unit = f" {constraint['unit']}" if constraint.get("unit") else ""
        cast.tell.say(f"  {constraint['leftOperand']} {constraint['operator']} {shown}{unit}")


def _bargain(cast: Cast) -> None:
    """The bureau asks for more, the airport's person offers less, the bureau accepts."""
    tell = cast.tell
    ask = ("negotiate", cast.dataset, "--uses", "50", "--follow", "20")
    tell.command("tourism", ["connector", *ask])
    asked = cast.tourism.start_command(*ask)
    waiting = _first_waiting(cast, cast.airport)
    until = CLOCK.now() + timedelta(seconds=SHORT_LIFE_S)
    cast.short_until = until
    counter = ("approvals", "counter", waiting, "--uses", str(SHORT_USES))
    cast.airport.must(*counter, "--until", until.isoformat(timespec="milliseconds"))
    offered = finish(asked)
    states = list((offered.value or {}).get("states", []))
    pid = (offered.value or {}).get("negotiation", {}).get("pid", "")
    tell.need(
        states[-1:] == ["OFFERED"], "50 uses are asked; a person offers 5 instead", offered.text
    )
    accepted = cast.tourism.must("negotiate", "--accept", pid)
    states += [s for s in accepted["states"] if s != states[-1]]
    tell.check(
        states == ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED"],
        f"with a counter-offer: {' -> '.join(states)}",
    )
    cast.short = accepted["negotiation"]["agreement_id"]
    early = cast.tourism.run(*query(cast.short, TINY), quiet=True)
    left = (until - CLOCK.now()).total_seconds()
    tell.check(early.code == 0, f"the second agreement works; it ends in {left:.0f} s")


def _first_waiting(cast: Cast, node: Organisation) -> str:
    node.tell.command(node.nick, ["connector", "approvals", "list"])
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        found = node.must("approvals", "list", quiet=True)["negotiations"]
        if found:
            return str(found[0]["pid"])
    cast.tell.need(False, "the request waits for a person at the airport")
    return ""


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
