"""A log as files: whole, again, further, and never wrong."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import cast

import pytest

from connector._pb.dataspace.management.v1.management_pb2_grpc import (
    add_LogServiceServicer_to_server,
)
from connector.adapters.grant_store import SqliteGrantStore
from connector.adapters.memory_log import MemoryLog
from connector.client import log as client
from connector.client.channel import Calls
from connector.client.log import NodeLog
from connector.errors import Gone, InvalidInput, VerificationFailed
from connector.identity.ourselves import Ourselves
from connector.identity.tokens import LOG_KIND, TokenVerifier
from connector.metering.meter import Meter
from connector.operations.grants import Grants
from connector.operations.retention import Retention
from connector.tlog.cosignature import add_line, cosign
from connector.tlog.note import parse_verifier_key
from connector.transport.calls import OpenCalls
from connector.transport.grpc.guard import Guard
from connector.transport.grpc.log_access import LogServicer
from connector.transport.grpc.server import Door
from tests.logs import CONSUMER, KEY, ORIGIN, PROVIDER, PUBLIC, ManualClock, open_meter, refusal
from tests.logs import test_key as key_of

NO_RETENTION = cast(Retention, None)  # none of its calls are made here


@asynccontextmanager
async def served(meter: Meter):
    """The log over a real management socket."""
    clock, calls = ManualClock(), OpenCalls()
    folder = Path(tempfile.mkdtemp())  # a socket's path has to be short
    door = Door(Guard(None, calls, clock, lambda *_: None), calls, 80 << 20)
    ourselves = Ourselves(PROVIDER, "Airport", ORIGIN, KEY)
    with closing(SqliteGrantStore(folder / "grants.db")) as store:
        grants = Grants(store, clock, Random(1).randbytes)
        servicer = LogServicer(meter, ourselves, clock, grants, NO_RETENTION)
        add_LogServiceServicer_to_server(servicer, door.server)
        await door.open_socket(folder / "s.sock")
        calls_to = Calls(folder / "s.sock")
        try:
            yield NodeLog(calls_to)
        finally:
            await calls_to.close()
            await door.drain(0)
            shutil.rmtree(folder)


@pytest.fixture
async def meter():
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 300)
    yield meter
    await meter.close()


@pytest.fixture
async def log(meter, socket_enabled: None):
    async with served(meter) as log:
        yield log


async def grow(meter: Meter, name: str, count: int) -> None:
    await meter.record([refusal(f"{name}{number}") for number in range(count)])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_every_file_is_what_the_door_serves(meter, log, tmp_path: Path) -> None:
    done = await log.export(tmp_path / "out")
    found = files(tmp_path / "out")
    assert (done.size, done.files, done.dropped) == (300, len(found) - 1, 0)
    assert found.pop("checkpoint") == meter.checkpoint().checkpoint
    assert set(found) == {
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    }
    for path, content in found.items():
        read = meter.log.bundle if "entries" in path else meter.log.tile
        assert content == read(path)


async def test_a_second_run_writes_what_is_new(meter, log, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await log.export(folder)
    before = {path: stamp(folder / path) for path in ("tile/0/000", "tile/entries/000")}
    await grow(meter, "b", 500)
    done = await log.export(folder)
    assert done.size == 800
    assert {path: stamp(folder / path) for path in before} == before
    fresh = tmp_path / "fresh"
    await log.export(fresh)
    old, new = files(folder), files(fresh)
    assert {path: old[path] for path in new} == new
    assert set(old) - set(new) == {"tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"}


def stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 5])
async def test_stopped_and_begun_again(
    meter, log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    folder = tmp_path / "out"
    left = stop

    def write(self: object, path: str, content: bytes) -> None:
        nonlocal left
        if not left:
            raise InvalidInput("the disk is full")
        left -= 1
        real(self, path, content)

    real = client._Folder.write
    with monkeypatch.context() as patch:
        patch.setattr(client._Folder, "write", write)
        if stop < 5:
            with pytest.raises(InvalidInput):
                await log.export(folder)
            assert not _there(folder / "checkpoint")
    await log.export(folder)
    await log.export(tmp_path / "fresh")
    assert files(folder) == files(tmp_path / "fresh")


async def test_a_tile_of_another_size_is_written_again(meter, log, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await log.export(folder)
    whole = files(folder)
    cut(folder / "tile/0/000")
    await log.export(folder)
    assert files(folder) == whole


async def test_tiles_that_do_not_give_the_root(meter, log, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await log.export(folder)
    await grow(meter, "b", 300)
    before = (folder / "checkpoint").read_bytes()
    real = client._Folder.write

    def spoilt(self: object, path: str, content: bytes) -> None:
        real(self, path, bytes(len(content)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client._Folder, "write", spoilt)
        with pytest.raises(VerificationFailed):
            await log.export(folder)
    assert (folder / "checkpoint").read_bytes() == before


async def test_hashes_alone(meter, log, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await log.export(folder, hashes_only=True)
    assert not any("entries" in path for path in files(folder))
    await log.export(folder)
    assert "tile/entries/000" in files(folder)


async def test_what_was_cosigned_comes_first(meter, log, tmp_path: Path) -> None:
    note = meter.checkpoint().checkpoint
    witness = key_of("w")
    line = cosign(note, "w.example", witness, 5)
    public = witness.public_key().public_bytes_raw()
    await meter.add_cosignature(add_line(note, line), "w.example", [public])
    await grow(meter, "b", 100)
    assert (await log.export(tmp_path / "out")).size == 300
    assert b"w.example" in files(tmp_path / "out")["checkpoint"]
    assert (await log.export(tmp_path / "out", size=400)).size == 400
    with pytest.raises(InvalidInput, match="300 or 400"):
        await log.export(tmp_path / "out", size=350)
    with pytest.raises(InvalidInput, match="ahead"):
        await log.export(tmp_path / "out", size=300)


async def test_an_empty_log(socket_enabled: None, tmp_path: Path) -> None:
    meter = await open_meter(MemoryLog())
    async with served(meter) as log:
        done = await log.export(tmp_path / "out")
        assert (done.size, set(files(tmp_path / "out"))) == (0, {"checkpoint"})
    await meter.close()


async def test_dropped_entries_are_left_out(
    meter, log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = meter.log.bundle

    def bundle(path: str) -> bytes:
        if path == "tile/entries/000":
            raise Gone("dropped")
        return real(path)

    monkeypatch.setattr(meter.log, "bundle", bundle)
    done = await log.export(tmp_path / "out")
    assert done.dropped == 1
    assert "tile/entries/000" not in files(tmp_path / "out")
    assert "tile/entries/001.p/44" in files(tmp_path / "out")


async def test_another_logs_folder_is_left_alone(meter, log, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    other = meter.checkpoint().checkpoint.replace(ORIGIN.encode(), b"other.example/log")
    (folder / "checkpoint").write_bytes(other)
    with pytest.raises(InvalidInput, match="another log"):
        await log.export(folder)
    assert files(folder) == {"checkpoint": other}


async def test_a_folder_that_cannot_be_written(log, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput):
        await log.export(tmp_path / "file")


PATHS = ("../../outside", "/etc/outside", "tile/0/../../../outside", "checkpoint", "tile/0/0", "")


async def test_a_path_that_is_no_tiles_is_not_written(tmp_path: Path) -> None:
    folder = client._Folder(tmp_path / "out")
    for path in PATHS:
        with pytest.raises(InvalidInput):
            folder.write(path, b"x")
    assert not files(tmp_path)


async def test_pieces_do_not_grow_with_the_log(meter, monkeypatch: pytest.MonkeyPatch) -> None:
    from connector.operations import exporting

    monkeypatch.setattr(exporting, "PIECE_BYTES", 10_000)
    await grow(meter, "b", 1000)
    found = list(exporting.pieces(meter.log, 1300, {}, hashes_only=True))
    assert len(found) == 3
    assert max(sum(len(file.content) for file in piece) for piece in found) <= 10_000 + 8192


async def test_grants_keys_and_tokens(meter, log) -> None:
    token, expires = await log.grant("an auditor", days=2)
    assert token.startswith("tdsg_")
    (grant,) = await log.grants()
    assert (grant.name, grant.expires) == ("an auditor", expires)
    await log.revoke("an auditor")
    assert await log.grants() == ()
    keys = await log.keys()
    assert parse_verifier_key(keys.log).public_key == PUBLIC
    assert (parse_verifier_key(keys.log).type, parse_verifier_key(keys.witness).type) == (1, 4)
    clock = ManualClock()
    verifier = TokenVerifier.of_bearers(CONSUMER, LOG_KIND, started=clock.now())
    verifier.verify(
        await log.token(CONSUMER), issuer=PROVIDER, keys=[PUBLIC], thumbprint=None, now=clock.now()
    )
    for audience in (PROVIDER, "nobody", ""):
        with pytest.raises(InvalidInput):
            await log.token(audience)


def _there(path: Path) -> bool:
    return path.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
