"""Time, injected, so that tests can move it and no module reads it on the side."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Safe to call from any thread; never raises."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC. May jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds since an unknown start; never goes back."""
        ...
