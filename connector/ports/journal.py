"""Where administrative acts are written down: the node's log."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """Puts a signed act into the log."""

    async def __call__(self, *, scope: str, actor: str, act: str, statement: str) -> None:
        """Durable on return. Raises ``Unavailable``; the same act may then be passed again, so the
        log may hold an act twice, and never not at all."""
        ...
