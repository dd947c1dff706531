"""Peers that lie, and what they get."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    NotFound,
    RateLimited,
    VerificationFailed,
)
from connector.identity.acts import Act, sign_act
from connector.identity.statements import sign_document, sign_statement
from connector.model.catalog import dataset_json
from connector.model.negotiation import (
    AgreementNotice,
    AgreementState,
    Channel,
    ContractNegotiationError,
    Message,
    MessageType,
    Party,
    State,
)
from connector.model.terms import Constraint, parse_offer
from connector.negotiation import agreements, inbox
from connector.negotiation.frames import Envelope
from connector.negotiation.messages import check, offer_bytes
from tests.negotiators import (
    AIRPORT,
    CONSUMER_CHANNEL,
    DATASET,
    OFFER,
    PROVIDER_CHANNEL,
    SPACE,
    TOURISM,
    UNKNOWN_TERMS,
    Clock,
    Node,
    Wire,
    changed_document,
    key_of,
    other_terms,
    ourselves,
    quiet,
    record_of,
    terms,
)

STRANGER = "did:web:stranger.example"
THEIR_PID = "urn:uuid:provider-1"
NOW = Clock().now()


def request(offer=OFFER, pid="urn:uuid:c1", provider_pid=""):
    return Message(MessageType.REQUEST, pid, provider_pid, offer=offer_bytes(offer))


async def asked():
    """A consumer that has asked for the offer, and its negotiation."""
    tourism = Node(TOURISM)
    return tourism, await tourism.service.request(AIRPORT, DATASET.id)


def agreement_for(negotiation, **changes):
    """What an honest provider would send, with ``changes`` in the document, signed by it."""
    secret = bytes(range(32))
    made = agreements.make(
        ourselves(AIRPORT),
        record_of(TOURISM),
        negotiation,
        parse_offer(negotiation.offer),
        dataset=DATASET,
        dataset_record="",
        space=SPACE,
        now=NOW,
    )
    commitment = hashlib.sha256(secret).hexdigest()
    fields = {"tds:secretCommitment": commitment, **changes}
    document = changed_document(made.terms.document, **fields)
    return Message(
        MessageType.AGREEMENT,
        negotiation.pid,
        THEIR_PID,
        agreement=document,
        signature=sign_document(key_of(AIRPORT), "agreement", document),
        secret=secret,
    )


async def test_an_agreement_in_another_spelling_is_the_same_agreement():
    """Written with other white space and its rules in another order; the bytes are what counts."""
    tourism, negotiation = await asked()
    message = agreement_for(negotiation)
    value = json.loads(message.agreement)
    value["permission"][0]["constraint"].reverse()
    document = json.dumps(value, indent=2).encode()
    message = dataclasses.replace(
        message,
        agreement=document,
        signature=sign_document(key_of(AIRPORT), "agreement", document),
    )
    done = await tourism.service.receive(CONSUMER_CHANNEL, message)
    assert done.state is State.VERIFIED
    stored = await tourism.store.agreement(done.agreement_id)
    assert stored.terms.document == document


def _permission(constraints):
    return [{"action": "use", "constraint": constraints}]


_PURPOSE = {"leftOperand": "purpose", "operator": "eq", "rightOperand": "tourism-planning"}
_COUNT = {"leftOperand": "count", "operator": "lteq", "rightOperand": 20}
LIES = {
    "fewer uses": {"permission": _permission([_PURPOSE, {**_COUNT, "rightOperand": 10}])},
    "more uses": {"permission": _permission([_PURPOSE, {**_COUNT, "rightOperand": 30}])},
    "a term left out": {"permission": _permission([_COUNT])},
    "a term more": {"permission": _permission([_PURPOSE, _COUNT, _COUNT])},
    "a number as text": {"permission": _permission([_PURPOSE, {**_COUNT, "rightOperand": "20"}])},
    "a prohibition more": {"prohibition": [{"action": "sell"}]},
    "no terms": {"permission": []},
    "another dataset": {"target": "urn:uuid:other"},
    "another offer": {"tds:offer": "urn:uuid:other"},
    "another provider": {"assigner": STRANGER},
    "another consumer": {"assignee": STRANGER},
    "another space": {"tds:space": "did:web:elsewhere.example"},
    "another class of data": {"tds:classification": "general"},
    "another log of its own": {"tds:providerLog": "elsewhere.example/log"},
    "another log of ours": {"tds:consumerLog": "elsewhere.example/log"},
    "another secret": {"tds:secretCommitment": "0" * 64},
    "a commitment that is no digest": {"tds:secretCommitment": "秘密"},
    "a date ahead": {"timestamp": "2026-11-23T13:00:00Z"},
    "an id that is a participant's": {"@id": AIRPORT},
    "an id with spaces": {"@id": "urn:uuid:a b"},
    "a field more": {"note": "x"},
    "not an agreement": {"@type": "Offer"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_an_agreement_that_is_not_what_was_negotiated(lie):
    tourism, negotiation = await asked()
    done = await tourism.service.receive(CONSUMER_CHANNEL, agreement_for(negotiation, **lie))
    assert (done.state, done.code, done.agreement_id) == (State.TERMINATED, "agreement", "")
    assert await tourism.service.agreements() == ()
    letters = await tourism.store.outbox(CONSUMER_CHANNEL, 1, 10)
    (letter,) = letters
    assert json.loads(letter.body)["type"] == "ContractNegotiationTerminationMessage"
    assert tourism.log == []


def _signed_by_another(message):
    signature = sign_document(key_of(STRANGER), "agreement", message.agreement)
    return dataclasses.replace(message, signature=signature)


def _signed_as_something_else(message):
    signature = sign_document(key_of(AIRPORT), "checkpoint", message.agreement)
    return dataclasses.replace(message, signature=signature)


def _signature_of_another_document(message):
    signature = sign_document(key_of(AIRPORT), "agreement", message.agreement + b" ")
    return dataclasses.replace(message, signature=signature)


FORGERIES = {
    "another's key": _signed_by_another,
    "another kind of signature": _signed_as_something_else,
    "over another document": _signature_of_another_document,
    "no JWS": lambda message: dataclasses.replace(message, signature="x"),
    "another secret": lambda message: dataclasses.replace(message, secret=b"x" * 32),
    "no JSON": lambda message: dataclasses.replace(message, agreement=b"\xff"),
    "deep JSON": lambda message: dataclasses.replace(message, agreement=b"[" * 30_000),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_agreement(forge):
    tourism, negotiation = await asked()
    done = await tourism.service.receive(CONSUMER_CHANNEL, forge(agreement_for(negotiation)))
    assert (done.state, done.code) == (State.TERMINATED, "agreement")
    assert await tourism.service.agreements() == ()


async def test_an_agreements_id_that_is_taken():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    first = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until_state(first.pid, State.FINALIZED)
    await wire.close()
    second = await tourism.service.request(AIRPORT, DATASET.id)
    message = agreement_for(second, **{"@id": done.agreement_id})
    refused = await tourism.service.receive(CONSUMER_CHANNEL, message)
    assert refused.state is State.TERMINATED
    (kept,) = await tourism.service.agreements()
    assert (kept.pid, kept.state) == (first.pid, AgreementState.ACTIVE)


REQUESTS = {
    "no such dataset": (dataclasses.replace(OFFER, target="urn:uuid:other"), NotFound),
    "no such offer": (dataclasses.replace(OFFER, id="urn:uuid:other"), NotFound),
    "another's offer": (dataclasses.replace(OFFER, assigner=STRANGER), InvalidInput),
}


@pytest.mark.parametrize(("offer", "error"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_request_for_what_is_not_there(offer, error):
    airport = Node(AIRPORT)
    with pytest.raises(error):
        await airport.service.receive(PROVIDER_CHANNEL, request(offer))
    assert await airport.service.negotiations() == ()


async def test_a_request_with_terms_that_nobody_enforces():
    airport = Node(AIRPORT)
    done = await airport.service.receive(
        PROVIDER_CHANNEL, request(other_terms(OFFER, UNKNOWN_TERMS))
    )
    assert (done.state, done.code) == (State.TERMINATED, "terms")
    assert airport.policy.asked == []
    # Nor does a consumer accept them, by rule or by word.
    tourism = Node(TOURISM)
    mine = await tourism.service.request(AIRPORT, DATASET.id, accept_offers=True)
    offer = offer_bytes(other_terms(OFFER, UNKNOWN_TERMS))
    message = Message(MessageType.OFFER, mine.pid, THEIR_PID, offer=offer)
    resting = await tourism.service.receive(CONSUMER_CHANNEL, message)
    assert (resting.state, resting.waiting) == (State.OFFERED, True)
    assert "odrl:spatial" in resting.reason
    with pytest.raises(ConnectorError, match="odrl:spatial"):
        await tourism.service.approve(mine.pid)


async def test_a_counter_request_may_not_move_to_another_dataset():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    mine = await airport.service.receive(PROVIDER_CHANNEL, request())
    await airport.service.counter(mine.pid, terms(10))
    before = await airport.only()
    other = dataclasses.replace(OFFER, target="urn:uuid:other")
    with pytest.raises(InvalidInput):
        await airport.service.receive(PROVIDER_CHANNEL, request(other, provider_pid=mine.pid))
    assert await airport.only() == before


async def test_a_stranger_finds_nothing_of_others():
    """Another member, another role, or a process id of the peer's own that does not fit."""
    airport = Node(AIRPORT)
    airport.members[STRANGER] = record_of(STRANGER)
    airport.policy.says = "ask"
    mine = await airport.service.receive(PROVIDER_CHANNEL, request())
    end = Message(MessageType.TERMINATION, "urn:uuid:c1", mine.pid)
    for channel, message in (
        (Channel(STRANGER, Party.PROVIDER), end),
        (Channel(STRANGER, Party.PROVIDER), dataclasses.replace(end, provider_pid="")),
        (Channel(TOURISM, Party.CONSUMER), end),
        (Channel(TOURISM, Party.CONSUMER), Message(end.type, mine.pid, "urn:uuid:c1")),
        (PROVIDER_CHANNEL, dataclasses.replace(end, consumer_pid="urn:uuid:c2")),
        (PROVIDER_CHANNEL, dataclasses.replace(end, provider_pid="urn:uuid:none")),
        (PROVIDER_CHANNEL, dataclasses.replace(end, provider_pid="", consumer_pid="urn:x")),
    ):
        with pytest.raises(NotFound) as refusal:
            await airport.service.receive(channel, message)
        assert refusal.value.message == "no such negotiation"
    assert (await airport.only()).state is State.REQUESTED
    await airport.service.receive(PROVIDER_CHANNEL, end)
    assert (await airport.only()).state is State.TERMINATED


async def test_a_verification_signed_by_another_finalizes_nothing():
    airport = Node(AIRPORT)
    mine = await airport.service.receive(PROVIDER_CHANNEL, request())
    assert mine.state is State.AGREED
    document = (await airport.store.agreement(mine.agreement_id)).terms.document
    before = await airport.only()
    for key, over in ((STRANGER, document), (AIRPORT, document), (TOURISM, document + b" ")):
        message = Message(
            MessageType.VERIFICATION,
            "urn:uuid:c1",
            mine.pid,
            signature=sign_document(key_of(key), "agreement", over),
        )
        with pytest.raises(VerificationFailed):
            await airport.service.receive(PROVIDER_CHANNEL, message)
    assert await airport.only() == before
    assert airport.log == []
    with pytest.raises(NotFound):
        await airport.service.agreement(mine.agreement_id)


async def test_a_peer_that_was_suspended_gets_no_agreement():
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    mine = await airport.service.receive(PROVIDER_CHANNEL, request())
    del airport.members[TOURISM]
    with pytest.raises(ConnectorError):
        await airport.service.approve(mine.pid)
    with pytest.raises(ConnectorError):
        await airport.service.receive(PROVIDER_CHANNEL, request(pid="urn:uuid:c2"))
    assert (await airport.only()).state is State.REQUESTED


async def test_a_dataset_that_its_publisher_did_not_sign():
    tourism = Node(TOURISM)
    for record in (
        sign_statement(key_of(STRANGER), "dataset", dataset_json(DATASET)),
        sign_statement(key_of(AIRPORT), "act", dataset_json(DATASET)),
        sign_statement(
            key_of(AIRPORT),
            "dataset",
            dataset_json(dataclasses.replace(DATASET, id="urn:uuid:other", offers=())),
        ),
        "x",
    ):
        tourism.dataset_record = record
        with pytest.raises(ConnectorError):
            await tourism.service.request(AIRPORT, DATASET.id)
    assert await tourism.service.negotiations() == ()


async def test_an_error_ends_a_negotiation_and_is_not_answered_twice():
    tourism, negotiation = await asked()
    error = ContractNegotiationError(negotiation.pid, THEIR_PID, "conflict", "no")
    done = await tourism.service.receive(CONSUMER_CHANNEL, error)
    assert (done.state, done.code, done.reason) == (State.TERMINATED, "peer:conflict", "no")
    sent = (await tourism.store.counts(CONSUMER_CHANNEL)).sent
    for _ in range(3):
        await tourism.service.receive(CONSUMER_CHANNEL, error)
    assert (await tourism.store.counts(CONSUMER_CHANNEL)).sent == sent


MESSAGES = {
    "a huge offer": request(dataclasses.replace(OFFER, id="x")),
    "no offer": Message(MessageType.REQUEST, "urn:uuid:c1", ""),
    "deep JSON": Message(MessageType.REQUEST, "urn:uuid:c1", "", offer=b"[" * 20_000),
    "deep JSON that is allowed in size": Message(
        MessageType.REQUEST, "urn:uuid:c1", "", offer=b"[" * 40 + b"]" * 40
    ),
    "no JSON": Message(MessageType.REQUEST, "urn:uuid:c1", "", offer=b"\xff\xfe"),
    "a huge number": Message(MessageType.REQUEST, "c", "", offer=b"1" * 20_000),
    "a list": Message(MessageType.REQUEST, "urn:uuid:c1", "", offer=b"[]"),
    "no process id": Message(MessageType.REQUEST, "", "", offer=offer_bytes(OFFER)),
    "a huge process id": request(pid="x" * 257),
    "a part too many": Message(
        MessageType.REQUEST, "urn:uuid:c1", "", offer=offer_bytes(OFFER), secret=bytes(32)
    ),
    "a provider's message": Message(MessageType.FINALIZED, "urn:uuid:c1", "urn:uuid:p"),
    "an event without a process": Message(MessageType.ACCEPTED, "urn:uuid:c1", ""),
    "a huge reason": Message(MessageType.TERMINATION, "c", "p", reason="x" * 1025),
    "a huge code": Message(MessageType.TERMINATION, "c", "p", code="x" * 65),
    "a huge signature": Message(MessageType.VERIFICATION, "c", "p", signature="x" * 4097),
    "a huge notice": AgreementNotice("urn:uuid:a", "x" * 8193),
    "an error with a huge reason": ContractNegotiationError("", "", "c", "x" * 1025),
}
MESSAGES["a huge offer"] = dataclasses.replace(
    MESSAGES["a huge offer"], offer=b'{"@id":"' + b"x" * 24_576 + b'"}'
)


@pytest.mark.parametrize("content", MESSAGES.values(), ids=MESSAGES.keys())
async def test_messages_out_of_bounds(content):
    airport = Node(AIRPORT)
    with pytest.raises(InvalidInput):
        await airport.service.receive(PROVIDER_CHANNEL, content)
    assert await airport.service.negotiations() == ()
    # On a stream it is answered, once, within the bounds of an answer.
    assert await airport.service._inbox.deliver(PROVIDER_CHANNEL, [Envelope(1, content)]) == 1
    letters = await airport.store.outbox(PROVIDER_CHANNEL, 0, 10)
    if isinstance(content, ContractNegotiationError):
        assert letters == ()  # errors are never answered
        return
    (letter,) = letters
    assert json.loads(letter.body)["code"] == "invalid_input"
    assert len(letter.body) < 2048


def test_a_secret_has_32_bytes():
    for size in (1, 31, 33):  # 0 is for a peer that signs nothing; others are held to 32 later
        message = Message(MessageType.AGREEMENT, "c", "p", b"", b"{}", "s", bytes(size))
        with pytest.raises(InvalidInput):
            check(message, Party.PROVIDER)


async def test_too_many_open_negotiations(monkeypatch):
    monkeypatch.setattr(inbox, "MAX_OPEN", 2)
    airport = Node(AIRPORT)
    airport.policy.says = "ask"
    for number in range(2):
        await airport.service.receive(PROVIDER_CHANNEL, request(pid=f"urn:{number}"))
    with pytest.raises(RateLimited):
        await airport.service.receive(PROVIDER_CHANNEL, request(pid="urn:2"))


async def finalized():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    wire = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until_state(started.pid, State.FINALIZED)
    await quiet(tourism, airport)
    await wire.close()
    return airport, tourism, done.agreement_id


def notice(
    agreement_id, *, scope=None, actor=AIRPORT, key=AIRPORT, type_="agreement.ended", **more
):
    act = Act(type_, scope or agreement_id, actor, NOW, {"reason": "over", **more})
    return AgreementNotice(agreement_id, sign_act(key_of(key), act))


async def test_a_notice_is_believed_on_its_senders_signature_alone():
    _, tourism, agreement_id = await finalized()
    tourism.members[STRANGER] = record_of(STRANGER)
    other = Channel(STRANGER, Party.CONSUMER)
    for channel, hostile in (
        (CONSUMER_CHANNEL, notice(agreement_id, key=STRANGER)),
        (CONSUMER_CHANNEL, notice(agreement_id, actor=TOURISM)),
        (CONSUMER_CHANNEL, notice(agreement_id, scope="urn:uuid:other")),
        (CONSUMER_CHANNEL, notice(agreement_id, type_="agreement.concluded")),
        (CONSUMER_CHANNEL, notice(agreement_id, more="x")),
        (CONSUMER_CHANNEL, notice(agreement_id, reason="x" * 1025)),
        (CONSUMER_CHANNEL, notice("urn:uuid:other")),
        (CONSUMER_CHANNEL, AgreementNotice(agreement_id, "x")),
        (PROVIDER_CHANNEL, notice(agreement_id)),
        (other, notice(agreement_id, key=STRANGER, actor=STRANGER)),
    ):
        with pytest.raises(ConnectorError):
            await tourism.service.receive(channel, hostile)
    assert (await tourism.service.agreement(agreement_id)).state is AgreementState.ACTIVE
    assert tourism.stopped == []
    good = notice(agreement_id)
    for _ in range(2):  # again is the same as once
        await tourism.service.receive(CONSUMER_CHANNEL, good)
    ended = await tourism.service.agreement(agreement_id)
    assert (ended.state, ended.notice) == (AgreementState.ENDED, good.statement)
    assert [act.statement for act in tourism.log[1:]] == [good.statement]
    assert tourism.stopped == [agreement_id]


async def test_an_agreement_that_is_not_in_force_cannot_be_ended():
    tourism, negotiation = await asked()
    done = await tourism.service.receive(CONSUMER_CHANNEL, agreement_for(negotiation))
    with pytest.raises(Conflict):
        await tourism.service.receive(CONSUMER_CHANNEL, notice(done.agreement_id))
    with pytest.raises(NotFound):
        await tourism.service.end_agreement(done.agreement_id, "over")
    with pytest.raises(NotFound):
        await tourism.service.end_agreement("urn:uuid:none", "over")


@pytest.mark.parametrize("party", Party)
async def test_either_party_ends_an_agreement(party):
    airport, tourism, agreement_id = await finalized()
    node = tourism if party is Party.CONSUMER else airport
    assert await node.service.end_agreement(agreement_id, "over") == 2
    assert await node.service.end_agreement(agreement_id, "again") == 0
    wire = Wire(tourism, airport)
    await quiet(tourism, airport)
    await wire.close()
    for one in (tourism, airport):
        agreement = await one.service.agreement(agreement_id)
        assert (agreement.state, agreement.ended_reason) == (AgreementState.ENDED, "over")
        assert one.acts() == ["agreement.concluded", "agreement.ended"]
    assert tourism.log[1] == airport.log[1]
    assert tourism.log[1].actor == node.did


async def test_both_end_it_at_once():
    airport, tourism, agreement_id = await finalized()
    await airport.service.end_agreement(agreement_id, "over")
    await tourism.service.end_agreement(agreement_id, "enough")
    wire = Wire(tourism, airport)
    await quiet(tourism, airport)
    await wire.close()
    for one in (tourism, airport):
        assert (await one.service.agreement(agreement_id)).state is AgreementState.ENDED
        assert one.acts() == ["agreement.concluded", "agreement.ended"]


async def test_a_reason_that_is_too_long_ends_nothing():
    airport, _, agreement_id = await finalized()
    with pytest.raises(InvalidInput):
        await airport.service.end_agreement(agreement_id, "x" * 1025)
    assert (await airport.service.agreement(agreement_id)).state is AgreementState.ACTIVE


@pytest.mark.parametrize(
    "changed",
    [
        terms(21),
        terms(20, Constraint("tds:rowCap", "lteq", 5)),
        dataclasses.replace(terms(), prohibitions=terms().permissions),
        dataclasses.replace(terms(), permissions=terms().permissions * 2),
    ],
)
def test_terms_that_differ(changed):
    assert agreements.canonical(terms()) == agreements.canonical(terms())
    assert agreements.canonical(terms()) != agreements.canonical(changed)
