"""Where the list of those who may report is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connector.identity.reporters import Reporter


class ReporterStore(Protocol):
    """Durable on return. Raises ``Unavailable`` when the disk refuses; it may have happened then.
    Calls may overlap."""

    async def add(self, reporter: Reporter) -> None:
        """Raises ``Conflict`` if the name or the certificate is there already."""
        ...

    async def remove(self, name: str) -> None:
        """Whether it was there or not."""
        ...

    async def all(self) -> Sequence[Reporter]:
        """By name. Raises ``InvalidInput`` for what is no reporter's."""
        ...
