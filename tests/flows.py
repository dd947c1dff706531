"""A data plane that moves nothing and remembers what it was asked."""

from __future__ import annotations

import asyncio

from connector.errors import Reason, Refused, Unavailable
from connector.model.transfer import DataAddress

PULL = "HttpData-PULL"


class Flows:
    """``says`` is ``allow``, ``refuse`` or ``down``; ``flowing`` has the tokens in force."""

    formats = (PULL,)

    def __init__(self) -> None:
        self.says = "allow"
        self.cuts = "work"  # or ``fail``: cutting is not possible now
        self.flowing: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.resumed: list[str] = []
        self.starts = 0
        self.prepared: list[str] = []
        self.preparing = asyncio.Event()  # clear it, and preparing takes until it is set
        self.preparing.set()

    async def prepare(self, agreement, process):
        self.prepared.append(process.pid)
        await self.preparing.wait()

    async def start(self, agreement, process):
        if self.says == "down":
            raise Unavailable("the data plane does not answer")
        if self.says == "refuse":
            raise Refused([Reason("count", "21", "20")])
        self.starts += 1
        token = self.flowing[process.pid] = f"token-{self.starts}"
        return DataAddress("https", "https://airport.example/pull", (("authorization", token),))

    async def suspend(self, pid):
        self._require_up()
        self.flowing.pop(pid, None)

    async def end(self, pid, *, reason=""):
        self._require_up()
        self.flowing.pop(pid, None)
        self.ended.setdefault(pid, reason)

    async def resume(self, processes):
        self.resumed += [process.pid for _, process in processes]

    def _require_up(self):
        if self.cuts == "fail":
            raise Unavailable("the data plane does not answer")
