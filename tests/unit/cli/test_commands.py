"""The command line: what is printed, where, and with which exit code."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest

from connector import config
from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.cli.commands import run
from connector.cli.configuration import render
from connector.verifier import cli as verifier
from tests.unit.fake_node import (
    AGREEMENT,
    DATASET,
    LEAF,
    OFFER,
    STREAM,
    TOKEN,
    TRANSFER,
    FakeNode,
    Fault,
    negotiation,
    refusal,
    running,
    summary,
    transfer,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place() -> Iterator[tuple[Path, FakeNode]]:
    with running() as found:
        yield found


@pytest.fixture
def office() -> Iterator[tuple[Path, FakeNode]]:
    with running(directory=True) as found:
        yield found


def call(data: Path, *words: str) -> int:
    return run([*words, "--data", str(data)])


def as_json(capsys: Capture, data: Path, *words: str) -> tuple[int, Any]:
    code = call(data, *words, "--json")
    return code, json.loads(capsys.readouterr().out)


COMMANDS = [
    ["status"],
    ["enrol", "e30.e30.x"],
    ["catalog", "search", "航班"],
    ["catalog", "show", DATASET],
    ["negotiate", DATASET],
    ["negotiate", "--accept", "urn:pid:1"],
    ["negotiate", "--list"],
    ["approvals", "list"],
    ["approvals", "approve", "urn:pid:1"],
    ["approvals", "reject", "urn:pid:1", "--reason", "no"],
    ["approvals", "counter", "urn:pid:1", "--uses", "5"],
    ["propose", "did:web:tourism.example", DATASET],
    ["propose", "did:web:tourism.example", DATASET, "--uses", "5"],
    ["agreements", "list"],
    ["agreements", "show", AGREEMENT],
    ["agreements", "end", AGREEMENT, "--reason", "done"],
    ["transfer", "request", AGREEMENT],
    ["transfer", "list", "--agreement", AGREEMENT, "--open"],
    ["transfer", "show", TRANSFER],
    *(["transfer", word, TRANSFER] for word in ("start", "resume", "complete")),
    *(["transfer", word, TRANSFER, "--reason", "r"] for word in ("suspend", "terminate")),
    ["query", AGREEMENT, "--purpose", "planning", "--sql", "SELECT 1"],
    ["receipts", "list"],
    ["receipts", "list", AGREEMENT],
    ["receipts", "reconcile", AGREEMENT],
    ["doctor"],
]
OFFICE_COMMANDS = [
    ["directory", "status"],
    ["directory", "invite", "Airport", "--role", "provider", "--valid", "30m"],
    ["directory", "members"],
    ["directory", "suspend", "did:web:airport.example", "--reason", "r"],
    ["directory", "restore", "did:web:airport.example", "--reason", "r"],
    ["directory", "revoke", "did:web:airport.example", "--reason", "r"],
    ["doctor"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_speaks_text_and_json(
    place: tuple[Path, FakeNode], capsys: Capture, words: list[str]
) -> None:
    assert call(place[0], *words) == 0
    assert capsys.readouterr().out.strip()
    code, value = as_json(capsys, place[0], *words)
    assert code == 0
    assert "error" not in value


@pytest.mark.parametrize("words", OFFICE_COMMANDS, ids=" ".join)
def test_every_directory_command_speaks_text_and_json(
    office: tuple[Path, FakeNode], capsys: Capture, words: list[str]
) -> None:
    assert call(office[0], *words) == 0
    assert capsys.readouterr().out.strip()
    code, value = as_json(capsys, office[0], *words)
    assert code == 0
    assert "error" not in value


def test_a_transfer_is_asked_for_and_its_token_shown_only_on_demand(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    assert call(place[0], "transfer", "request", AGREEMENT, "--format", "X") == 0
    said = capsys.readouterr().out
    assert said.startswith("REQUESTED\nSTARTED\n")
    assert "https://airport.example/pull" in said
    (asked,) = place[1].asked_for("RequestTransfer")
    assert (asked.agreement_id, asked.format) == (AGREEMENT, "X")
    for words in (["show", TRANSFER], ["show", TRANSFER, "--json"]):
        assert call(place[0], "transfer", *words) == 0
        assert TOKEN not in capsys.readouterr().out
        assert call(place[0], "transfer", *words, "--secrets") == 0
        assert TOKEN in capsys.readouterr().out


def test_a_transfer_that_was_refused_is_a_refusal(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    ended = transfer("TERMINATED", code="policy", reason="count: observed 21; allowed 20")
    place[1].on["GetTransfer"] = pb.GetTransferResponse(transfer=ended)
    assert call(place[0], "transfer", "request", AGREEMENT) == 3
    assert "observed 21" in capsys.readouterr().out


def test_what_a_person_decides_about_a_transfer(place: tuple[Path, FakeNode]) -> None:
    for word in ("start", "suspend", "resume", "complete", "terminate"):
        assert call(place[0], "transfer", word, TRANSFER) == 0
        assert place[1].asked_for("DecideTransfer")[-1].action == word


def test_help_names_the_story_and_is_quick() -> None:
    script = (
        "import sys\nfrom connector.cli.commands import run\ncode = run(['--help'])\n"
        "heavy = {'grpc', 'pyarrow', 'duckdb', 'google.protobuf'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("init", "serve", "enrol", "publish", "negotiate", "query", "doctor"):
        assert f"\n  {command} " in done.stdout


def test_the_version_is_said(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("connector ")
    assert "\ncore: native (" in said or "\ncore: python (" in said


# --- init -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "load"),
    [(["init"], config.load_node), (["directory", "init"], config.load_directory)],
)
def test_init_makes_a_private_folder_that_loads(
    tmp_path: Path, capsys: Capture, words: list[str], load: Callable[[Path], Any]
) -> None:
    data = tmp_path / "n"
    name = 'Harbour "East" 港口\\'
    assert call(data, *words, "--did", "did:web:h.example", "--name", name) == 0
    assert "next: connector" in capsys.readouterr().out
    assert load(data).name == name
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "connector.toml").stat().st_mode & 0o777 == 0o600


def test_a_new_node_has_a_door_for_other_makes(tmp_path: Path) -> None:
    words = ["init", "--did", "did:web:h.example", "--name", "H"]
    assert call(tmp_path / "a", *words) == 0
    assert config.load_node(tmp_path / "a").dsp == config.Dsp(listen="127.0.0.1:9480")
    assert call(tmp_path / "b", *words, "--dsp", "127.0.0.1:9") == 0
    assert config.load_node(tmp_path / "b").dsp.listen == "127.0.0.1:9"
    assert call(tmp_path / "c", *words, "--dsp", "") == 0
    assert config.load_node(tmp_path / "c").dsp == config.Dsp()


def test_init_overwrites_nothing(tmp_path: Path, capsys: Capture) -> None:
    words = ["init", "--did", "did:web:h.example", "--name", "H"]
    assert call(tmp_path / "a", *words) == 0
    before = (tmp_path / "a" / "connector.toml").read_bytes()
    assert call(tmp_path / "a", *words) == 4
    assert (tmp_path / "a" / "connector.toml").read_bytes() == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").touch()
    assert call(tmp_path / "b", *words) == 4


@pytest.mark.parametrize(
    "bad",
    [["--did", "airport"], ["--did", "did:web:h.example", "--listen", "nowhere"]],
)
def test_init_leaves_nothing_half_made(tmp_path: Path, capsys: Capture, bad: list[str]) -> None:
    data = tmp_path / "n"
    assert call(data, "init", "--name", "H", *bad) == 2
    assert not (data / "connector.toml").exists()
    assert call(data, "init", "--name", "H", "--did", "did:web:h.example") == 0


@pytest.mark.parametrize("kind", [config.Node, config.Directory])
def test_the_configuration_explains_every_key(kind: type[Any]) -> None:
    text = render(kind, {"did": "did:web:h.example", "name": "H"})
    uncommented = "\n".join(
        line[2:] if line.startswith("# ") and " = " in line else line for line in text.splitlines()
    )
    tables = {"policy": config.Policy, "limits": config.Limits}
    found = tomllib.loads(uncommented)
    for field in fields(kind):
        assert field.name in found
        for inner in fields(tables[field.name]) if field.name in tables else ():
            assert found[field.name][inner.name] == inner.default
            about = text.split(f"# {inner.name} = ")[0].splitlines()[-1]
            assert about != f"# {inner.name}", "a key without an explanation"


# --- publish, negotiate ---------------------------------------------------------------------------


def test_publish_turns_flags_into_terms(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    data, fake = place
    source = tmp_path / "flights.csv"
    source.write_text("a\n1\n")
    flags = "--purpose planning --uses 20 --until 2027-01-31 --aggregates-only --row-cap 500"
    groups = "--minimum-group 10 --privacy-unit tailnum --hide flight --hide time_hour"
    words = ["publish", str(source), "--title", "T", *flags.split(), *groups.split()]
    assert call(data, *words, "--accept-free-sql", "--dimension", "dest") == 0
    out, err = capsys.readouterr()
    assert "336,776" in out
    assert "warning: careful" in err
    (request,) = fake.asked_for("PublishDataset")
    assert request.table == "flights"
    assert request.source == str(source)
    assert list(request.hidden_columns) == ["flight", "time_hour"]
    assert json.loads(request.terms) == {
        "permission": [
            {
                "action": "use",
                "constraint": [
                    {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["planning"]},
                    {"leftOperand": "count", "operator": "lteq", "rightOperand": 20},
                    {
                        "leftOperand": "dateTime",
                        "operator": "lt",
                        "rightOperand": "2027-01-31T00:00:00.000Z",
                    },
                    {"leftOperand": "tds:output", "operator": "eq", "rightOperand": "aggregate"},
                    {
                        "leftOperand": "tds:minimumGroup",
                        "operator": "gteq",
                        "rightOperand": 10,
                        "unit": "tailnum",
                    },
                    {
                        "leftOperand": "tds:hiddenColumns",
                        "operator": "isNoneOf",
                        "rightOperand": ["flight", "time_hour"],
                    },
                    {"leftOperand": "tds:rowCap", "operator": "lteq", "rightOperand": 500},
                ],
            }
        ]
    }


BAD_PUBLICATIONS = {
    "no terms": [],
    "a group without a unit": ["--minimum-group", "10"],
    "a time without a zone": ["--until", "2027-01-31T00:00:00"],
    "no time": ["--until", "soon"],
    "terms twice": ["--uses", "3", "--terms", "TERMS"],
    "unreadable terms": ["--terms", "/nonexistent/terms.json"],
    "terms that are no terms": ["--terms", "NOTTERMS"],
    "no uses": ["--uses", "0"],
}


@pytest.mark.parametrize("flags", BAD_PUBLICATIONS.values(), ids=BAD_PUBLICATIONS)
def test_a_publication_that_says_nonsense_is_refused_before_the_node(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture, flags: list[str]
) -> None:
    data, fake = place
    (tmp_path / "s.csv").touch()
    (tmp_path / "TERMS").write_text(json.dumps({"permission": OFFER["permission"]}))
    (tmp_path / "NOTTERMS").write_text('{"permision": []}')
    given = [str(tmp_path / word) if word.endswith("TERMS") else word for word in flags]
    assert call(data, "publish", str(tmp_path / "s.csv"), "--title", "T", *given) == 2
    assert not fake.asked


def test_negotiating_for_other_terms_keeps_the_rest(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    data, fake = place
    code, value = as_json(capsys, data, "negotiate", DATASET, "--uses", "50")
    assert (code, value["states"]) == (0, ["REQUESTED", "FINALIZED"])
    (request,) = fake.asked_for("Negotiate")
    assert request.provider == "did:web:airport.example"
    assert request.offer_id == "urn:offer:1"
    constraints = json.loads(request.terms)["permission"][0]["constraint"]
    assert {c["leftOperand"]: c["rightOperand"] for c in constraints} == {
        "purpose": ["planning"],
        "count": 50,
    }


def test_an_offer_as_it_stands_is_asked_for_without_terms(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    assert call(place[0], "negotiate", DATASET) == 0
    assert place[1].asked_for("Negotiate")[0].terms == b""
    assert "next: connector query" in capsys.readouterr().out


def test_a_counter_offer_that_waits_says_how_to_answer(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    data, fake = place
    fake.on["Negotiate"] = [negotiation("REQUESTED"), negotiation("OFFERED", waiting=True)]
    assert call(data, "negotiate", DATASET) == 0
    assert "negotiate --accept urn:pid:1" in capsys.readouterr().out


def test_a_terminated_negotiation_is_a_refusal(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    place[1].on["Negotiate"] = [negotiation("TERMINATED")]
    assert call(place[0], "negotiate", DATASET) == 3


@pytest.mark.parametrize(
    "words",
    [[], [DATASET, "--accept", "x"], ["--accept", "x", "--terminate", "y"], [DATASET, "--list"]],
)
def test_negotiate_does_one_thing_at_a_time(
    place: tuple[Path, FakeNode], capsys: Capture, words: list[str]
) -> None:
    assert call(place[0], "negotiate", *words) == 2
    assert not place[1].asked


def test_an_unknown_dataset_and_agreement_are_not_found(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    assert call(place[0], "negotiate", "urn:uuid:other") == 4
    assert call(place[0], "agreements", "show", "urn:uuid:other") == 4
    assert "what to do" in capsys.readouterr().err


# --- query ----------------------------------------------------------------------------------------


def ask(data: Path, *more: str) -> int:
    return call(data, "query", AGREEMENT, "--purpose", "planning", *more)


def test_a_result_goes_to_stdout_and_its_receipt_beside_it(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    assert ask(place[0], "--sql", "SELECT 1", "--format", "csv") == 0
    out, err = capsys.readouterr()
    assert out.startswith('"dest","n"\n"LAX",3\n')
    assert "receipt 7" in err
    assert "groups_withheld 1" in err


def test_a_result_as_json_has_columns_rows_and_receipt(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    code, value = as_json(
        capsys, place[0], "query", AGREEMENT, "--purpose", "p", "--sql", "SELECT 1"
    )
    assert code == 0
    assert value["columns"] == ["dest", "n"]
    assert value["rows"][0] == {"dest": "LAX", "n": 3}
    assert value["receipt"]["outcome"] == "allowed"


def test_a_peers_text_cannot_drive_the_terminal(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    reason = pb.Reason(term="purpose", observed="\x1b[2Jx\r", allowed="planning")
    place[1].on["Query"] = [pb.QueryResponse(summary=summary("refused", reasons=[reason]))]
    assert ask(place[0], "--sql", "SELECT 1") == 3
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\r" not in err


def test_a_result_is_written_in_the_form_of_the_files_name(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "r.arrow"
    assert ask(place[0], "--sql", "SELECT 1", "--out", str(out)) == 0
    assert out.read_bytes() == STREAM
    assert out.stat().st_mode & 0o777 == 0o600
    assert ask(place[0], "--sql", "SELECT 1", "--out", str(tmp_path / "r.xlsx")) == 2


def test_sql_comes_from_a_file_or_an_option_not_both(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "q.sql").write_text("SELECT 2")
    assert ask(place[0], "--file", str(tmp_path / "q.sql")) == 0
    assert place[1].asked_for("Query")[0].query == "SELECT 2"
    assert ask(place[0], "--file", str(tmp_path / "q.sql"), "--sql", "SELECT 1") == 2
    assert ask(place[0]) == 2
    assert ask(place[0], "--file", str(tmp_path / "none.sql")) == 2
    assert ask(place[0], "--sql", "") == 2


def test_a_refusal_says_term_observed_and_allowed(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    reason = pb.Reason(term="purpose", observed="marketing", allowed="planning")
    place[1].on["Query"] = [pb.QueryResponse(summary=summary("refused", reasons=[reason]))]
    assert ask(place[0], "--sql", "SELECT 1") == 3
    out, err = capsys.readouterr()
    assert out == ""
    for word in ("purpose", "marketing", "planning", "receipt 7"):
        assert word in err
    code = ask(place[0], "--sql", "SELECT 1", "--json")
    error = json.loads(capsys.readouterr().out)["error"]
    assert code == 3
    assert error["code"] == "refused"
    assert error["reasons"] == [{"term": "purpose", "observed": "marketing", "allowed": "planning"}]
    assert error["receipt"]["number"] == 7


# --- errors ---------------------------------------------------------------------------------------

EXITS = [
    (grpc.StatusCode.INTERNAL, "internal", 1),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited", 1),
    (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input", 2),
    (grpc.StatusCode.NOT_FOUND, "not_found", 4),
    (grpc.StatusCode.FAILED_PRECONDITION, "conflict", 4),
    (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", 5),
    (grpc.StatusCode.ABORTED, "peer_fault", 6),
    (grpc.StatusCode.ABORTED, "verification_failed", 6),
]


@pytest.mark.parametrize(("status", "code", "leaves"), EXITS)
def test_exit_codes_say_whose_fault_it_is(
    place: tuple[Path, FakeNode],
    capsys: Capture,
    status: grpc.StatusCode,
    code: str,
    leaves: int,
) -> None:
    def fail(_: object) -> None:
        raise Fault(status, "no", error_code=code)

    place[1].on["EndAgreement"] = fail
    found, value = as_json(capsys, place[0], "agreements", "end", AGREEMENT, "--reason", "x")
    assert found == leaves
    assert value["error"]["code"] == code
    if code != "invalid_input":
        assert value["error"]["hint"]


def test_a_refused_enrolment_is_a_refusal(place: tuple[Path, FakeNode], capsys: Capture) -> None:
    def refuse(_: object) -> None:
        raise refusal("invitation", "already used", "a fresh one")

    place[1].on["Enrol"] = refuse
    code, value = as_json(capsys, place[0], "enrol", "e30.e30.x")
    assert code == 3
    assert value["error"]["reasons"][0]["term"] == "invitation"


def test_no_node_is_running_says_how_to_start_it(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "n"
    call(data, "init", "--did", "did:web:h.example", "--name", "H")
    capsys.readouterr()
    assert call(data, "status") == 1
    err = capsys.readouterr().err
    assert f"no node is running in {data}" in err
    assert f"connector serve --data {data}" in err
    code, value = as_json(capsys, data, "doctor")
    assert code == 1
    assert [check["ok"] for check in value["checks"]] == [True, True, False]


def test_serve_refuses_a_folder_of_the_other_role(tmp_path: Path, capsys: Capture) -> None:
    call(tmp_path / "d", "directory", "init", "--did", "did:web:h.example", "--name", "H")
    assert call(tmp_path / "d", "serve") == 2
    assert "connector directory serve" in capsys.readouterr().err


def test_a_folder_that_others_can_enter_is_told(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    place[0].chmod(0o755)
    assert call(place[0], "doctor") == 1
    assert f"chmod 700 {place[0]}" in capsys.readouterr().out


USAGE = {
    "no such command": ["fly"],
    "no such option": ["status", "--fast"],
    "missing argument": ["agreements", "show"],
    "wrong type": ["publish", "x", "--title", "T", "--uses", "many"],
    "an invitation without roles": ["directory", "invite", "Airport"],
    "a duration that is none": ["directory", "invite", "A", "--role", "r", "--valid", "soon"],
}


@pytest.mark.parametrize("words", USAGE.values(), ids=USAGE)
def test_a_wrong_command_line_is_2_in_both_forms(
    tmp_path: Path, capsys: Capture, words: list[str]
) -> None:
    assert run(words) == 2
    assert capsys.readouterr().out == ""
    assert run([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"] is not None


def test_reconcile_leaves_with_6_when_the_sides_differ(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    line = pb.ReconcileLine(name="uses_allowed", provider=4, consumer=3)
    place[1].on["Reconcile"] = pb.ReconcileResponse(lines=[line], agree=False)
    assert call(place[0], "receipts", "reconcile", AGREEMENT) == 6
    assert "DIFFER" in capsys.readouterr().out


def test_evidence_is_not_overwritten_and_says_how_to_check(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "e.json"
    words = ["evidence", "export", AGREEMENT, "--out", str(out)]
    assert call(place[0], *words) == 0
    assert "connector-verify" in capsys.readouterr().out
    assert out.read_bytes() == b'{"format":"tds-evidence/1"}'
    assert call(place[0], *words) == 4
    assert call(place[0], *words, "--force") == 0


def test_a_receipt_s_proof_is_checked_as_the_command_says(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    data, fake = place
    out = tmp_path / "a receipt.tlog-proof"
    words = ["receipts", "proof", AGREEMENT, "7", "--out", str(out)]
    assert call(data, *words) == 0
    (request,) = fake.asked_for("GetReceiptProof")
    assert (request.agreement_id, request.number) == (AGREEMENT, 7)
    leaf = tmp_path / "a receipt.tlog-proof.leaf"
    assert leaf.read_bytes() == LEAF
    _, _, line = capsys.readouterr().out.partition("check it anywhere: ")
    command, *told = shlex.split(line)
    assert command == "connector-verify"
    assert verifier.main(told) == 0
    capsys.readouterr()
    out.unlink()
    assert call(data, *words) == 4, "the receipt's bytes are not overwritten either"
    assert not out.exists()
    capsys.readouterr()
    code, value = as_json(capsys, data, *words, "--force")
    assert (code, value["path"], value["leaf"]) == (0, str(out), str(leaf))
    assert value["key"] in told


@pytest.mark.parametrize("number", ["0", "-1", "one"])
def test_receipts_are_numbered_from_1(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture, number: str
) -> None:
    out = tmp_path / "p"
    assert call(place[0], "receipts", "proof", AGREEMENT, "--out", str(out), "--", number) == 2
    assert not place[1].asked


def test_a_receipt_that_is_not_there_leaves_no_file(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    def fail(_: object) -> None:
        raise Fault(grpc.StatusCode.NOT_FOUND, "dropped", error_code="gone")

    place[1].on["GetReceiptProof"] = fail
    out = tmp_path / "p"
    assert call(place[0], "receipts", "proof", AGREEMENT, "7", "--out", str(out)) == 4
    assert list(tmp_path.iterdir()) == []


def test_an_invitation_goes_to_a_private_file(
    office: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    paper = tmp_path / "airport.invitation"
    words = ["directory", "invite", "Airport", "--role", "provider", "--out", str(paper)]
    assert call(office[0], *words) == 0
    assert paper.stat().st_mode & 0o777 == 0o600
    assert office[1].asked_for("Invite")[0].valid_seconds == 86_400
    assert call(office[0], *words) == 2, "an invitation file is never overwritten"
    with running() as (data, fake):
        assert call(data, "enrol", "--file", str(paper)) == 0
        assert fake.asked_for("Enrol")[0].invitation == "e30.e30.x"
