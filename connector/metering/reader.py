"""Reading a log: leaves, proofs, tiles. C2SP tlog-tiles names what is served.

Any thread, any time; the answers come from commits that were durable. A read is a few file
slices, some tens of microseconds when they are cached.

Leaves out: who may read what.
"""

from __future__ import annotations

from connector.errors import InvalidInput, NotFound
from connector.ports.receipts import LogStorage, Tip
from connector.tlog import merkle, tiles


class LogReader:
    """Every method raises ``InvalidInput`` for indices and sizes that the log does not have."""

    def __init__(self, storage: LogStorage) -> None:
        self._storage = storage
        self._hash = tiles.stored_hashes(storage.hashes)

    @property
    def tip(self) -> Tip:
        """The newest checkpoint and its size."""
        return self._storage.tip

    def leaf(self, index: int) -> bytes:
        return self._storage.leaves(index, 1)[0]

    def root(self, size: int) -> bytes:
        """The root that the log had at ``size`` leaves."""
        self._check(size)
        return merkle.tree_root(size, self._hash)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 6962 section 2.1.1, 32 bytes each, from the leaf up."""
        self._check(size)
        return merkle.inclusion_proof(index, size, self._hash)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962 section 2.1.2, 32 bytes each."""
        self._check(new_size)
        return merkle.consistency_proof(old_size, new_size, self._hash)

    def tile(self, path: str) -> bytes:
        """``tile/<L>/<N>[.p/<W>]``, hashes alone: safe to show to anybody.

        Raises ``NotFound`` if the tree does not have it (yet).
        """
        tile = tiles.parse_path(path)
        if tile.level is None:
            raise InvalidInput("tile: a bundle of entries, not a tile")
        self._require(tile, tile.level)
        return self._storage.hashes(tile.level, tile.start, tile.width)

    def bundle(self, path: str) -> bytes:
        """``tile/entries/<N>[.p/<W>]``: the leaves themselves, for those who may see them all.

        Raises ``NotFound`` if the tree does not have it (yet).
        """
        tile = tiles.parse_path(path)
        if tile.level is not None:
            raise InvalidInput("tile: hashes, not a bundle of entries")
        self._require(tile, 0)
        return tiles.encode_bundle(self._storage.leaves(tile.start, tile.width))

    def _require(self, tile: tiles.Tile, level: int) -> None:
        if tile.width > tiles.width_at(level, tile.index, self.tip.size):
            raise NotFound("the log has no such tile")

    def _check(self, size: int) -> None:
        if not 0 <= size <= self.tip.size:
            raise InvalidInput("log: the tree never had that size")
