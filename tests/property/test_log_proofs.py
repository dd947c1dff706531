"""Whatever the tree's size: proofs that are made verify, and verify for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.reference import Reference
from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import merkle, tiles
from connector.tlog.tiles import Tile

LEAVES = [merkle.leaf_hash(number.to_bytes(2)) for number in range(600)]
LEVELS = Reference().extend(0, [], b"".join(LEAVES))[1]
READ = tiles.stored_hashes(
    lambda level, start, count: LEVELS[level][32 * start : 32 * (start + count)]
)
SIZES = st.integers(1, len(LEAVES))


@given(SIZES, st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = merkle.tree_root(size, READ)
    proof = merkle.inclusion_proof(index, size, READ)
    merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda other: other != index) | st.none())
    if other is not None:
        with pytest.raises(VerificationFailed):
            merkle.verify_inclusion(LEAVES[other], index, size, proof, root)
        with pytest.raises(VerificationFailed):
            merkle.verify_inclusion(LEAVES[index], other, size, proof, root)


@given(SIZES, SIZES, st.data())
def test_consistency(one: int, other: int, data: st.DataObject) -> None:
    old, new = sorted((one, other))
    roots = merkle.tree_root(old, READ), merkle.tree_root(new, READ)
    proof = merkle.consistency_proof(old, new, READ)
    merkle.verify_consistency(old, roots[0], new, roots[1], proof)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        broken = [*proof[:at], bytes(32), *proof[at + 1 :]]
        with pytest.raises(VerificationFailed):
            merkle.verify_consistency(old, roots[0], new, roots[1], broken)
        with pytest.raises(VerificationFailed):
            merkle.verify_consistency(old, roots[0], new, roots[1], [*proof, bytes(32)])
        with pytest.raises(VerificationFailed):
            merkle.verify_consistency(old, roots[0], new, roots[1], proof[:-1])


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70), st.integers(), st.integers())
def test_no_proof_makes_the_verifier_fall_over(proof: list[bytes], one: int, other: int) -> None:
    for verify in (
        lambda: merkle.verify_inclusion(LEAVES[0], one, other, proof, LEAVES[1]),
        lambda: merkle.verify_consistency(one, LEAVES[0], other, LEAVES[1], proof),
    ):
        with pytest.raises((InvalidInput, VerificationFailed)):
            verify()


@given(st.none() | st.integers(0, 63), st.integers(0, 10**12), st.integers(1, tiles.TILE_WIDTH))
def test_tile_paths(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert tiles.parse_path(tile.path()) == tile


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=256))
def test_bundles(entries: list[bytes]) -> None:
    assert tiles.parse_bundle(tiles.encode_bundle(entries), len(entries)) == entries
