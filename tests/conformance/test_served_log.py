"""A meter's log, as it is served and as it is exported, read by tlog-scales and our verifier."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tlog_scales.backend import HttpBackend, LocalBackend, TilesBackend
from tlog_scales.reader import TilesReader

from connector.adapters.segments import SegmentLog
from connector.metering.meter import Meter
from connector.operations import exporting
from connector.tlog import tiles
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.tiles import Tile
from tests.doors import open_door
from tests.logs import open_meter, refusal

SIZE = 700


@pytest.fixture
async def meter(tmp_path: Path):
    storage = SegmentLog(tmp_path / "log", segment_bytes=50_000)
    meter = await open_meter(storage)
    for first in range(0, SIZE, 70):
        await meter.record([refusal(str(number)) for number in range(first, first + 70)])
    yield meter
    await meter.close()
    storage.close()


def export(meter: Meter, folder: Path) -> Path:
    note, size = exporting.choose_checkpoint(meter.log, None, 0)
    for piece in exporting.pieces(meter.log, size, {}, hashes_only=False):
        for file in piece:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(file.content)
    (folder / "checkpoint").write_bytes(note)
    return folder


def root_by_tlog_scales(backend: TilesBackend, note: bytes) -> bytes:
    theirs = TilesReader(backend)
    theirs.set_size(parse_checkpoint(note).size)
    return theirs.calculate_root_hash()


async def test_it_reads_an_exported_folder(meter: Meter, tmp_path: Path) -> None:
    folder = export(meter, tmp_path / "export")
    note = meter.checkpoint().checkpoint
    assert parse_checkpoint(note).size == SIZE
    assert root_by_tlog_scales(LocalBackend(folder), note) == parse_checkpoint(note).root


async def test_it_reads_the_door(meter: Meter, tmp_path: Path) -> None:
    async with open_door(meter, tmp_path / "door") as door:
        _, token = await door.grants.add("an auditor", 1)
        backend = HttpBackend(door.url)
        note = await asyncio.to_thread(backend.get, "checkpoint")
        assert note == meter.checkpoint().checkpoint
        root = await asyncio.to_thread(root_by_tlog_scales, backend, note)
        assert root == parse_checkpoint(note).root
        path = Tile(None, 2, tiles.width_at(0, 2, SIZE)).path()
        assert await asyncio.to_thread(backend.get, path) is None
        backend.session.headers["Authorization"] = f"Bearer {token}"
        bundle = await asyncio.to_thread(backend.get, path)
        assert bundle == meter.log.bundle(path)
