"""The receipts that providers gave us, with their proofs: a consumer's own evidence.

Our log holds that they were received (``model.receipt.DeliveryReceipt``); the receipts themselves
belong to the providers' logs, and a provider may not be there when an auditor asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.ports.peers import ReceiptProof


@dataclass(frozen=True, slots=True)
class Pulled:
    """What this node pulled of one transfer: ``moved`` bytes in pulls that are over, ``open`` ones
    that are not, or were not when the node crashed."""

    moved: int
    open: int


class DeliveryStore(Protocol):
    """Coroutines may overlap. Raises ``Unavailable`` when the disk refuses."""

    async def keep(self, scope: str, number: int, proof: ReceiptProof) -> None:
        """The provider's receipt ``number`` of ``scope``; durable on return. The first is kept."""
        ...

    async def of(self, scope: str) -> tuple[ReceiptProof, ...]:
        """In the order of their numbers."""
        ...

    async def trust(self, origin: str, note: bytes) -> None:
        """Keep a checkpoint (signed note) of the log ``origin`` as the last that held; durable on
        return. The caller has verified it."""
        ...

    async def trusted(self, origin: str) -> bytes | None: ...

    async def pull_began(self, pid: str) -> None:
        """One more pull of the transfer ``pid`` (our process id); durable on return."""
        ...

    async def pull_ended(self, pid: str, moved: int) -> None:
        """A pull that began is over, after ``moved`` bytes; durable on return."""
        ...

    async def pulled(self, pid: str) -> Pulled | None:
        """None: this node pulled nothing of it."""
        ...

    async def forget_pulled(self, pid: str) -> None: ...
