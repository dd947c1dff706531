"""Transfer processes at one node, in both roles: what peers ask for, and what people decide.

The provider's flow of data is opened, cut and settled by the data plane (``ports.dataplane``):

* It is opened once the request is saved, so that a crash finds the process it belongs to, and
  then the start is saved with the message that says where the data is.
* It is cut before the step that ends or suspends the process is saved: when a peer or a person
  learns of it, nothing flows any more.

A consumer moves no data here: it holds the data address for whoever does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
)
from connector.model.content import process_ids
from connector.model.negotiation import AgreementState, Channel, Party, StoredAgreement
from connector.model.transfer import (
    DataAddress,
    TransferError,
    TransferMessage,
    TransferProcess,
    TransferState,
    TransferType,
)
from connector.negotiation import agreements, messages
from connector.negotiation import transfer_machine as machine
from connector.negotiation.automation import Automation
from connector.negotiation.draft import Draft, explain
from connector.negotiation.ledger import Ledger
from connector.negotiation.transfer_draft import TransferDraft
from connector.ports.dataplane import DataPlane
from connector.ports.negotiation import NegotiationStore

MAX_OPEN = 64  # transfers with one peer, in one role, that are not over
MAX_LISTED = 1000
ALL = 1 << 31  # of a list that must be whole
ENDED = "agreement"  # the code of a transfer whose agreement has ended

_NOT_OURS = "no such agreement where this node is the consumer"

log = structlog.get_logger()


class Transfers:
    """All methods may be called at once. ``begin`` MUST be awaited first.

    Methods that a person calls raise ``NotFound`` (no such process or agreement here),
    ``Conflict`` (its state does not allow it), ``Refused`` (policy), ``RateLimited`` (too much is
    open), ``Unavailable``.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: NegotiationStore,
        dataplane: DataPlane,
        automation: Automation,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._dataplane = dataplane
        self._automation = automation
        self._opening: set[asyncio.Task[None]] = set()
        self._begun = False

    async def begin(self) -> None:
        """After a restart: what flowed flows again, and what was about to start starts. Until
        then a provider's processes are left alone: what is asked of them raises ``Unavailable``.
        """
        processes = [
            process
            for process in await self._store.transfers(open_only=True, limit=ALL)
            if process.party is Party.PROVIDER
        ]
        known = []
        for process in processes:
            agreement = await self._store.agreement(process.agreement_id)
            if agreement is not None and process.state is not TransferState.REQUESTED:
                known.append((agreement, process))
        await self._dataplane.resume(known)
        self._begun = True
        for process in processes:
            self._go_on(process)

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)

    # What people, and programs of this organisation, decide.

    async def request(self, agreement_id: str, format: str) -> TransferProcess:
        """As a consumer: ask for the data of an agreement in a format of its catalogue entry."""
        found = await self._store.agreement(agreement_id)
        if found is None or found.party is not Party.CONSUMER:
            raise NotFound(_NOT_OURS)
        channel = found.channel
        async with self._ledger.turn(channel):  # so that its conclusion is in the log
            agreement = await self._usable(agreement_id)
            if agreement is None:
                raise NotFound(_NOT_OURS)
            _require_active(agreement)
            await self._require_few_open(channel)
            await self._ledger.require_room(channel, posts=bool(agreement.address))
            draft = Draft(agreement.channel)
            step = draft.transfer()
            step.begin(agreement, pid=agreements.new_id(), format=format, address=agreement.address)
            for message in step.outgoing:
                messages.check(message, Party.CONSUMER)
            return await self._save(draft, step)

    async def start(self, pid: str) -> TransferProcess:
        """As a provider: start what was requested, or start again what was suspended. As a
        consumer: ask to start again."""

        async def start(step: TransferDraft) -> None:
            process = step.process
            if process.party is Party.CONSUMER:
                step.send(TransferType.START)
                return
            machine.answer(process.party, process.state, resuming=process.resuming)
            step.start(await self._open(process))

        await self._prepare(await self.transfer(pid))
        return await self._step(pid, start)

    async def suspend(self, pid: str, code: str = "", reason: str = "") -> TransferProcess:
        return await self._send(pid, TransferType.SUSPENSION, code=code, reason=reason)

    async def complete(self, pid: str) -> TransferProcess:
        return await self._send(pid, TransferType.COMPLETION)

    async def terminate(self, pid: str, code: str = "", reason: str = "") -> TransferProcess:
        """A rejection too."""
        return await self._send(
            pid, TransferType.TERMINATION, code=code or "withdrawn", reason=reason
        )

    async def renewed(self, pid: str, known: DataAddress, address: DataAddress) -> None:
        """As a consumer: a token of the ``known`` data address was refreshed, and ``address`` has
        the new one. Nothing changes where the process has another by now."""

        async def renew(step: TransferDraft) -> None:
            if step.process.party is Party.CONSUMER and step.process.data_address == known:
                step.note(data_address=address)

        await self._step(pid, renew)

    async def transfer(self, pid: str) -> TransferProcess:
        found = await self._store.transfer(pid)
        if found is None:
            raise NotFound("no such transfer")
        return found

    async def transfers(
        self, *, agreement_id: str = "", open_only: bool = False
    ) -> tuple[TransferProcess, ...]:
        """Newest first, ``MAX_LISTED`` at most."""
        return await self._store.transfers(
            agreement_id=agreement_id, open_only=open_only, limit=MAX_LISTED
        )

    async def unrecorded(self) -> tuple[TransferProcess, ...]:
        """As a consumer: those that are over and not ``recorded``, oldest first."""
        return await self._store.unrecorded(limit=ALL)

    async def recorded(self, pid: str) -> None:
        """Our log has what it can have of how this one ended."""
        await self._store.recorded(pid)

    # What a peer may do. The caller holds the channel's turn and saves the draft.

    async def answer(
        self, channel: Channel, content: TransferMessage | TransferError, heard: str = ""
    ) -> Draft:
        """``heard``: the digest of a message that came by itself. Such a one may come twice, when
        its answer was lost; it is taken once.

        Raises what a message is refused for; then nothing has changed, except that a flow may
        have been cut that the same message, when it comes again, cuts.
        """
        self._require_begun(channel)
        if isinstance(content, TransferError):
            return await self._answered(channel, content)
        if content.type is TransferType.REQUEST:
            return await self._requested(channel, content)
        process = await self._find(channel, content)
        draft = Draft(channel)
        step = draft.transfer(process)
        try:
            step.take(content)
        except Conflict:
            if not heard or process.heard != heard:
                raise
            return draft
        step.note(peer_pid=process_ids(channel.party, content)[1], heard=heard or process.heard)
        if step.process.resuming and not self._automation.start:
            step.wait("approval")
        await self._apply(step)
        return draft

    async def end(self, draft: Draft, code: str, reason: str, *, quiet: bool) -> None:
        """End the process of ``draft``, unless it is over; ``quiet``: tell nobody."""
        if draft.transfers:
            self._require_begun(draft.channel)
        for step in draft.transfers:
            if step.process.state not in machine.FINAL:
                step.terminate(code, reason, quiet=quiet or not step.process.peer_pid)
                await self._apply(step)

    def saved(self, draft: Draft) -> None:
        """What follows by itself from a draft that is saved now."""
        for step in draft.transfers:
            self._go_on(step.process)

    async def end_all(self, draft: Draft, agreement_id: str, reason: str) -> None:
        """End every transfer under an agreement that ``draft`` ends."""
        for process in await self._store.transfers(
            agreement_id=agreement_id, open_only=True, limit=ALL
        ):
            self._require_begun(process.channel)
            step = draft.transfer(process)
            step.terminate(ENDED, reason or "the agreement has ended")
            await self._apply(step)

    async def _requested(self, channel: Channel, message: TransferMessage) -> Draft:
        draft = Draft(channel)
        known = await self._store.transfer_by_peer_pid(channel, message.consumer_pid)
        if known is not None:
            asked = (known.agreement_id, known.format, known.address)
            if asked != (message.agreement_id, message.format, message.callback):
                raise Conflict("this process id has begun another transfer")
            draft.transfer(known)
            return draft
        agreement = await self._usable(message.agreement_id)
        if agreement is None or agreement.channel != channel:
            raise NotFound("no such agreement")
        _require_active(agreement)
        if message.format not in self._dataplane.formats:
            offered = ", ".join(self._dataplane.formats) or "none"
            raise InvalidInput(f"format: not one of those offered here ({offered})")
        await self._require_few_open(channel)
        step = draft.transfer()
        step.begin(
            agreement,
            pid=agreements.new_id(),
            peer_pid=message.consumer_pid,
            format=message.format,
            address=message.callback,
        )
        if not self._automation.start:
            step.wait("approval")
        return draft

    async def _answered(self, channel: Channel, error: TransferError) -> Draft:
        """The peer refused a message of ours, so the states differ: the process ends. Never
        refused itself: that would be a loop."""
        draft = Draft(channel)
        log.info("the peer refused a transfer message", peer=channel.peer, code=error.code)
        try:
            process = await self._find(channel, error)
        except NotFound:
            return draft
        draft.transfer(process)
        await self.end(draft, f"peer:{error.code}", error.reason, quiet=False)
        return draft

    async def _find(
        self, channel: Channel, content: TransferMessage | TransferError
    ) -> TransferProcess:
        """The process that both ids name. Raises ``NotFound``."""
        ours, theirs = process_ids(channel.party, content)
        if ours:
            found = await self._store.transfer(ours)
        else:
            found = await self._store.transfer_by_peer_pid(channel, theirs)
        if found is None or found.channel != channel or found.peer_pid not in ("", theirs):
            raise NotFound("no such transfer")
        return found

    # The provider's flow.

    def _go_on(self, process: TransferProcess) -> None:
        """Start what nobody needs to decide about, when the turn is free."""
        if self._is_due(process):
            task = asyncio.create_task(self._start(process))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _is_due(self, process: TransferProcess) -> bool:
        wants = process.state is TransferState.REQUESTED or process.resuming
        return process.party is Party.PROVIDER and wants and not process.waiting

    async def _prepare(self, process: TransferProcess) -> None:
        """Outside the channel's turn: what takes long there must not hold up an end, a suspension,
        or what else is said on the channel."""
        if process.party is Party.PROVIDER and process.state not in machine.FINAL:
            with suppress(ConnectorError):  # the start itself will say
                agreement = await self._usable(process.agreement_id)
                if agreement is not None:
                    await self._dataplane.prepare(agreement, process)

    async def _start(self, known: TransferProcess) -> None:
        try:
            await self._prepare(known)
            async with self._ledger.turn(known.channel):
                process = await self.transfer(known.pid)
                if not self._is_due(process):
                    return
                draft = Draft(process.channel)
                step = draft.transfer(process)
                try:
                    step.start(await self._open(process))
                except Unavailable as error:
                    step.wait("unavailable", error.message)
                except Refused as error:
                    step.terminate("policy", explain(error.reasons))
                except ConnectorError as error:
                    step.terminate(error.code, error.message)
                await self._apply(step)
                await self._ledger.save(draft)
        except ConnectorError as error:
            log.warning("a transfer was not started", pid=known.pid, reason=error.message)

    async def _open(self, process: TransferProcess) -> DataAddress:
        agreement = _require_active(await self._usable(process.agreement_id))
        address = await self._dataplane.start(agreement, process)
        address.check()
        return address

    async def _apply(self, step: TransferDraft) -> None:
        """Cut the flow where the step does, before it is saved."""
        before, now = step.before, step.process
        if now.party is not Party.PROVIDER or before is None or before.state is now.state:
            return
        if now.state in machine.FINAL:
            terminated = now.state is TransferState.TERMINATED
            reason = now.reason or now.code if terminated else ""
            await self._dataplane.end(now.pid, reason=reason)
        elif now.state is TransferState.SUSPENDED:
            await self._dataplane.suspend(now.pid)

    # Saving.

    async def _send(
        self, pid: str, message: TransferType, *, code: str = "", reason: str = ""
    ) -> TransferProcess:
        async def send(step: TransferDraft) -> None:
            step.send(message, code=code, reason=reason)

        return await self._step(pid, send)

    async def _step(
        self, pid: str, change: Callable[[TransferDraft], Awaitable[None]]
    ) -> TransferProcess:
        channel = (await self.transfer(pid)).channel
        self._require_begun(channel)
        async with self._ledger.turn(channel):
            draft = Draft(channel)
            step = draft.transfer(await self.transfer(pid))
            await change(step)
            await self._apply(step)
            return await self._save(draft, step)

    async def _save(self, draft: Draft, step: TransferDraft) -> TransferProcess:
        await self._ledger.save(draft)
        return await self.transfer(step.process.pid)

    def _require_begun(self, channel: Channel) -> None:
        if channel.party is Party.PROVIDER and not self._begun:
            raise Unavailable("the node is not ready yet", hint="try again in a moment")

    async def _usable(self, agreement_id: str) -> StoredAgreement | None:
        return await self._ledger.usable(agreement_id)

    async def _require_few_open(self, channel: Channel) -> None:
        if await self._store.open_transfers(channel) >= MAX_OPEN:
            raise RateLimited("too many open transfers", hint="complete or terminate some")


def _require_active(agreement: StoredAgreement | None) -> StoredAgreement:
    if agreement is None or agreement.state is not AgreementState.ACTIVE:
        raise Conflict("the agreement has ended", hint="negotiate another one")
    return agreement
