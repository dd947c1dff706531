"""``ports.receipts.LogStorage`` that forgets: for tests, and for nodes that leave nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from connector.core.choose import choose
from connector.core.interface import Core, Leaves
from connector.errors import InvalidInput
from connector.ports.receipts import Mark, Replayed, Seal, Tip
from connector.tlog import merkle, tiles
from connector.tlog.merkle import root_of_subtrees
from connector.tlog.tiles import TILE_HEIGHT


class MemoryLog:
    """Everything in lists; "stable storage" is this object."""

    def __init__(self, *, core: Core | None = None) -> None:
        self._core = core or choose()
        self._commits: list[Replayed] = []
        self._leaves: list[bytes] = []
        self._hashes: dict[int, bytearray] = {}
        self._subtrees: list[bytes] = []
        self._tip = Tip(0, b"")
        self._cosigned: dict[str, bytes] = {}
        self._kept: tuple[Mark, bytes] | None = None

    @property
    def tip(self) -> Tip:
        return self._tip

    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        first, size = self._tip.size, self._tip.size + leaves.count
        subtrees, completed = self._core.extend(first, self._subtrees, leaves.hashes)
        note = self._tip.checkpoint
        if leaves.count or not note:
            note = seal(size, root_of_subtrees(subtrees))
        self._commits.append(Replayed(first, leaves.count, tuple(records), leaves.packed, False))
        self._leaves += tiles.parse_bundle(leaves.packed, leaves.count)
        for level, values in completed.items():
            self._hashes.setdefault(level, bytearray()).extend(values)
        self._subtrees = subtrees
        self._tip = Tip(size, note)
        return self._tip

    def mark(self) -> Mark:
        return Mark(self._tip.size, len(self._commits).to_bytes(8))

    def keep(self, mark: Mark, state: bytes) -> None:
        self._kept = mark, state

    @property
    def kept(self) -> tuple[int, bytes] | None:
        return None if self._kept is None else (self._kept[0].size, self._kept[1])

    def replay(self, *, everything: bool = False) -> Iterator[Replayed]:
        known = 0 if self._kept is None else int.from_bytes(self._kept[0].position)
        for at, commit in enumerate(self._commits):
            if everything or at >= known:
                yield Replayed(
                    commit.first, commit.count, commit.records, commit.packed, at < known
                )

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
