"""What a peer may do: its messages, each taken once, and the answer to those that are refused.

A peer sees only its own processes: a process id that is unknown, another's, or of the other role
is ``NotFound``, and says nothing more. A message that is refused changes nothing and is answered
with DSP's ``ContractNegotiationError`` or ``TransferError``, and that is never answered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

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
from connector.model import correlation
from connector.model.content import Content, process_ids
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
from connector.negotiation.ledger import Ledger, Step
from connector.negotiation.provider import Provider
from connector.negotiation.transfers import Transfers
from connector.ports.negotiation import NegotiationStore, Post

MAX_OPEN = 64  # negotiations with one peer, in one role, that are not final
MAX_REFUSED = 64  # refused messages on one stream before it is ended
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
        """A post that could not be delivered for too long, and all that waits behind it. That an
        agreement is in force, or has ended, the peer learns all the same: such a post is kept, and
        is read again by the next run."""
        async with self._ledger.turn(post.channel):
            log.warning("a message could not be delivered", peer=post.peer, reason=reason)
            if _is_of_an_agreement(messages.decode(post.body)):
                return
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

    async def deliver(self, channel: Channel, envelopes: Sequence[Envelope]) -> int:
        """Messages of a stream, in order, each once only; how many were refused (the answers are
        saved). Those for different negotiations are saved together.

        Raises ``PeerFault`` for a gap, ``RateLimited`` if the peer takes none of our messages,
        ``Unavailable`` if one must come again. Those before it are taken.
        """
        refused, taken, together = 0, list[Draft](), True
        try:
            async with self._ledger.turn(channel):
                waiting = await self._new(channel, envelopes)
                while waiting:
                    group = _apart(channel.party, waiting) if together else waiting[:1]
                    if len(group) > 1:
                        drafts = await self._deliver_together(channel, group)
                        together = len(drafts) == len(group)
                    else:
                        drafts, together = [await self._deliver(channel, waiting[0])], True
                    refused += sum(draft is None for draft in drafts)
                    taken += [draft for draft in drafts if draft is not None]
                    waiting = await self._new(channel, waiting[len(drafts) :])
        finally:
            for draft in taken:
                self._transfers.saved(draft)
        return refused

    async def _new(self, channel: Channel, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        """Without those that are had already."""
        had = (await self._ledger.counts(channel)).received
        return [envelope for envelope in envelopes if envelope.sequence > had]

    async def _deliver(self, channel: Channel, envelope: Envelope) -> Draft | None:
        """The next message; None if it was refused."""
        if envelope.sequence != (await self._ledger.counts(channel)).received + 1:
            raise PeerFault("a message is missing before this one")
        await self._ledger.require_room(channel)
        with _correlated(envelope):
            try:
                draft = await self._answer(channel, envelope.content)
                await self._ledger.save(draft, received=envelope.sequence)
            except (Unavailable, InternalError):
                raise
            except ConnectorError as error:
                refusal = _refusal(channel, envelope.content, error)
                await self._ledger.save(refusal, received=envelope.sequence)
                return None
        return draft

    async def _deliver_together(
        self, channel: Channel, envelopes: Sequence[Envelope]
    ) -> Sequence[Draft | None]:
        """As ``_deliver`` does with each; as many of the first ones as go together. The rest goes
        alone: what hinders it is said then."""
        if envelopes[0].sequence != (await self._ledger.counts(channel)).received + 1:
            return []
        steps: list[Step] = []
        drafts: list[Draft | None] = []
        for envelope in envelopes:
            begun = sum(step.draft.before is None and bool(step.draft.changed) for step in steps)
            letters = sum(len(step.change.outgoing) for step in steps)
            with _correlated(envelope):
                try:
                    await self._ledger.require_room(channel, ahead=letters)
                except RateLimited:
                    break
                try:
                    draft = await self._answer(channel, envelope.content, ahead=begun)
                    drafts.append(draft)
                except (Unavailable, InternalError):
                    break
                except ConnectorError as error:
                    draft = _refusal(channel, envelope.content, error)
                    drafts.append(None)
                steps.append(self._ledger.step(draft, envelope.sequence))
        saved = await self._ledger.save_all(steps) if steps else 0
        return drafts[:saved]

    async def _answer(
        self, channel: Channel, content: Content, heard: str = "", *, ahead: int = 0
    ) -> Draft:
        """``heard``: the digest of a message that came by itself. Such a one may come twice, when
        its answer was lost; it is taken once. ``ahead``: negotiations that begin before it, and
        are not saved yet."""
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
                    await self.require_few_open(channel, ahead)
                elif process_ids(channel.party, content)[0] == "" and content.type in _STARTS:
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
        ours, theirs = process_ids(channel.party, content)
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

    async def require_few_open(self, channel: Channel, ahead: int = 0) -> None:
        if await self._store.open_count(channel) + ahead >= MAX_OPEN:
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

    async def deliver(self, envelopes: Sequence[Envelope]) -> None:
        self._refused += await self._inbox.deliver(self._channel, envelopes)
        if self._refused > MAX_REFUSED:
            raise PeerFault("too many messages that had to be refused")


def _is_of_an_agreement(content: Content) -> bool:
    """Whether the two would differ on an agreement without it, and nothing else would tell."""
    final = isinstance(content, Message) and content.type is MessageType.FINALIZED
    return final or isinstance(content, AgreementNotice)


def _apart(party: Party, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """The first ones that are of negotiations, a different one each, without a gap."""
    names: set[str] = set()
    for place, envelope in enumerate(envelopes):
        content = envelope.content
        if not isinstance(content, Message):
            return envelopes[: max(place, 1)]
        found = {name for name in process_ids(party, content) if name}
        if found & names or envelope.sequence != envelopes[0].sequence + place:
            return envelopes[:place]
        names |= found
    return envelopes


def _correlated(envelope: Envelope) -> AbstractContextManager[object]:
    known = envelope.correlation_id
    bound = {correlation.CORRELATION: known} if correlation.is_usable(known) else {}
    return structlog.contextvars.bound_contextvars(**bound)


def _refusal(channel: Channel, content: Content, error: ConnectorError) -> Draft:
    """The answer, unless it is an error itself that was out of bounds."""
    log.info("a message was refused", peer=channel.peer, code=error.code)
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
