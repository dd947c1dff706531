"""The data plane: what moves the data of transfer processes, at their provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connector.model.negotiation import StoredAgreement
from connector.model.transfer import DataAddress, TransferProcess


class DataPlane(Protocol):
    """Calls about one process do not overlap; calls about several may.

    Again is the same as once, for every method: a call whose effect was not saved by the caller
    comes again, after a crash too. Each raises ``Unavailable`` if it cannot be done now; then it
    may have happened all the same.
    """

    @property
    def formats(self) -> tuple[str, ...]:
        """DSP's dct:format, as ``HttpData-PULL``; empty where nothing is served."""
        ...

    async def prepare(self, agreement: StoredAgreement, process: TransferProcess) -> None:
        """Do what a start of the process needs and what takes long, so that ``start`` need not.
        Decides nothing and says nothing; MAY be left out. May overlap with any other call."""
        ...

    async def start(self, agreement: StoredAgreement, process: TransferProcess) -> DataAddress:
        """Decide by policy, reserve durably (one use for each process), and open the flow.

        ``process`` is REQUESTED, or SUSPENDED: then the flow goes on under a new token, and what
        it moved before is counted in the same use. Raises ``Refused`` with the policy's reasons.
        """
        ...

    async def suspend(self, pid: str) -> None:
        """Cut the flow: on return nothing more leaves, and its token is worth nothing."""
        ...

    async def end(self, pid: str, *, reason: str = "") -> None:
        """Cut the flow for good and settle its use, with the receipt. A process that was never
        started has no use, and then there is nothing to do. ``reason``: why, if it was
        terminated; empty if it was completed."""
        ...

    async def resume(self, processes: Sequence[tuple[StoredAgreement, TransferProcess]]) -> None:
        """Once, at the start and before anything else: the processes that were STARTED (with the
        data address that their consumers hold, which is to go on working) or SUSPENDED. One
        that was ended already, before that was saved, stays ended."""
        ...
