"""``ports.receipts.LogStorage`` that forgets: for tests, and for nodes that leave nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from connector.errors import InvalidInput
from connector.ports.receipts import Replayed, Seal, Tip
from connector.tlog import merkle
from connector.tlog.frontier import Frontier
from connector.tlog.tiles import TILE_HEIGHT


class MemoryLog:
    """Everything in lists; "stable storage" is this object."""

    def __init__(self) -> None:
        self._commits: list[Replayed] = []
        self._leaves: list[bytes] = []
        self._hashes: dict[int, bytearray] = {}
        self._frontier = Frontier()
        self._tip = Tip(0, b"")
        self._cosigned: dict[str, bytes] = {}

    @property
    def tip(self) -> Tip:
        return self._tip

    def append(self, records: Sequence[bytes], leaves: Sequence[bytes], seal: Seal) -> Tip:
        frontier = self._frontier.copy()
        completed = [pair for leaf in leaves for pair in frontier.append(merkle.leaf_hash(leaf))]
        note = self._tip.checkpoint
        if leaves or not note:
            note = seal(frontier.size, frontier.root())
        self._commits.append(Replayed(self._tip.size, tuple(records), tuple(leaves)))
        self._leaves += leaves
        for level, value in completed:
            self._hashes.setdefault(level, bytearray()).extend(value)
        self._frontier = frontier
        self._tip = Tip(frontier.size, note)
        return self._tip

    def replay(self) -> Iterator[Replayed]:
        yield from self._commits

    def leaves(self, start: int, count: int) -> list[bytes]:
        if start < 0 or count < 0 or start + count > self._tip.size:
            raise InvalidInput("log: no such leaves")
        return self._leaves[start : start + count]

    def hashes(self, tile_level: int, start: int, count: int) -> bytes:
        stored = self._tip.size >> TILE_HEIGHT * tile_level if 0 <= tile_level < 8 else 0
        if start < 0 or count < 0 or start + count > stored:
            raise InvalidInput("log: no such hashes")
        size = merkle.HASH_BYTES
        level = self._hashes.get(tile_level, bytearray())
        return bytes(level[start * size : (start + count) * size])

    def cosigned(self) -> list[bytes]:
        return list(self._cosigned.values())

    def keep_cosigned(self, witness: str, note: bytes) -> None:
        self._cosigned[witness] = note

    def close(self) -> None:
        """Keeps what it has, so that a test can open it again."""
