"""The right edge of a growing Merkle tree: all that an append needs to know.

A tree of n leaves is a row of complete subtrees, one for each bit set in n. Appending a leaf
joins equal neighbours, as adding one to a binary number carries. Which hashes a tile store must
then write falls out of the same step.
"""

from __future__ import annotations

from collections.abc import Sequence

from connector.errors import InvalidInput
from connector.tlog import merkle
from connector.tlog.tiles import TILE_HEIGHT


class Frontier:
    """Mutable and not safe for threads: its owner is the log's one writer.

    ``size``: leaves so far. The state is at most 63 hashes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []  # complete subtrees, the largest first

    @classmethod
    def load(cls, size: int, read: merkle.HashReader) -> Frontier:
        """The frontier of a stored tree of ``size`` leaves."""
        if not 0 <= size <= merkle.MAX_SIZE:
            raise InvalidInput("log: a size that cannot be")
        frontier = cls()
        frontier.size = size
        start = 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                frontier._subtrees.append(read(level, start >> level))
                start += 1 << level
        return frontier

    def copy(self) -> Frontier:
        """An independent copy, so that a batch can be tried and dropped."""
        frontier = Frontier()
        frontier.size = self.size
        frontier._subtrees = self._subtrees.copy()
        return frontier

    def append(self, leaf: bytes) -> list[tuple[int, bytes]]:
        """Add one leaf hash (32 bytes); O(1) amortised.

        Returns what the tile store must append: ``(tile level, hash)``, ascending, the leaf
        itself (tile level 0) first, then one for each tile that this leaf filled.
        """
        if len(leaf) != merkle.HASH_BYTES:
            raise InvalidInput("log: a leaf hash has 32 bytes")
        completed = [(0, leaf)]
        level, joined = 0, leaf
        while self.size >> level & 1:
            joined = merkle.node_hash(self._subtrees.pop(), joined)
            level += 1
            if level % TILE_HEIGHT == 0:
                completed.append((level // TILE_HEIGHT, joined))
        self._subtrees.append(joined)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root of the tree so far; O(log size)."""
        return root_of_subtrees(self._subtrees)


def root_of_subtrees(subtrees: Sequence[bytes]) -> bytes:
    """The root of a tree from its complete subtrees, the largest first; O(log size)."""
    if not subtrees:
        return merkle.EMPTY_ROOT
    root = subtrees[-1]
    for subtree in reversed(subtrees[:-1]):
        root = merkle.node_hash(subtree, root)
    return root
