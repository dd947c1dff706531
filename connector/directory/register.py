"""The register: the directory's signed, numbered membership events, and who is what by them.

The store decides; what is held in memory follows it, and is read again after any write whose end
is unknown. One process writes it (the data folder's lock), one change at a time. Each change goes:

1. the change is checked against the table of states (``identity.membership``);
2. event, record, act and the spending of an invitation are stored in one write;
3. watchers are woken, and every call that asks ``active`` sees it;
4. the act goes to the log. If the log is not there now, the act waits in the store.

A caller that goes away half-way stops none of the steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from connector.errors import Conflict, ConnectorError, NotFound, Unauthenticated, Unavailable
from connector.identity.membership import (
    Change,
    Heartbeat,
    MembershipEvent,
    next_state,
    read_membership_event,
    sign_heartbeat,
    sign_membership_event,
)
from connector.identity.ourselves import Ourselves
from connector.identity.statements import public_bytes
from connector.model.participant import Membership, Participant
from connector.ports.clock import Clock
from connector.ports.directory import (
    DirectoryStore,
    InvitationRecord,
    PendingAct,
    Recorded,
)
from connector.ports.journal import Journal

T = TypeVar("T")
_BATCH = 500
_ACTS: Mapping[Change, str] = {
    Change.ADMITTED: "member.admitted",
    Change.UPDATED: "member.updated",
    Change.SUSPENDED: "member.suspended",
    Change.RESTORED: "member.restored",
    Change.REVOKED: "member.revoked",
}


class Register:
    """Made by ``open_register``."""

    def __init__(
        self, ourselves: Ourselves, store: DirectoryStore, journal: Journal, clock: Clock
    ) -> None:
        self._ourselves = ourselves
        self._store = store
        self._journal = journal
        self._clock = clock
        self._records: dict[str, Recorded] = {}
        self._last = 0
        self._logs: Mapping[str, tuple[bytes, ...]] = {}
        self._logs_at = 0  # the number of the event that they are as of
        self._writing = asyncio.Lock()
        self._logging = asyncio.Lock()
        self._changed = asyncio.Event()
        self._uncertain = False  # whether a write ended without telling us how
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before reading: then no change is missed."""
        return self._changed

    def wake(self) -> None:
        """Set ``changed``."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def record(self, did: str) -> Recorded:
        """Raises ``NotFound``."""
        try:
            return self._records[did]
        except KeyError as error:
            raise NotFound("there is no such participant") from error

    def active(self, did: str) -> Participant:
        """The record of an active participant. Raises ``Unauthenticated``."""
        found = self._records.get(did)
        if found is None or found.participant.state is not Membership.ACTIVE:
            raise Unauthenticated("not an active member of this space")
        return found.participant

    def logs(self) -> Mapping[str, tuple[bytes, ...]]:
        """The active participants' logs but our own: each origin with its keys."""
        if self._logs_at != self._last:
            self._logs = {
                found.participant.log_origin: found.participant.signing_keys
                for found in self._records.values()
                if found.participant.state is Membership.ACTIVE
                and found.participant.did != self._ourselves.did
            }
            self._logs_at = self._last
        return self._logs

    def state(self, did: str) -> Membership | None:
        """None for a DID that was never admitted."""
        found = self._records.get(did)
        return found.participant.state if found else None

    def heartbeat(self) -> str:
        """Signed now."""
        heartbeat = Heartbeat(self._last, self._clock.now())
        return sign_heartbeat(self._ourselves.signing_key, heartbeat)

    async def change(
        self, participant: Participant, change: Change, reason: str = "", *, spends: bytes = b""
    ) -> Recorded:
        """The next event; the participant's state and revision are set here.

        Raises ``Conflict`` if the states, the invitation ``spends`` or another participant's log
        origin or key stand against it, and ``Unavailable`` if it is not known to be durable.
        """
        return await self._to_its_end(self._change(participant, change, reason, spends))

    async def invite(self, invitation: InvitationRecord, roles: tuple[str, ...], did: str) -> None:
        """Remember an invitation, and that we made it."""
        await self._to_its_end(self._invite(invitation, roles, did))

    async def log_pending(self) -> int:
        """Put waiting acts into the log, oldest first; how many could not be. 0 is usual."""
        async with self._logging:
            while acts := await self._store.pending_acts(_BATCH):
                for position, act in enumerate(acts):
                    if not await self._log(act):
                        return len(acts) - position
        return 0

    async def settle(self) -> None:
        """Read again if a write ended without telling us how. Raises ``Unavailable``."""
        async with self._writing:
            if self._uncertain:
                await self.reload()

    async def reload(self) -> None:
        """Read the store; verify every record that it holds."""
        records: dict[str, Recorded] = {}
        key, after = public_bytes(self._ourselves.signing_key), ""
        while page := await self._store.records_after(after, _BATCH):
            for found in page:
                event = read_membership_event(found.statement, key)
                records[event.participant.did] = Recorded(event.participant, found.statement)
            after = page[-1].participant.did
        self._records, self._last = records, await self._store.last_event()
        self._uncertain = False
        self.wake()

    async def _change(
        self, participant: Participant, change: Change, reason: str, spends: bytes
    ) -> Recorded:
        async with self._writing:
            if self._uncertain:
                await self.reload()
            state = next_state(self.state(participant.did), change)
            participant = dataclasses.replace(participant, state=state, revision=self._last + 1)
            now = self._clock.now()
            event = MembershipEvent(participant.revision, now, change, reason, participant)
            statement = sign_membership_event(self._ourselves.signing_key, event)
            recorded = Recorded(participant, statement)
            act = self._ourselves.act(
                _ACTS[change], participant.did, now, event=participant.revision, reason=reason
            )
            await self._append(recorded, (_ACTS[change], participant.did, act), spends)
            self._records[participant.did] = recorded
            self._last = participant.revision
            self.wake()
        await self._log_now()
        return recorded

    async def _append(self, recorded: Recorded, act: tuple[str, str, str], spends: bytes) -> None:
        self._uncertain = True
        try:
            await self._store.append_event(recorded, act, spends=spends)
        except Conflict:
            self._uncertain = False
            raise
        except Unavailable:
            with contextlib.suppress(Unavailable):
                await self.reload()  # it may have happened all the same
            raise
        self._uncertain = False

    async def _invite(self, invitation: InvitationRecord, roles: tuple[str, ...], did: str) -> None:
        act = self._ourselves.act(
            "member.invited",
            self._ourselves.did,
            self._clock.now(),
            organisation=invitation.organisation,
            invitationSha256=invitation.digest.hex(),
            roles=list(roles),
            did=did,
        )
        await self._store.add_invitation(invitation, ("member.invited", self._ourselves.did, act))
        await self._log_now()

    async def _log_now(self) -> None:
        """A change that is stored stands, whatever becomes of the log; the act then waits."""
        try:
            await self.log_pending()
        except Unavailable:
            return

    async def _log(self, act: PendingAct) -> bool:
        try:
            await self._journal(
                scope=act.scope,
                actor=self._ourselves.did,
                act=act.type,
                statement=act.statement,
            )
        except ConnectorError:
            return False
        await self._store.act_logged(act.number)
        return True

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, and let it finish even if nobody waits any more."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


async def open_register(
    ourselves: Ourselves,
    store: DirectoryStore,
    journal: Journal,
    clock: Clock,
    *,
    endpoint: str,
) -> Register:
    """The register as the store has it; the operator's own record is event 1, and is written again
    where its name or endpoint changed. Raises ``Unavailable``, and ``VerificationFailed`` if the
    store holds what our key did not sign."""
    register = Register(ourselves, store, journal, clock)
    await register.reload()
    own = Participant(
        did=ourselves.did,
        name=ourselves.name,
        roles=("operator",),
        state=Membership.ACTIVE,
        signing_keys=(public_bytes(ourselves.signing_key),),
        endpoint=endpoint,
        log_origin=ourselves.log_origin,
        revision=0,
    )
    if register.state(ourselves.did) is None:
        await register.change(own, Change.ADMITTED, "the space's operator")
    else:
        found = register.record(ourselves.did).participant
        if dataclasses.replace(found, revision=0) != own:
            await register.change(own, Change.UPDATED, "the space's operator")
    await register.log_pending()
    return register
