"""An Eclipse EDC and our node with each other, in both directions: contracts, data, and the end of
either, over loopback HTTP with static tokens. Ours is driven by its commands, the EDC by its
management API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interop.edc.build import require
from tests.interop.edc.management import DataReference, Failed, Json, Management, Peer
from tests.interop.edc.source import source
from tests.interop.ours import OTHER, Pair, pair

SOME = b"year,month\n" + b"".join(b"%d,%d\n" % (2000 + at % 20, at % 12) for at in range(30_000))
OUTSIDE = "ours signed, peer authenticated"
REFUSED, CONFLICT = 3, 4  # exit codes


def permission(*constraints: tuple[str, str, Any]) -> Json:
    names = ("leftOperand", "operator", "rightOperand")
    found = [dict(zip(names, constraint, strict=True)) for constraint in constraints]
    return {"permission": [{"action": "use", **({"constraint": found} if found else {})}]}


RESEARCH = permission(("purpose", "isAnyOf", ["research"]), ("count", "lteq", 5))
SEVERAL = permission(("purpose", "isAnyOf", ["research", "planning"]), ("count", "lteq", 5))
ONCE = permission(("purpose", "eq", "research"), ("count", "lteq", 1))
# What the EDC's operator would write.
ITS_RESEARCH = permission(("odrl:purpose", "eq", "research"))
ITS_LIST = permission(("odrl:purpose", "isAnyOf", ["a", "b"]), ("odrl:count", "lteq", "5"))
ITS_MEMBERS = permission(("https://w3id.example/ns#membership", "eq", "active"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Our node offers three datasets, the EDC four."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "some.csv").write_bytes(SOME)
    with pair(require(), folder) as found, source(SOME) as address:
        for name, terms in (("research", RESEARCH), ("several", SEVERAL), ("once", ONCE)):
            found.publish(folder / "some.csv", name, terms)
        found.publish(folder / "some.csv", "asked", RESEARCH, "--manual-approval")
        for name, terms in (
            ("its-research", ITS_RESEARCH),
            ("its-list", ITS_LIST),
            ("its-members", ITS_MEMBERS),
            ("its-own", {}),
        ):
            found.management.offer(name, address, terms)
        yield found


def fetch(reference: DataReference, scheme: str = "") -> httpx.Response:
    headers = {"Authorization": scheme + reference.authorization}
    return httpx.get(reference.endpoint, headers=headers)


# The EDC is the consumer.


@pytest.fixture(scope="module")
def granted(both: Pair) -> str:
    """The EDC's name for an agreement about our dataset ``research``."""
    offered = both.management.dataset(both.ours, "research")
    return both.management.agreed(both.management.request(both.ours, offered))


@pytest.fixture(scope="module")
def ours(both: Pair, granted: str) -> str:
    """Our name for it: each side has its own."""
    return str(both.negotiation(lambda one: one["dataset_id"] == "research")["agreement_id"])


def test_the_edc_sees_our_catalogue(both: Pair) -> None:
    catalog = both.management.catalog(both.ours)
    assert catalog["participantId"] == both.did
    names = [dataset["@id"] for dataset in catalog["dataset"]]
    assert names == ["research", "several", "once", "asked"]
    formats = [one["format"] for one in catalog["dataset"][0]["distribution"]]
    assert "HttpData-PULL" in formats
    page = both.management.catalog(both.ours, offset=1, limit=2)
    assert [dataset["@id"] for dataset in page["dataset"]] == names[1:3]
    assert both.management.dataset(both.ours, "several")["@id"] == "several"


def test_a_filter_of_the_edcs_own_language_is_refused_with_the_reason(both: Pair) -> None:
    criterion = {"operandLeft": "id", "operator": "=", "operandRight": "once"}
    with pytest.raises(Failed):
        both.management.catalog(both.ours, filterExpression=[criterion])
    refused = both.recorder.exchanges[-1]
    assert refused.status == 400
    assert "filterExpression" in json.loads(refused.answer)["reason"][0]


def test_the_edc_negotiates_and_pulls_from_us(both: Pair, granted: str, ours: str) -> None:
    transfer, reference = both.management.pull(both.ours, granted)
    assert reference.properties["authType"] == "bearer"
    assert fetch(reference).content == SOME
    assert fetch(reference, "Bearer ").content == SOME
    made_up = DataReference(reference.endpoint, "made-up-by-somebody", {})
    assert fetch(made_up).status_code == 401
    pid = both.transfer(transfer, "STARTED")["pid"]
    both.run("transfer", "complete", pid)
    both.management.transferred(transfer, "COMPLETED")
    assert fetch(reference).status_code == 401

    (use,) = [one for one in both.run("receipts", "list", ours)["receipts"] if one["kind"] == "use"]
    assert (use["outcome"], use["purpose"]) == ("allowed", "research")
    assert use["quantities"]["bytes_returned"] == 2 * len(SOME)
    code, verdict = both.verified(ours)
    assert (code, verdict["consumer"]) == (0, OTHER)
    assert any(said.startswith(OUTSIDE) and OTHER in said for said in verdict["assurance"])
    assert verdict["totals"]["provider"]["bytes_returned"] == 2 * len(SOME)


def test_a_pause_and_the_way_back_by_either(both: Pair, granted: str) -> None:
    transfer, first = both.management.pull(both.ours, granted)
    pid = both.transfer(transfer, "STARTED")["pid"]

    both.management.suspend(transfer, "the EDC pauses")
    paused = both.transfer(transfer, "SUSPENDED")
    assert paused["reason"] == "the EDC pauses"
    assert fetch(first).status_code == 401
    both.management.resume(transfer)
    second = both.management.reference(transfer, first)
    both.management.transferred(transfer, "STARTED")
    assert second.authorization != first.authorization
    assert fetch(first).status_code == 401
    assert fetch(second).content == SOME

    both.run("transfer", "suspend", pid, "--reason", "we pause")
    both.management.transferred(transfer, "SUSPENDED")
    assert fetch(second).status_code == 401
    both.run("transfer", "resume", pid)
    third = both.management.reference(transfer, second)
    assert fetch(third).content == SOME
    both.run("transfer", "complete", pid)
    both.management.transferred(transfer, "COMPLETED")


def test_the_end_of_a_transfer_by_either(both: Pair, granted: str) -> None:
    transfer, reference = both.management.pull(both.ours, granted)
    both.management.terminate(transfer, "enough")
    assert both.transfer(transfer, "TERMINATED")["reason"] == "enough"
    assert fetch(reference).status_code == 401

    transfer, reference = both.management.pull(both.ours, granted)
    pid = both.transfer(transfer, "STARTED")["pid"]
    both.run("transfer", "terminate", pid, "--reason", "no more")
    both.management.transferred(transfer, "TERMINATED")
    assert fetch(reference).status_code == 401


def test_numbers_and_lists_that_the_edc_repeats_as_text(both: Pair) -> None:
    offered = both.management.dataset(both.ours, "several")
    agreement = both.management.agreed(both.management.request(both.ours, offered))
    (said,) = [
        message["offer"]
        for message in both.recorder.messages("ContractRequestMessage")
        if isinstance(message["offer"], dict) and message["offer"]["target"] == "several"
    ]
    rights = [one["rightOperand"] for one in said["permission"][0]["constraint"]]
    assert rights == ['[{"@value":"research"},{"@value":"planning"}]', "5"]
    kept = both.negotiation(lambda one: one["dataset_id"] == "several")
    assert kept["offer"]["permission"] == SEVERAL["permission"]
    # Which of the purposes it would be, a transfer cannot say.
    transfer = both.management.transfer(both.ours, agreement)
    both.management.transferred(transfer, "TERMINATED")
    assert "purpose" in both.transfer(transfer, "TERMINATED")["reason"]


def test_no_more_uses_than_agreed(both: Pair) -> None:
    offered = both.management.dataset(both.ours, "once")
    agreement = both.management.agreed(both.management.request(both.ours, offered))
    transfer, reference = both.management.pull(both.ours, agreement)
    assert fetch(reference).content == SOME
    both.management.terminate(transfer, "done")
    both.transfer(transfer, "TERMINATED")
    again = both.management.transfer(both.ours, agreement)
    both.management.transferred(again, "TERMINATED")
    refused = both.transfer(again, "TERMINATED")
    assert (refused["code"], "count" in refused["reason"]) == ("policy", True)


def test_terms_of_the_edcs_own_are_refused(both: Pair) -> None:
    offered = both.management.dataset(both.ours, "research")
    constraint = {"leftOperand": "https://w3id.example/ns#x", "operator": "eq", "rightOperand": "y"}
    offered["hasPolicy"][0]["permission"][0]["constraint"].append(constraint)
    negotiation = both.management.request(both.ours, offered)
    both.management.negotiated(negotiation, "TERMINATED")
    refused = both.negotiation(lambda one: one["peer_pid"] == negotiation)
    assert (refused["state"], refused["code"]) == ("TERMINATED", "terms")
    assert "https://w3id.example/ns#x" in refused["reason"]


def test_what_waits_for_a_person_here(both: Pair) -> None:
    offered = both.management.dataset(both.ours, "asked")

    def waiting(negotiation: str) -> str:
        found = both.negotiation(lambda one: one["peer_pid"] == negotiation and one["waiting"])
        return str(found["pid"])

    negotiation = both.management.request(both.ours, offered)
    both.run("approvals", "approve", waiting(negotiation))
    both.management.agreed(negotiation)

    negotiation = both.management.request(both.ours, offered)
    both.run("approvals", "reject", waiting(negotiation), "--reason", "not you")
    both.management.negotiated(negotiation, "TERMINATED")

    negotiation = both.management.request(both.ours, offered)
    waiting(negotiation)
    both.management.terminate_negotiation(negotiation, "too slow")
    ended = both.negotiation(
        lambda one: one["peer_pid"] == negotiation and one["state"] == "TERMINATED"
    )
    assert ended["reason"] == "too slow"


# We are the consumer.


@pytest.fixture(scope="module")
def bought(both: Pair) -> str:
    """Our name for an agreement about the EDC's ``its-research``."""
    done = both.run("negotiate", "its-research", "--provider", OTHER)
    assert done["states"][-1] == "FINALIZED"
    return str(done["negotiation"]["agreement_id"])


def counterpart(management: Management, pid: str) -> str:
    """The EDC's name for a process that we began."""
    processes = management.transfers() + management.negotiations()
    (found,) = [one for one in processes if one.get("correlationId") == pid]
    return str(found["@id"])


def requested(both: Pair, agreement: str) -> tuple[str, str]:
    """Our name and the EDC's for a transfer that is STARTED."""
    found = both.run("transfer", "request", agreement)["transfer"]
    assert found["state"] == "STARTED", found
    return str(found["pid"]), counterpart(both.management, found["pid"])


def pulled(both: Pair, pid: str, to: Path) -> bytes:
    both.run("transfer", "pull", pid, "--to", to)
    return to.read_bytes()


def test_we_see_the_edcs_catalogue(both: Pair) -> None:
    listed = both.run("catalog", "list", OTHER)["catalog"]
    assert (listed["peer"], listed["signed"]) == (OTHER, False)
    found = {dataset["id"]: dataset for dataset in listed["datasets"]}
    # An offer without a rule is none in DSP's schema, and hides no other.
    assert found.keys() == {"its-research", "its-list", "its-members"}
    assert "HttpData-PULL" in found["its-research"]["formats"]
    assert found["its-research"]["title"] == "its-research"
    unenforced = {name: one["offers"][0]["unenforced"] for name, one in found.items()}
    assert unenforced["its-research"] == unenforced["its-list"] == []
    assert [one["term"] for one in unenforced["its-members"]] == [
        "https://w3id.example/ns#membership"
    ]
    code, said = both.said("negotiate", "its-own", "--provider", OTHER)
    assert (code != 0, "permission" in said) == (True, True)


def test_we_negotiate_and_pull_from_the_edc(both: Pair, bought: str, tmp_path: Path) -> None:
    ours = both.negotiation(lambda one: one["agreement_id"] == bought)
    both.management.agreed(counterpart(both.management, ours["pid"]))
    pid, other = requested(both, bought)
    assert pulled(both, pid, tmp_path / "pulled") == SOME
    both.run("transfer", "complete", pid)
    both.management.transferred(other, "DEPROVISIONED")
    code, said = both.said("transfer", "pull", pid, "--to", tmp_path / "again")
    assert (code, "COMPLETED" in said) == (CONFLICT, True)
    code, verdict = both.verified(bought)
    assert (code, verdict["provider"], verdict["consumer"]) == (0, OTHER, both.did)
    assert any(said.startswith(OUTSIDE) and OTHER in said for said in verdict["assurance"])


def test_our_pause_and_the_edcs(both: Pair, bought: str, tmp_path: Path) -> None:
    pid, other = requested(both, bought)
    both.run("transfer", "suspend", pid, "--reason", "we pause")
    both.management.transferred(other, "SUSPENDED")
    assert both.said("transfer", "pull", pid, "--to", tmp_path / "none")[0] == CONFLICT
    both.run("transfer", "resume", pid)
    both.management.transferred(other, "STARTED")
    both.negotiation(lambda _: has_address(both, pid))
    assert pulled(both, pid, tmp_path / "second") == SOME

    both.management.suspend(other, "the EDC pauses")
    assert both.transfer(other, "SUSPENDED")["reason"] == "the EDC pauses"
    both.management.resume(other)
    both.transfer(other, "STARTED")
    assert pulled(both, pid, tmp_path / "third") == SOME
    both.run("transfer", "complete", pid)


def has_address(both: Pair, pid: str) -> bool:
    found = both.run("transfer", "show", pid)["transfer"]
    return bool(found["data_address"])


def test_our_end_of_a_transfer_and_the_edcs(both: Pair, bought: str) -> None:
    pid, other = requested(both, bought)
    both.run("transfer", "terminate", pid, "--reason", "no more")
    both.management.transferred(other, "DEPROVISIONED")

    pid, other = requested(both, bought)
    both.management.terminate(other, "the EDC ends it")
    assert both.transfer(other, "TERMINATED")["reason"] == "the EDC ends it"


def test_lists_and_numbers_of_the_edcs(both: Pair) -> None:
    done = both.run("negotiate", "its-list", "--provider", OTHER)["negotiation"]
    assert done["state"] == "FINALIZED"
    assert (
        done["offer"]["permission"]
        == permission(("purpose", "isAnyOf", ["a", "b"]), ("count", "lteq", 5))["permission"]
    )


def test_what_cannot_be_enforced_is_shown_and_refused_unless_chosen(both: Pair) -> None:
    before = len(both.management.negotiations())
    code, said = both.said("negotiate", "its-members", "--provider", OTHER)
    assert (code, "https://w3id.example/ns#membership" in said) == (REFUSED, True)
    assert len(both.management.negotiations()) == before
    accept = ("negotiate", "its-members", "--provider", OTHER, "--accept-unenforced")
    assert both.run(*accept)["negotiation"]["state"] == "FINALIZED"


def test_an_agreement_to_other_terms_than_ours_is_refused(both: Pair) -> None:
    """The EDC agrees to its own offer, whatever was asked for."""
    code, said = both.said("negotiate", "its-research", "--provider", OTHER, "--uses", "3")
    assert (code, "not what was negotiated" in said) == (REFUSED, True)
    ours = both.negotiation(lambda one: one["code"] == "agreement")
    both.management.negotiated(counterpart(both.management, ours["pid"]), "TERMINATED")


def test_the_end_of_a_negotiation_before_we_sign(both: Pair, bought: str) -> None:
    both.restart("verify = false")
    try:
        pids = [
            both.run("negotiate", "its-research", "--provider", OTHER)["negotiation"]["pid"]
            for _ in range(3)
        ]
        its = {pid: counterpart(both.management, pid) for pid in pids}
        both.run("negotiate", "--terminate", pids[0], ok=False)
        both.management.negotiated(its[pids[0]], "TERMINATED")

        both.management.terminate_negotiation(its[pids[1]], "changed my mind")
        ended = both.negotiation(lambda one: one["pid"] == pids[1] and one["state"] == "TERMINATED")
        assert ended["reason"] == "changed my mind"

        done = both.run("negotiate", "--accept", pids[2])["negotiation"]
        assert done["state"] == "FINALIZED"
    finally:
        both.restart()


# What gets lost on the way.


def test_answers_to_the_edc_that_are_lost(both: Pair) -> None:
    """It sends again what we had taken, and so do we."""
    theirs = ["/negotiations/request", "/agreement/verification", "/transfers/request", "/start"]
    both.recorder.lose += [*theirs, "/suspension"]
    both.edc.recorder.lose += ["/agreement", "/events", "/start", "/start", "/completion"]
    offered = both.management.dataset(both.ours, "research")
    negotiation = both.management.request(both.ours, offered)
    agreement = both.management.agreed(negotiation)
    negotiations = both.run("negotiate", "--list")["negotiations"]
    assert [one["state"] for one in negotiations if one["peer_pid"] == negotiation] == ["FINALIZED"]

    transfer, reference = both.management.pull(both.ours, agreement)
    assert fetch(reference).content == SOME
    both.management.suspend(transfer, "a pause")
    pid = both.transfer(transfer, "SUSPENDED")["pid"]
    both.management.transferred(transfer, "SUSPENDED")
    both.management.resume(transfer)
    again = both.management.reference(transfer, reference)
    assert fetch(again).content == SOME
    both.run("transfer", "complete", pid)
    both.management.transferred(transfer, "COMPLETED")
    assert (both.recorder.lose, both.edc.recorder.lose) == ([], [])
    known = [one["peer_pid"] for one in both.run("transfer", "list")["transfers"]]
    assert known.count(transfer) == 1


def test_answers_of_the_edc_that_are_lost(both: Pair, tmp_path: Path) -> None:
    both.edc.recorder.lose += ["/agreement/verification", "/transfers/request", "/completion"]
    both.recorder.lose += ["/events", "/start"]
    done = both.run("negotiate", "its-research", "--provider", OTHER)["negotiation"]
    assert done["state"] == "FINALIZED"
    pid, other = requested(both, done["agreement_id"])
    assert pulled(both, pid, tmp_path / "pulled") == SOME
    both.run("transfer", "complete", pid)
    both.management.transferred(other, "DEPROVISIONED")
    assert (both.recorder.lose, both.edc.recorder.lose) == ([], [])


# On the wire.


def test_what_was_said_on_the_wire(both: Pair, granted: str, bought: str) -> None:
    """Nothing that the EDC sent was refused, but what was to be; what we sent, it took."""
    refused = [seen for seen in both.recorder.exchanges if seen.path.startswith("/2025-1/")]
    refused = [seen for seen in refused if seen.status >= 400]
    assert [seen.path for seen in refused] in ([], ["/2025-1/catalog/request"])
    assert not [str(seen) for seen in both.edc.recorder.exchanges if seen.status >= 500]
    for agreement in both.edc.recorder.messages("ContractAgreementMessage"):
        shown = agreement["agreement"]
        assert isinstance(shown, dict)
        assert not [key for key in shown if ":" in key]
        assert "tds" not in json.dumps(agreement)
    for message in both.edc.recorder.messages("TransferStartMessage"):
        assert "@id" in message


def test_an_address_of_ours_without_a_slash_at_its_end(both: Pair, bought: str) -> None:
    (first, *_) = both.edc.recorder.messages("ContractRequestMessage")
    assert first["callbackAddress"] == both.ours.url
    assert Peer(both.did, str(first["callbackAddress"])) == both.ours
