"""A meter's log, as it is served and as it is exported, read by tlog-scales and our verifier."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from tlog_scales.backend import HttpBackend, LocalBackend, TilesBackend
from tlog_scales.reader import TilesReader

from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.metering.meter import Meter
from connector.operations import exporting
from connector.tlog import tiles
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.note import VerifierKey
from connector.tlog.tiles import Tile
from connector.verifier.folder import LogFolder
from connector.verifier.wholelog import LogVerdict, verify_log
from tests.doors import Client, open_door
from tests.logs import ORIGIN, PUBLIC, open_meter, refusal

SIZE = 700


@pytest.fixture
def storage(tmp_path: Path):
    storage = SegmentLog(tmp_path / "log", segment_bytes=50_000)
    yield storage
    storage.close()


@pytest.fixture
async def meter(storage: SegmentLog):
    meter = await open_meter(storage)
    for first in range(0, SIZE, 70):
        await meter.record([refusal(str(number)) for number in range(first, first + 70)])
    yield meter
    await meter.close()


def export(meter: Meter, folder: Path) -> Path:
    note, size = exporting.choose_checkpoint(meter.log, None, 0)
    for piece in exporting.pieces(meter.log, size, {}, hashes_only=False):
        for file in piece:
            if not file.content:
                continue  # dropped
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


async def test_dropped_entries_are_gone_and_the_rest_still_proves(
    meter: Meter, storage: SegmentLog, tmp_path: Path
) -> None:
    storage.keep(storage.mark(), b"state")
    oldest = storage.segments()[0]
    storage.seal(oldest.start)
    storage.drop(oldest.start)
    async with open_door(meter, tmp_path / "door") as door, Client(base_url=door.url) as client:
        _, token = await door.grants.add("an auditor", 1)
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/tile/entries/000", headers=headers)).status_code == 410
        assert (await client.get("/tile/entries/000")).status_code == 401
        assert (await client.get("/tile/entries/002.p/188", headers=headers)).status_code == 200
        assert (await client.get("/tile/0/000")).status_code == 200
    folder = export(meter, tmp_path / "export")
    assert not [path for path in folder.rglob("*") if path.is_file() and not path.stat().st_size]
    note = meter.checkpoint().checkpoint
    assert root_by_tlog_scales(LocalBackend(folder), note) == parse_checkpoint(note).root
    for allowed in (True, False):
        found = verified(folder, tmp_path / f"uses-{allowed}", allow_dropped=allowed)
        assert found.valid is allowed


def verified(folder: Path, uses: Path, *, allow_dropped: bool) -> LogVerdict:
    core = choose("python")
    with closing(core.open_keys(uses)) as keys:
        return verify_log(
            LogFolder(folder),
            [VerifierKey(ORIGIN, PUBLIC)],
            [],
            core=core,
            uses=keys,
            allow_dropped=allow_dropped,
        )
