"""A log made by another implementation, kept as it wrote it, read by ours: no tool is needed."""

from pathlib import Path

import pytest

from connector.core.interface import Core
from connector.errors import ConnectorError
from connector.tlog import merkle, tiles
from connector.tlog.checkpoint import Checkpoint, verify_checkpoint
from connector.tlog.merkle import root_of_subtrees
from connector.tlog.note import parse_verifier_key
from connector.tlog.tiles import TILE_WIDTH, Tile, width_at

FOLDER = Path(__file__).parents[1] / "vectors" / "tessera"
SIZES = [1, 3, 256, 257, 300]
KEY = parse_verifier_key((FOLDER / "vkey").read_text().strip())


def checkpoint(size: int) -> Checkpoint:
    note = (FOLDER / "checkpoints" / str(size)).read_bytes()
    return verify_checkpoint(note, KEY.name, [KEY.public_key])


def file(level: int | None, index: int, size: int) -> bytes:
    width = width_at(level or 0, index, size)
    return (FOLDER / Tile(level, index, width).path()).read_bytes()


def packed(size: int) -> bytes:
    return b"".join(file(None, index, size) for index in range(-(-size // TILE_WIDTH)))


def read(size: int) -> merkle.HashReader:
    def hashes(level: int, start: int, count: int) -> bytes:
        index, at = divmod(start, TILE_WIDTH)
        return file(level, index, size)[at * 32 : (at + count) * 32]

    return tiles.stored_hashes(hashes)


@pytest.mark.parametrize("size", SIZES)
def test_its_entries_give_its_tiles_and_its_root(core: Core, size: int) -> None:
    found = checkpoint(size)
    assert found.size == size
    entries = packed(size)
    assert tiles.parse_bundle(entries, size) == [f"entry {n}".encode() for n in range(size)]
    hashes = core.leaf_hashes(entries)
    subtrees, completed = core.extend(0, [], hashes)
    assert root_of_subtrees(subtrees) == found.root
    assert completed[0] == b"".join(file(0, index, size) for index in range(-(-size // TILE_WIDTH)))
    assert completed.get(1, b"") == (file(1, 0, size) if size >= TILE_WIDTH else b"")


@pytest.mark.parametrize("size", [257, 300])
def test_its_tiles_give_proofs_that_verify(core: Core, size: int) -> None:
    root = checkpoint(size).root
    for index in (0, 1, 254, 255, 256, size - 1):
        leaf = merkle.leaf_hash(f"entry {index}".encode())
        proof = merkle.inclusion_proof(index, size, read(size))
        core.verify_inclusion(leaf, index, size, proof, root)
        with pytest.raises(ConnectorError):
            core.verify_inclusion(leaf, index, size, proof, checkpoint(3).root)
    for old in (1, 3, 256):
        proof = merkle.consistency_proof(old, size, read(size))
        merkle.verify_consistency(old, checkpoint(old).root, size, root, proof)


def test_a_spoilt_checkpoint_is_refused() -> None:
    note = (FOLDER / "checkpoints" / "300").read_bytes()
    with pytest.raises(ConnectorError):
        verify_checkpoint(note.replace(b"\n300\n", b"\n301\n"), KEY.name, [KEY.public_key])
