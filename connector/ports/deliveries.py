"""The receipts that providers gave us, with their proofs: a consumer's own evidence.

Our log holds that they were received (``model.receipt.DeliveryReceipt``); the receipts themselves
belong to the providers' logs, and a provider may not be there when an auditor asks.
"""

from __future__ import annotations

from typing import Protocol

from connector.ports.peers import ReceiptProof


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
