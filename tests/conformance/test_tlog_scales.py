"""The log against tlog-scales, which shares no code with us."""

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import PlainEd25519Signer, Vkey
from tlog_scales.tlog import Checkpoint as OtherCheckpoint
from tlog_scales.tlog import ConsistencyProof, InclusionProof
from tlog_scales.writer import TilesWriter

from connector.core.reference import Reference
from connector.tlog import checkpoint, cosignature, merkle, note, tiles
from connector.tlog.tiles import Tile

MANY = [merkle.leaf_hash(str(number).encode()) for number in range(70)]
READ = merkle.reader_of(MANY)
ROOT_AT = [merkle.root_of(MANY[:size]) for size in range(len(MANY) + 1)]


def test_it_accepts_every_inclusion_proof() -> None:
    for size in (1, 2, 3, 7, 8, 33, 64, 70):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, READ)
            merkle.verify_inclusion(MANY[index], index, size, proof, ROOT_AT[size])
            InclusionProof(index, size, proof).check(MANY[index], ROOT_AT[size])


def test_it_accepts_every_consistency_proof() -> None:
    for new in (0, 1, 2, 3, 7, 8, 33, 64, 70):
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, READ)
            merkle.verify_consistency(old, ROOT_AT[old], new, ROOT_AT[new], proof)
            ConsistencyProof(old, new, proof).check(ROOT_AT[old], ROOT_AT[new])


def test_it_signs_and_verifies_the_same_notes() -> None:
    log_key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log").digest())
    witness_key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"witness").digest())
    origin, witness = "airport.example/log", "space.example/log"
    ours = checkpoint.sign_checkpoint(origin, 42, ROOT_AT[42], log_key)
    theirs = OtherCheckpoint.make_signed(
        origin, 42, ROOT_AT[42], [PlainEd25519Signer(origin, log_key)]
    )
    assert theirs.serialize().encode() == ours
    line = cosignature.cosign(ours, witness, witness_key, 1_800_000_000)
    parsed = OtherCheckpoint.from_text(cosignature.add_line(ours, line).decode())
    for name, key, type_ in (
        (origin, log_key, note.ED25519),
        (witness, witness_key, note.COSIGNATURE_V1),
    ):
        public = note.VerifierKey(name, key.public_key().public_bytes_raw(), type_)
        parsed.verify(Vkey.from_string(public.encode()))


def test_it_writes_the_same_tiles(tmp_path: Path) -> None:
    entries = [str(number).encode() for number in range(600)]
    hashes = b"".join(merkle.leaf_hash(entry) for entry in entries)
    subtrees, levels = Reference().extend(0, [], hashes)
    writer = TilesWriter.create(tmp_path / "log", "log.example")
    for entry in entries:
        writer.add_leaf(entry)
    writer.commit([])
    theirs = TilesReader(LocalBackend(tmp_path / "log"))
    theirs.set_size(600)
    assert theirs.calculate_root_hash() == merkle.root_of_subtrees(subtrees)
    for level, tile in ((0, Tile(0, 0)), (0, Tile(0, 1)), (0, Tile(0, 2, 88)), (1, Tile(1, 0, 2))):
        stored = (tmp_path / "log" / tile.path()).read_bytes()
        assert stored == levels[level][32 * tile.start : 32 * (tile.start + tile.width)]
    bundle = (tmp_path / "log" / Tile(None, 2, 88).path()).read_bytes()
    assert tiles.parse_bundle(bundle, 88) == entries[512:]
