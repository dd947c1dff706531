"""The segments of a log through the management socket, and the commands that show them."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from connector._pb.dataspace.management.v1.management_pb2_grpc import (
    add_LogServiceServicer_to_server,
)
from connector.adapters.segments import SegmentLog
from connector.cli.commands import run
from connector.client.log import NodeLog, connect_log
from connector.core.choose import choose
from connector.errors import Conflict, InvalidInput, NotFound
from connector.identity.ourselves import Ourselves
from connector.metering.meter import Meter
from connector.operations.grants import Grants
from connector.operations.retention import Retention
from connector.transport.calls import OpenCalls
from connector.transport.grpc.guard import Guard
from connector.transport.grpc.log_access import LogServicer
from connector.transport.grpc.server import Door
from tests.logs import KEY, ORIGIN, PROVIDER, ManualClock, open_meter, refusal

NO_GRANTS = cast(Grants, None)


@dataclass
class Running:
    socket: Path
    storage: SegmentLog
    meter: Meter
    clock: ManualClock
    log: NodeLog

    async def command(self, *arguments: str) -> int:
        return await asyncio.to_thread(run, ["log", *arguments, "--data", str(self.socket)])


async def nobodys(id: str) -> None:
    raise NotFound("no such agreement")


@pytest.fixture
async def running(socket_enabled: None) -> AsyncIterator[Running]:
    clock, calls = ManualClock(), OpenCalls()
    folder = Path(tempfile.mkdtemp())  # a socket's path has to be short
    storage = SegmentLog(folder / "log", core=choose("python"), segment_bytes=3000)
    meter = await open_meter(storage, clock)
    for number in range(20):
        await meter.record([refusal(str(number), scope=PROVIDER)])
        clock.advance(3600)
    door = Door(Guard(None, calls, clock, lambda *_: None), calls, 80 << 20)
    ourselves = Ourselves(PROVIDER, "Airport", ORIGIN, KEY)
    with ThreadPoolExecutor(1) as beside:
        retention = Retention(storage, meter, beside, nobodys)  # type: ignore[arg-type]
        add_LogServiceServicer_to_server(
            LogServicer(meter, ourselves, clock, NO_GRANTS, retention), door.server
        )
        await door.open_socket(folder / "s.sock")
        async with connect_log(folder / "s.sock") as log:
            yield Running(folder / "s.sock", storage, meter, clock, log)
        await door.drain(0)
        await meter.close()
        storage.close()
    shutil.rmtree(folder)


def document(out: str) -> dict[str, Any]:
    """The node's own log is on the same stdout here."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(out, out.index("{\n"))[0]
    return found


async def test_listed_sealed_and_dropped(running: Running) -> None:
    log, storage = running.log, running.storage
    before = await log.segments()
    assert [segment.form for segment in before] == ["complete"] * (len(before) - 1) + ["open"]
    assert [(s.start, s.first, s.leaves, s.stored) for s in before] == [
        (s.start, s.first, s.leaves, s.stored) for s in storage.segments()
    ]
    sealed = [segment async for segment in log.seal()]
    assert [(s.start, s.form) for s in sealed] == [(s.start, "sealed") for s in before[:-1]]
    assert [segment async for segment in log.seal()] == []
    storage.keep(storage.mark(), b"state")
    limit = running.clock.now()
    found = await log.droppable(limit)
    assert (found.segments, found.kept_by) == (tuple(sealed), "it is still written to")
    dropped = await log.drop(limit, found.segments[:2])
    assert [(s.start, s.form) for s in dropped.segments] == [
        (s.start, "dropped") for s in sealed[:2]
    ]
    with pytest.raises(Conflict):
        await log.drop(limit, found.segments[:1])
    assert (await log.drop(limit, ())).segments == ()
    assert [s.form for s in await log.segments()][:3] == ["dropped", "dropped", "sealed"]


async def test_a_time_that_has_not_come(running: Running) -> None:
    with pytest.raises(InvalidInput):
        await running.log.droppable(running.clock.now() + timedelta(seconds=1))


async def test_the_commands(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert await running.command("segments") == 0
    shown = capsys.readouterr().out
    assert "complete" in shown
    assert "open" in shown
    assert await running.command("drop", "--before", "2026-11-24") == 0
    shown = capsys.readouterr().out
    assert "nothing can be dropped" in shown
    assert "not sealed" in shown
    assert await running.command("seal") == 0
    assert "sealed" in capsys.readouterr().out
    assert await running.command("seal") == 0
    assert "nothing to seal" in capsys.readouterr().out
    running.storage.keep(running.storage.mark(), b"state")
    assert await running.command("drop", "--before", "2026-11-24T00:00:00Z", "--yes") == 0
    shown = capsys.readouterr().out
    assert "can be dropped" in shown
    assert "dropped; proofs of what remains" in shown
    assert "the next segment stays: it has a receipt of 2026-11-24" in shown
    assert await running.command("segments", "--json") == 0
    forms = [segment["form"] for segment in document(capsys.readouterr().out)["segments"]]
    assert forms[0] == "dropped"
    assert forms[-1] == "open"
    assert await running.command("drop", "--before", "2026-11-24", "--json") == 0
    assert document(capsys.readouterr().out)["segments"] == []


async def test_without_a_yes_nothing_is_dropped(
    running: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await running.command("seal") == 0
    running.storage.keep(running.storage.mark(), b"state")
    asked: list[str] = []

    def no(text: str, **more: object) -> bool:
        import typer

        asked.append(text)
        raise typer.Abort

    monkeypatch.setattr("typer.confirm", no)
    assert await running.command("drop", "--before", "2026-11-24") != 0
    assert asked == ["drop them for ever?"]
    assert {segment.form for segment in await running.log.segments()} == {"sealed", "open"}


@pytest.mark.parametrize("time", ["", "yesterday", "2026-13-01", "2026-11-23T10:00:00", "1"])
async def test_a_time_that_is_none(
    running: Running, capsys: pytest.CaptureFixture[str], time: str
) -> None:
    assert await running.command("drop", "--before", time) == 2
    assert "--before" in capsys.readouterr().err
