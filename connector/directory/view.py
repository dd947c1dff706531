"""A node's own, verified picture of who is a member.

Events are applied in the order of their numbers, each signed by the space's pinned key, each a
step that the table of states allows; nothing is ever taken back. Heartbeats say that no event is
missing, and when that was: ``age`` is the time since the directory last truly spoke, counted by a
clock that cannot be set back, plus the time that its words were under way.

A node that starts has the picture it stored, and serves nobody by it until the directory is heard.

What this cannot see: a directory that signs two different histories. Each of its members' logs
and its own hold what it signed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from connector.errors import (
    Conflict,
    NotFound,
    PeerFault,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)
from connector.identity.membership import (
    HEARTBEAT,
    MembershipEvent,
    next_state,
    read_heartbeat,
    read_membership_event,
)
from connector.identity.statements import statement_kind
from connector.model.participant import Membership, Participant
from connector.ports.clock import Clock
from connector.ports.directory import MembershipStore, Recorded

Listener = Callable[[MembershipEvent], Awaitable[None]]
_BATCH = 500


class MembershipView:
    """For one event loop. ``max_age_s``: seconds after which the picture is too old to serve by.

    ``space`` and ``space_key`` (32 bytes) are pinned from the invitation.
    """

    def __init__(
        self,
        *,
        space: str,
        space_key: bytes,
        store: MembershipStore,
        clock: Clock,
        max_age_s: float,
    ) -> None:
        self._space = space
        self._space_key = space_key
        self._store = store
        self._clock = clock
        self._max_age_s = max_age_s
        self._records: dict[str, Recorded] = {}
        self._last = 0
        self._heard: tuple[float, float] | None = None  # monotonic, seconds under way
        self._heartbeat_time: datetime | None = None
        self._listeners: list[Listener] = []
        self._told: set[asyncio.Future[None]] = set()
        self._unsaved: deque[tuple[int, str, str]] = deque()

    async def open(self) -> None:
        """Take up the stored events, verifying each. The picture is stale until a heartbeat.

        Raises ``VerificationFailed``, ``InvalidInput`` or ``PeerFault`` if the store does not hold
        this space's events, and ``Unavailable``.
        """
        while page := await self._store.after(self._last, _BATCH):
            for statement in page:
                self._take(read_membership_event(statement, self._space_key), statement)

    @property
    def last(self) -> int:
        """The number of the last event applied: where to watch from."""
        return self._last

    @property
    def participants(self) -> Mapping[str, Recorded]:
        """Every record, by DID."""
        return dict(self._records)

    async def apply(self, statement: str) -> None:
        """An event or a heartbeat as the directory's feed gave it.

        The new state holds, and listeners have been started, before anything is waited for; then
        it is stored. Raises ``InvalidInput``, ``VerificationFailed`` or ``PeerFault`` for what is
        not next, and the picture stays as it was; ``Unavailable`` if it could not be stored: the
        event holds all the same, and is stored with the next.
        """
        if statement_kind(statement) == HEARTBEAT:
            self._hear(statement)
        else:
            event = read_membership_event(statement, self._space_key)
            self._take(event, statement)
            self._unsaved.append((event.number, event.participant.did, statement))
            self._tell(event)
        await self._save()

    def age(self) -> float:
        """Seconds since the directory last said that this picture is whole; inf if it has not."""
        if self._heard is None:
            return float("inf")
        heard, under_way = self._heard
        return self._clock.monotonic() - heard + under_way

    def require_fresh(self) -> None:
        """Raises ``Unavailable`` if the picture is older than its limit."""
        if self.age() > self._max_age_s:
            raise Unavailable(
                "the view of the directory is too old to serve by",
                hint="check that the directory can be reached, and this machine's clock",
            )

    def participant(self, did: str) -> Participant:
        """The record, whatever its state. Raises ``NotFound``."""
        return self.recorded(did).participant

    def recorded(self, did: str) -> Recorded:
        """The record with the signed event that wrote it. Raises ``NotFound``."""
        try:
            return self._records[did]
        except KeyError as error:
            raise NotFound("there is no such participant") from error

    def active(self, did: str) -> Participant:
        """The record of an active participant. Raises ``Unauthenticated``.

        Says nothing of age: whoever serves a peer asks ``require_fresh`` too.
        """
        found = self._records.get(did)
        if found is None or found.participant.state is not Membership.ACTIVE:
            raise Unauthenticated("not an active member of this space")
        return found.participant

    async def history(self, did: str) -> tuple[str, ...]:
        """All signed events of one participant, in order; for evidence."""
        return tuple(await self._store.of(did))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event from now on; returns what ends that.

        Listeners run as tasks of their own, started in the same step in which the event is
        applied: none waits for another, and the feed waits for none.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _take(self, event: MembershipEvent, statement: str) -> None:
        if event.number != self._last + 1:
            raise PeerFault(f"membership event {event.number} is not next after {self._last}")
        subject = event.participant
        known = self._records.get(subject.did)
        try:
            state = next_state(known.participant.state if known else None, event.type)
        except Conflict as error:
            raise VerificationFailed("membership event: not a step that is allowed") from error
        if subject.state is not state:
            raise VerificationFailed("membership event: the record does not follow")
        if event.number == 1 and subject.did != self._space:
            raise VerificationFailed("membership event 1 must be the space's own record")
        if subject.did == self._space and subject.signing_keys != (self._space_key,):
            raise VerificationFailed("membership event: the space's key is another one")
        self._records[subject.did] = Recorded(subject, statement)
        self._last = event.number

    def _hear(self, statement: str) -> None:
        heartbeat = read_heartbeat(statement, self._space_key)
        if heartbeat.number != self._last:
            raise PeerFault(
                f"the directory speaks of event {heartbeat.number}, the last here is {self._last}"
            )
        if self._heartbeat_time is not None and heartbeat.time < self._heartbeat_time:
            raise VerificationFailed("heartbeat: older than the last")
        if heartbeat.time == self._heartbeat_time:
            return  # a second one within a millisecond, or the same again: no news
        under_way = (self._clock.now() - heartbeat.time).total_seconds()
        if under_way < -self._max_age_s:
            raise VerificationFailed("heartbeat: from the future; compare the clocks")
        self._heartbeat_time = heartbeat.time
        self._heard = (self._clock.monotonic(), max(0.0, under_way))

    def _tell(self, event: MembershipEvent) -> None:
        for listener in self._listeners:
            told = asyncio.ensure_future(listener(event))
            self._told.add(told)
            told.add_done_callback(self._told.discard)

    async def _save(self) -> None:
        while self._unsaved:
            await self._store.append(*self._unsaved[0])
            self._unsaved.popleft()
