"""What a witness remembers: for each log the last checkpoint that it cosigned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Witnessed:
    """``checkpoint``: the signed note with the witness's cosignature; ``root``: 32 bytes."""

    size: int
    root: bytes
    checkpoint: bytes


class WitnessStore(Protocol):
    """Calls may overlap. Raises ``Unavailable`` when the disk refuses."""

    async def last(self, origin: str) -> Witnessed | None:
        """The last checkpoint cosigned for the log with this origin."""
        ...

    async def replace(self, origin: str, old: Witnessed | None, new: Witnessed) -> bool:
        """Put ``new`` in the place of exactly ``old`` (None: nothing yet); durable on return.

        False, and nothing changed, if something else is there: somebody came first.
        """
        ...
