"""``ports.journal.Journal`` over the meter: acts become leaves like every other receipt."""

from __future__ import annotations

from connector.metering.meter import Meter
from connector.metering.types import ActDraft


class MeterJournal:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, *, scope: str, actor: str, act: str, statement: str) -> None:
        draft = ActDraft(scope=scope, actor=actor, act=act, statement=statement.encode())
        await self._meter.record([draft])
