"""Messages on their way to peers' HTTPS bindings: what is taken, refused, lost, repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import stamina

from connector.errors import PeerFault, Unavailable
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementNotice,
    Channel,
    ContractNegotiationError,
    Message,
    MessageType,
    Party,
)
from connector.model.transfer import TransferMessage, TransferType
from connector.negotiation import messages
from connector.ports.negotiation import Post
from connector.transport.http.dsp import courier as module
from connector.transport.http.dsp.addresses import NotAllowed
from connector.transport.http.dsp.courier import PER_PEER, Courier
from connector.transport.http.dsp.outgoing import Answer, NotSent, Way

PEER, ADDRESS = "did:web:peer.example", "https://peer.example/2025-1"
CONTEXT = ["https://w3id.org/dspace/2025/1/context.jsonld"]

Respond = Callable[[str, str], Awaitable[Answer]]


@pytest.fixture(autouse=True)
def _no_pauses():
    stamina.set_testing(True, attempts=module.ATTEMPTS, cap=True)
    yield
    stamina.set_testing(False)


class Outbox:
    """``Posts``, in memory: what is over is written down."""

    def __init__(self) -> None:
        self.posted = asyncio.Event()
        self.kept: dict[int, Post] = {}
        self.over: list[tuple[str, ...]] = []
        self.failing = 0
        self._last = 0

    def add(self, content: Content, pid: str = "c-1", peer: str = PEER) -> int:
        self._last += 1
        sender = Party.PROVIDER if pid.startswith("p") else Party.CONSUMER
        body = messages.encode(content)
        self.kept[self._last] = Post(Channel(peer, sender), pid, ADDRESS, body, "", self._last)
        self.posted.set()
        return self._last

    async def posts(self, after: int = 0) -> tuple[Post, ...]:
        self._may_fail()
        return tuple(post for number, post in self.kept.items() if number > after)[:2]

    async def delivered(self, post: Post, peer_pid: str = "") -> None:
        self._may_fail()
        self._over(post, "delivered", peer_pid)

    async def refused(self, post: Post, code: str, reason: str) -> None:
        self._may_fail()
        self._over(post, "refused", code, reason)
        self._forget(post.pid)

    async def abandon(self, post: Post, reason: str) -> None:
        self._over(post, "abandoned", reason)
        self._forget(post.pid)

    def _over(self, post: Post, *what: str) -> None:
        del self.kept[post.number]
        self.over.append((post.pid, *what))

    def _forget(self, pid: str) -> None:
        for number in [number for number, post in self.kept.items() if post.pid == pid]:
            del self.kept[number]

    def _may_fail(self) -> None:
        if self.failing:
            self.failing -= 1
            raise Unavailable("the disk refuses")


class Peer:
    """``Outgoing``: ``answers`` are given in order, the last one again and again."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.states: list[Answer | Exception] = []
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.respond: Respond | None = None

    async def ask(self, method: str, url: str, **given: Any) -> Answer:
        await asyncio.sleep(0)
        self.asked.append((method, url.removeprefix(ADDRESS)))
        if method == "POST":
            self.bodies.append(given["body"])
            assert given["headers"]["Content-Type"] == "application/json"
        assert given["headers"]["Authorization"] == "Bearer t"
        if self.respond is not None:
            return await self.respond(method, url)
        answers = self.states if method == "GET" else self.answers
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def paths(self) -> list[str]:
        return [path for method, path in self.asked if method == "POST"]


def say(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(
        status, httpx.Headers(headers), b"" if body is None else json.dumps(body).encode()
    )


def negotiation(state: str, consumer: str = "c-1", provider: str = "p-1") -> dict[str, Any]:
    return {
        "@context": CONTEXT,
        "@type": "ContractNegotiation",
        "consumerPid": consumer,
        "providerPid": provider,
        "state": state,
    }


def request(pid: str = "c-1") -> Message:
    return Message(MessageType.REQUEST, pid, "", offer=b"{}")


def accepted(pid: str = "c-1") -> Message:
    return Message(MessageType.ACCEPTED, pid, "p-1")


async def eventually(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not good():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(outbox: Outbox, peer: Peer, **other: Any) -> AsyncIterator[Courier]:
    async def introduce(peer: str, address: str) -> Way:
        return Way(authorization="Bearer t")

    async def peer_pid(post: Post) -> str:
        return "stored"

    async def free(peer: str, pid: str) -> None:
        return None

    given: dict[str, Any] = {
        "introduce": introduce,
        "callback": "https://ours.example/2025-1",
        "peer_pid": peer_pid,
        "free": free,
    }
    courier = Courier(outbox, peer, **(given | other))  # type: ignore[arg-type]
    task = asyncio.create_task(courier.run())
    try:
        yield courier
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def carry(outbox: Outbox, peer: Peer, **other: Any) -> list[tuple[str, ...]]:
    """Until nothing is left to be delivered; what became of it."""
    async with running(outbox, peer, **other):
        await eventually(lambda: not outbox.kept)
    return outbox.over


async def afterwards(outbox: Outbox, peer: Peer, *contents: Content) -> list[tuple[str, ...]]:
    """As ``carry``, with messages that this run saves itself: no attempt was made before."""
    async with running(outbox, peer):
        await asyncio.sleep(0.01)
        for content in contents:
            outbox.add(content)
        await eventually(lambda: not outbox.kept)
    return outbox.over


PATHS: list[tuple[Content, str, str]] = [
    (request(), "c-1", "/negotiations/request"),
    (Message(MessageType.REQUEST, "c-1", "p-1", offer=b"{}"), "c-1", "/negotiations/p-1/request"),
    (Message(MessageType.OFFER, "", "p-1", offer=b"{}"), "p-1", "/negotiations/offers"),
    (Message(MessageType.OFFER, "c-1", "p-1", offer=b"{}"), "p-1", "/negotiations/c-1/offers"),
    (accepted(), "c-1", "/negotiations/p-1/events"),
    (
        Message(MessageType.AGREEMENT, "c-1", "p-1", agreement=b"{}"),
        "p-1",
        "/negotiations/c-1/agreement",
    ),
    (
        Message(MessageType.VERIFICATION, "c-1", "p-1"),
        "c-1",
        "/negotiations/p-1/agreement/verification",
    ),
    (Message(MessageType.FINALIZED, "c-1", "p-1"), "p-1", "/negotiations/c-1/events"),
    (Message(MessageType.TERMINATION, "c-1", "p-1"), "p-1", "/negotiations/c-1/termination"),
    (Message(MessageType.TERMINATION, "c-1", "p-1"), "c-1", "/negotiations/p-1/termination"),
    (Message(MessageType.TERMINATION, "c-1", ""), "c-1", "/negotiations/stored/termination"),
    (accepted("c-1"), "c-1", "/negotiations/p-1/events"),
    (
        Message(MessageType.ACCEPTED, "c-1", "urn:a/../b?c#d"),
        "c-1",
        "/negotiations/urn:a%2F..%2Fb%3Fc%23d/events",
    ),
]


@pytest.mark.parametrize(("content", "pid", "path"), PATHS)
async def test_where_a_message_goes(content: Content, pid: str, path: str) -> None:
    outbox, peer = Outbox(), Peer(say(200))
    outbox.add(content, pid)
    assert await carry(outbox, peer) == [(pid, "delivered", "")]
    assert peer.paths == [path]


@pytest.mark.parametrize("pid", [".", ".."])
async def test_a_process_id_that_would_be_another_path(pid: str) -> None:
    outbox, peer = Outbox(), Peer(say(200))
    outbox.add(Message(MessageType.ACCEPTED, "c-1", pid))
    ((_, what, _),) = await carry(outbox, peer)
    assert what == "abandoned"
    assert not peer.asked


@pytest.mark.parametrize(
    ("body", "pid"),
    [
        (negotiation("REQUESTED"), "p-1"),
        (None, ""),
        (negotiation("REQUESTED", consumer="c-2"), ""),
        (negotiation("REQUESTED", provider="p" * 300), ""),
        (negotiation("NOWHERE"), ""),
        ({"providerPid": "p-1"}, ""),
        ([], ""),
    ],
)
async def test_the_peers_process_id_is_taken_from_an_answer_that_holds(body: Any, pid: str) -> None:
    outbox, peer = Outbox(), Peer(say(201, body))
    outbox.add(request())
    assert await carry(outbox, peer) == [("c-1", "delivered", pid)]


async def test_what_was_saved_before_the_answer_goes_to_the_process_that_it_named() -> None:
    outbox, peer = Outbox(), Peer(say(201, negotiation("REQUESTED")), say(200))
    outbox.add(request())
    outbox.add(Message(MessageType.TERMINATION, "c-1", "", code="withdrawn"))
    await carry(outbox, peer)
    assert peer.paths == ["/negotiations/request", "/negotiations/p-1/termination"]
    said = json.loads(peer.bodies[1])
    assert (said["consumerPid"], said["providerPid"]) == ("c-1", "p-1")


async def test_what_begins_a_process_says_where_we_are_reached() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    outbox.add(request())
    outbox.add(TransferMessage(TransferType.REQUEST, "t-1", "", "a", "HttpData-PULL"), "t-1")
    outbox.add(Message(MessageType.REQUEST, "c-2", "p-2", offer=b"{}"), "c-2")
    await carry(outbox, peer)
    said = {body["consumerPid"]: body for body in map(json.loads, peer.bodies)}
    assert said["c-1"]["callbackAddress"] == "https://ours.example/2025-1"
    assert said["t-1"]["callbackAddress"] == "https://ours.example/2025-1"
    assert "callbackAddress" not in said["c-2"]


async def test_a_repetition_is_known_by_its_id() -> None:
    outbox, peer = Outbox(), Peer(say(503), say(200))
    await afterwards(outbox, peer, accepted(), accepted())
    first, again, other = (json.loads(body)["@id"] for body in peer.bodies)
    assert first == again != other


async def test_what_the_protocol_has_no_place_for() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    outbox.add(ContractNegotiationError("c-1", "p-1", "code", "reason"))
    ((_, what, _),) = await carry(outbox, peer)
    assert (what, peer.asked) == ("abandoned", [])


async def test_the_signed_end_of_an_agreement_has_a_place_of_its_own() -> None:
    outbox, peer = Outbox(), Peer(say(404), say(500), say(200))
    outbox.add(AgreementNotice("urn:a/b", "signed"), "")
    assert await carry(outbox, peer) == [("", "delivered", "")]
    assert set(peer.paths) == {"/tds/agreements/urn:a%2Fb/notice"}
    assert json.loads(peer.bodies[-1]) == {
        "@type": "https://w3id.org/tds/profile/v1#AgreementNotice",
        "agreementId": "urn:a/b",
        "statement": "signed",
    }


async def test_a_notice_that_is_refused_takes_no_other_with_it() -> None:
    outbox, peer = Outbox(), Peer(say(400), say(200))
    outbox.add(AgreementNotice("a", "signed"), "")
    outbox.add(AgreementNotice("b", "signed"), "")
    outbox._forget = lambda pid: None  # type: ignore[method-assign]  # as the store has it
    said = await carry(outbox, peer)
    assert [what for _, what, *_ in said] == ["refused", "delivered"]


async def test_a_refusal_is_believed_and_explained() -> None:
    error = {"code": "policy", "reason": ["not this", {"purpose": "x"}]}
    outbox, peer = Outbox(), Peer(say(400, error))
    assert await afterwards(outbox, peer, accepted()) == [
        ("c-1", "refused", "policy", 'not this; {"purpose":"x"}')
    ]
    assert peer.asked == [("POST", "/negotiations/p-1/events")]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code":7}', b"\xff" * 99])
async def test_a_refusal_in_no_form(body: bytes) -> None:
    outbox, peer = Outbox(), Peer(Answer(403, httpx.Headers(), body))
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "refused", "http:403", "")]


async def test_a_refusal_is_bounded() -> None:
    error = {"code": "c" * 1000, "reason": ["r" * 5000] * 5}
    outbox, peer = Outbox(), Peer(say(400, error))
    ((_, _, code, reason),) = await afterwards(outbox, peer, accepted())
    assert len(code) == messages.MAX_CODE
    assert len(reason) == messages.MAX_REASON


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_refusal(status: int) -> None:
    outbox, peer = Outbox(), Peer(say(status, location="https://169.254.169.254"))
    ((_, what, code, _),) = await afterwards(outbox, peer, accepted())
    assert (what, code) == ("refused", "redirected")
    assert len(peer.asked) == 1


@pytest.mark.parametrize("status", [401, 404, 409])
async def test_a_peer_that_is_not_ready_yet(status: int) -> None:
    outbox, peer = Outbox(), Peer(say(status), say(status), say(200))
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "delivered", "")]
    never, same = Outbox(), Peer(say(status))
    ((_, what, code, _),) = await afterwards(never, same, accepted())
    assert (what, code, len(same.asked)) == ("refused", f"http:{status}", module.EARLY + 1)


@pytest.mark.parametrize(
    "trouble",
    [
        say(500),
        say(503, **{"retry-after": "1"}),
        say(429, **{"retry-after": "999999999999"}),
        say(408),
        Unavailable("no answer"),
        NotSent("no connection"),
        PeerFault("too large"),
    ],
)
async def test_what_passes_is_tried_again_and_in_the_end_given_up(
    trouble: Answer | Exception,
) -> None:
    outbox, peer = Outbox(), Peer(trouble, trouble, say(200))
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "delivered", "")]
    never, same = Outbox(), Peer(trouble)
    ((_, what, _),) = await afterwards(never, same, accepted())
    assert (what, len(same.asked)) == ("abandoned", module.ATTEMPTS)


async def test_that_we_can_deal_with_nobody_is_no_attempt() -> None:
    """Our own view of the directory is too old for a while: that is not the peer's silence."""
    outbox, peer = Outbox(), Peer(*[say(503)] * (module.ATTEMPTS - 2), say(200))
    outbox.add(accepted())
    stale = [Unavailable("the view of the directory is too old")] * 5

    async def introduce(peer: str, address: str) -> Way:
        if stale:
            raise stale.pop()
        return Way(authorization="Bearer t")

    assert await carry(outbox, peer, introduce=introduce) == [("c-1", "delivered", "")]


async def test_an_address_that_leads_inside_is_not_tried_again() -> None:
    outbox, peer = Outbox(), Peer(NotAllowed("inside"))
    ((_, what, _),) = await afterwards(outbox, peer, accepted())
    assert (what, len(peer.asked)) == ("abandoned", 1)


async def test_an_answer_that_was_lost() -> None:
    """The peer has taken it, and refuses the repetition: its state says so."""
    outbox, peer = Outbox(), Peer(Unavailable("no answer"), say(400))
    peer.states = [say(200, negotiation("ACCEPTED"))]
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "delivered", "")]
    assert peer.asked[-1] == ("GET", "/negotiations/p-1")


@pytest.mark.parametrize(
    "state",
    [
        say(200, negotiation("OFFERED")),
        say(200, negotiation("TERMINATED")),
        say(200, negotiation("ACCEPTED", consumer="another")),
        say(200, {"state": "ACCEPTED"}),
        say(404),
    ],
)
async def test_a_repetition_that_is_refused_because_nothing_had_arrived(state: Answer) -> None:
    outbox, peer = Outbox(), Peer(Unavailable("no answer"), say(400))
    peer.states = [state]
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "refused", "http:400", "")]


async def test_a_state_that_cannot_be_read_now() -> None:
    outbox, peer = Outbox(), Peer(Unavailable("no answer"), say(400))
    peer.states = [say(503), Unavailable("no answer"), say(200, negotiation("AGREED"))]
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "delivered", "")]


async def test_nothing_is_asked_where_nothing_can_have_been_repeated() -> None:
    outbox, peer = Outbox(), Peer(NotSent("no connection"), say(503), say(400))
    assert await afterwards(outbox, peer, accepted()) == [("c-1", "refused", "http:400", "")]
    assert {method for method, _ in peer.asked} == {"POST"}


async def test_after_a_restart_the_first_attempt_may_be_a_repetition() -> None:
    outbox, peer = Outbox(), Peer(say(400))
    peer.states = [say(200, negotiation("ACCEPTED"))]
    outbox.add(accepted())
    assert await carry(outbox, peer) == [("c-1", "delivered", "")]


async def test_a_crash_in_between() -> None:
    """The answer comes as the process dies; the next one sends again, in order, and both arrive."""
    outbox, peer = Outbox(), Peer(say(200))
    arrived = asyncio.Event()

    async def never(method: str, url: str) -> Answer:
        arrived.set()
        await asyncio.sleep(60)
        raise AssertionError

    peer.respond = never
    outbox.add(request())
    outbox.add(Message(MessageType.TERMINATION, "c-1", ""))
    async with running(outbox, peer):
        await arrived.wait()
    assert len(outbox.kept) == 2
    peer.respond = None
    await carry(outbox, peer)
    assert peer.paths == [
        "/negotiations/request",
        "/negotiations/request",
        "/negotiations/stored/termination",
    ]


async def test_what_waits_behind_a_lost_message_is_lost_with_it() -> None:
    outbox, peer = Outbox(), Peer(say(400))
    assert await afterwards(
        outbox, peer, accepted(), Message(MessageType.TERMINATION, "c-1", "p-1")
    ) == [("c-1", "refused", "http:400", "")]
    assert len(peer.asked) == 1


async def test_what_is_said_after_a_refusal_is_delivered() -> None:
    outbox, peer = Outbox(), Peer(say(400), say(200))
    refused = outbox.refused

    async def and_tell(post: Post, code: str, reason: str) -> None:
        await refused(post, code, reason)
        outbox.add(Message(MessageType.TERMINATION, "c-1", "p-1"))

    outbox.refused = and_tell  # type: ignore[method-assign]
    assert await afterwards(outbox, peer, accepted()) == [
        ("c-1", "refused", "http:400", ""),
        ("c-1", "delivered", ""),
    ]


async def test_the_messages_of_a_process_keep_their_order() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    contents: list[Content] = [
        Message(MessageType.TERMINATION, "c-1", "p-1", code=str(number)) for number in range(20)
    ]
    await afterwards(outbox, peer, *contents)
    assert [json.loads(body)["code"] for body in peer.bodies] == [str(n) for n in range(20)]


async def test_a_peer_that_never_answers_holds_nothing_else_up() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    at_once, most = 0, 0

    async def respond(method: str, url: str) -> Answer:
        nonlocal at_once, most
        if "silent" in url:
            at_once += 1
            most = max(most, at_once)
            try:
                await asyncio.sleep(60)
            finally:
                at_once -= 1
        return say(200)

    peer.respond = respond
    async with running(outbox, peer):
        for number in range(64):
            silent = Message(MessageType.ACCEPTED, f"c-silent-{number}", f"silent-{number}")
            outbox.add(silent, f"c-silent-{number}", "did:web:silent.example")
        for number in range(64):
            outbox.add(accepted(f"c-{number}"), f"c-{number}")
        await eventually(lambda: len(outbox.over) == 64)
        assert {what for _, what, *_ in outbox.over} == {"delivered"}
        assert most == PER_PEER


async def test_a_disk_that_refuses_for_a_while() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    async with running(outbox, peer):
        await asyncio.sleep(0.01)
        outbox.add(accepted())
        await asyncio.sleep(0)
        outbox.failing = 2
        await eventually(lambda: not outbox.kept)
    assert len(peer.asked) == 1  # what the peer took is not sent again


async def test_our_answer_goes_first() -> None:
    outbox, peer = Outbox(), Peer(say(200))
    answered = asyncio.Event()

    async def free(peer: str, pid: str) -> None:
        assert (peer, pid) == (PEER, "c-1")
        await answered.wait()

    async with running(outbox, peer, free=free):
        outbox.add(accepted())
        await asyncio.sleep(0.01)
        assert not peer.asked
        answered.set()
        await eventually(lambda: not outbox.kept)


def test_every_message_has_a_path_and_a_meaning() -> None:
    from connector.transport.http.dsp.paths import ACTIONS, BEGIN
    from connector.transport.http.dsp.reached import REACHED

    assert set(ACTIONS) | set(BEGIN) == set(REACHED) == {*MessageType, *TransferType}
    assert TransferMessage(TransferType.START, "c", "p").type in REACHED
