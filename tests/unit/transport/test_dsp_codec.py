"""The Dataspace Protocol's messages as JSON and back; policies in both spellings."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.errors import InvalidInput, Reason, Refused
from connector.model import fields
from connector.model.negotiation import (
    ContractNegotiationError,
    Message,
    MessageType,
    Negotiation,
    Party,
    State,
)
from connector.model.participant import b64url
from connector.model.terms import (
    Constraint,
    Offer,
    Rule,
    Terms,
    agreement_document,
    offer_json,
    parse_agreement,
    parse_offer,
)
from connector.model.transfer import (
    DataAddress,
    TransferError,
    TransferMessage,
    TransferProcess,
    TransferState,
    TransferType,
)
from connector.negotiation import messages
from connector.transport.http.dsp import codec, odrl, paths, schemas
from connector.transport.http.dsp.reading import read
from tests.negotiators import AIRPORT, OFFER, TOURISM, terms

VECTORS = Path(__file__).parents[2] / "vectors" / "dsp"
EXAMPLES = [
    path
    for kind in ("negotiation", "transfer")
    for path in sorted((VECTORS / kind).glob("*.json"))
    if path.stem not in ("contract-negotiation", "transfer-process")
]
NAMESPACE = "https://w3id.org/tds/profile/v1#"
ODRL = "http://www.w3.org/ns/odrl/2/"
INTEGER = "http://www.w3.org/2001/XMLSchema#integer"
FULL = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "isAnyOf", ("a", "b")),
                Constraint("dateTime", "lteq", "2027-01-01T00:00:00Z"),
                Constraint("count", "lteq", 20),
                Constraint("tds:output", "eq", "aggregate"),
                Constraint("tds:minimumGroup", "gteq", 10, "tailnum"),
                Constraint("tds:hiddenColumns", "isNoneOf", ("a",)),
                Constraint("tds:rowCap", "lteq", 5),
            ),
        ),
    ),
    prohibitions=(Rule("distribute"), Rule("tds:reidentify")),
    obligations=(Rule("attribute"),),
)
FULL_OFFER = dataclasses.replace(OFFER, terms=FULL)
DOCUMENT = agreement_document(
    id="urn:uuid:agreement-1",
    offer=FULL_OFFER,
    assignee=TOURISM,
    timestamp=datetime(2026, 11, 23, tzinfo=UTC),
    space="did:web:space.example",
    classification="general",
    secret_commitment="00" * 32,
    provider_log="airport.example/log",
    consumer_log="tourism.example/log",
)
ADDRESS = DataAddress("https://w3id.org/idsa/v4.1/HTTP", "https://x/pull", (("a", "b"),))


def offer(value: Offer = FULL_OFFER) -> bytes:
    return fields.encode_json(offer_json(value))


def again(content, *, signs=False, sender=TOURISM, receiver=AIRPORT):
    """Through the wire, the schema and the strict reader."""
    body = fields.encode_json(codec.encode(content, signs=signs))
    kind = json.loads(body)["@type"]
    return codec.decode(read(body, kind), sender=sender, receiver=receiver, signs=signs)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_official_examples_go_round(path):
    example = json.loads(path.read_text())
    content = codec.decode(example, sender="S", receiver="R", signs=False)
    written = codec.encode(content, signs=False)
    schemas.check(written["@type"], written)
    assert codec.decode(written, sender="S", receiver="R", signs=False) == content
    if isinstance(content, Message | TransferMessage):
        sender = Party.CONSUMER
        if content.type in (MessageType.OFFER, MessageType.AGREEMENT, TransferType.START):
            sender = Party.PROVIDER
        if isinstance(content, Message):
            messages.check(content, sender)
    lost = set(example) - set(written)
    assert lost == set()
    for key in ("permission", "prohibition", "timestamp", "target"):
        inside = example.get("agreement", example.get("offer", {}))
        if key in inside:
            shown = written.get("agreement", written.get("offer"))[key]
            assert json.loads(json.dumps(shown).replace("odrl:dateTime", "dateTime")) == inside[key]


@pytest.mark.parametrize("name", ["contract-negotiation", "transfer-process"])
def test_official_processes_are_read(name):
    (path,) = VECTORS.glob(f"*/{name}.json")
    example = json.loads(path.read_text())
    assert codec.read_process(example) == (
        example["consumerPid"],
        example["providerPid"],
        example["state"],
    )


@pytest.mark.parametrize(
    "content",
    [
        Message(MessageType.ACCEPTED, "c", "p"),
        Message(MessageType.FINALIZED, "c", "p"),
        Message(MessageType.VERIFICATION, "c", "p"),
        Message(MessageType.TERMINATION, "c", "p"),
        Message(MessageType.TERMINATION, "c", "p", code="9", reason="a; b"),
        ContractNegotiationError("c", "", "9", "a"),
        TransferError("", "p", "9", "a; b"),
        TransferMessage(TransferType.REQUEST, "c", "", "a", "HttpData-PULL", "https://x"),
        TransferMessage(TransferType.START, "c", "p", data_address=ADDRESS),
        TransferMessage(TransferType.START, "c", "p"),
        TransferMessage(TransferType.COMPLETION, "c", "p"),
        TransferMessage(TransferType.SUSPENSION, "c", "p", code="1", reason="a"),
        TransferMessage(TransferType.TERMINATION, "c", "p", reason="a"),
    ],
    ids=lambda content: getattr(content, "type", type(content).__name__),
)
def test_messages_go_round(content):
    assert again(content) == content


def test_offers_go_round_in_every_term():
    for content in (
        Message(MessageType.REQUEST, "c", "", offer=offer(), callback="https://x/y"),
        Message(MessageType.REQUEST, "c", "p", offer=offer()),
        Message(MessageType.OFFER, "", "p", offer=offer(), callback="https://x/y"),
        Message(MessageType.OFFER, "c", "p", offer=offer()),
    ):
        found = again(content)
        assert parse_offer(found.offer) == FULL_OFFER
        assert dataclasses.replace(found, offer=content.offer) == content


def test_an_offer_without_an_assigner_is_its_provider_s():
    value = offer_json(FULL_OFFER)
    del value["assigner"]
    for type_, provider in ((MessageType.REQUEST, "receiver"), (MessageType.OFFER, "sender")):
        message = Message(type_, "c", "p", offer=fields.encode_json(value))
        found = again(message, sender="sender", receiver="receiver")
        assert parse_offer(found.offer).assigner == provider


def test_an_offer_in_a_message_has_a_target():
    value = codec.encode(Message(MessageType.REQUEST, "c", "p", offer=offer()), signs=False)
    del value["offer"]["target"]
    with pytest.raises(InvalidInput, match="target"):
        codec.decode(value, sender="S", receiver="R", signs=False)


def test_an_agreement_between_two_who_sign():
    sent = Message(
        MessageType.AGREEMENT, "c", "p", agreement=DOCUMENT, signature="a.b.c", secret=bytes(32)
    )
    assert again(sent, signs=True) == sent
    value = codec.encode(sent, signs=True)
    assert NAMESPACE + "space" in value["agreement"]
    shown = {**value, "agreement": {**value["agreement"], "target": "another"}}
    with pytest.raises(InvalidInput, match="something else"):
        codec.decode(shown, sender="S", receiver="R", signs=True)
    for name in ("document", "signature", "secret"):
        for wrong in (None, "", "!", 7, "x" * 90_000):
            broken = {**value, NAMESPACE + name: wrong}
            if wrong is None:
                del broken[NAMESPACE + name]
            if (name, wrong) == ("signature", "!"):
                continue  # judged by who verifies it
            with pytest.raises(InvalidInput):
                codec.decode(broken, sender="S", receiver="R", signs=True)
    verification = Message(MessageType.VERIFICATION, "c", "p", signature="a.b.c")
    assert again(verification, signs=True) == verification
    with pytest.raises(InvalidInput):
        again(dataclasses.replace(verification, signature=""), signs=True)


def test_an_agreement_with_one_who_signs_nothing():
    sent = Message(
        MessageType.AGREEMENT, "c", "p", agreement=DOCUMENT, signature="a.b.c", secret=bytes(32)
    )
    assert not [key for key in codec.encode(sent, signs=False) if key.startswith(NAMESPACE)]
    found = again(sent)
    assert (found.signature, found.secret) == ("", b"")
    ours, theirs = parse_agreement(DOCUMENT), parse_agreement(found.agreement)
    # What is of our profile is not shown to it: it compares a policy with its offer.
    outside = {"space": "", "offer": "", "classification": "", "secret_commitment": ""}
    outside |= {"provider_log": "", "consumer_log": "", "document": theirs.document}
    assert theirs == dataclasses.replace(ours, **outside)
    # What such a one says in our name does not exist.
    signed = codec.encode(sent, signs=True)
    value = {**signed, "agreement": codec.encode(sent, signs=False)["agreement"]}
    assert codec.decode(value, sender="S", receiver="R", signs=False) == found


def test_our_terms_are_iris_on_the_wire_and_both_spellings_are_read():
    wire = odrl.to_wire(offer_json(FULL_OFFER))
    text = json.dumps(wire)
    assert "tds:" not in text
    (permission,) = wire["permission"]
    by_left = {one["leftOperand"]: one for one in permission["constraint"]}
    assert by_left["odrl:count"]["rightOperand"] == {"@value": "20", "@type": INTEGER}
    assert by_left[NAMESPACE + "minimumGroup"][ODRL + "unit"] == "tailnum"
    assert [rule["action"] for rule in wire["prohibition"]] == [
        "odrl:distribute",
        NAMESPACE + "reidentify",
    ]
    short = text.replace(NAMESPACE, "tds:").replace(ODRL + "unit", "unit").replace("odrl:", "")
    full = text.replace("odrl:", ODRL)
    for spelt in (wire, json.loads(short), json.loads(full)):
        assert parse_offer(odrl.from_wire(spelt)) == FULL_OFFER


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        # Numbers, and lists of one, as others write them.
        (("count", "lteq", "20"), ("count", "lteq", 20)),
        (("odrl:count", "odrl:lteq", "20"), ("count", "lteq", 20)),
        ((ODRL + "count", ODRL + "lteq", "20"), ("count", "lteq", 20)),
        (("tds:rowCap", "lteq", "5"), ("tds:rowCap", "lteq", 5)),
        (("purpose", "isAnyOf", "a"), ("purpose", "isAnyOf", ["a"])),
        (
            ("purpose", "isAnyOf", '[{"@value":"a"},{"@value":"b"}]'),
            ("purpose", "isAnyOf", ["a", "b"]),
        ),
        (("count", "lteq", {"@value": "7", "@type": "xsd:integer"}), ("count", "lteq", 7)),
        # Not ours to read anything into.
        (("purpose", "eq", "20"), ("purpose", "eq", "20")),
        (("count", "lteq", "020"), ("count", "lteq", "020")),
        (("count", "gteq", "20"), ("count", "gteq", "20")),
        (("https://x/ns#n", "eq", "20"), ("https://x/ns#n", "eq", "20")),
        (("https://x/ns#n", "isAnyOf", "a"), ("https://x/ns#n", "isAnyOf", "a")),
        ((ODRL + "spatial", "eq", "DE"), ("odrl:spatial", "eq", "DE")),
        (("edc:purpose", "eq", "a"), ("edc:purpose", "eq", "a")),
        (("purpose", "isAnyOf", '[{"a":1}]'), ("purpose", "isAnyOf", ['[{"a":1}]'])),
        (("purpose", "isAnyOf", '[{"@value":1}]'), ("purpose", "isAnyOf", ['[{"@value":1}]'])),
        (("purpose", "isAnyOf", "[{oops"), ("purpose", "isAnyOf", ["[{oops"])),
        (
            ("dateTime", "lt", {"@value": "2027", "@type": "xsd:date"}),
            ("dateTime", "lt", {"@value": "2027", "@type": "xsd:date"}),
        ),
        (
            ("count", "lteq", {"@value": 7, "@type": INTEGER}),
            ("count", "lteq", 7),
        ),
    ],
)
def test_right_operands(said, kept):
    names = ("leftOperand", "operator", "rightOperand")
    constraint = dict(zip(names, said, strict=True))
    policy = {"permission": [{"action": "odrl:use", "constraint": [constraint]}]}
    found = odrl.from_wire(policy)["permission"][0]
    assert found == {"action": "use", "constraint": [dict(zip(names, kept, strict=True))]}


def test_what_our_model_does_not_know_travels_on():
    path = VECTORS / "negotiation" / "contract-agreement-message-full.json"
    agreement = json.loads(path.read_text())["agreement"]
    again = json.dumps(odrl.to_wire(odrl.from_wire(agreement)))
    assert json.loads(again.replace("odrl:dateTime", "dateTime")) == agreement
    strange = {
        "@type": "Offer",
        "@id": "o",
        "https://x/ns#a": {"b": ["tds:c"]},
        "permission": [
            {
                "action": "use",
                "duty": [{"action": "https://x/ns#pay", "https://x/ns#to": {"@id": "y"}}],
                "constraint": [
                    {
                        "or": [
                            {
                                "leftOperand": "odrl:l",
                                "operator": "eq",
                                "rightOperand": {"@id": "z"},
                            }
                        ]
                    }
                ],
            }
        ],
    }
    assert odrl.to_wire(odrl.from_wire(strange)) == strange


def test_what_says_nothing_is_dropped():
    policy = {
        "permission": [
            {"@type": "Permission", "action": "use", "constraint": [], "duty": []},
        ],
        "prohibition": [],
    }
    assert odrl.from_wire(policy) == {"permission": [{"action": "use"}]}


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (["a"], "a"),
        (["a", "b"], "a; b"),
        ([{"message": "a"}], "a"),
        ([{"@value": "a", "@language": "en"}], "a"),
        ([{"x": 1}, 7, None], '{"x":1}; 7; null'),
        ([], ""),
        (["x" * 5000], "x" * 1023 + "…"),
    ],
)
def test_reasons(reason, kept):
    value = {
        "@type": "ContractNegotiationTerminationMessage",
        "consumerPid": "c",
        "providerPid": "p",
        "code": "y" * 100,
        "reason": reason,
    }
    found = codec.decode(value, sender="S", receiver="R", signs=False)
    assert found.reason == kept
    assert found.code == "y" * 63 + "…"
    messages.check(found, Party.CONSUMER)


def test_reasons_of_a_refusal():
    refused = Refused([Reason("count", "20", "10"), Reason("purpose", "a", "b")], hint="ask")
    assert codec.reasons_of(refused) == [
        "count: observed 20; allowed 10",
        "purpose: observed a; allowed b",
        "ask",
    ]
    assert codec.reasons_of(InvalidInput("bad")) == ["bad"]


@pytest.mark.parametrize("party", list(Party))
def test_a_process_as_its_peer_sees_it(party):
    negotiation = Negotiation("ours", "theirs", party, "peer", "d", State.AGREED, b"", 1)
    transfer = TransferProcess("ours", "theirs", party, "peer", "a", "f", TransferState.STARTED, 1)
    pids = {f"{party}Pid": "ours", f"{party.other}Pid": "theirs"}
    for process in (negotiation, transfer):
        found = codec.process_json(process)
        schemas.check(found["@type"], found)
        assert found | pids == found
        assert codec.read_process(found)[2] is process.state


def test_a_message_has_the_id_that_it_is_given():
    sent = Message(MessageType.ACCEPTED, "c", "p")
    assert codec.encode(sent, signs=False, id="urn:x")["@id"] == "urn:x"
    assert "@id" not in codec.encode(sent, signs=False)


def test_a_callback_has_no_slash_at_its_end():
    sent = Message(MessageType.REQUEST, "c", "", offer=offer(), callback="https://x/y/")
    assert again(sent).callback == "https://x/y"


def test_where_messages_go():
    request = Message(MessageType.REQUEST, "c", "")
    assert paths.path_of(request, Party.PROVIDER) == "/negotiations/request"
    follows = dataclasses.replace(request, provider_pid="urn:uuid:1/2")
    assert paths.path_of(follows, Party.PROVIDER) == "/negotiations/urn:uuid:1%2F2/request"
    assert (
        paths.path_of(Message(MessageType.FINALIZED, "c", "p"), Party.CONSUMER)
        == "/negotiations/c/events"
    )
    assert (
        paths.path_of(TransferMessage(TransferType.SUSPENSION, "c", "p"), Party.PROVIDER)
        == "/transfers/p/suspension"
    )
    assert paths.BEGIN.keys() | paths.ACTIONS.keys() == {*MessageType, *TransferType}


def test_the_document_is_small_on_the_wire():
    """What goes beside it does not outgrow the door."""
    big = dataclasses.replace(
        FULL_OFFER, terms=terms(20, *[Constraint(f"l{n}", "eq", "x" * 900) for n in range(20)])
    )
    sent = Message(MessageType.REQUEST, "c", "p", offer=offer(big))
    assert len(b64url(offer(big))) < 64_000
    assert parse_offer(again(sent).offer) == big
