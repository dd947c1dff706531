"""C2SP tlog-tiles: where hashes and entries lie, and how a bundle of entries is written.

A tile at tile level L holds hashes of tree level 8 * L, 256 of them when full. A store keeps
one flat sequence of hashes for each tile level (hash i at byte 32 * i); tiles are slices of it,
and ``stored_hashes`` computes every other hash of the tree from it.

Leaves out: HTTP, and who may read which tile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from connector.errors import InternalError, InvalidInput
from connector.tlog import merkle

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT  # 256 hashes, 8,192 bytes
MAX_ENTRY_BYTES = 65_535  # the uint16 length prefix
MAX_TILE_LEVEL = 63
MAX_PATH = 64

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/"
    r"(?P<high>(?:x[0-9]{3}/)*)(?P<low>[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """``level`` is None for a bundle of entries; ``width`` is 256 for a full tile."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def start(self) -> int:
        """The place of the tile's first hash (or entry) in the sequence of its level."""
        return self.index * TILE_WIDTH

    def path(self) -> str:
        """``tile/<L>/<N>[.p/<W>]``, with N in groups of three digits."""
        if not (
            1 <= self.width <= TILE_WIDTH
            and self.index >= 0
            and (self.level is None or 0 <= self.level <= MAX_TILE_LEVEL)
        ):
            raise InvalidInput("tile: no such tile")
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{number}{partial}"


def parse_path(path: str) -> Tile:
    """A path in its one spelling to a tile. Raises ``InvalidInput``."""
    match = _PATH.fullmatch(path) if len(path) <= MAX_PATH else None
    if match is None:
        raise InvalidInput("tile: not a tile path")
    tile = Tile(
        level=None if match["level"] == "entries" else int(match["level"]),
        index=int(match["high"].replace("x", "").replace("/", "") + match["low"]),
        width=int(match["width"] or TILE_WIDTH),
    )
    # Refuses x000 groups, a partial width of 256 and more, and levels above 63.
    if tile.path() != path:
        raise InvalidInput("tile: not a tile path")
    return tile


def width_at(tile_level: int, index: int, size: int) -> int:
    """How many hashes the tile has in a tree of ``size`` leaves: 0 (no such tile) to 256."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * tile_level) - index * TILE_WIDTH))


def stored_hashes(read: Callable[[int, int, int], bytes]) -> merkle.HashReader:
    """A ``HashReader`` over what a tile store keeps.

    ``read(tile_level, start, count)`` gives ``count`` consecutive hashes as ``32 * count`` bytes;
    one call never crosses a tile. It is called once for each hash asked for, at most 128 hashes
    long. Raises ``InternalError`` if the store comes up short.
    """

    def subtree(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        count = 1 << height
        data = read(tile_level, index << height, count)
        if len(data) != count * merkle.HASH_BYTES:
            raise InternalError("log: stored hashes are missing")
        row = [data[at : at + merkle.HASH_BYTES] for at in range(0, len(data), merkle.HASH_BYTES)]
        while len(row) > 1:
            row = [merkle.node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
        return row[0]

    return subtree


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry behind its length, a big-endian uint16."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise InvalidInput(f"entry bundle: 1 to {TILE_WIDTH} entries")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise InvalidInput(f"entry bundle: an entry larger than {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def parse_bundle(data: bytes, count: int) -> list[bytes]:
    """Exactly ``count`` entries and nothing after them. Raises ``InvalidInput``."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < count:
        end = at + 2 + int.from_bytes(data[at : at + 2])
        if at + 2 > len(data) or end > len(data):
            raise InvalidInput("entry bundle: cut short")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != count:
        raise InvalidInput("entry bundle: not the number of entries asked for")
    return entries
