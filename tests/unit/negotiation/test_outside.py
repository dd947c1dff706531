"""Peers over HTTPS, and peers from outside the space: what they send comes by itself, what we send
waits as posts; they sign nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from connector.errors import Conflict, InvalidInput, NotFound, RateLimited, Refused, Unavailable
from connector.identity.statements import sign_document, verify_document
from connector.model import fields
from connector.model.negotiation import (
    AgreementNotice,
    AgreementState,
    Channel,
    Message,
    MessageType,
    Party,
    State,
)
from connector.model.terms import Constraint, Offer, Rule, Terms, offer_json, parse_offer
from connector.negotiation import messages
from connector.negotiation.agreements import restates
from connector.negotiation.automation import Automation
from connector.negotiation.ledger import MAX_OUTBOX
from connector.negotiation.messages import offer_bytes
from tests.negotiators import AIRPORT, OFFER, TOURISM, Node, key_of, record_of, terms

STRANGER = "BPNL00000003CRHK"
CALLBACK = "https://stranger.example/dsp"
AS_CONSUMER = Channel(STRANGER, Party.PROVIDER)  # the stranger asks us
AS_PROVIDER = Channel(STRANGER, Party.CONSUMER)  # we ask the stranger
THEIR_OFFER = Offer("offer-7", "dataset-7", STRANGER, terms())
MANUAL = Automation(decide=False, agree=False, verify=False, finalize=False)


def stranger_record():
    return dataclasses.replace(
        record_of(STRANGER), signing_keys=(), log_origin="", name="Stranger", revision=0
    )


def node(did: str, automation: Automation | None = None) -> Node:
    made = Node(did, automation)
    made.members[STRANGER] = stranger_record()
    made.service = with_address(made)
    return made


def with_address(made: Node):
    """The stranger is reached over HTTPS."""

    async def address(peer: str) -> str:
        return CALLBACK if peer == STRANGER else ""

    service = made._make()
    service._consumer._address = service._provider._address = address
    return service


def request(pid: str = "their-1", offer: bytes | None = None) -> Message:
    return Message(
        MessageType.REQUEST, pid, "", offer=offer or offer_bytes(OFFER), callback=CALLBACK
    )


async def posts(made: Node) -> list[Message]:
    found = await made.service.posts()
    assert {post.address for post in found} <= {CALLBACK}
    return [messages.decode(post.body) for post in found]


async def taken(made: Node, peer_pid: str = "") -> list[Message]:
    """Everything that waits is taken by the peer."""
    contents = await posts(made)
    for post in await made.service.posts():
        await made.service.delivered(post, peer_pid)
    return contents


async def concluded(airport: Node) -> str:
    found = await airport.service.receive(AS_CONSUMER, request())
    await taken(airport)
    await airport.service.receive(
        AS_CONSUMER, Message(MessageType.VERIFICATION, "their-1", found.pid)
    )
    await taken(airport)
    return (await airport.only()).agreement_id


async def test_a_stranger_s_request_ends_in_an_agreement_that_we_alone_signed():
    airport = node(AIRPORT)
    found = await airport.service.receive(AS_CONSUMER, request())
    assert (found.state, found.address) == (State.AGREED, CALLBACK)
    (agreement,) = await taken(airport)
    assert agreement.type is MessageType.AGREEMENT
    assert (agreement.signature, agreement.secret) == ("", b"")  # for one that keeps neither
    found = await airport.service.receive(
        AS_CONSUMER, Message(MessageType.VERIFICATION, "their-1", found.pid)
    )
    assert found.state is State.FINALIZED
    assert [one.type for one in await taken(airport)] == [MessageType.FINALIZED]
    kept = await airport.service.agreement(found.agreement_id)
    assert kept.state is AgreementState.ACTIVE
    assert not kept.peer_signs
    assert kept.consumer_signature == ""
    assert kept.address == CALLBACK
    keys = record_of(AIRPORT).signing_keys
    verify_document(kept.provider_signature, "agreement", kept.terms.document, keys)
    assert airport.acts() == ["agreement.concluded"]
    assert await airport.service.posts() == ()


async def test_what_a_member_must_sign_a_stranger_may_leave_out_and_nobody_else():
    airport = Node(AIRPORT)
    member = Channel(TOURISM, Party.PROVIDER)
    found = await airport.service.receive(member, request())
    unsigned = Message(MessageType.VERIFICATION, "their-1", found.pid)
    with pytest.raises(InvalidInput):
        await airport.service.receive(member, unsigned)
    assert (await airport.only()).state is State.AGREED
    (agreement,) = await posts(airport)
    assert agreement.signature
    assert len(agreement.secret) == 32


def their_agreement(**changes) -> bytes:
    value = offer_json(THEIR_OFFER) | {
        "@type": "Agreement",
        "@id": "agreement-7",
        "assignee": TOURISM,
        "timestamp": "2026-11-23T11:59:00Z",
    }
    del value["@context"]
    return fields.encode_json(value | changes)


async def asked(bureau: Node, peer_pid: str = "their-2", **more):
    negotiation = await bureau.service.request(
        STRANGER, "dataset-7", offer_id="offer-7", terms=terms(), **more
    )
    (first,) = await taken(bureau, peer_pid)
    assert first.type is MessageType.REQUEST
    assert parse_offer(first.offer) == THEIR_OFFER
    return (await bureau.service.negotiation(negotiation.pid)), first


async def test_as_a_stranger_s_consumer_we_sign_alone():
    bureau = node(TOURISM)
    negotiation, _ = await asked(bureau)
    assert negotiation.peer_pid == "their-2"
    agreed = Message(MessageType.AGREEMENT, negotiation.pid, "their-2", agreement=their_agreement())
    found = await bureau.service.receive(AS_PROVIDER, agreed)
    assert found.state is State.VERIFIED
    (verification,) = await taken(bureau)
    assert (verification.type, verification.signature) == (MessageType.VERIFICATION, "")
    final = Message(MessageType.FINALIZED, negotiation.pid, "their-2")
    assert (await bureau.service.receive(AS_PROVIDER, final)).state is State.FINALIZED
    kept = await bureau.service.agreement("agreement-7")
    assert (kept.provider_signature, kept.secret, kept.peer_signs) == ("", b"", False)
    keys = record_of(TOURISM).signing_keys
    verify_document(kept.consumer_signature, "agreement", kept.terms.document, keys)


LIES = {
    "other terms": their_agreement(permission=[{"action": "use"}]),
    "another target": their_agreement(target="dataset-8"),
    "another assigner": their_agreement(assigner="somebody"),
    "another assignee": their_agreement(assignee="somebody"),
    "from tomorrow": their_agreement(timestamp="2026-11-24T12:00:00Z"),
    "half of our profile": their_agreement(**{"tds:space": "did:web:space.example"}),
    "a term that was not offered": their_agreement(**{"odrl:conflict": "perm"}),
    "an id like a member's": their_agreement(**{"@id": AIRPORT}),
}


@pytest.mark.parametrize("document", LIES.values(), ids=LIES.keys())
async def test_a_stranger_s_agreement_that_is_not_what_was_negotiated(document):
    bureau = node(TOURISM)
    negotiation, _ = await asked(bureau)
    agreed = Message(MessageType.AGREEMENT, negotiation.pid, "their-2", agreement=document)
    found = await bureau.service.receive(AS_PROVIDER, agreed)
    assert (found.state, found.code) == (State.TERMINATED, "agreement")
    assert [one.type for one in await posts(bureau)] == [MessageType.TERMINATION]


async def test_a_stranger_s_agreement_takes_no_name_that_our_log_has():
    bureau = node(TOURISM)
    bureau.service._consumer._is_scope = lambda name: name == "agreement-7"
    negotiation, _ = await asked(bureau)
    agreed = Message(MessageType.AGREEMENT, negotiation.pid, "their-2", agreement=their_agreement())
    found = await bureau.service.receive(AS_PROVIDER, agreed)
    assert (found.state, found.reason) == (State.TERMINATED, "agreement: its id is taken")


FOREIGN = [
    {"action": "use", "constraint": [{"and": [{"leftOperand": "edc:inForceDate"}]}]},
    {"action": "use", "constraint": [{"leftOperand": "x", "operator": "eq", "rightOperand": 1.5}]},
]


@pytest.mark.parametrize("permission", FOREIGN)
async def test_terms_that_mean_nothing_here_are_shown_and_refused_unless_chosen(permission):
    offered = fields.encode_json(offer_json(THEIR_OFFER) | {"permission": [permission]})
    bureau = node(TOURISM)
    negotiation, _ = await asked(bureau, accept_offers=True)
    offer = Message(MessageType.OFFER, negotiation.pid, "their-2", offer=offered)
    found = await bureau.service.receive(AS_PROVIDER, offer)
    assert found.state is State.OFFERED
    assert found.waiting
    assert found.reason.startswith("permission: ")
    with pytest.raises(Refused, match="a term that this node understands"):
        await bureau.service.approve(negotiation.pid)
    found = await bureau.service.approve(negotiation.pid, accept_unenforced=True)
    assert found.state is State.ACCEPTED
    await taken(bureau)
    # What was chosen is what must be agreed, to the letter.
    agreed = Message(
        MessageType.AGREEMENT,
        negotiation.pid,
        "their-2",
        agreement=their_agreement(permission=[permission]),
    )
    assert (await bureau.service.receive(AS_PROVIDER, agreed)).state is State.VERIFIED
    kept = await bureau.store.agreement("agreement-7")
    assert json.loads(kept.terms.terms.others[0][1]) == permission


async def test_a_provider_never_agrees_to_terms_that_it_cannot_enforce():
    airport = node(AIRPORT)
    foreign = fields.encode_json(offer_json(OFFER) | {"permission": [FOREIGN[0]]})
    found = await airport.service.receive(AS_CONSUMER, request(offer=foreign))
    assert (found.state, found.code) == (State.TERMINATED, "terms")
    manual = node(AIRPORT, MANUAL)
    found = await manual.service.receive(AS_CONSUMER, request(offer=foreign))
    assert found.state is State.TERMINATED


def restated(right_of: dict[str, object]) -> bytes:
    """Our offer as a connector that keeps policies as JSON-LD repeats it."""
    value = offer_json(OFFER)
    for constraint in value["permission"][0]["constraint"]:
        constraint["rightOperand"] = right_of.get(
            constraint["leftOperand"], constraint["rightOperand"]
        )
    return fields.encode_json(value)


async def test_our_offer_that_comes_back_as_text_is_agreed_to_as_we_wrote_it():
    airport = node(AIRPORT)
    said = restated({"count": "20", "purpose": ["tourism-planning"]})
    found = await airport.service.receive(AS_CONSUMER, request(offer=said))
    assert found.state is State.AGREED
    kept = await airport.store.agreement(found.agreement_id)
    assert kept.terms.terms == OFFER.terms
    # What it asked for is what it is held to, when the same request comes again.
    again = await airport.service.receive(AS_CONSUMER, request(offer=said))
    assert (again.pid, again.revision) == (found.pid, found.revision)


RESTATED = {
    "another order": (("a", "b"), ("b", "a"), True),
    "a list of one": (("a",), "a", True),
    "a number": (5, "5", True),
    "another number": (5, "6", False),
    "a longer list": (("a", "b"), ("a", "b", "c"), False),
    "no list": (("a", "b"), "a", False),
}


@pytest.mark.parametrize(("ours", "theirs", "same"), RESTATED.values(), ids=RESTATED.keys())
def test_what_is_our_offer_in_other_words(ours, theirs, same):
    mine, yours = (
        dataclasses.replace(
            OFFER, terms=Terms(permissions=(Rule("use", (Constraint("x", "isAnyOf", right),)),))
        )
        for right in (ours, theirs)
    )
    assert restates(yours, mine) is same
    assert not restates(dataclasses.replace(yours, id="another"), mine)


async def test_a_message_whose_answer_was_lost_is_taken_once():
    airport = node(AIRPORT, MANUAL)
    first = await airport.service.receive(AS_CONSUMER, request())
    again = await airport.service.receive(AS_CONSUMER, request())
    assert (again.pid, again.revision) == (first.pid, 1)
    await airport.service.approve(first.pid)
    await taken(airport)
    verification = Message(MessageType.VERIFICATION, "their-1", first.pid)
    verified = await airport.service.receive(AS_CONSUMER, verification)
    assert verified.state is State.VERIFIED
    for _ in range(2):
        repeated = await airport.service.receive(AS_CONSUMER, verification)
        assert (repeated.state, repeated.revision) == (State.VERIFIED, verified.revision)
        await airport.restart()
    # Not the same message: illegal.
    with pytest.raises(Conflict):
        await airport.service.receive(
            AS_CONSUMER, Message(MessageType.ACCEPTED, "their-1", first.pid)
        )


async def test_the_same_request_again_is_a_new_one_where_the_table_allows_it():
    airport = node(AIRPORT, MANUAL)
    first = await airport.service.receive(AS_CONSUMER, request())
    again = Message(MessageType.REQUEST, "their-1", first.pid, offer=offer_bytes(OFFER))
    for _ in range(2):
        await airport.service.counter(first.pid, terms(5))
        counters = await taken(airport)
        assert [one.type for one in counters] == [MessageType.OFFER]
        assert (await airport.service.receive(AS_CONSUMER, again)).state is State.REQUESTED


async def test_a_refused_post_ends_the_process_and_says_so_to_the_peer():
    bureau = node(TOURISM)
    negotiation, _ = await asked(bureau)
    await bureau.service.receive(
        AS_PROVIDER,
        Message(MessageType.AGREEMENT, negotiation.pid, "their-2", agreement=their_agreement()),
    )
    (post,) = await bureau.service.posts()
    await bureau.service.refused(post, "400", "we have changed our mind")
    found = await bureau.only()
    assert (found.state, found.code) == (State.TERMINATED, "peer:400")
    assert found.reason == "we have changed our mind"
    assert [one.type for one in await posts(bureau)] == [MessageType.TERMINATION]


async def test_a_first_request_that_is_refused_has_nobody_to_be_told():
    bureau = node(TOURISM)
    await bureau.service.request(STRANGER, "dataset-7", offer_id="offer-7", terms=terms())
    (post,) = await bureau.service.posts()
    await bureau.service.refused(post, "404", "no such dataset")
    assert (await bureau.only()).state is State.TERMINATED
    assert await bureau.service.posts() == ()


async def test_a_peer_that_is_never_reached_holds_nothing():
    bureau = node(TOURISM)
    negotiation, _ = await asked(bureau)
    await bureau.service.terminate(negotiation.pid, "withdrawn", "bored")
    (post,) = await bureau.service.posts()
    await bureau.service.abandon(post, "no answer in ten minutes")
    assert await bureau.service.posts() == ()
    second, _ = await asked(bureau, "their-3")
    await bureau.service.receive(
        AS_PROVIDER,
        Message(MessageType.AGREEMENT, second.pid, "their-3", agreement=their_agreement()),
    )
    (post,) = await bureau.service.posts()
    await bureau.service.abandon(post, "no answer in ten minutes")
    found = await bureau.service.negotiation(second.pid)
    assert (found.state, found.code) == (State.TERMINATED, "unreachable")
    assert await bureau.service.posts() == ()


async def test_that_an_agreement_is_in_force_a_peer_learns_however_long_it_is_away():
    airport = node(AIRPORT)
    found = await airport.service.receive(AS_CONSUMER, request())
    await taken(airport)
    verification = Message(MessageType.VERIFICATION, "their-1", found.pid)
    await airport.service.receive(AS_CONSUMER, verification)
    (post,) = await airport.service.posts()
    await airport.service.abandon(post, "no answer in ten minutes")
    assert (await airport.only()).state is State.FINALIZED
    await airport.restart()
    assert await airport.service.posts() == (post,)
    await taken(airport)
    assert await airport.service.posts() == ()


async def test_and_that_it_has_ended():
    airport = Node(AIRPORT)
    member = Channel(TOURISM, Party.PROVIDER)
    found = await airport.service.receive(member, request())
    (agreement,) = await taken(airport)
    signature = sign_document(key_of(TOURISM), "agreement", agreement.agreement)
    verification = Message(MessageType.VERIFICATION, "their-1", found.pid, signature=signature)
    await airport.service.receive(member, verification)
    await taken(airport)
    await airport.service.end_agreement((await airport.only()).agreement_id, "over")
    (post,) = await airport.service.posts()
    await airport.service.abandon(post, "no answer in ten minutes")
    await airport.restart()
    assert [type(one) for one in await taken(airport)] == [AgreementNotice]
    assert await airport.service.posts() == ()


async def test_a_peer_that_gives_one_process_id_twice_loses_the_second():
    bureau = node(TOURISM)
    first, _ = await asked(bureau)
    second = await bureau.service.request(STRANGER, "dataset-7", offer_id="offer-7", terms=terms())
    (post,) = await bureau.service.posts()
    await bureau.service.delivered(post, "their-2")
    assert (await bureau.service.negotiation(second.pid)).code == "peer:pid"
    assert (await bureau.service.negotiation(first.pid)).state is State.REQUESTED
    assert await bureau.service.posts() == ()


async def test_posts_wake_who_delivers_them_and_wait_for_the_log():
    airport = node(AIRPORT)
    airport.service.posted.clear()
    found = await airport.service.receive(AS_CONSUMER, request())
    assert airport.service.posted.is_set()
    await taken(airport)
    airport.log_down = True
    verification = Message(MessageType.VERIFICATION, "their-1", found.pid)
    with pytest.raises(Unavailable):  # saved, but not logged
        await airport.service.receive(AS_CONSUMER, verification)
    with pytest.raises(Unavailable):
        await airport.service.posts()
    airport.log_down = False
    assert [one.type for one in await posts(airport)] == [MessageType.FINALIZED]
    assert airport.acts() == ["agreement.concluded"]


async def test_posts_survive_a_restart_and_others_are_not_seen():
    airport = node(AIRPORT)
    await airport.service.receive(AS_CONSUMER, request())
    before = await airport.service.posts()
    await airport.restart()
    assert await airport.service.posts() == before
    assert await airport.service.posts(before[-1].number) == ()
    assert await airport.store.outbox(AS_CONSUMER, 0, 10) == ()


async def test_a_peer_that_takes_nothing_is_told_to_wait():
    airport = node(AIRPORT, MANUAL)
    many = 0
    with pytest.raises(RateLimited):
        for many in range(MAX_OUTBOX + 1):
            found = await airport.service.receive(AS_CONSUMER, request(f"their-{many}"))
            await airport.service.terminate(found.pid)
    assert many == MAX_OUTBOX
    # Another peer is none the worse.
    assert await airport.service.receive(Channel(TOURISM, Party.PROVIDER), request("mine"))
    # As soon as it takes some, it is heard again.
    (first, *_) = await airport.service.posts()
    await airport.service.delivered(first)
    assert await airport.service.receive(AS_CONSUMER, request("again"))
    with pytest.raises(RateLimited):
        for many in range(3):
            found = await airport.service.receive(AS_CONSUMER, request(f"more-{many}"))
            await airport.service.terminate(found.pid)


async def test_a_stranger_sees_only_its_own():
    airport = node(AIRPORT, MANUAL)
    found = await airport.service.receive(AS_CONSUMER, request())
    for channel in (Channel(TOURISM, Party.PROVIDER), AS_PROVIDER):
        with pytest.raises(NotFound):
            await airport.service.receive(
                channel, Message(MessageType.TERMINATION, found.pid, found.pid)
            )


async def test_only_a_first_message_names_a_callback():
    airport = node(AIRPORT, MANUAL)
    found = await airport.service.receive(AS_CONSUMER, request())
    moved = dataclasses.replace(request(), provider_pid=found.pid, callback="https://b.example")
    with pytest.raises(InvalidInput, match="callbackAddress"):
        await airport.service.receive(AS_CONSUMER, moved)
    with pytest.raises(InvalidInput, match="callbackAddress"):
        await airport.service.receive(
            AS_CONSUMER, dataclasses.replace(request("p2"), callback="https://x" * 300)
        )


async def test_64_at_once():
    airport = node(AIRPORT)
    answers = await asyncio.gather(
        *(airport.service.receive(AS_CONSUMER, request(f"their-{n}")) for n in range(64))
    )
    assert {one.state for one in answers} == {State.AGREED}
    assert len(await taken(airport)) == 64
    finals = await asyncio.gather(
        *(
            airport.service.receive(
                AS_CONSUMER, Message(MessageType.VERIFICATION, one.peer_pid, one.pid)
            )
            for one in answers
        )
    )
    assert {one.state for one in finals} == {State.FINALIZED}
    assert len(await airport.service.agreements()) == 64


async def test_the_end_of_an_agreement_with_a_stranger_is_logged_and_kept():
    airport = node(AIRPORT)
    agreement = await concluded(airport)
    await airport.service.end_agreement(agreement, "over")
    kept = await airport.service.agreement(agreement)
    assert kept.state is AgreementState.ENDED
    assert airport.acts() == ["agreement.concluded", "agreement.ended"]
    assert await airport.service.posts() == ()  # the protocol has no word for it
