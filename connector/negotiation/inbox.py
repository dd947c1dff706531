"""What a peer may do: its messages, each taken once, and the answer to those that are refused.

A peer sees only its own processes: a process id that is unknown, another's, or of the other role
is ``NotFound``, and says nothing more. A message that is refused changes nothing and is answered
with DSP's ``ContractNegotiationError`` or ``TransferError``, and that is never answered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    NotFound,
    PeerFault,
    RateLimited,
    Unavailable,
)
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementNotice,
    AgreementState,
    Channel,
    ContractNegotiationError,
    Message,
    MessageType,
    Negotiation,
    Party,
)
from connector.model.participant import Participant
from connector.model.transfer import TransferError, TransferMessage, TransferProcess
from connector.negotiation import agreements, machine, messages
from connector.negotiation.consumer import Consumer
from connector.negotiation.draft import Draft
from connector.negotiation.frames import Envelope
from connector.negotiation.ledger import CORRELATION, Ledger
from connector.negotiation.provider import Provider
from connector.negotiation.transfers import Transfers
from connector.ports.negotiation import NegotiationStore, Post

MAX_OPEN = 64  # negotiations with one peer, in one role, that are not final
MAX_REFUSED = 64  # refused messages on one stream before it is ended
MAX_CORRELATION = 64
MAX_LOST = 64  # posts of one process that are forgotten together
BATCH = 32  # messages read from the store at a time

log = structlog.get_logger()
_STARTS = frozenset({MessageType.REQUEST, MessageType.OFFER})


class Inbox:
    """``lookup`` gives the directory's record of an active member or raises."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: NegotiationStore,
        provider: Provider,
        consumer: Consumer,
        transfers: Transfers,
        lookup: Callable[[str], Participant],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._provider = provider
        self._consumer = consumer
        self._transfers = transfers
        self._lookup = lookup

    async def receive(
        self, channel: Channel, content: Content, digest: str = ""
    ) -> Negotiation | TransferProcess | None:
        """One message of an authenticated peer that came by itself, as over HTTPS. ``digest``:
        SHA-256 (hex) of what carried it, the same when it is sent again; without it, of its words.

        Gives its process as it is now. Raises what the message is refused for.
        """
        async with self._ledger.turn(channel):
            await self._ledger.require_room(channel, posts=True)
            heard = digest or hashlib.sha256(messages.encode(content)).hexdigest()
            draft = await self._answer(channel, content, heard)
            await self._ledger.save(draft)
        self._transfers.saved(draft)
        if isinstance(content, TransferMessage):
            return draft.transfers[0].changed or draft.transfers[0].before
        return draft.changed or draft.before

    async def delivered(self, post: Post, peer_pid: str) -> None:
        """The peer took a post; ``peer_pid``: its process id, where its answer said so."""
        async with self._ledger.turn(post.channel):
            draft = await self._draft(post)
            for step in draft.transfers:
                step.note(peer_pid=step.process.peer_pid or peer_pid)
            if peer_pid and draft.before is not None and not draft.before.peer_pid:
                draft.note(peer_pid=peer_pid)
            try:
                await self._ledger.save(draft, posted=(post.number,))
            except Conflict as error:
                reason = f"{error.message}: the peer gave a process id that is another's"
                await self._end(post, "peer:pid", reason, quiet=True)

    async def refused(self, post: Post, code: str, reason: str) -> None:
        """The peer refused a post for good: as ``ContractNegotiationError`` on a stream."""
        async with self._ledger.turn(post.channel):
            log.info("the peer refused a message", peer=post.peer, code=code)
            await self._end(post, f"peer:{code}", reason, quiet=False)

    async def abandon(self, post: Post, reason: str) -> None:
        """A post that could not be delivered for too long, and all that waits behind it."""
        async with self._ledger.turn(post.channel):
            log.warning("a message could not be delivered", peer=post.peer, reason=reason)
            await self._end(post, "unreachable", reason, quiet=True)

    async def _end(self, post: Post, code: str, reason: str, *, quiet: bool) -> None:
        """End the process of a post that is lost, unless it is final; ``quiet``: tell nobody."""
        draft = await self._draft(post)
        await self._transfers.end(draft, code, reason, quiet=quiet)
        before = draft.before
        if before is not None and before.state not in machine.FINAL:
            draft.terminate(code, reason, quiet=quiet or not before.peer_pid)
        lost = await self._store.posts(pid=post.pid, limit=MAX_LOST) if post.pid else (post,)
        await self._ledger.save(draft, posted=tuple(one.number for one in lost))

    async def _draft(self, post: Post) -> Draft:
        """With the process that the post is of, if it is known still."""
        negotiation = await self._store.negotiation(post.pid)
        draft = Draft(post.channel, negotiation)
        if negotiation is None and (process := await self._store.transfer(post.pid)) is not None:
            draft.transfer(process)
        return draft

    async def deliver(self, channel: Channel, envelope: Envelope) -> bool:
        """One message of a stream, once only; False if it was refused (the answer is saved).

        Raises ``PeerFault`` for a gap, ``RateLimited`` if the peer takes none of our messages,
        ``Unavailable`` if it must come again.
        """
        async with self._ledger.turn(channel):
            had = (await self._ledger.counts(channel)).received
            if envelope.sequence <= had:
                return True
            if envelope.sequence != had + 1:
                raise PeerFault("a message is missing before this one")
            await self._ledger.require_room(channel)
            try:
                draft = await self._answer(channel, envelope.content)
                await self._ledger.save(draft, received=envelope.sequence)
            except (Unavailable, InternalError):
                raise
            except ConnectorError as error:
                log.info("a message was refused", peer=channel.peer, code=error.code)
                refusal = _refusal(channel, envelope.content, error)
                await self._ledger.save(refusal, received=envelope.sequence)
                return False
        self._transfers.saved(draft)
        return True

    async def _answer(self, channel: Channel, content: Content, heard: str = "") -> Draft:
        """``heard``: the digest of a message that came by itself. Such a one may come twice, when
        its answer was lost; it is taken once."""
        messages.check(content, channel.party.other)
        match content:
            case AgreementNotice():
                return await self._noticed(channel, content)
            case ContractNegotiationError():
                return await self._answered(channel, content)
            case TransferMessage() | TransferError():
                return await self._transfers.answer(channel, content, heard)
            case Message():
                negotiation = await self._find(channel, content)
                side = self._consumer if channel.party is Party.CONSUMER else self._provider
                if negotiation is None:
                    await self.require_few_open(channel)
                elif _names(channel.party, content)[0] == "" and content.type in _STARTS:
                    if content.offer != negotiation.offer and heard != negotiation.heard:
                        raise Conflict("this process id has begun another negotiation")
                    return Draft(channel, negotiation)
                try:
                    draft = await side.take(channel, negotiation, content)
                except Conflict:
                    if negotiation is None or not heard or negotiation.heard != heard:
                        raise
                    return Draft(channel, negotiation)
                if heard:
                    draft.note(heard=heard)
                return draft

    async def _find(
        self, channel: Channel, content: Message | ContractNegotiationError
    ) -> Negotiation | None:
        """The negotiation that both process ids name; None for the first message of one."""
        ours, theirs = _names(channel.party, content)
        if not ours:
            found = await self._store.by_peer_pid(channel, theirs)
            starts = isinstance(content, Message) and content.type in _STARTS
            if found is None and not starts:
                raise NotFound("no such negotiation")
            return found
        found = await self._store.negotiation(ours)
        if found is None or found.channel != channel or found.peer_pid not in ("", theirs):
            raise NotFound("no such negotiation")
        return found

    async def _answered(self, channel: Channel, error: ContractNegotiationError) -> Draft:
        """The peer refused a message of ours, so the states differ, and DSP has the negotiation
        terminated. Never refused itself: that would be a loop."""
        try:
            negotiation = await self._find(channel, error)
        except NotFound:
            negotiation = None
        draft = Draft(channel, negotiation)
        log.info("the peer refused a message", peer=channel.peer, code=error.code)
        if negotiation is not None and negotiation.state not in machine.FINAL:
            unknown = not negotiation.peer_pid
            draft.terminate(f"peer:{error.code}", error.reason, quiet=unknown)
        return draft

    async def _noticed(self, channel: Channel, notice: AgreementNotice) -> Draft:
        """The peer's signed end of an agreement."""
        agreement = await self._store.agreement(notice.agreement_id)
        if agreement is None or agreement.channel != channel:
            raise NotFound("no such agreement")
        act, reason = agreements.read_notice(notice, self._lookup(channel.peer))
        draft = Draft(channel)
        if agreement.state is AgreementState.PROPOSED:
            raise Conflict("the agreement is not in force")
        if agreement.state is AgreementState.ACTIVE:
            await self._transfers.end_all(draft, agreement.terms.id, reason)
            draft.keep(agreement)
            draft.end(act, reason, tell=False)
        return draft

    async def require_few_open(self, channel: Channel) -> None:
        if await self._store.open_count(channel) >= MAX_OPEN:
            raise RateLimited("too many open negotiations", hint="finish or terminate some")


class Mailbox:
    """``session.Mailbox`` of one stream."""

    def __init__(self, inbox: Inbox, ledger: Ledger, channel: Channel) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._channel = channel
        self._refused = 0

    @property
    def changed(self) -> asyncio.Event:
        return self._ledger.changed(self._channel)

    async def received(self) -> int:
        return (await self._ledger.counts(self._channel)).received

    async def outgoing(self, after: int) -> Sequence[Envelope]:
        letters = await self._ledger.outgoing(self._channel, after, BATCH)
        return [
            Envelope(letter.sequence, messages.decode(letter.body), letter.correlation_id)
            for letter in letters
        ]

    async def acknowledge(self, sequence: int) -> None:
        await self._ledger.acknowledge(self._channel, sequence)

    async def deliver(self, envelope: Envelope) -> None:
        known = envelope.correlation_id
        usable = len(known) <= MAX_CORRELATION and known.isascii() and known.isalnum()
        with structlog.contextvars.bound_contextvars(**{CORRELATION: known} if usable else {}):
            if await self._inbox.deliver(self._channel, envelope):
                return
        self._refused += 1
        if self._refused > MAX_REFUSED:
            raise PeerFault("too many messages that had to be refused")


def _names(party: Party, content: Message | ContractNegotiationError) -> tuple[str, str]:
    """(our process id, the peer's) as ``content`` has them."""
    if party is Party.CONSUMER:
        return content.consumer_pid, content.provider_pid
    return content.provider_pid, content.consumer_pid


def _refusal(channel: Channel, content: Content, error: ConnectorError) -> Draft:
    """The answer, unless it is an error itself that was out of bounds."""
    draft = Draft(channel)
    if isinstance(content, ContractNegotiationError | TransferError):
        return draft
    consumer_pid = provider_pid = ""
    if isinstance(content, Message | TransferMessage):
        consumer_pid = content.consumer_pid[: messages.MAX_PID]
        provider_pid = content.provider_pid[: messages.MAX_PID]
    kind = TransferError if isinstance(content, TransferMessage) else ContractNegotiationError
    answer = kind(consumer_pid, provider_pid, error.code, error.message[: messages.MAX_REASON])
    draft.outgoing.append(answer)
    return draft
