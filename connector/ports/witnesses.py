"""What a witness remembers, for each log the last checkpoint that it cosigned; and a witness of
our own log, elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from connector.tlog.note import Signature
from connector.tlog.witness import CheckpointRequest


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


class WitnessPeer(Protocol):
    """A witness as a log calls it (C2SP tlog-witness). What comes back is the witness's word.

    Raises ``Unavailable`` when there is no answer, ``RateLimited``, and ``PeerFault`` for an
    answer that is none.
    """

    async def add_checkpoint(self, request: CheckpointRequest) -> Sequence[Signature]:
        """Its signature lines, NOT verified.

        Raises ``StaleSize`` (``metering.witness``), ``VerificationFailed`` if it finds the log not
        consistent with what it saw, and ``PeerFault`` when it refuses otherwise.
        """
        ...

    async def last(self, origin: str) -> bytes:
        """The last checkpoint that it cosigned of the log. Raises ``NotFound``."""
        ...
