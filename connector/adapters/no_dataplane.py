"""``ports.dataplane.DataPlane`` of a node that serves no data: every request is refused."""

from __future__ import annotations

from collections.abc import Sequence

from connector.errors import Unavailable
from connector.model.negotiation import StoredAgreement
from connector.model.transfer import DataAddress, TransferProcess


class NoDataPlane:
    formats: tuple[str, ...] = ()

    async def start(self, agreement: StoredAgreement, process: TransferProcess) -> DataAddress:
        raise Unavailable("this node serves no data now")

    async def suspend(self, pid: str) -> None:
        pass

    async def end(self, pid: str, *, reason: str = "") -> None:
        pass

    async def resume(self, processes: Sequence[tuple[StoredAgreement, TransferProcess]]) -> None:
        pass
