"""How many refusals of one member become receipts.

A refusal costs a durable write, so a member that is refused without end could fill the log. Each
member has a token bucket; beyond it a refusal leaves no receipt, and the caller is told to slow
down (the operations log has it).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from connector.errors import RateLimited
from connector.ports.clock import Clock

MAX_MEMBERS = 10_000  # buckets kept; the one that was idle longest goes first


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RefusalLimiter:
    """``per_second`` refusals, and ``burst`` at once, for each member. One thread."""

    def __init__(self, clock: Clock, *, per_second: float = 2.0, burst: int = 50) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, member: str) -> None:
        """Raises ``RateLimited`` if this refusal is one too many."""
        now = self._clock.monotonic()
        bucket = self._buckets.pop(member, None) or _Bucket(self._burst, now)
        grown = bucket.tokens + (now - bucket.at) * self._per_second
        bucket.tokens, bucket.at = min(self._burst, grown), now
        self._buckets[member] = bucket
        if len(self._buckets) > MAX_MEMBERS:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            raise RateLimited(
                "too many refused requests; this one left no receipt",
                hint=f"slow down to {self._per_second:g} refused requests a second",
            )
        bucket.tokens -= 1
