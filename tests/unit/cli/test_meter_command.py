"""``connector meter`` and ``connector reporters``: what they write, count, keep and leave with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.cli import meter
from connector.cli.commands import run
from connector.client import reporting
from connector.client.reporting import Refusal, Result, Taken
from connector.core.interface import Fault
from connector.errors import Reason, Unavailable
from connector.identity.reporters import read_file
from tests.unit.fake_node import FakeNode, running

Capture = pytest.CaptureFixture[str]


class FakeReporting:
    """Takes what it is given, or does as ``answer`` says."""

    def __init__(self) -> None:
        self.place: Path | None = None
        self.batches: list[Any] = []
        self.answer: Callable[[int], list[Result]] | None = None
        self.fail_at = 0

    def __call__(self, place: Path, *, patience_s: float) -> FakeReporting:
        self.place = place
        return self

    async def __aenter__(self) -> FakeReporting:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def report(self, reports: Any) -> Taken:
        self.batches.append(reports)
        number = len(self.batches)
        await asyncio.sleep(0)
        if self.fail_at and number >= self.fail_at:
            raise Unavailable("the node is away")
        results = [Result(0, len(one.columns), len(one.columns), {}, None) for one in reports]
        return Taken(tuple(self.answer(number) if self.answer else results), number, b"note")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeReporting:
    fake = FakeReporting()
    monkeypatch.setattr(reporting, "Reporting", fake)
    return fake


def records(folder: Path, count: int = 10) -> Path:
    path = folder / "uses.csv"
    lines = [f"urn:a,u{number},routing,{1_700_000_000_000}" for number in range(count)]
    path.write_text("\n".join(["agreement,use_id,purpose,served", *lines]) + "\n")
    return path


def call(source: Path, *more: object) -> int:
    return run(["meter", "--from", str(source), "--batch", "2", *map(str, more)])


def test_totals(node: FakeReporting, tmp_path: Path, capsys: Capture) -> None:
    assert call(records(tmp_path), "--data", "somewhere") == 0
    assert "10 records, 10 calls" in capsys.readouterr().out
    assert node.place == Path("somewhere")
    assert len(node.batches) == 5
    assert not (tmp_path / "uses.csv.meter-progress").exists()


def some_refused(number: int) -> list[Result]:
    if number == 2:
        return [Result(0, 1, 1, {Fault.DUPLICATE: (1,)}, None)]
    if number == 3:
        return [Result(0, 1, 1, {Fault.EXHAUSTED: (1,)}, None)]
    if number == 4:
        reasons = (Reason("purpose", "x", "y"), Reason("member", "x", "y"))
        return [Result(0, 0, 0, {}, Refusal("refused", "no", reasons))]
    return [Result(0, 2, 2, {}, None)]


def test_what_was_refused(node: FakeReporting, tmp_path: Path, capsys: Capture) -> None:
    node.answer = some_refused
    refused = tmp_path / "refused.jsonl"
    assert call(records(tmp_path), "--refused", refused, "--json") == 3
    done = json.loads(capsys.readouterr().out)
    assert (done["accepted"], done["already_there"]) == (6, 1)
    assert done["refused"] == {"exhausted": 1, "member, purpose": 2}
    told = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(one["row"], one["use_id"], one["refused"]) for one in told] == [
        (6, "u5", "exhausted"),
        (7, "u6", "member, purpose"),
        (8, "u7", "member, purpose"),
    ]


def test_duplicates_alone_are_no_failure(node: FakeReporting, tmp_path: Path) -> None:
    node.answer = lambda number: [Result(0, 0, 0, {Fault.DUPLICATE: (0, 1)}, None)]
    assert call(records(tmp_path)) == 0


def test_a_use_that_is_running_is_refused_and_told(
    node: FakeReporting, tmp_path: Path, capsys: Capture
) -> None:
    node.answer = lambda number: [Result(0, 1, 1, {Fault.RUNNING: (1,)}, None)]
    refused = tmp_path / "refused.jsonl"
    assert call(records(tmp_path, 2), "--refused", refused, "--json") == 3
    done = json.loads(capsys.readouterr().out)
    assert (done["accepted"], done["already_there"], done["refused"]) == (1, 0, {"running": 1})
    assert json.loads(refused.read_text())["use_id"] == "u1"


def test_the_next_run_goes_on(node: FakeReporting, tmp_path: Path, capsys: Capture) -> None:
    """Totals and the file of refused records are as if there had been one run."""
    source, refused = records(tmp_path, 40), tmp_path / "refused.jsonl"
    node.answer = some_refused
    node.fail_at = 10
    assert call(source, "--refused", refused) == 1
    assert "answered up to row 18" in capsys.readouterr().err
    with refused.open("a") as out:
        out.write("half a line that a crash left")
    node.batches.clear()
    node.fail_at, node.answer = 0, None
    assert call(source, "--refused", refused, "--json") == 3
    captured = capsys.readouterr()
    assert "going on after row 18" in captured.err
    done = json.loads(captured.out)
    assert (done["rows"], done["accepted"], done["already_there"]) == (40, 36, 1)
    assert node.batches[0][0].columns.use_ids.startswith(b"u18")
    assert len(refused.read_text().splitlines()) == 3


def test_progress_is_of_one_file(node: FakeReporting, tmp_path: Path, capsys: Capture) -> None:
    source = records(tmp_path, 40)
    node.fail_at = 10
    assert call(source) == 1
    grown = source.read_text() + "urn:a,more,routing,1\n"
    source.write_text(grown.replace("u0", "v0"))
    node.fail_at = 0
    assert call(source) == 4
    assert "of another file" in capsys.readouterr().err
    source.write_text(grown)
    assert call(source, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 41


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "tds-meter-progress/1"}'])
def test_progress_that_makes_no_sense(node: FakeReporting, tmp_path: Path, content: str) -> None:
    source = records(tmp_path)
    (tmp_path / "uses.csv.meter-progress").write_text(content)
    assert call(source) == 2
    assert node.batches == []


def test_a_file_of_refused_records_is_not_overwritten(node: FakeReporting, tmp_path: Path) -> None:
    refused = tmp_path / "refused.jsonl"
    refused.write_text("something\n")
    assert call(records(tmp_path), "--refused", refused) == 2
    assert refused.read_text() == "something\n"


WRONG: dict[str, list[str]] = {
    "no such file": ["--from", "nothing.csv"],
    "an unknown form": ["--from", "x.csv", "--format", "xml"],
    "a form that nobody can tell": ["--from", "x"],
    "Parquet from stdin": ["--from", "-", "--format", "parquet"],
    "no records in a batch": ["--from", "x.csv", "--batch", "0"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_a_wrong_command(node: FakeReporting, words: list[str]) -> None:
    assert run(["meter", *words]) == 2
    assert node.batches == []


def test_batches_travel_ahead_of_their_answers(
    node: FakeReporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = most = 0
    report = node.report

    async def slow(reports: Any) -> Taken:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return await report(reports)

    monkeypatch.setattr(node, "report", slow)
    assert call(records(tmp_path, 60)) == 0
    assert 1 < most <= reporting.WINDOW
    assert meter.REFUSED == 3


@pytest.fixture
def place() -> Iterator[tuple[Path, FakeNode]]:
    with running() as found:
        found[1].on |= {
            "AddReporter": pb.AddReporterResponse(endpoint="h.example:1", door=b"door"),
            "ListReporters": pb.ListReportersResponse(
                reporters=[
                    pb.Reporter(name="gateway", thumbprint="t", added="2026-11-24T00:00:00Z")
                ]
            ),
            "RemoveReporter": pb.RemoveReporterResponse(streams=3),
        }
        yield found


def test_a_reporter_s_file_is_private(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: Capture
) -> None:
    data, fake = place
    out = tmp_path / "g.reporter"
    words = ["reporters", "add", "gateway", "--out", str(out), "--data", str(data)]
    assert run(words) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    file = read_file(out.read_bytes())
    (asked,) = fake.asked_for("AddReporter")
    assert (asked.name, asked.certificate) == ("gateway", file.certificate)
    assert (file.endpoint, file.door) == ("h.example:1", b"door")
    assert b"PRIVATE KEY" in file.key
    assert b"PRIVATE" not in asked.SerializeToString()
    assert run(words) == 2, "a reporter's file is never overwritten"
    assert len(fake.asked_for("AddReporter")) == 1
    assert "holds a private key" in capsys.readouterr().out


def test_no_file_stays_of_a_reporter_that_was_not_added(tmp_path: Path) -> None:
    with running() as (data, fake):
        fake.on["AddReporter"] = lambda request: 1 / 0
        out = tmp_path / "g.reporter"
        assert run(["reporters", "add", "g", "--out", str(out), "--data", str(data)]) != 0
        assert not out.exists()


def test_reporters_are_listed_and_removed(place: tuple[Path, FakeNode], capsys: Capture) -> None:
    assert run(["reporters", "list", "--data", str(place[0])]) == 0
    assert "gateway" in capsys.readouterr().out
    assert run(["reporters", "remove", "gateway", "--data", str(place[0])]) == 0
    assert "3" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["operator", "a b", "../x", ".x", ""])
def test_names_that_make_no_reporter(place: tuple[Path, FakeNode], name: str) -> None:
    assert run(["reporters", "add", name, "--data", str(place[0])]) == 2
    assert place[1].asked_for("AddReporter") == []
