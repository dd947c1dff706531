"""Reporters of a running node: files of use records, a node that dies, reporters that may not."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import pytest_asyncio

from connector.adapters.clock import SystemClock
from connector.client.records import Form, read_batches
from connector.client.reporting import Reporting
from connector.errors import Unauthenticated, Unavailable
from connector.identity.certificates import make_tls_key
from connector.identity.reporters import (
    ReporterFile,
    key_pem,
    make_certificate,
    read_file,
    write_file,
)
from connector.model.participant import unb64url
from connector.verifier.verify import verify_file
from tests.e2e.gateway import publish
from tests.e2e.space import CONNECTOR, Space, connector, free_ports, people, space

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ROWS = 10_000
USES = 20_000  # that each agreement allows


@dataclass
class Place:
    """A provider with a reporter, and agreements with a consumer on data that may flow."""

    space: Space
    folder: Path
    dataset: str
    reporter: Path

    @property
    def data(self) -> Path:
        return self.space.members["provider"].data

    async def agreement(self) -> str:
        async with self.space.node("consumer") as node:
            done = await node.negotiate("did:web:provider.example", self.dataset)
        assert done.state == "FINALIZED", done
        return done.agreement_id

    async def verify(self, agreement: str, calls: int) -> None:
        """As an auditor does, by the provider's evidence alone."""
        async with self.space.node("provider") as node:
            evidence = await node.export_evidence(agreement)
            key = (await node.status()).space_key
        verdict = verify_file(evidence, unb64url(key, 32))
        assert verdict.valid, verdict.as_json()
        assert verdict.totals["provider"]["allowed"] == calls, verdict.totals

    async def uses(self, agreement: str) -> int:
        async with self.space.node("provider") as node:
            (found,) = [one for one in await node.agreements() if one.id == agreement]
        return found.uses


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Place]:
    (port,) = free_ports(1)
    async with space(folder) as found:
        settings = f'[reporting]\nlisten = "127.0.0.1:{port}"\n'
        provider = await found.admit("provider", ["provider", "consumer"], settings)
        await found.admit("consumer", ["consumer"])
        dataset = await publish(found, people(folder / "people.csv"), "routing", USES)
        reporter = folder / "gateway.reporter"
        connector("reporters", "add", "gateway", "--out", reporter, "--data", provider.data)
        assert reporter.stat().st_mode & 0o777 == 0o600
        yield Place(found, folder, dataset, reporter)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with opened(tmp_path_factory.mktemp("r")) as place:
        yield place


def rows(agreement: str, count: int = ROWS, name: str = "u") -> list[dict[str, Any]]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [
        {
            "agreement": agreement,
            "use_id": f"{name}{number}",
            "purpose": "routing",
            "served": now,
            "calls": 1 + number % 2,
            "bytes_returned": number,
        }
        for number in range(count)
    ]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(records)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def meter(place: Place, source: Path, *more: object, ok: bool = True) -> Any:
    words = ("meter", "--from", source, "--reporter", place.reporter, *more)
    return connector(*words, ok=ok)


async def proven(place: Place, agreement: str, number: int, name: str) -> None:
    """One record, shown to an auditor who has the log's key and these two files."""
    out = place.folder / f"{name}.tlog-proof"
    words = ("receipts", "proof", agreement, number, "--out", out, "--data", place.data)
    done = connector(*words)
    verify = [str(Path(sys.executable).with_name("connector-verify")), "proof", str(out)]
    key = connector("log", "keys", "--data", place.data)["log"]
    checked = await asyncio.to_thread(
        subprocess.run,
        [*verify, "--leaf", done["leaf"], "--key", key, "--json"],
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()
    receipt = json.loads(checked.stdout)["receipt"]
    assert (receipt["scope"], receipt["number"]) == (agreement, number)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
async def test_a_file_of_each_form_goes_in_and_is_evidence(place: Place, suffix: str) -> None:
    agreement = await place.agreement()
    source = write(place.folder / f"uses.{suffix}", rows(agreement))
    done = meter(place, source)
    calls = ROWS * 3 // 2
    assert (done["accepted"], done["calls"], done["refused"]) == (ROWS, calls, {})
    again = meter(place, source)
    assert (again["accepted"], again["already_there"]) == (0, ROWS)
    assert await place.uses(agreement) == calls
    async with place.space.node("provider") as node:
        last = (await node.receipts(agreement, limit=1)).receipts[-1]
    assert (last.kind, last.reporter, last.use_id) == ("record", "gateway", f"u{ROWS - 1}")
    await proven(place, agreement, last.number, suffix)
    if suffix == "parquet":
        await place.verify(agreement, calls)


async def test_records_are_refused_by_name_and_the_rest_goes_in(place: Place) -> None:
    agreement = await place.agreement()
    records = rows(agreement, 10, "x")
    records[1]["use_id"] = "a b"
    records[2]["served"] = "2020-01-01T00:00:00Z"
    records[3]["calls"] = USES + 1
    records[4]["agreement"] = "urn:uuid:none"
    records[5]["purpose"] = "marketing"
    records[6]["use_id"] = "x0"
    source = write(place.folder / "mixed.jsonl", records)
    refused = place.folder / "refused.jsonl"
    command = ["meter", "--from", source, "--data", place.data, "--refused", refused]
    done = connector(*command, ok=False)
    assert done["refused"] == {
        "exhausted": 1,
        "malformed": 1,
        "not_found": 1,
        "out_of_time": 1,
        "purpose": 1,
    }
    assert (done["accepted"], done["already_there"]) == (4, 1)
    told = [json.loads(line) for line in refused.read_text().splitlines()]
    assert {(one["row"], one["refused"]) for one in told} == {
        (2, "malformed"),
        (3, "out_of_time"),
        (4, "exhausted"),
        (5, "not_found"),
        (6, "purpose"),
    }
    async with place.space.node("provider") as node:
        last = (await node.receipts(agreement, limit=1)).receipts[-1]
    assert last.reporter == "operator"


async def test_an_agreement_that_has_ended_takes_no_reports(place: Place) -> None:
    agreement = await place.agreement()
    source = write(place.folder / "ended.jsonl", rows(agreement, 2, "e"))
    assert meter(place, source)["accepted"] == 2
    async with place.space.node("consumer") as node:
        await node.end_agreement(agreement, reason="enough")
    await asyncio.sleep(0.5)
    source = write(place.folder / "ended.jsonl", rows(agreement, 2, "late"))
    assert meter(place, source, ok=False)["refused"] == {"agreement": 2}
    assert await place.uses(agreement) == 3


async def test_a_node_that_dies_forgets_nothing_and_the_command_goes_on(place: Place) -> None:
    agreement = await place.agreement()
    source = write(place.folder / "crash.jsonl", rows(agreement, ROWS, "k"))
    provider = place.space.members["provider"]
    command = [*CONNECTOR, "meter", "--from", str(source), "--reporter", str(place.reporter)]
    process = await asyncio.create_subprocess_exec(
        *command, "--batch", "50", "--json", stdout=asyncio.subprocess.PIPE
    )
    while await place.uses(agreement) < 500:
        assert process.returncode is None, "it was quicker than this test"
    provider.kill()
    provider.start()
    out, _ = await process.communicate()
    done = json.loads(out)
    assert process.returncode == 0, out.decode()
    assert done["accepted"] + done["already_there"] == ROWS
    assert await place.uses(agreement) == ROWS * 3 // 2
    await place.verify(agreement, ROWS * 3 // 2)


async def test_a_command_that_dies_goes_on_where_it_stopped(place: Place) -> None:
    agreement = await place.agreement()
    source = write(place.folder / "resume.jsonl", rows(agreement, ROWS, "r"))
    kept = source.with_name(source.name + ".meter-progress")
    command = [*CONNECTOR, "meter", "--from", str(source), "--reporter", str(place.reporter)]
    process = await asyncio.create_subprocess_exec(*command, "--batch", "20")
    while not kept.exists():
        assert process.returncode is None
        await asyncio.sleep(0.005)
    process.kill()
    await process.wait()
    answered = json.loads(kept.read_text())["rows"]
    assert 0 < answered < ROWS
    done = meter(place, source)
    assert done["rows"] == ROWS
    assert done["accepted"] + done["already_there"] == ROWS
    assert not kept.exists()
    assert await place.uses(agreement) == ROWS * 3 // 2


async def test_stdin(place: Place) -> None:
    agreement = await place.agreement()
    lines = write(place.folder / "stdin.jsonl", rows(agreement, 5, "s")).read_bytes()
    process = await asyncio.create_subprocess_exec(
        *CONNECTOR,
        "meter",
        "--from",
        "-",
        "--data",
        str(place.data),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(lines)
    assert process.returncode == 0, out.decode()
    assert b"5 records, 7 calls" in out


async def test_a_reporter_that_is_removed_is_cut_and_others_stay(place: Place) -> None:
    agreement = await place.agreement()
    other = place.folder / "other.reporter"
    connector("reporters", "add", "other", "--out", other, "--data", place.data)
    records = rows(agreement, 3, "c")
    batches = [
        next(read_batches(io.BytesIO(json.dumps(record).encode()), Form.JSONL, 10))
        for record in records
    ]
    reports = [[group.report for group in batch.groups if group.report] for batch in batches]
    async with Reporting(other, patience_s=0.5) as reporting:
        assert (await reporting.report(reports[0])).results[0].count == 1
        assert connector("reporters", "remove", "other", "--data", place.data)["streams"] == 1
        with pytest.raises((Unauthenticated, Unavailable)):
            await reporting.report(reports[1])
    async with Reporting(place.reporter) as reporting:
        assert (await reporting.report(reports[2])).results[0].count == 1
    names = connector("reporters", "list", "--data", place.data)["reporters"]
    assert [one["name"] for one in names] == ["gateway"]


async def test_a_certificate_that_nobody_registered(place: Place) -> None:
    agreement = await place.agreement()
    known = read_file(place.reporter.read_bytes())
    key = make_tls_key()
    certificate = make_certificate(key, "gateway", SystemClock().now(), 1)
    forged = place.folder / "forged.reporter"
    forged.write_bytes(
        write_file(ReporterFile(known.endpoint, "gateway", key_pem(key), certificate, known.door))
    )
    source = write(place.folder / "forged.jsonl", rows(agreement, 2))
    command = ["meter", "--from", source, "--reporter", forged, "--patience", "0.5"]
    assert connector(*command, ok=False)["error"]["code"] == "unavailable"
    assert await place.uses(agreement) == 0


async def test_reports_are_not_taken_at_the_members_door(place: Place) -> None:
    """A reporter's certificate opens its own door alone."""
    known = read_file(place.reporter.read_bytes())
    async with place.space.node("provider") as node:
        members = (await node.status()).endpoint
    other = place.folder / "members.reporter"
    other.write_bytes(
        write_file(ReporterFile(members, known.name, known.key, known.certificate, known.door))
    )
    source = write(place.folder / "door.jsonl", rows("urn:any", 1))
    command = ["meter", "--from", source, "--reporter", other, "--patience", "0.5"]
    assert connector(*command, ok=False)["error"]["code"] == "unavailable"
