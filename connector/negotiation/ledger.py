"""What both sides of negotiation share: turns, saving, acts for the log, and who is told.

* One step at a time for each channel (``turn``): a person's decision and a message that arrives
  cannot interleave.
* A step is one durable write: state, agreement, transfers, outgoing messages, acts, and the
  sequence of the message that caused it (``save``).
* Acts that were saved are put into the log before anything later on this channel is sent, and
  before the agreement they conclude may be used. Where an agreement ended, its running uses are
  stopped first. After a crash the acts that were saved are still there and are logged then, so
  the log may be given an act twice, and never not at all.
* Nothing polls: sessions and followers are woken by the step that concerns them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    NotFound,
    PeerFault,
    RateLimited,
    Unavailable,
)
from connector.model.correlation import CORRELATION
from connector.model.negotiation import (
    AgreementState,
    Channel,
    Negotiation,
    State,
    StoredAgreement,
)
from connector.model.transfer import TransferState
from connector.negotiation import machine, messages
from connector.negotiation.agreements import CONCLUDED, ENDED
from connector.negotiation.draft import Draft
from connector.negotiation.events import Events
from connector.ports.clock import Clock
from connector.ports.journal import Journal
from connector.ports.negotiation import Act, Change, Counts, Letter, NegotiationStore, Post

MAX_OUTBOX = 1000  # messages that a peer has not acknowledged
MAX_FOLLOWED = 64  # changes that a slow follower may be behind before it misses some

T = TypeVar("T")
log = structlog.get_logger()
StopUses = Callable[[str], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Step:
    """``passed``: for each transfer of the change, the states that it passed through."""

    draft: Draft
    change: Change
    passed: tuple[Sequence[TransferState], ...]


class Ledger:
    """``stop_uses`` stops the running uses of an agreement and says how many there were; an
    agreement that is not active lets no new one begin."""

    def __init__(
        self, *, store: NegotiationStore, journal: Journal, stop_uses: StopUses, clock: Clock
    ) -> None:
        self.store = store
        self._journal = journal
        self._stop_uses = stop_uses
        self._clock = clock
        self._turns: dict[Channel, asyncio.Lock] = {}
        self._acknowledged: dict[Channel, int] = {}
        self._most_posts: dict[Channel, int] = {}  # that a channel may have; it has no more
        # Channels with acts that the log may not have; None where only the store knows which.
        self._unlogged: dict[Channel, Sequence[Act] | None] = {}
        self._changed: dict[Channel, asyncio.Event] = {}
        self.posted = asyncio.Event()
        """Set when there may be new posts."""
        self._followers: dict[str, set[asyncio.Queue[Sequence[Negotiation]]]] = {}
        self.events = Events()
        self._noting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Log what a crash left to be logged. MUST be awaited before anything else is asked.

        Raises ``Unavailable`` when the log cannot be written: the node is not ready then.
        """
        for channel in await self.store.channels_with_acts():
            self._unlogged[channel] = None
            async with self.turn(channel):
                await self.settle(channel)

    async def close(self) -> None:
        """End every follower, and write what is still to be written."""
        self.events.close()
        await asyncio.gather(*self._noting, return_exceptions=True)

    def turn(self, channel: Channel) -> asyncio.Lock:
        """Hold it while drafting and saving a step of this channel."""
        return self._turns.setdefault(channel, asyncio.Lock())

    async def save(self, draft: Draft, *, received: int = 0, posted: tuple[int, ...] = ()) -> int:
        """The draft in one write, then its acts in the log, then tell who waits for it.

        ``posted``: numbers of posts that are done with.
        Finishes even if the caller is cancelled. Returns how many running uses were stopped.
        Raises ``Conflict`` (nothing happened) and ``Unavailable`` (it may have happened).
        """
        (answer,), stopped = await _to_the_end(self._save([self.step(draft, received, posted)]))
        if answer is not None:
            raise answer
        return stopped

    async def save_all(self, steps: Sequence[Step]) -> int:
        """Steps of one channel, of different processes, in order, each as ``save`` does it; they
        may share a sync. Returns how many of the first ones were saved: of the next one nothing
        happened, nor of those behind it. Raises ``Unavailable`` as ``save`` does."""
        answers, _ = await _to_the_end(self._save(steps))
        for answer in answers:
            if answer is not None and not isinstance(answer, Conflict):
                raise answer
        return next((n for n, answer in enumerate(answers) if answer is not None), len(steps))

    def step(self, draft: Draft, received: int = 0, posted: tuple[int, ...] = ()) -> Step:
        """A draft that is ready to be saved."""
        channel, negotiation = draft.channel, draft.changed
        now = int(self._clock.now().timestamp() * 1000)
        if negotiation is not None:
            negotiation = replace(negotiation, updated_ms=now)
        transfers = [
            (replace(process, updated_ms=now), step.passed[:-1])
            for step in draft.transfers
            if (process := step.changed) is not None
        ]
        correlation_id = structlog.contextvars.get_contextvars().get(CORRELATION, "")
        letters = _letters(draft)
        change = Change(
            channel=channel,
            negotiation=negotiation,
            agreement=draft.agreement,
            transfers=tuple(process for process, _ in transfers),
            outgoing=tuple(body for _, address, body in letters if not address),
            posts=tuple(
                Post(channel, pid, address, body, correlation_id)
                for pid, address, body in letters
                if address
            ),
            posted=posted,
            correlation_id=correlation_id,
            received=received,
            acknowledged=self._acknowledged.get(channel, 0),
            acts=tuple(draft.acts),
        )
        return Step(draft, change, tuple(passed for _, passed in transfers))

    async def _save(self, steps: Sequence[Step]) -> tuple[Sequence[ConnectorError | None], int]:
        """Why each step was not saved, and how many running uses were stopped."""
        channel = steps[0].change.channel
        try:
            answers = await self._commit([step.change for step in steps])
            for step, answer in zip(steps, answers, strict=True):
                if answer is None:
                    self._tell_step(step)
            unsure = any(isinstance(answer, Unavailable) for answer in answers)
            if unsure or None not in answers:
                return answers, 0
            return answers, await self.settle(channel)
        finally:
            self.changed(channel).set()
            if any(step.change.posts for step in steps):
                self.posted.set()

    def _tell_step(self, step: Step) -> None:
        if step.change.negotiation is not None:
            self._tell(step.change.negotiation, step.draft.passed[:-1])
        for process, passed in zip(step.change.transfers, step.passed, strict=True):
            for state in passed:
                self.events.tell(replace(process, state=state))
            self.events.tell(process)

    async def _commit(self, changes: Sequence[Change]) -> Sequence[ConnectorError | None]:
        """All of one channel, in order; why each one failed. One behind it fails too, if both
        have a place in the peer's order (``Change.received``)."""
        channel = changes[0].channel
        acts = any(change.acts for change in changes)
        only_these = channel not in self._unlogged
        if acts:
            self._unlogged[channel] = None
        saving = []
        for change in changes:
            if change.posts and channel in self._most_posts:
                self._most_posts[channel] += len(change.posts)
            saving.append(self._commit_one(change))
        answers = await asyncio.gather(*saving, return_exceptions=True)
        saved: list[Act] = []
        failed: list[ConnectorError | None] = []
        for answer in answers:
            if isinstance(answer, ConnectorError):
                failed.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                failed.append(None)
                saved += answer
        sure = all(one is None or isinstance(one, Conflict) for one in failed)
        if acts and only_these and sure:
            self._unlogged[channel] = saved
        return failed

    async def _commit_one(self, change: Change) -> tuple[Act, ...]:
        changes = change.negotiation or change.agreement or change.transfers
        if not (changes or change.outgoing or change.posts or change.received or change.posted):
            return ()
        return await self.store.commit(change)

    async def settle(self, channel: Channel) -> int:
        """Log the acts that were saved; the caller holds the turn. Raises ``Unavailable``."""
        if channel not in self._unlogged:
            return 0
        stopped = 0
        acts = self._unlogged[channel]
        if acts is None:
            acts = await self.store.pending_acts(channel)
        for ends, group in groupby(acts, lambda act: act.type == ENDED):
            together = tuple(group)
            if ends:
                for act in together:
                    stopped += await self._stop_uses(act.scope)
            await self._log(together)
        del self._unlogged[channel]
        self.changed(channel).set()  # what waited for the log may go
        # Nothing waits for the note that they are there: the next step's write may take it along.
        noting = asyncio.create_task(self._note_logged(channel, acts), context=Context())
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)
        return stopped

    async def _log(self, acts: Sequence[Act]) -> None:
        """In their order; several at once may share a commit of the log."""
        logging = [
            self._journal(scope=act.scope, actor=act.actor, act=act.type, statement=act.statement)
            for act in acts
        ]
        if len(logging) == 1:
            await logging[0]
            return
        for answer in await asyncio.gather(*logging, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def _note_logged(self, channel: Channel, acts: Sequence[Act]) -> None:
        try:
            numbers = tuple(act.number for act in acts)
            await self.store.commit(Change(channel=channel, logged=numbers))
        except ConnectorError as error:
            log.warning("acts will be given to the log again", reason=error.message)

    async def counts(self, channel: Channel) -> Counts:
        return await self.store.counts(channel)

    def changed(self, channel: Channel) -> asyncio.Event:
        """Set when there may be something new to send."""
        return self._changed.setdefault(channel, asyncio.Event())

    async def outgoing(self, channel: Channel, after: int, limit: int) -> Sequence[Letter]:
        """What may be sent now. Raises ``Unavailable`` while an act cannot be logged."""
        while True:
            letters = await self.store.outbox(channel, after, limit)
            if channel not in self._unlogged:
                return letters
            async with self.turn(channel):
                await _to_the_end(self.settle(channel))

    async def posts(self, after: int, limit: int) -> Sequence[Post]:
        """Posts that may be sent now. Raises ``Unavailable`` while an act cannot be logged."""
        posts = await self.store.posts(after=after, limit=limit)
        for channel in {post.channel for post in posts}.intersection(self._unlogged):
            async with self.turn(channel):
                await _to_the_end(self.settle(channel))
        return posts

    async def acknowledge(self, channel: Channel, sequence: int) -> None:
        """The peer has our messages up to ``sequence``; forgotten with the next write.

        Raises ``PeerFault`` where our record and the peer's cannot both be right.
        """
        counts = await self.counts(channel)
        if sequence > counts.sent:
            raise PeerFault(
                "the peer has messages that we have no record of",
                hint="if this node was restored from a copy, its negotiations with the peer are "
                "older than the peer's",
            )
        if sequence < counts.acknowledged:
            raise PeerFault("the peer lost messages that it had acknowledged")
        self._acknowledged[channel] = max(self._acknowledged.get(channel, 0), sequence)

    async def require_room(self, channel: Channel, *, posts: bool = False, ahead: int = 0) -> None:
        """Raises ``RateLimited`` if the peer leaves too many of our messages untaken; ``posts``:
        of those that do not go by the stream; ``ahead``: those not yet saved."""
        if posts:
            if self._most_posts.get(channel, MAX_OUTBOX) >= MAX_OUTBOX:
                self._most_posts[channel] = await self.store.post_count(channel)
            if self._most_posts[channel] >= MAX_OUTBOX:
                raise RateLimited("the peer has not taken our earlier messages")
            return
        counts = await self.counts(channel)
        acknowledged = max(counts.acknowledged, self._acknowledged.get(channel, 0))
        if counts.sent + ahead - acknowledged >= MAX_OUTBOX:
            raise RateLimited("the peer has not taken our earlier messages")

    async def usable(self, agreement_id: str) -> StoredAgreement | None:
        """An agreement, active or ended, whose state is in our log.

        Raises ``Unavailable`` for one that is concluded and not logged yet.
        """
        found = await self.store.agreement(agreement_id)
        if found is None or found.state is AgreementState.PROPOSED:
            return None
        if found.state is AgreementState.ACTIVE and found.channel in self._unlogged:
            acts = await self.store.pending_acts(found.channel)
            if any((act.type, act.scope) == (CONCLUDED, agreement_id) for act in acts):
                raise Unavailable("the agreement is being written to the log; try again")
        return found

    async def follow(self, pid: str) -> AsyncIterator[Negotiation]:
        """The negotiation now and after each change, until it is final. A follower that is slow
        may miss changes, never the last. Raises ``NotFound``."""
        with self._following(pid) as queue:
            now = await self.store.negotiation(pid)
            if now is None:
                raise NotFound("no such negotiation")
            yield now
            # Only a termination that came too late is taken back, and then a newer state follows.
            while now.state not in machine.FINAL:
                steps = await queue.get()
                if steps[-1].revision > now.revision:
                    for now in steps:
                        yield now

    @contextmanager
    def _following(self, pid: str) -> Iterator[asyncio.Queue[Sequence[Negotiation]]]:
        queue: asyncio.Queue[Sequence[Negotiation]] = asyncio.Queue(MAX_FOLLOWED)
        self._followers.setdefault(pid, set()).add(queue)
        try:
            yield queue
        finally:
            self._followers[pid].discard(queue)
            if not self._followers[pid]:
                del self._followers[pid]

    def _tell(self, negotiation: Negotiation, passed: Sequence[State]) -> None:
        """One write may pass through several states (an agreement that is verified at once)."""
        steps = [*(replace(negotiation, state=state) for state in passed), negotiation]
        for step in steps:
            self.events.tell(step)
        for queue in self._followers.get(negotiation.pid, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(steps)


def _letters(draft: Draft) -> list[tuple[str, str, bytes]]:
    """(our process id, the peer's address, the body) of each message, in order: that transfers end
    is said before the end of their agreement."""
    letters = [
        (step.process.pid, step.process.address, messages.encode(content))
        for step in draft.transfers
        for content in step.outgoing
    ]
    pid = draft.changed.pid if draft.changed else ""
    return [
        *letters,
        *((pid, draft.address, messages.encode(content)) for content in draft.outgoing),
    ]


async def _to_the_end(work: Awaitable[T]) -> T:
    """``work``'s result; if we are cancelled meanwhile, it is finished first."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and isinstance(error := task.exception(), ConnectorError):
            log.warning("a step of a cancelled call failed", code=error.code, reason=error.message)
        raise
