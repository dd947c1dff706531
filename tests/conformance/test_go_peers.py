"""Our logs and our witness against tools of other projects, as they are: Tessera, omniwitness."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.http_witness import HttpWitness
from connector.adapters.memory_log import MemoryLog
from connector.errors import Unavailable
from connector.operations import exporting
from connector.operations.witnessing import FurtherWitnessing
from connector.tlog import cosignature, merkle, tiles
from connector.tlog.checkpoint import parse_checkpoint, verify_checkpoint
from connector.tlog.note import COSIGNATURE_V1, ED25519, VerifierKey
from connector.tlog.tiles import TILE_WIDTH, Tile
from tests.doors import WITNESS, WITNESS_KEY, open_door
from tests.go_peers import require
from tests.logs import ORIGIN, PUBLIC, open_meter, refusal, test_key

LEAVES = 700  # three bundles, the last not full
FOREIGN = "tessera.example/log"
FOREIGN_KEY = test_key("a log of Tessera's")
OMNI = "omni.example/witness"
OMNI_KEY = test_key("omniwitness")
WAIT_S = 20.0
VERDICTS = ("Successfully", "fsck failed", ":Invalid")


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def signer(name: str, key: Ed25519PrivateKey) -> str:
    """A signer key of golang.org/x/mod/sumdb/note."""
    secret = base64.b64encode(bytes([ED25519]) + key.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{VerifierKey(name, public(key)).key_id.hex()}+{secret}"


async def run(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """The exit code and what it wrote, while this process goes on serving."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode()


async def fsck(tmp_path: Path, url: str, *more: str) -> str:
    key = tmp_path / "log.key"
    key.write_text(VerifierKey(ORIGIN, PUBLIC).encode())
    flags = ["--ui=false", "--v=1", f"--public_key={key}"]
    process = await asyncio.create_subprocess_exec(
        *(require("fsck"), f"--storage_url={url}/", *flags, *more),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(WAIT_S):
            while line := (await process.stderr.readline()).decode():
                said += line
                if any(word in line for word in VERDICTS):  # it may not end when it found something
                    break
    finally:
        process.kill()
        await process.wait()
    return said


@pytest.fixture
async def meter():
    meter = await open_meter(MemoryLog())
    await meter.record([refusal(str(number)) for number in range(LEAVES)])
    yield meter
    await meter.close()


def export(meter, folder: Path) -> Path:
    note, size = exporting.choose_checkpoint(meter.log, None, 0)
    for piece in exporting.pieces(meter.log, size, {}, hashes_only=False):
        for file in piece:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(file.content)
    (folder / "checkpoint").write_bytes(note)
    return folder


async def test_tessera_computes_our_served_log_anew(meter, tmp_path: Path) -> None:
    async with open_door(meter, tmp_path / "door") as door:
        _, token = await door.grants.add("an auditor", 1)
        said = await fsck(tmp_path, door.url, f"--bearer_token={token}")
        assert f"Successfully fsck'd log with size {LEAVES}" in said
        assert "Successfully" not in await fsck(tmp_path, door.url)
        assert "401" in await fsck(tmp_path, door.url, "--bearer_token=tdsg_guessed")


async def test_tessera_computes_an_exported_folder_anew(meter, tmp_path: Path) -> None:
    folder = export(meter, tmp_path / "export")
    said = await fsck(tmp_path, f"file://{folder}")
    assert f"Successfully fsck'd log with size {LEAVES}" in said
    bundle = folder / Tile(None, 1).path()
    spoilt = bytearray(bundle.read_bytes())
    spoilt[20] ^= 1
    bundle.write_bytes(bytes(spoilt))
    said = await fsck(tmp_path, f"file://{folder}")
    assert "[1, 2):Invalid" in said
    assert "Successfully" not in said


async def grow_tessera(folder: Path, names: range, policy: Path) -> tuple[int, str]:
    entries = folder.parent / f"entries-{names.start}"
    entries.mkdir()
    for number in names:
        (entries / f"{number:05}").write_text(f"entry {number}")
    key = folder.parent / "tessera.key"
    key.write_text(signer(FOREIGN, FOREIGN_KEY))
    return await run(
        require("posix-oneshot"),
        f"--storage_dir={folder}",
        f"--entries={entries}/*",
        f"--private_key={key}",
        f"--witness_policy_file={policy}",
        "--witness_timeout=5s",
    )


async def test_a_log_of_tesseras_is_witnessed_by_us_and_read_by_our_verifier(
    meter, tmp_path: Path
) -> None:
    folder = tmp_path / "tessera"
    vkey = VerifierKey(WITNESS, public(WITNESS_KEY), COSIGNATURE_V1).encode()
    async with open_door(meter, tmp_path / "door", logs={FOREIGN: [public(FOREIGN_KEY)]}) as door:
        policy = tmp_path / "policy"
        policy.write_text(f"witness ours {vkey} {door.url}\nquorum ours\n")
        for names in (range(3), range(3, 600)):
            code, said = await grow_tessera(folder, names, policy)
            assert code == 0, said
            note = (folder / "checkpoint").read_bytes()
            seen = verify_checkpoint(note, FOREIGN, [public(FOREIGN_KEY)])
            assert seen.size == names.stop
            assert cosignature.verify_cosignature(note, WITNESS, [public(WITNESS_KEY)]) > 0
            last = await door.witness.last(FOREIGN)
            assert last is not None
            assert (last.size, last.root) == (seen.size, seen.root)
    assert _root(folder, seen.size) == seen.root
    for index in (0, 2, 256, 599):
        tile, at = divmod(index, TILE_WIDTH)
        width = tiles.width_at(0, tile, seen.size)
        bundle = (folder / Tile(None, tile, width).path()).read_bytes()
        entry = tiles.parse_bundle(bundle, width)[at]
        assert entry == f"entry {index}".encode()
        proof = merkle.inclusion_proof(index, seen.size, _reader(folder, seen.size))
        merkle.verify_inclusion(merkle.leaf_hash(entry), index, seen.size, proof, seen.root)


async def test_a_log_that_we_do_not_know_is_not_witnessed(meter, tmp_path: Path) -> None:
    vkey = VerifierKey(WITNESS, public(WITNESS_KEY), COSIGNATURE_V1).encode()
    async with open_door(meter, tmp_path / "door", logs={FOREIGN: [PUBLIC]}) as door:
        policy = tmp_path / "policy"
        policy.write_text(f"witness ours {vkey} {door.url}\nquorum ours\n")
        # It tries again for ever, and never publishes a checkpoint.
        attempt = asyncio.create_task(grow_tessera(tmp_path / "tessera", range(3), policy))
        await asyncio.wait([attempt], timeout=2)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        assert await door.witness.last(FOREIGN) is None
        published = tmp_path / "tessera" / "checkpoint"
        assert not published.exists() or parse_checkpoint(published.read_bytes()).size == 0


@asynccontextmanager
async def omniwitness(tmp_path: Path):
    """Its URL; it knows our log, and no other that is alive."""
    command = require("omniwitness")
    (tmp_path / "omni.key").write_text(signer(OMNI, OMNI_KEY))
    vkey = VerifierKey(ORIGIN, PUBLIC).encode()
    (tmp_path / "logs.yaml").write_text(
        f"Logs:\n  - Origin: {ORIGIN}\n    URL: http://127.0.0.1:1/\n    PublicKey: {vkey}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        command,
        f"--private_key_path={tmp_path / 'omni.key'}",
        f"--additional_logs={tmp_path / 'logs.yaml'}",
        f"--listen=127.0.0.1:{port}",
        "--metrics_listen=",
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    peer = HttpWitness(f"http://127.0.0.1:{port}")
    try:
        yield peer
    finally:
        await peer.close()
        process.terminate()
        await process.wait()


async def ask(further: FurtherWitnessing) -> None:
    """As soon as the witness is there."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        try:
            await further.catch_up()
            return
        except Unavailable:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


async def test_omniwitness_cosigns_our_log_as_it_grows(meter, tmp_path: Path) -> None:
    key = VerifierKey(OMNI, public(OMNI_KEY), COSIGNATURE_V1)
    async with omniwitness(tmp_path) as peer:
        for first in (LEAVES, LEAVES + 1, LEAVES + 300):
            # From the second round on a new one: it learns from a 409 what the witness has.
            further = FurtherWitnessing(meter, peer, key, lambda most: 0.0)
            further._size = 0
            await ask(further)
            note = meter.latest_cosigned(OMNI)
            assert note is not None
            assert parse_checkpoint(note).size == meter.checkpoint().size
            assert cosignature.verify_cosignature(note, OMNI, [key.public_key]) > 0
            await meter.record([refusal(f"{first}-{number}") for number in range(100)])
            await further.catch_up()  # grown, and known from where


def _reader(folder: Path, size: int) -> merkle.HashReader:
    def read(level: int, start: int, count: int) -> bytes:
        index, offset = divmod(start, TILE_WIDTH)
        path = folder / Tile(level, index, tiles.width_at(level, index, size)).path()
        return path.read_bytes()[32 * offset : 32 * (offset + count)]

    return tiles.stored_hashes(read)


def _root(folder: Path, size: int) -> bytes:
    return merkle.tree_root(size, _reader(folder, size))


def test_the_tools_are_the_ones_that_were_pinned() -> None:
    require("fsck")
    sums = Path(__file__).parent / "peers" / "go.sum"
    assert hashlib.sha256(sums.read_bytes()).hexdigest()[:16] in require("fsck")
