"""The outbox's JSON, there and back, and what it refuses."""

from __future__ import annotations

import pytest

from connector.errors import InvalidInput
from connector.model.negotiation import (
    AgreementNotice,
    ContractNegotiationError,
    Message,
    MessageType,
)
from connector.model.transfer import DataAddress, TransferError, TransferMessage, TransferType
from connector.negotiation.messages import decode, encode, offer_bytes
from tests.negotiators import OFFER, other_terms, terms

CONTENTS = [
    Message(MessageType.REQUEST, "c", "", offer=b"{}"),
    Message(MessageType.OFFER, "", "p", offer=offer_bytes(OFFER)),
    Message(MessageType.AGREEMENT, "c", "p", b"", b"\x00\xff", "sig", bytes(range(32))),
    Message(MessageType.VERIFICATION, "c", "p", signature="sig"),
    Message(MessageType.ACCEPTED, "c", "p"),
    Message(MessageType.FINALIZED, "c", "p"),
    Message(MessageType.TERMINATION, "c", "p", code="policy", reason="不行"),
    ContractNegotiationError("c", "", "not_found", "no such negotiation"),
    ContractNegotiationError("", "", "", ""),
    AgreementNotice("urn:uuid:a", "statement"),
    TransferMessage(TransferType.REQUEST, "c", "", agreement_id="a", format="f"),
    TransferMessage(
        TransferType.REQUEST,
        "c",
        "",
        agreement_id="a",
        format="f",
        callback="https://x.example",
        data_address=DataAddress("push"),
    ),
    TransferMessage(TransferType.START, "c", "p"),
    TransferMessage(
        TransferType.START,
        "c",
        "p",
        data_address=DataAddress("t", "https://x.example", (("名", "值"), ("名", ""))),
    ),
    TransferMessage(TransferType.COMPLETION, "c", "p"),
    TransferMessage(TransferType.SUSPENSION, "c", "p", code="night", reason="不行"),
    TransferMessage(TransferType.TERMINATION, "c", "p"),
    TransferError("c", "p", "conflict", "no"),
]


@pytest.mark.parametrize("content", CONTENTS)
def test_there_and_back(content):
    assert decode(encode(content)) == content


HOSTILE = {
    "nothing": b"",
    "no object": b"[]",
    "no type": b"{}",
    "an unknown type": b'{"type":"ContractGreeting"}',
    "an unknown field": b'{"type":"AgreementNotice","agreementId":"a","statement":"s","x":"y"}',
    "another type's field": b'{"type":"AgreementNotice","agreementId":"a","code":"s"}',
    "an empty field": b'{"type":"AgreementNotice","agreementId":"","statement":"s"}',
    "a number": b'{"type":"AgreementNotice","agreementId":1,"statement":"s"}',
    "no base64": b'{"type":"ContractRequestMessage","consumerPid":"c","offer":"*"}',
    "base64 spelt otherwise": b'{"type":"ContractRequestMessage","offer":"e31="}',
    "a negotiation's field in a transfer": b'{"type":"TransferStartMessage","signature":"s"}',
    "an address that is none": b'{"type":"TransferStartMessage","dataAddress":[]}',
    "an address without a type": b'{"type":"TransferStartMessage","dataAddress":{"endpoint":"x"}}',
    "an address with more": (
        b'{"type":"TransferStartMessage","dataAddress":{"endpointType":"x","endpoint":"",'
        b'"endpointProperties":[],"x":1}}'
    ),
    "properties that are no pairs": (
        b'{"type":"TransferStartMessage","dataAddress":{"endpointType":"x","endpoint":"",'
        b'"endpointProperties":[["a"]]}}'
    ),
    "twice": b'{"type":"AgreementNotice","type":"AgreementNotice"}',
    "deep": b"[" * 50_000,
    "huge": b'{"type":"' + b"x" * (1 << 17) + b'"}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_refused(data):
    with pytest.raises(InvalidInput):
        decode(data)


def test_an_offer_of_our_own_that_no_message_carries():
    with pytest.raises(InvalidInput):
        offer_bytes(other_terms(OFFER, terms(2**60)))
    huge = OFFER.__class__("x" * 25_000, OFFER.target, OFFER.assigner, OFFER.terms)
    with pytest.raises(InvalidInput):
        offer_bytes(huge)
