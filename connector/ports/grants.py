"""Where it is kept who may read the whole log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Grant:
    """``digest``: SHA-256 of the token, which itself is kept nowhere."""

    name: str
    digest: bytes
    made: datetime
    expires: datetime


class GrantStore(Protocol):
    """Durable on return. Raises ``Unavailable`` when the disk refuses; it may have happened then.
    Calls may overlap."""

    async def add(self, grant: Grant) -> None:
        """Raises ``Conflict`` if the name is there already."""
        ...

    async def remove(self, name: str) -> None:
        """Whether it was there or not."""
        ...

    async def all(self) -> Sequence[Grant]:
        """By name."""
        ...
