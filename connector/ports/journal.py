"""Where administrative acts are written down: the node's log."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    async def act(self, type: str, scope: str, statement: str) -> None:
        """Log a signed act (compact JWS) under ``scope``; durable under a checkpoint on return.

        Raises ``Unavailable`` when the log cannot be written: the act has not happened then.
        """
        ...
