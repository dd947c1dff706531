"""Bytes that may leave, accounted for before they do.

Each pull has a *covered* amount on stable storage and a *moved* amount in memory; nothing leaves
that is not covered. So a crash can report more than left (at most what was covered ahead), never
less. Cover is bought in windows ahead of the flow, while earlier bytes are still leaving, and the
windows of many pulls share one write.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from connector.errors import Unavailable
from connector.ports.pulls import PullStore

log = structlog.get_logger()

WINDOW = 8 << 20  # bytes covered ahead, at least
MOST = 64 << 20  # and at most: an eighth of what has moved lies between


@dataclass(eq=False, slots=True)
class Account:
    """One pull's. ``flows``: how many of its answers are under way."""

    pid: str
    covered: int = 0
    moved: int = 0
    flows: int = 0
    buying: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Accounts:
    """For one event loop; the only writer of what the store says moved."""

    store: PullStore
    _wanted: dict[Account, int] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, account: Account, amount: int, rest: int) -> None:
        """Let ``amount`` bytes leave, of an answer that has ``rest`` more after them.

        Raises ``Unavailable``, and none may leave, if that cannot be written.
        """
        ahead = min(max(WINDOW, account.moved >> 3), MOST)
        while account.moved + amount > account.covered:
            if account.buying is not None:
                await asyncio.wait({account.buying})
                if account.moved + amount <= account.covered:
                    break
            await self._cover(account, account.moved + amount + min(ahead, rest))
        account.moved += amount
        spare = account.covered - account.moved
        if spare < min(ahead // 2, rest) and account.buying is None:
            more = self._buy(account, account.moved + min(ahead, rest))
            account.buying = asyncio.create_task(more)

    async def close(self, account: Account) -> None:
        """The last answer under way has ended: what is covered and did not move is given up."""
        if account.buying is not None:
            await asyncio.wait({account.buying})
        async with self._turn:
            if account.flows or account.covered == account.moved:
                return
            account.covered = account.moved  # first: who begins now must buy, and wait for us
            try:
                await self.store.move({account.pid: account.moved})
            except Unavailable as error:
                log.warning("more stays accounted for than moved", reason=error.message)

    async def _buy(self, account: Account, amount: int) -> None:
        try:
            await self._cover(account, amount)
        except Unavailable:
            log.warning("no bytes can be accounted for now")
        finally:
            account.buying = None

    async def _cover(self, account: Account, amount: int) -> None:
        self._wanted[account] = max(amount, self._wanted.get(account, 0))
        async with self._turn:
            if account.covered >= amount:  # by who came before
                return
            wanted, self._wanted = self._wanted, {}
            wanted[account] = max(amount, wanted.get(account, 0))
            await self.store.move({one.pid: most for one, most in wanted.items()})
            for one, most in wanted.items():
                one.covered = max(one.covered, most)
