"""The exchange: nothing lost, nothing twice, wherever the stream or a process is cut."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from connector.errors import Conflict, PeerFault, RateLimited, Unavailable
from connector.identity.statements import sign_document
from connector.model.negotiation import (
    AgreementState,
    ContractNegotiationError,
    Message,
    MessageType,
    Party,
    State,
)
from connector.negotiation import agreements, inbox, ledger, session
from connector.negotiation.agreements import CONCLUDED, ENDED
from connector.negotiation.frames import Acknowledgement, Envelope, Hello
from connector.negotiation.messages import offer_bytes
from tests.negotiators import (
    AIRPORT,
    CONSUMER_CHANNEL,
    DATASET,
    OFFER,
    PATIENCE_S,
    PROVIDER_CHANNEL,
    TOURISM,
    Node,
    Wire,
    eventually,
    key_of,
    quiet,
    terms,
)


async def story(tourism, airport, connect):
    """A counter-offer, an agreement, its end. ``connect`` brings messages across, however often
    it has to; between the steps people act with no stream at all."""
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id)
    await connect()
    await airport.service.counter((await airport.only()).pid, terms(10))
    await connect()
    await tourism.service.approve(started.pid)
    await connect()
    done = await tourism.only()
    assert done.state is State.FINALIZED
    await airport.service.end_agreement(done.agreement_id, "over")
    await connect()


async def assert_story_ended(tourism, airport):
    assert (await tourism.only()).state is (await airport.only()).state is State.FINALIZED
    for node in (tourism, airport):
        (agreement,) = await node.service.agreements()
        assert (agreement.state, agreement.ended_reason) == (AgreementState.ENDED, "over")
        assert node.acts() == [CONCLUDED, ENDED]
        assert node.stopped == [agreement.terms.id]
    here = await tourism.store.counts(CONSUMER_CHANNEL)
    there = await airport.store.counts(PROVIDER_CHANNEL)
    # request, accepted, verification; offer, agreement, finalized, notice
    assert (here.sent, there.received) == (3, 3)
    assert (there.sent, here.received) == (4, 4)


async def connected(tourism, airport, cut_after=None):
    wire = Wire(tourism, airport, cut_after)
    if cut_after is None:
        await quiet(tourism, airport)
        await wire.close()
    else:
        equal = asyncio.create_task(quiet(tourism, airport))
        cut = asyncio.create_task(wire.closed())
        await asyncio.wait({equal, cut}, return_when=asyncio.FIRST_COMPLETED)
        equal.cancel()
        await wire.close()
        await asyncio.gather(equal, cut, return_exceptions=True)
    assert wire.faults() == []
    return wire


@pytest.mark.parametrize("cut_after", range(10))
async def test_a_cut_after_any_number_of_frames(cut_after):
    """Every stream breaks after so many frames; then one that lasts brings the rest."""
    airport, tourism = Node(AIRPORT), Node(TOURISM)

    async def connect():
        await connected(tourism, airport, cut_after)
        await connected(tourism, airport)

    await story(tourism, airport, connect)
    await assert_story_ended(tourism, airport)


@pytest.mark.parametrize("cut_after", [4, 5])
async def test_streams_that_never_last(cut_after):
    """No stream lives longer than two greetings and a few frames, and all arrives."""
    airport, tourism = Node(AIRPORT), Node(TOURISM)

    async def connect():
        for _ in range(20):
            await connected(tourism, airport, cut_after)

    await story(tourism, airport, connect)
    await assert_story_ended(tourism, airport)


@pytest.mark.parametrize("cut_after", range(2, 8))
async def test_processes_killed_at_any_frame(cut_after, tmp_path):
    airport = Node(AIRPORT, path=tmp_path / "airport.db")
    tourism = Node(TOURISM, path=tmp_path / "tourism.db")

    async def connect():
        await connected(tourism, airport, cut_after)
        for node in (airport, tourism):
            node.service = node._make()  # no goodbye
            await node.service.start()
        await connected(tourism, airport)

    await story(tourism, airport, connect)
    await assert_story_ended(tourism, airport)


@pytest.mark.parametrize(
    ("who", "commit", "when"), list(itertools.product(Party, range(1, 8), ("before", "after")))
)
async def test_any_write_that_fails_or_only_says_so(who, commit, when):
    """One commit fails with nothing written, or though it was written; the node restarts."""
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    node = tourism if who is Party.CONSUMER else airport
    getattr(node.store, when).add(commit)

    async def again(call):
        """A person whose command failed looks, and repeats it if it had not happened."""
        before = [await n.service.negotiations() for n in (airport, tourism)]
        try:
            return await call()
        except Unavailable:
            after = [await n.service.negotiations() for n in (airport, tourism)]
            return await call() if before == after else None

    async def connect():
        wire = Wire(tourism, airport)
        try:
            async with asyncio.timeout(0.5):
                equal = asyncio.create_task(quiet(tourism, airport))
                cut = asyncio.create_task(wire.closed())
                await asyncio.wait({equal, cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            equal.cancel()
            await wire.close()
            await asyncio.gather(equal, cut, return_exceptions=True)
        await node.restart()
        await connected(tourism, airport)

    airport.policy.says = "ask"
    await again(lambda: tourism.service.request(AIRPORT, DATASET.id))
    await connect()
    theirs = await airport.only()
    await again(lambda: airport.service.counter(theirs.pid, terms(10)))
    await connect()
    mine = await tourism.only()
    await again(lambda: tourism.service.approve(mine.pid))
    await connect()
    agreement_id = (await tourism.only()).agreement_id
    for _ in range(2):
        try:
            await airport.service.end_agreement(agreement_id, "over")
        except Unavailable:
            await airport.restart()
    await connect()
    assert (await tourism.only()).state is (await airport.only()).state is State.FINALIZED
    for one in (tourism, airport):
        (agreement,) = await one.service.agreements()
        assert agreement.state is AgreementState.ENDED
        assert one.acts() == [CONCLUDED, ENDED]


async def test_saved_and_killed_before_anything_was_sent(tmp_path):
    tourism = Node(TOURISM, path=tmp_path / "tourism.db")
    airport = Node(AIRPORT)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    tourism.store.close()
    again = Node(TOURISM, path=tmp_path / "tourism.db")
    await again.service.start()
    wire = Wire(again, airport)
    await again.until_state(started.pid, State.FINALIZED)
    await wire.close()


async def test_the_log_has_the_act_before_the_peer_hears_of_it():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    airport.log_down = True
    started = await tourism.service.request(AIRPORT, DATASET.id)
    wire = Wire(tourism, airport)
    await wire.closed()
    assert isinstance(wire.errors[0], Unavailable)
    theirs = await airport.only()
    assert theirs.state is State.FINALIZED
    assert (await tourism.only()).state is State.VERIFIED
    with pytest.raises(Unavailable):
        await airport.service.agreement(theirs.agreement_id)
    # As long as the log is down no stream brings it across, and the node is not ready.
    await connected(tourism, airport, cut_after=50)
    assert (await tourism.only()).state is State.VERIFIED
    with pytest.raises(Unavailable):
        await airport.restart()
    airport.log_down = False
    await connected(tourism, airport)
    assert (await tourism.only()).pid == started.pid
    assert (await tourism.only()).state is State.FINALIZED
    assert airport.acts() == [CONCLUDED]


async def test_running_uses_are_stopped_before_the_peer_is_told():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until_state(started.pid, State.FINALIZED)
    await quiet(tourism, airport)
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def slow_stop(agreement_id):
        reached.set()
        await go_on.wait()
        return 1

    airport.service._ledger._stop_uses = slow_stop
    ending = asyncio.create_task(airport.service.end_agreement(done.agreement_id, "over"))
    await reached.wait()
    frames = len(wire.seen)
    assert (await airport.service.agreement(done.agreement_id)).state is AgreementState.ENDED
    await asyncio.sleep(0.01)
    assert len(wire.seen) == frames
    ending.cancel()  # whoever asked went away; what was saved is carried through all the same
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(ending, return_exceptions=True)
    await quiet(tourism, airport)
    assert (await tourism.service.agreement(done.agreement_id)).state is AgreementState.ENDED
    await wire.close()


async def test_a_newer_stream_replaces_the_older():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    older = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    newer = Wire(tourism, airport)
    await older.closed()
    assert any(isinstance(error, Conflict) for error in older.errors)
    await tourism.until_state(started.pid, State.FINALIZED)
    await newer.close()
    assert newer.faults() == []


async def test_a_node_that_closes_ends_its_streams():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    await asyncio.sleep(0.01)
    await airport.service.close()
    await wire.closed()


class Peer:
    """A consumer that speaks frames by hand."""

    def __init__(self, node, channel):
        self.queue = asyncio.Queue()
        self.answers = asyncio.Queue()
        self.task = asyncio.create_task(node.service.exchange(channel, self._frames(), self._send))

    async def _frames(self):
        while (frame := await self.queue.get()) is not None:
            yield frame

    async def _send(self, frame):
        self.answers.put_nowait(frame)

    def say(self, *frames):
        for frame in frames:
            self.queue.put_nowait(frame)

    async def hear(self):
        async with asyncio.timeout(PATIENCE_S):
            return await self.answers.get()

    async def ended(self):
        async with asyncio.timeout(PATIENCE_S):
            await self.task

    async def hang_up(self):
        self.say(None)
        await self.ended()


def request(pid="urn:uuid:c1"):
    return Message(MessageType.REQUEST, pid, "", offer=offer_bytes(OFFER))


async def test_duplicates_are_acknowledged_and_dropped():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(
        Hello(0), Envelope(1, request()), Envelope(1, request()), Envelope(1, request("other"))
    )
    assert await peer.hear() == Hello(0)
    assert await peer.hear() == Acknowledgement(1)
    await peer.hang_up()
    assert (await airport.only()).peer_pid == "urn:uuid:c1"
    assert len(airport.policy.asked) == 1


def requests(many):
    return [Envelope(number, request(f"urn:uuid:c{number}")) for number in range(1, many + 1)]


async def test_messages_that_come_together_are_saved_together():
    airport = Node(AIRPORT)
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), *requests(20))
    heard = []
    while Acknowledgement(20) not in heard or len(letters_of(heard)) < 20:
        heard.append(await peer.hear())
    assert len([frame for frame in heard if isinstance(frame, Acknowledgement)]) < 5
    assert [letter.sequence for letter in letters_of(heard)] == list(range(1, 21))
    verified = [
        Message(
            MessageType.VERIFICATION,
            letter.content.consumer_pid,
            letter.content.provider_pid,
            signature=sign_document(
                key_of(TOURISM), agreements.SIGNATURE_KIND, letter.content.agreement
            ),
        )
        for letter in letters_of(heard)
    ]
    peer.say(*(Envelope(number, one) for number, one in enumerate(verified, start=21)))
    while len(letters_of(heard)) < 40:
        heard.append(await peer.hear())
    await peer.hang_up()
    assert {one.state for one in await airport.service.negotiations()} == {State.FINALIZED}
    assert len([act for act in airport.log if act.type == CONCLUDED]) == 20


def letters_of(frames):
    return [frame for frame in frames if isinstance(frame, Envelope)]


@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("failing", [1, 2, 3, 5])
async def test_one_write_of_those_saved_together_fails(failing, persists):
    """What was not taken comes again, and nothing is taken twice."""
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    faults = airport.store.after if persists else airport.store.before
    faults.add(failing)
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), *requests(5))
    with pytest.raises(Unavailable):
        await peer.ended()
    had = (await airport.store.counts(PROVIDER_CHANNEL)).received
    assert had == (5 if persists else failing - 1)
    peer = Peer(airport, PROVIDER_CHANNEL)
    assert await peer.hear() == Hello(had)
    peer.say(Hello(0), *requests(5))
    heard = [await peer.hear()] if had < 5 else []
    await peer.hang_up()
    assert heard == [Acknowledgement(5)][: len(heard)]
    found = await airport.service.negotiations()
    assert sorted(one.peer_pid for one in found) == [f"urn:uuid:c{n}" for n in range(1, 6)]
    assert await airport.service._store.open_count(PROVIDER_CHANNEL) == 5


async def test_limits_hold_for_what_comes_together(monkeypatch):
    monkeypatch.setattr(inbox, "MAX_OPEN", 3)
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), *requests(5))
    heard = []
    while len(letters_of(heard)) < 2:
        heard.append(await peer.hear())
    assert {letter.content.code for letter in letters_of(heard)} == {"rate_limited"}
    await peer.hang_up()
    assert len(await airport.service.negotiations()) == 3


async def test_two_messages_of_one_process_that_come_together_are_two_steps():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    peer = Peer(airport, PROVIDER_CHANNEL)
    ends = Message(MessageType.TERMINATION, "urn:uuid:c2", "", code="changed")
    peer.say(Hello(0), *requests(3), Envelope(4, ends))
    while await peer.hear() != Acknowledgement(4):
        pass
    await peer.hang_up()
    states = {one.peer_pid: one.state for one in await airport.service.negotiations()}
    assert states == {
        "urn:uuid:c1": State.REQUESTED,
        "urn:uuid:c2": State.TERMINATED,
        "urn:uuid:c3": State.REQUESTED,
    }


async def test_a_gap_behind_what_comes_together_is_a_fault():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), *requests(2), Envelope(4, request("urn:uuid:c4")))
    with pytest.raises(PeerFault):
        await peer.ended()
    assert (await airport.store.counts(PROVIDER_CHANNEL)).received == 2


async def test_the_same_first_request_again_is_the_same_negotiation():
    """As a sender does over HTTPS, where no sequence tells a repetition."""
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    first = await airport.service.receive(PROVIDER_CHANNEL, request())
    again = await airport.service.receive(PROVIDER_CHANNEL, request())
    assert (again.pid, again.state) == (first.pid, first.state)
    await airport.only()
    changed = Message(MessageType.REQUEST, "urn:uuid:c1", "", offer=b" " + offer_bytes(OFFER))
    with pytest.raises(Conflict):
        await airport.service.receive(PROVIDER_CHANNEL, changed)


FAULTS = {
    "no greeting": [Envelope(1, request())],
    "two greetings": [Hello(0), Hello(0)],
    "a gap": [Hello(0), Envelope(2, request())],
    "has what was never sent": [Hello(1)],
    "acknowledges what was never sent": [Hello(0), Acknowledgement(1)],
}


@pytest.mark.parametrize("frames", FAULTS.values(), ids=FAULTS.keys())
async def test_a_peer_that_breaks_the_exchange(frames):
    airport = Node(AIRPORT)
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(*frames)
    with pytest.raises(PeerFault):
        await peer.ended()
    assert await airport.service.negotiations() == ()


async def test_a_peer_that_says_nothing(monkeypatch):
    monkeypatch.setattr(session, "HELLO_S", 0.01)
    with pytest.raises(PeerFault):
        await Peer(Node(AIRPORT), PROVIDER_CHANNEL).ended()


async def test_a_peer_restored_from_an_older_copy():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    for _ in range(2):  # the second forgets what was acknowledged of the first
        started = await tourism.service.request(AIRPORT, DATASET.id)
        await tourism.until_state(started.pid, State.FINALIZED)
        await quiet(tourism, airport)
    await wire.close()
    restored = Wire(Node(TOURISM), airport)
    await restored.closed()
    assert len(restored.faults()) == 2
    assert all(isinstance(error, PeerFault) for error in restored.faults())


async def test_a_refused_message_is_answered_once_and_the_stream_goes_on():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    bad = Message(MessageType.ACCEPTED, "urn:uuid:c1", "urn:uuid:nobody")
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), Envelope(1, bad), Envelope(2, request()))
    heard = [await peer.hear() for _ in range(3)]
    answer = ContractNegotiationError(
        "urn:uuid:c1", "urn:uuid:nobody", "not_found", "no such negotiation"
    )
    assert Envelope(1, answer) in heard
    await peer.hang_up()
    assert (await airport.only()).state is State.REQUESTED
    # Errors are not answered, whatever they are about.
    counts = await airport.store.counts(PROVIDER_CHANNEL)
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(1), Envelope(3, answer), Envelope(4, ContractNegotiationError("", "", "", "")))
    assert await peer.hear() == Hello(2)

    async def taken():
        return (await airport.store.counts(PROVIDER_CHANNEL)).received == 4

    await eventually(taken)
    await peer.hang_up()
    assert (await airport.store.counts(PROVIDER_CHANNEL)).sent == counts.sent


async def test_too_many_refused_messages_end_the_stream(monkeypatch):
    monkeypatch.setattr(inbox, "MAX_REFUSED", 3)
    peer = Peer(Node(AIRPORT), PROVIDER_CHANNEL)
    bad = Message(MessageType.ACCEPTED, "urn:uuid:c1", "urn:uuid:nobody")
    peer.say(Hello(0), *(Envelope(number, bad) for number in range(1, 10)))
    with pytest.raises(PeerFault):
        await peer.ended()


async def test_a_peer_that_takes_none_of_our_messages(monkeypatch):
    monkeypatch.setattr(ledger, "MAX_OUTBOX", 3)
    airport = Node(AIRPORT)
    bad = Message(MessageType.ACCEPTED, "urn:uuid:c1", "urn:uuid:nobody")
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(0), *(Envelope(number, bad) for number in range(1, 10)))
    with pytest.raises(RateLimited):
        await peer.ended()
    assert (await airport.store.counts(PROVIDER_CHANNEL)).sent == 3
    # It may come back once it has taken them.
    peer = Peer(airport, PROVIDER_CHANNEL)
    peer.say(Hello(3), Envelope(4, bad))
    assert await peer.hear() == Hello(3)
    assert Acknowledgement(4) in [await peer.hear(), await peer.hear()]
    await peer.hang_up()


async def test_participants_that_are_each_others_consumers_have_two_streams():
    """The same two processes, roles exchanged: neither stream replaces the other."""
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    other = Peer(tourism, PROVIDER_CHANNEL.__class__(AIRPORT, Party.PROVIDER))
    other.say(Hello(0))
    assert await other.hear() == Hello(0)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    await tourism.until_state(started.pid, State.FINALIZED)
    await other.hang_up()
    await wire.close()
    assert wire.faults() == []
