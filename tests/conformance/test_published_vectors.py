"""The log against what others published: Certificate Transparency, C2SP, the Go checksum database.

Each vector names its source in ``tests/vectors``.
"""

import json
from pathlib import Path

import pytest

from connector.errors import VerificationFailed
from connector.tlog import checkpoint, merkle, note

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "rfc6962.json").read_text())
NOTES = json.loads((FOLDER / "notes.json").read_text())
LEAVES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]


def hashes(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


def test_roots_are_those_of_certificate_transparency() -> None:
    assert bytes.fromhex(VECTORS["empty_root"]) == merkle.EMPTY_ROOT == merkle.root_of([])
    assert [merkle.root_of(LEAVES[: n + 1]) for n in range(8)] == ROOTS


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}/{c['size']}")
def test_inclusion_vectors(case: dict) -> None:
    proof = merkle.inclusion_proof(case["index"], case["size"], merkle.reader_of(LEAVES))
    assert proof == hashes(case["proof"])
    leaf = LEAVES[case["index"]]
    merkle.verify_inclusion(leaf, case["index"], case["size"], proof, ROOTS[case["size"] - 1])


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda c: f"{c['old']}-{c['new']}")
def test_consistency_vectors(case: dict) -> None:
    old, new = case["old"], case["new"]
    proof = merkle.consistency_proof(old, new, merkle.reader_of(LEAVES))
    assert proof == hashes(case["proof"])
    merkle.verify_consistency(old, ROOTS[old - 1], new, ROOTS[new - 1], proof)


@pytest.mark.parametrize("case", NOTES["notes"], ids=lambda case: case["source"])
def test_published_notes_verify(case: dict) -> None:
    data = case["note"].encode()
    key = note.parse_verifier_key(case["vkey"])
    note.verify(note.parse(data), key)
    assert note.parse(data).encode() == data
    assert key.encode() == case["vkey"]
    with pytest.raises(VerificationFailed):
        note.verify(note.parse(b"x" + data), key)


def test_a_published_key_parses() -> None:
    assert note.parse_verifier_key(NOTES["sumdb"]["vkey"]).name == "sum.golang.org"


def test_a_published_checkpoint_parses() -> None:
    case = NOTES["checkpoint"]
    parsed = checkpoint.parse_checkpoint(case["note"].encode())
    assert (parsed.origin, parsed.size) == (case["origin"], case["size"])
    cosigned = note.parse(case["note"].encode()).signatures[1]
    assert int.from_bytes(cosigned.data[:8]) == case["cosigned_at"]
