"""Takes what we say to peers' HTTPS bindings there: POSTs of DSP 2025-1, and their answers.

Theory of operation
-------------------
``Negotiations`` keeps each message until the peer took it or refused it for good, or until we give
up. The messages of one process go out in order, one at a time; processes do not wait for each
other, and to one peer there are at most ``PER_PEER`` requests at once. So a peer that never
answers holds up nothing but its own processes. Nothing is polled: work begins when a message is
saved, and once at the start with what the last run left.

An answer of 2xx takes the message away. One of 4xx is a refusal, but for those that pass (early,
too busy); everything else is tried again with growing pauses, ``ATTEMPTS`` times in about ten
minutes, and is then given up. When an earlier attempt, of this run or the last, may have reached
the peer without our hearing so, a refusal may be of the repetition: then the peer's state decides
(``reached``), and only a state before the message makes it a refusal.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from uuid import NAMESPACE_URL, uuid5

import stamina
import structlog

from connector.errors import ConnectorError, InvalidInput, PeerFault, Unavailable
from connector.model import fields
from connector.model.content import Content
from connector.model.negotiation import AgreementNotice, Message, Party
from connector.model.transfer import TransferMessage
from connector.negotiation import messages
from connector.ports.negotiation import Post
from connector.transport.http.dsp import codec, paths, reading
from connector.transport.http.dsp.exchange import CORRELATION_HEADER
from connector.transport.http.dsp.outgoing import Answer, NotSent, Outgoing, Way
from connector.transport.http.dsp.reached import REACHED

ATTEMPTS = 10
TOTAL_S = 600.0  # seconds from the first attempt to the last
FIRST_WAIT_S = 0.5  # seconds; each further pause is _GROWTH times as long
LONGEST_WAIT_S = 180.0
_GROWTH = 2.2
PER_PEER = 8  # requests to one peer at once
EARLY = 3  # attempts in which 401, 404 and 409 may mean that the peer is not ready for it yet
ANSWER_BYTES = 65_536
_AGAIN_S = 1.0  # seconds until a store that could not be read or written is tried again

_PASSING = frozenset({408, 425, 429})
_NOT_YET = frozenset({401, 404, 409})

T = TypeVar("T")
log = structlog.get_logger()

Introduce = Callable[[str, str], Awaitable[Way]]


class Posts(Protocol):
    """``negotiation.service.Negotiations``, as the one who delivers its messages sees it."""

    @property
    def posted(self) -> asyncio.Event: ...

    async def posts(self, after: int = 0) -> Sequence[Post]: ...

    async def delivered(self, post: Post, peer_pid: str = "") -> None: ...

    async def refused(self, post: Post, code: str, reason: str) -> None: ...

    async def abandon(self, post: Post, reason: str) -> None: ...


class _Refusal(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code[: messages.MAX_CODE]
        self.reason = reason[: messages.MAX_REASON]


class _Later(Unavailable):
    """An answer, but not yet the one; ``wait``: in how many seconds the peer wants to be asked."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Courier:
    """``introduce`` gives how we reach a peer (its id) at a base URL. ``callback`` is the base URL
    at which peers reach us. ``peer_pid`` gives the peer's process id as far as it is stored.
    ``free`` returns when no answer of ours to the peer is under way for the process (our id): what
    we say next MUST NOT be heard before it (``holds``)."""

    def __init__(
        self,
        posts: Posts,
        outgoing: Outgoing,
        *,
        introduce: Introduce,
        callback: str,
        peer_pid: Callable[[Post], Awaitable[str]],
        free: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._posts = posts
        self._outgoing = outgoing
        self._introduce = introduce
        self._callback = callback
        self._peer_pid = peer_pid
        self._free = free
        self._queues: dict[tuple[str, str], deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def run(self) -> None:
        """Deliver until cancelled."""
        after, repeated = 0, True
        try:
            while True:
                self._posts.posted.clear()
                try:
                    while found := await self._posts.posts(after):
                        after = found[-1].number
                        for post in found:
                            self._add(_Waiting(post, repeated))
                except Unavailable as error:
                    log.warning("messages to peers wait", reason=error.message)
                    await asyncio.sleep(_AGAIN_S)
                    continue
                repeated = False
                await self._posts.posted.wait()
        finally:
            await self._close()

    async def _close(self) -> None:
        """What is under way is sent again by the next run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, waiting: _Waiting) -> None:
        key = (waiting.post.peer, waiting.post.pid)
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(waiting)
            return
        self._queues[key] = deque([waiting])
        # It outlives the call that saved the message.
        task = asyncio.create_task(self._drain(key), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("messages to a peer wait for the next start", error=repr(error))

    async def _drain(self, key: tuple[str, str]) -> None:
        """One process's messages, in order, until there are none."""
        queue = self._queues[key]
        peer_pid = ""
        try:
            while queue:
                waiting = queue[0]
                post = waiting.post
                last = queue[-1].post.number if post.pid else post.number
                structlog.contextvars.bind_contextvars(correlation_id=post.correlation_id)
                try:
                    peer_pid = await self._deliver(waiting, peer_pid) or peer_pid
                except _Refusal as refusal:
                    await _until_there(self._posts.refused, post, refusal.code, refusal.reason)
                except ConnectorError as error:
                    await _until_there(self._posts.abandon, post, error.message)
                else:
                    last = post.number
                while queue and queue[0].post.number <= last:  # the rest is lost with a lost one
                    queue.popleft()
        finally:
            del self._queues[key]

    async def _deliver(self, waiting: _Waiting, peer_pid: str) -> str:
        """Until the peer has it. The peer's process id, if its answer said so.

        Raises ``_Refusal``, or any other error when it is given up.
        """
        post, number = waiting.post, 0
        errand = await self._errand(post, peer_pid)
        async for attempt in stamina.retry_context(
            on=_again,
            attempts=ATTEMPTS,
            timeout=TOTAL_S,
            wait_initial=FIRST_WAIT_S,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=FIRST_WAIT_S,
            wait_exp_base=_GROWTH,
        ):
            with attempt:
                number += 1
                try:
                    said = await self._attempt(errand, number, repeated=waiting.repeated)
                except (NotSent, _Later):
                    raise
                except (Unavailable, PeerFault) as error:  # no answer, or none that can be read
                    waiting.repeated = True
                    raise Unavailable(error.message) from error
        await _until_there(self._posts.delivered, post, said)
        log.info("a message was delivered", peer=post.peer, path=errand.path, attempts=number)
        return said

    async def _errand(self, post: Post, peer_pid: str) -> _Errand:
        """Raises ``InvalidInput`` for what has no place in the peer's binding."""
        content = _sendable(messages.decode(post.body))
        receiver = post.channel.party.other
        if isinstance(content, AgreementNotice):
            return _Errand(post, content, "", paths.path_of(content, receiver))
        known = _pid(content, receiver)
        begins = not known and content.type in paths.BEGIN
        if begins:
            content = replace(content, callback=self._callback)
        elif not known:
            known = peer_pid or await self._peer_pid(post)
            if receiver is Party.CONSUMER:
                content = replace(content, consumer_pid=known)
            else:
                content = replace(content, provider_pid=known)
        if known in (".", "..") or not (known or begins):
            raise InvalidInput("the peer's process cannot be named")
        return _Errand(post, content, known, paths.path_of(content, receiver))

    async def _attempt(self, errand: _Errand, number: int, *, repeated: bool) -> str:
        post = errand.post
        await self._free(post.peer, post.pid)
        async with self._slots.setdefault(post.peer, asyncio.Semaphore(PER_PEER)):
            answer = await self._ask("POST", errand, errand.path)
            status = answer.status
            if 200 <= status < 300:
                return _said(answer, errand)
            if status >= 500 or status in _PASSING:
                raise _Later(f"the peer answers with {status}", _wait(answer))
            if status in _NOT_YET and number <= EARLY:
                raise _Later(f"the peer answers with {status}")
            if status >= 400 and repeated and await self._arrived(errand):
                return ""
        if status >= 400:
            raise _refusal(answer)
        raise _Refusal("redirected", f"the peer answers with {status}, and no redirect is followed")

    async def _arrived(self, errand: _Errand) -> bool:
        """Whether the peer's state says that it has had the message."""
        content = errand.content
        if not errand.peer_pid or isinstance(content, AgreementNotice):
            return False  # where it began a process, only the peer knows which
        answer = await self._ask("GET", errand, errand.process)
        if answer.status >= 500 or answer.status in _PASSING:
            raise _Later(f"the peer answers with {answer.status}", _wait(answer))
        if answer.status != 200:
            return False
        try:
            process = _read(answer, content)
        except InvalidInput:  # an answer that says nothing
            return False
        ours = process[f"{errand.post.channel.party}Pid"] == errand.post.pid
        return ours and process["state"] in REACHED[content.type]

    async def _way(self, post: Post) -> Way:
        """While it is we who can deal with nobody (our view of the directory is too old) the
        message waits, and that is no attempt. Raises what else ``introduce`` does."""
        return await _until_there(self._introduce, post.peer, post.address)

    async def _ask(self, method: str, errand: _Errand, path: str) -> Answer:
        post = errand.post
        way = await self._way(post)
        headers, body = way.headers(), b""
        if post.correlation_id:
            headers[CORRELATION_HEADER] = post.correlation_id
        if method == "POST":
            headers["Content-Type"] = "application/json"
            body = errand.body(signs=way.signs)
        return await self._outgoing.ask(
            method,
            post.address + path,
            body=body,
            headers=headers,
            limit=ANSWER_BYTES,
            trust=way.trust,
        )


@dataclass(slots=True)
class _Waiting:
    """``repeated``: the peer may have had it already."""

    post: Post
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Errand:
    """``peer_pid``: the peer's process id, empty for what begins a process."""

    post: Post
    content: Message | TransferMessage | AgreementNotice
    peer_pid: str
    path: str

    @property
    def id(self) -> str:
        """Of the message: the same when it is sent again, and never another's."""
        return uuid5(NAMESPACE_URL, f"{self.post.pid}/{self.post.number}").urn

    def body(self, *, signs: bool) -> bytes:
        if isinstance(self.content, AgreementNotice):
            return fields.encode_json(codec.encode_notice(self.content))
        return fields.encode_json(codec.encode(self.content, signs=signs, id=self.id))

    @property
    def process(self) -> str:
        """The path of the peer's process."""
        kind = paths.NEGOTIATIONS if isinstance(self.content, Message) else paths.TRANSFERS
        return f"{kind}/{paths.segment(self.peer_pid)}"


async def _until_there(call: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """What ``call`` gives, once what it needs of our own (the store, the view of the directory) is
    there: a message is not sent again, nor given up, because of our own trouble."""
    patient = stamina.AsyncRetryingCaller(
        attempts=None, timeout=None, wait_initial=_AGAIN_S, wait_max=30.0
    )
    return await patient(Unavailable, call, *arguments)


def _again(error: Exception) -> bool | float:
    """For stamina: whether to try again, or in how many seconds."""
    if isinstance(error, _Later) and error.wait:
        return error.wait
    return isinstance(error, Unavailable)


def _wait(answer: Answer) -> float:
    """Retry-After (RFC 9110 section 10.2.3) in seconds, bounded; 0 where it says nothing."""
    value = answer.headers.get("retry-after", "")
    if not (value.isascii() and value.isdigit() and len(value) < 9):
        return 0.0
    return min(max(float(value), FIRST_WAIT_S), LONGEST_WAIT_S)


def _said(answer: Answer, errand: _Errand) -> str:
    """The peer's process id from its answer to a message that began one.

    Conformant peers answer with the process. An answer without it has taken the message all the
    same, and the peer's next one will name its process.
    """
    if not answer.body or errand.peer_pid or isinstance(errand.content, AgreementNotice):
        return ""
    try:
        process = _read(answer, errand.content)
        party = errand.post.channel.party
        if process[f"{party}Pid"] != errand.post.pid:
            raise InvalidInput("an answer about another process")
        return fields.text(process, f"{party.other}Pid", limit=messages.MAX_PID)
    except InvalidInput as error:
        log.warning("an answer is not understood", peer=errand.post.peer, reason=error.message)
        return ""


def _read(answer: Answer, content: Message | TransferMessage) -> dict[str, Any]:
    kind = "ContractNegotiation" if isinstance(content, Message) else "TransferProcess"
    return reading.read(answer.body, kind, limit=ANSWER_BYTES)


def _sendable(content: Content) -> Message | TransferMessage | AgreementNotice:
    if not isinstance(content, Message | TransferMessage | AgreementNotice):
        raise InvalidInput("the protocol has no place for such a message")
    return content


def _pid(content: Message | TransferMessage, party: Party) -> str:
    return content.consumer_pid if party is Party.CONSUMER else content.provider_pid


def _refusal(answer: Answer) -> _Refusal:
    """Code and reasons of a ContractNegotiationError or TransferError, as far as they are there."""
    code = f"http:{answer.status}"
    try:
        error = fields.as_object(fields.parse_json(answer.body, limit=ANSWER_BYTES), "error")
    except InvalidInput:
        return _Refusal(code, "")
    said, reasons = codec.explanation(error)
    return _Refusal(said if said and said.isprintable() else code, reasons)
