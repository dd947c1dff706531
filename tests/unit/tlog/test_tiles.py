"""Tile paths, geometry and bundles: the specification's examples, and hostile ones."""

import pytest
from tlog_scales import tiles as other_tiles

from connector.core.reference import Reference
from connector.errors import InternalError, InvalidInput
from connector.tlog import merkle, tiles
from connector.tlog.tiles import Tile

PATHS = {
    "tile/0/x001/x234/067": Tile(0, 1234067),
    "tile/0/000": Tile(0, 0),
    "tile/63/999": Tile(63, 999),
    "tile/1/x001/000": Tile(1, 1000),
    "tile/0/x001/x234/067.p/1": Tile(0, 1234067, 1),
    "tile/entries/273.p/112": Tile(None, 273, 112),
    "tile/entries/000": Tile(None, 0),
}


@pytest.mark.parametrize("path", PATHS)
def test_paths(path: str) -> None:
    assert tiles.parse_path(path) == PATHS[path]
    assert PATHS[path].path() == path
    tile = PATHS[path]
    level, width = -1 if tile.level is None else tile.level, tile.width % 256
    assert "/".join(other_tiles.tile_path(level, tile.index, width)) == path


BAD_PATHS = [
    "",
    "tile/0/0",
    "tile/00/000",
    "tile/64/000",
    "tile/-1/000",
    "tile/0/x000/001",
    "tile/0/001/002",
    "tile/0/x001",
    "tile/0/000.p/0",
    "tile/0/000.p/01",
    "tile/0/000.p/256",
    "tile/0/000.p/999",
    "tile/0/000.p",
    "tile/0/000/",
    "/tile/0/000",
    "tile/0/000\n",
    "tile/0/٠٠٠",
    "tile/0/../000",
    "tile/data/000",
    "tile/0/" + "x001/" * 100 + "000",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_bad_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        tiles.parse_path(path)


def test_no_path_for_what_is_no_tile() -> None:
    for tile in (Tile(0, -1), Tile(64, 0), Tile(0, 0, 0), Tile(0, 0, 257)):
        with pytest.raises(InvalidInput):
            tile.path()


def test_widths_are_those_of_the_specification_s_example() -> None:
    size = 70_000  # 273 full and one of 112; one full and one of 17; one of 1
    assert [tiles.width_at(0, index, size) for index in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [tiles.width_at(1, index, size) for index in (0, 1, 2)] == [256, 17, 0]
    assert [tiles.width_at(2, index, size) for index in (0, 1)] == [1, 0]
    assert (tiles.width_at(0, 0, 256), tiles.width_at(1, 0, 256)) == (256, 1)


ENTRIES = [b"", b"a", bytes(65_535)]
BUNDLE = b"\x00\x00" + b"\x00\x01a" + b"\xff\xff" + bytes(65_535)


def test_bundles() -> None:
    assert tiles.encode_bundle(ENTRIES) == BUNDLE
    assert tiles.parse_bundle(BUNDLE, 3) == ENTRIES


BAD_BUNDLES = {
    "cut in an entry": (BUNDLE[:-1], 3),
    "cut in a length": (b"\x00\x01a\x00", 2),
    "too few": (BUNDLE, 4),
    "too many": (BUNDLE, 2),
    "bytes after the end": (BUNDLE + b"\x00", 3),
    "nothing": (b"", 1),
}


@pytest.mark.parametrize("case", BAD_BUNDLES.values(), ids=BAD_BUNDLES.keys())
def test_a_bad_bundle_is_refused(case: tuple[bytes, int]) -> None:
    with pytest.raises(InvalidInput):
        tiles.parse_bundle(*case)


def test_a_bundle_that_cannot_be_is_not_written() -> None:
    for entries in ([], [b""] * 257, [bytes(65_536)]):
        with pytest.raises(InvalidInput):
            tiles.encode_bundle(entries)


class Store:
    """Flat hash files in memory."""

    def __init__(self, size: int) -> None:
        hashes = b"".join(merkle.leaf_hash(str(number).encode()) for number in range(size))
        self.subtrees, self.levels = Reference().extend(0, [], hashes)

    def read(self, level: int, start: int, count: int) -> bytes:
        assert start // 256 == (start + count - 1) // 256, "a read crosses a tile"
        return self.levels.get(level, b"")[32 * start : 32 * (start + count)]


SIZE = 70_000


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(SIZE)


def test_a_tree_that_grows_fills_the_tiles(store: Store) -> None:
    assert {level: len(data) // 32 for level, data in store.levels.items()} == {
        0: SIZE,
        1: SIZE // 256,
        2: 1,
    }


def test_proofs_come_from_the_tile_levels_alone(store: Store) -> None:
    read = tiles.stored_hashes(store.read)
    root = merkle.root_of_subtrees(store.subtrees)
    assert merkle.tree_root(SIZE, read) == root
    for index in (0, 255, 256, 65_535, 65_536, SIZE - 1):
        proof = merkle.inclusion_proof(index, SIZE, read)
        leaf = merkle.leaf_hash(str(index).encode())
        merkle.verify_inclusion(leaf, index, SIZE, proof, root)
    for old in (1, 255, 256, 300, 65_536, 65_537, SIZE - 1):
        proof = merkle.consistency_proof(old, SIZE, read)
        merkle.verify_consistency(old, merkle.tree_root(old, read), SIZE, root, proof)


def test_a_store_that_comes_up_short_is_our_own_fault(store: Store) -> None:
    with pytest.raises(InternalError):
        merkle.tree_root(SIZE + 1, tiles.stored_hashes(store.read))
