"""Results kept for a while, so that a repeated use gets the same answer again.

In memory: bounded in time and in bytes, oldest first out, gone with the process. A result that is
gone leaves the receipt, which says so by its digest. Pure but for the state it holds: the time is
passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class KeptResults:
    """``seconds`` that a result is kept, ``capacity`` bytes for all of them together."""

    seconds: float
    capacity: int
    _kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = field(default_factory=OrderedDict)
    _size: int = 0

    def keep(self, scope: str, use_id: str, result: bytes, now: float) -> None:
        """``now`` in seconds of a clock that never goes back."""
        self._drop_before(now - self.seconds)
        if len(result) > self.capacity:
            return
        while self._size + len(result) > self.capacity:
            self._drop_oldest()
        self._kept[scope, use_id] = (now, result)
        self._size += len(result)

    def find(self, scope: str, use_id: str, now: float) -> bytes | None:
        self._drop_before(now - self.seconds)
        kept = self._kept.get((scope, use_id))
        return kept[1] if kept else None

    def _drop_before(self, time: float) -> None:
        while self._kept and next(iter(self._kept.values()))[0] < time:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, result) = self._kept.popitem(last=False)
        self._size -= len(result)
