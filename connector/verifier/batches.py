"""Entry bundles and hash tiles of an exported log, read and compared, many at a time.

A batch is up to 64 neighbouring bundles that begin where the tree lets them be hashed without
what stands before them, so that batches may be read in any order and by several threads. What a
batch cannot settle (tiles above level 1, the root, what the leaves say) is ``wholelog``'s.

A bundle that does not fit its hash tile is believed only if the tile above says so; leaves that
are not believed are in no later step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from connector.core.interface import Core
from connector.errors import InvalidInput
from connector.tlog.merkle import HASH_BYTES
from connector.tlog.tiles import TILE_WIDTH, Tile, width_at
from connector.verifier.folder import LogFolder

MOST_BUNDLES = 64
MOST_BYTES = 32 << 20  # of a batch, unless one bundle is larger


class Part(IntEnum):
    """The numbered step to which something found belongs."""

    ENTRIES = 3
    TREE = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """``count`` packed leaves that are in the tree, from leaf ``index`` on: whole bundles."""

    index: int
    count: int
    packed: bytes


@dataclass(slots=True)
class Batch:
    """``count`` leaves from ``start`` on.

    ``subtrees``: the complete subtrees over them, largest first; none if a hash tile and its
    bundle are both unusable. ``pieces``: the leaves that are believed, in order. ``dropped``: how
    many leaves were left out as they may be. ``absent``: not one of its files is there.
    ``found``: what is wrong.
    """

    start: int
    count: int
    subtrees: list[bytes] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    dropped: int = 0
    absent: bool = False
    found: list[tuple[Part, str]] = field(default_factory=list)


def plan(folder: LogFolder, size: int) -> Iterator[tuple[int, int]]:
    """``(first bundle, how many)`` over a log of ``size`` leaves."""
    total = -(-size // TILE_WIDTH)
    first = 0
    while first < total:
        count = min(first & -first or MOST_BUNDLES, MOST_BUNDLES)
        sizes = [
            folder.size(Tile(None, at, width_at(0, at, size)))
            for at in range(first, min(first + count, total))
        ]
        while count > 1 and sum(sizes[:count]) > MOST_BYTES:
            count //= 2
        yield first, min(count, total - first)
        first += count


def read_batch(
    folder: LogFolder, core: Core, size: int, first: int, count: int, allow_dropped: bool
) -> Batch:
    """One batch of the plan, checked against the hash tiles of levels 0 and 1."""
    start = first * TILE_WIDTH
    batch = Batch(start, min(count * TILE_WIDTH, size - start))
    above = _level_1(folder, size, first, batch)
    wanted = [(at, width_at(0, at, size)) for at in range(first, first + count)]
    entries = [_read(folder, Tile(None, at, width), batch) for at, width in wanted]
    tiles = [_hash_tile(folder, Tile(0, at, width), batch) for at, width in wanted]
    if not any(item is not None for item in (*entries, *tiles)):
        batch.absent = True
        return batch
    hashes = _all_at_once(core, entries, tiles, batch)
    whole = True
    if hashes is None:
        hashes = b""
        for (at, width), packed, tile in zip(wanted, entries, tiles, strict=True):
            one = _Bundle(core, at, width, batch)
            found = one.compare(packed, tile, _slot(above, at), allow_dropped)
            if found is None:
                whole = False
            else:
                hashes += found
    if not whole:
        return batch
    batch.subtrees, completed = core.extend(0, (), hashes)
    if above is not None:
        _compare_above(completed.get(1, b""), above, first, batch)
    return batch


def _all_at_once(
    core: Core, entries: list[bytes | None], tiles: list[bytes | None], batch: Batch
) -> bytes | None:
    """The leaf hashes, if every file is there and as it should be; the way of nearly all."""
    packed = b"".join(item or b"" for item in entries)
    expected = b"".join(tile or b"" for tile in tiles)
    if len(expected) != batch.count * HASH_BYTES:
        return None
    try:
        if core.leaf_hashes(packed) != expected:
            return None
        begins = core.offsets(packed, 0, TILE_WIDTH)
    except InvalidInput:
        return None
    at = 0
    for begin, item in zip(begins, entries, strict=True):
        if not item or begin != at:
            return None
        at += len(item)
    batch.pieces.append(Piece(batch.start, batch.count, packed))
    return expected


@dataclass(frozen=True, slots=True)
class _Bundle:
    """One bundle beside its hash tile, where not all is as it should be."""

    core: Core
    at: int
    width: int
    batch: Batch

    def compare(
        self, packed: bytes | None, tile: bytes | None, above: bytes, allow_dropped: bool
    ) -> bytes | None:
        """The leaf hashes that the tree is followed with; None if neither file has them."""
        path, tile_path = self._path(None), self._path(0)
        if packed is None and allow_dropped and tile is not None:
            self.batch.dropped += self.width
            return tile
        hashes = None if packed is None else self._hashes(path, packed)
        if packed is None and not self._said(path):
            self._fail(f"{path}: there is no such file")
        if packed is None or hashes is None:
            return tile
        if tile is not None and hashes != tile:
            differing = next(
                place
                for place in range(self.width)
                if hashes[place * HASH_BYTES :][:HASH_BYTES]
                != tile[place * HASH_BYTES :][:HASH_BYTES]
            )
            leaf = self.at * TILE_WIDTH + differing
            if not above or self._root(hashes) != above:
                self._fail(f"{path}: leaf {leaf} is not the one that {tile_path} has the hash of")
                return tile
            self._fail(f"{tile_path}: the hash of leaf {leaf} is not of the leaf in {path}")
        self.batch.pieces.append(Piece(self.at * TILE_WIDTH, self.width, packed))
        return hashes

    def _hashes(self, path: str, packed: bytes) -> bytes | None:
        try:
            hashes = self.core.leaf_hashes(packed)
        except InvalidInput:
            self._fail(f"{path}: does not end with an entry")
            return None
        if len(hashes) != self.width * HASH_BYTES:
            found = len(hashes) // HASH_BYTES
            self._fail(f"{path}: holds {found} entries, and should hold {self.width}")
            return None
        return hashes

    def _root(self, hashes: bytes) -> bytes:
        subtrees, _ = self.core.extend(0, (), hashes)
        return subtrees[0] if len(subtrees) == 1 else b""

    def _path(self, level: int | None) -> str:
        return Tile(level, self.at, self.width).path()

    def _fail(self, message: str) -> None:
        self.batch.found.append((Part.ENTRIES, message))

    def _said(self, path: str) -> bool:
        return any(message.startswith(f"{path}: ") for _, message in self.batch.found)


def hash_tile(folder: LogFolder, tile: Tile) -> bytes:
    """A hash tile of the right length. Raises ``InvalidInput``, whose message names the file."""
    data = folder.read(tile)
    if data is None:
        raise InvalidInput(f"{tile.path()}: there is no such file")
    if len(data) != tile.width * HASH_BYTES:
        raise InvalidInput(
            f"{tile.path()}: has {len(data)} bytes, and should have {tile.width * HASH_BYTES}"
        )
    return data


def _read(folder: LogFolder, tile: Tile, batch: Batch) -> bytes | None:
    try:
        return folder.read(tile)
    except InvalidInput as error:
        batch.found.append((Part.ENTRIES, error.message))
        return None


def _hash_tile(folder: LogFolder, tile: Tile, batch: Batch) -> bytes | None:
    try:
        return hash_tile(folder, tile)
    except InvalidInput as error:
        batch.found.append((Part.ENTRIES, error.message))
        return None


def _level_1(folder: LogFolder, size: int, first: int, batch: Batch) -> bytes | None:
    """The tile of level 1 over the batch, b"" where there is none, None where it is unusable."""
    index = first // TILE_WIDTH
    width = width_at(1, index, size)
    if not width:
        return b""
    try:
        return hash_tile(folder, Tile(1, index, width))
    except InvalidInput as error:
        if first % TILE_WIDTH == 0:  # once for all batches under it
            batch.found.append((Part.TREE, error.message))
        return None


def _slot(above: bytes | None, at: int) -> bytes:
    """What the tile of level 1 says of the bundle ``at``; empty if nothing."""
    return (above or b"")[at % TILE_WIDTH * HASH_BYTES :][:HASH_BYTES]


def _compare_above(joined: bytes, above: bytes, first: int, batch: Batch) -> None:
    for place in range(len(joined) // HASH_BYTES):
        at = first + place
        if _slot(above, at) != joined[place * HASH_BYTES :][:HASH_BYTES]:
            width = min(TILE_WIDTH, len(above) // HASH_BYTES)
            path = Tile(1, at // TILE_WIDTH, width).path()
            below = Tile(0, at).path()
            batch.found.append((Part.TREE, f"{path}: its hash of {below} does not follow from it"))
