"""Answers of pulls that are under way: how many there are at once, and what ends them before they
are at their end.

While bytes flow it is looked again and again whether their consumer may be served, and the policy
is asked anew from time to time. A cut flow is cut at its connection: nothing that waits in a buffer
leaves any more. Fails closed: where it cannot be looked, nothing flows.

Left out: what may begin to flow (``gate.pulls``), and what it is accounted with
(``gate.accounts``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog

from connector.errors import ConnectorError, RateLimited, Unauthenticated, Unavailable
from connector.gate.accounts import Account, Accounts
from connector.model.participant import Participant
from connector.ports.clock import Clock

log = structlog.get_logger()

TICK_S = 0.25  # how often it is looked whether a flow may go on
AGAIN_S = 10.0  # after which the policy is asked again while bytes flow
MOST_FLOWS = 8  # answers of one process at once
MOST_FLOWS_OF_ONE = 32  # of one consumer: who takes them slowly must not take all
MOST_FLOWS_IN_ALL = 128


@dataclass(eq=False, slots=True)
class Flow:
    """One answer that is under way. ``cut`` is what closes its connection for good."""

    task: asyncio.Task[object]
    cut: Callable[[], None]
    account: Account
    accounts: Accounts
    is_cut: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, amount: int, rest: int) -> None:
        """MUST be awaited before ``amount`` bytes are given away; ``rest`` more will follow.

        Raises ``Unavailable``: they may not.
        """
        await self.accounts.take(self.account, amount, rest)

    def stop(self) -> None:
        if not self.is_cut and not self.ended.is_set():
            self.is_cut = True
            self.cut()
            self.task.cancel()


@dataclass(eq=False, slots=True)
class Answers:
    """Those of one process. ``permitted`` asks the policy, and raises ``ConnectorError`` where
    nothing may flow any more. ``decided``: when it was asked last (monotonic seconds)."""

    consumer: str
    account: Account
    permitted: Callable[[], Awaitable[object]]
    flows: set[Flow] = field(default_factory=set)
    decided: float = 0.0

    def stop(self, reason: str) -> None:
        log.warning("data stopped flowing", process=self.account.pid, reason=reason)
        for flow in list(self.flows):
            flow.stop()


class Flows:
    """All answers of a node; for one event loop. ``member`` gives the record of an active
    participant, or raises."""

    def __init__(
        self, accounts: Accounts, clock: Clock, member: Callable[[str], Participant]
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._member = member
        self._flowing: set[Answers] = set()
        self._watching: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def flow(self, answers: Answers, cut: Callable[[], None]) -> AsyncIterator[Flow]:
        """Around the bytes of one answer, in the task that gives them away.

        ``cut()`` must close the connection at once, with all that waits in it. Where the flow is
        cut, the block is left at its next ``await`` and this context ends without an error.
        Raises ``RateLimited`` or ``Unavailable`` if too much flows.
        """
        task = asyncio.current_task()
        if task is None:
            raise Unauthenticated("not a token for this")
        self._require_place(answers)
        flow = Flow(task, cut, answers.account, self._accounts)
        if not answers.flows:
            answers.decided = self._clock.monotonic()
            self._flowing.add(answers)
        answers.flows.add(flow)
        answers.account.flows += 1
        self._watch()
        try:
            yield flow
            if flow.is_cut:
                await asyncio.sleep(0)  # where the cancellation is still to come
        except asyncio.CancelledError:
            if not flow.is_cut:
                raise
            task.uncancel()
        finally:
            answers.flows.discard(flow)
            answers.account.flows -= 1
            flow.ended.set()
            if not answers.flows:
                self._flowing.discard(answers)
                await self._accounts.close(answers.account)

    async def cut(self, answers: Answers) -> None:
        """On return nothing of the process leaves any more."""
        flows = list(answers.flows)
        for flow in flows:
            flow.stop()
        for flow in flows:
            await flow.ended.wait()
        await self._accounts.close(answers.account)

    async def close(self) -> None:
        """Look at nothing any more; MUST be called when nothing flows."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _require_place(self, answers: Answers) -> None:
        if len(answers.flows) >= MOST_FLOWS:
            raise RateLimited(f"at most {MOST_FLOWS} answers of one transfer at once")
        flowing = [(one.consumer, len(one.flows)) for one in self._flowing]
        own = sum(many for consumer, many in flowing if consumer == answers.consumer)
        if own >= MOST_FLOWS_OF_ONE:
            raise RateLimited(f"at most {MOST_FLOWS_OF_ONE} answers of one consumer at once")
        if sum(many for _, many in flowing) >= MOST_FLOWS_IN_ALL:
            raise Unavailable("too many transfers at once", hint="try again in a moment")

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Cut what may not go on; until nothing flows."""
        try:
            while self._flowing:
                for answers in list(self._flowing):
                    self._look_at(answers, self._clock.monotonic())
                await asyncio.sleep(TICK_S)
        except Exception as error:  # nobody would look any more
            for answers in list(self._flowing):
                answers.stop(type(error).__name__)
            raise

    def _look_at(self, answers: Answers, now: float) -> None:
        try:
            self._member(answers.consumer)
        except ConnectorError as error:
            answers.stop(error.message)
            return
        if now - answers.decided >= AGAIN_S:
            answers.decided = now
            task = asyncio.create_task(_ask_again(answers))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)


async def _ask_again(answers: Answers) -> None:
    try:
        await answers.permitted()
    except ConnectorError as error:
        answers.stop(error.message)
    except Exception as error:
        answers.stop(type(error).__name__)
        raise
