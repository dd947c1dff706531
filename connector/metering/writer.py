"""The way into the log: calls wait in line and go in by groups, each group in one commit.

Two things happen at a time: one group is planned while the one before it is written. What comes
in meanwhile gathers for the next. What the plans are is ``ledger``'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

from connector.errors import ConnectorError, InternalError, Unavailable
from connector.metering.ledger import Answer, Call, Ledger, Planned
from connector.metering.types import ActDraft, Report

MAX_GROUP = 16_384  # weight of one commit, reached or passed by its last call
ITEM_WEIGHT = 8  # of an item, as a row of a report weighs 1: about what it costs

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    weight: int
    answer: asyncio.Future[Answer]


class Writer:
    """Belongs to one event loop. ``committing`` is the one thread that commits; ``abandoned`` is
    told of each call whose caller left before it got its answer."""

    def __init__(
        self,
        ledger: Ledger,
        committing: ThreadPoolExecutor,
        abandoned: Callable[[Call, Answer], None],
    ) -> None:
        self._ledger = ledger
        self._committing = committing
        self._planning = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._abandoned = abandoned
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._room_to_plan = asyncio.Semaphore(1)
        self._planned: asyncio.Queue[tuple[Sequence[_Waiting], Planned] | None] = asyncio.Queue()
        self._idle = asyncio.Event()  # nothing is planned and not committed
        self._idle.set()
        self._committed = asyncio.Event()  # a new one for each commit
        self.trouble = ""  # why the last commit failed; empty if it did not
        self._stopped = False
        self._closed = False
        self._task = asyncio.create_task(self._write())

    async def submit(self, call: Call) -> Answer:
        """What became of the call, when it is durable. Raises ``Unavailable`` after ``stop``."""
        if self._stopped:
            raise Unavailable("the node is stopping")
        waiting = _Waiting(call, _weight(call), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting.answer.done() and not waiting.answer.cancelled():
                self._abandoned(call, waiting.answer.result())
            raise

    async def committed(self) -> None:
        """Wait for the next commit. Raises ``Unavailable`` after ``stop``."""
        if self._stopped:
            raise Unavailable("the node is stopping")
        await self._committed.wait()

    def stop(self) -> None:
        """Take no more calls; those that wait are still served."""
        self._stopped = True
        self._wake.set()
        self._tell()

    async def close(self) -> None:
        """After ``stop``: wait for everything that was begun. Idempotent."""
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._closed:
            self._closed = True
            await self._in_thread(self._committing, self._ledger.close)
            self._committing.shutdown()
            self._planning.shutdown()

    async def _write(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._plan_all())
                tasks.create_task(self._commit_all())
        finally:
            self._stopped = True
            while not self._planned.empty():
                if (item := self._planned.get_nowait()) is not None:
                    self._waiting.extend(item[0])
            _give_up(self._waiting)
            self._waiting.clear()
            self._tell()

    async def _plan_all(self) -> None:
        while self._waiting or not self._stopped:
            await self._room_to_plan.acquire()
            if self._ledger.is_due():
                await self._idle.wait()
                await self._in_thread(self._planning, self._ledger.keep)
            group = self._next_group()
            if not group:
                self._room_to_plan.release()
                if not self._stopped:
                    self._wake.clear()
                    await self._wake.wait()
                continue
            calls = [waiting.call for waiting in group]
            with _answered(group):
                if _looks_back(calls[0]):
                    await self._idle.wait()
                try:
                    planned = await self._in_thread(self._planning, self._ledger.plan, calls)
                except ConnectorError as error:
                    self._room_to_plan.release()
                    for waiting in group:
                        _answer(waiting, error)
                    continue
                self._idle.clear()
                self._planned.put_nowait((group, planned))
        self._planned.put_nowait(None)

    async def _commit_all(self) -> None:
        while (item := await self._planned.get()) is not None:
            self._room_to_plan.release()
            await self._commit(*item)
            if self._planned.empty():
                self._idle.set()

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        weight = 0
        while self._waiting and weight < MAX_GROUP:
            if group and _looks_back(self._waiting[0].call):
                break
            waiting = self._waiting.popleft()
            if waiting.answer.cancelled():
                continue
            group.append(waiting)
            weight += waiting.weight
            if _looks_back(waiting.call):
                break
        return group

    async def _commit(self, group: Sequence[_Waiting], planned: Planned) -> None:
        answers: Sequence[Answer] = []
        with _answered(group):
            try:
                answers = await self._in_thread(self._committing, self._ledger.commit, planned)
            except ConnectorError as error:
                answers = [error] * len(group)
                self._note(error.message)
            else:
                self._note("")
            for waiting, answer in zip(group, answers, strict=True):
                if not _answer(waiting, answer):
                    self._abandoned(waiting.call, answer)
        self._tell()

    def _note(self, trouble: str) -> None:
        """Told once when writing begins to fail, and once when it works again."""
        if trouble and not self.trouble:
            log.error("commits fail", reason=trouble)
        elif self.trouble and not trouble:
            log.warning("commits succeed again")
        self.trouble = trouble

    async def _in_thread(
        self, executor: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **named: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, lambda: call(*args, **named))

    def _tell(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()


@contextmanager
def _answered(group: Sequence[_Waiting]) -> Iterator[None]:
    """Nobody of the group waits for ever, whatever happens inside."""
    try:
        yield
    except BaseException:
        _give_up(group)
        raise


def _give_up(calls: Iterable[_Waiting]) -> None:
    for waiting in calls:
        _answer(waiting, InternalError("the meter has stopped", hint="restart the node"))


def _looks_back(call: Call) -> bool:
    """Whether it wants what comes before it durable: then it is a group of its own."""
    return any(isinstance(item, ActDraft) and callable(item.statement) for item in call)


def _weight(call: Call) -> int:
    return sum(len(item.columns) if isinstance(item, Report) else ITEM_WEIGHT for item in call)


def _answer(waiting: _Waiting, answer: Answer) -> bool:
    """False if the caller is gone."""
    if waiting.answer.done():
        return False
    waiting.answer.set_result(answer)
    return True
