"""The bounds of messages, and the JSON in which they wait in the outbox.

Every message that arrives passes ``check``, whatever carried it; after that sizes need no thought.
The JSON is ours alone and never crosses the wire: bindings have their own encodings.
"""

from __future__ import annotations

import base64
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementNotice,
    ContractNegotiationError,
    Message,
    MessageType,
    Party,
)
from connector.model.terms import MAX_DOCUMENT_BYTES, Offer, offer_json, parse_offer
from connector.model.transfer import (
    TransferError,
    TransferMessage,
    TransferType,
    address_json,
    parse_address,
)

MAX_OFFER_BYTES = 24_576  # leaves room for what an agreement adds to its offer
MAX_PID = 256
MAX_SIGNATURE = 4096
MAX_STATEMENT = 8192
MAX_CODE = 64
MAX_REASON = 1024
MAX_FORMAT = 128
SECRET_BYTES = 32
MAX_ENCODED_BYTES = 1 << 17
MAX_CALLBACK = 2048

# Who may send what; the events, the offer and a transfer's request are one-way in every state.
_EITHER = frozenset(Party)
_SENDERS: dict[MessageType | TransferType, frozenset[Party]] = {
    MessageType.REQUEST: frozenset({Party.CONSUMER}),
    MessageType.ACCEPTED: frozenset({Party.CONSUMER}),
    MessageType.VERIFICATION: frozenset({Party.CONSUMER}),
    MessageType.OFFER: frozenset({Party.PROVIDER}),
    MessageType.AGREEMENT: frozenset({Party.PROVIDER}),
    MessageType.FINALIZED: frozenset({Party.PROVIDER}),
    MessageType.TERMINATION: _EITHER,
    TransferType.REQUEST: frozenset({Party.CONSUMER}),
    TransferType.START: _EITHER,
    TransferType.COMPLETION: _EITHER,
    TransferType.SUSPENSION: _EITHER,
    TransferType.TERMINATION: _EITHER,
}
# The fields beside the process ids that each type has; the others must be empty.
_PARTS: dict[MessageType | TransferType, frozenset[str]] = {
    MessageType.REQUEST: frozenset({"offer"}),
    MessageType.OFFER: frozenset({"offer"}),
    MessageType.ACCEPTED: frozenset(),
    MessageType.AGREEMENT: frozenset({"agreement", "signature", "secret"}),
    MessageType.VERIFICATION: frozenset({"signature"}),
    MessageType.FINALIZED: frozenset(),
    MessageType.TERMINATION: frozenset({"code", "reason"}),
    TransferType.REQUEST: frozenset({"agreement_id", "format", "callback", "data_address"}),
    TransferType.START: frozenset({"data_address"}),
    TransferType.COMPLETION: frozenset(),
    TransferType.SUSPENSION: frozenset({"code", "reason"}),
    TransferType.TERMINATION: frozenset({"code", "reason"}),
}
# Explanations, what comes over HTTPS alone, and what a peer that signs nothing leaves out, which
# others are held to later.
_OPTIONAL = frozenset({"code", "reason", "signature", "secret", "callback"})
_LIMITS = {
    "offer": MAX_OFFER_BYTES,
    "agreement": MAX_DOCUMENT_BYTES,
    "signature": MAX_SIGNATURE,
    "secret": SECRET_BYTES,
    "code": MAX_CODE,
    "reason": MAX_REASON,
}
_TRANSFER_LIMITS = {
    "agreement_id": MAX_PID,
    "format": MAX_FORMAT,
    "callback": MAX_CALLBACK,
    "code": MAX_CODE,
    "reason": MAX_REASON,
}
# What may come before its sender knows the receiver's process id.
_STARTS: frozenset[MessageType | TransferType] = frozenset(
    {
        MessageType.REQUEST,
        MessageType.OFFER,
        MessageType.TERMINATION,
        TransferType.REQUEST,
        TransferType.TERMINATION,
    }
)


def check(content: Content, sender: Party) -> None:
    """Raises ``InvalidInput`` unless sizes, fields and process ids are those of its type.

    A first request or offer cannot name the receiver's process id yet, nor a termination that
    follows it before an answer; all others name both.
    """
    if isinstance(content, AgreementNotice):
        _bounded("agreement_id", content.agreement_id, MAX_PID)
        _bounded("statement", content.statement, MAX_STATEMENT)
        return
    pids = {Party.CONSUMER: content.consumer_pid, Party.PROVIDER: content.provider_pid}
    if isinstance(content, ContractNegotiationError | TransferError):
        _bounded("code", content.code, MAX_CODE, empty=True)
        _bounded("reason", content.reason, MAX_REASON, empty=True)
        for pid in pids.values():
            _bounded("process id", pid, MAX_PID, empty=True)
        return
    if sender not in _SENDERS[content.type]:
        raise InvalidInput(f"{content.type}: not a {sender}'s to send")
    _bounded("the sender's process id", pids[sender], MAX_PID)
    _bounded("the process id", pids[sender.other], MAX_PID, empty=content.type in _STARTS)
    if content.callback and pids[sender.other]:
        raise InvalidInput("callbackAddress: only for a message that begins a process")
    _bounded("callbackAddress", content.callback, MAX_CALLBACK, empty=True)
    parts = _PARTS[content.type]
    limits = _LIMITS if isinstance(content, Message) else _TRANSFER_LIMITS
    for name, limit in limits.items():
        value = getattr(content, name)
        if name in parts:
            _bounded(name, value, limit, empty=name in _OPTIONAL)
        elif value:
            raise InvalidInput(f"{name}: not a part of {content.type}")
    if isinstance(content, Message):
        if content.secret and len(content.secret) != SECRET_BYTES:
            raise InvalidInput(f"secret: must have {SECRET_BYTES} bytes")
        return
    if content.type is TransferType.REQUEST and pids[sender.other]:
        raise InvalidInput("the process id: a request cannot name the receiver's")
    if content.data_address is not None:
        if "data_address" not in parts:
            raise InvalidInput(f"dataAddress: not a part of {content.type}")
        content.data_address.check()


def _bounded(name: str, value: str | bytes, limit: int, *, empty: bool = False) -> None:
    if len(value) > limit or not (value or empty):
        raise InvalidInput(f"{name}: must have {0 if empty else 1} to {limit} characters or bytes")


def offer_bytes(offer: Offer) -> bytes:
    """An offer of our own as a message carries it, within every bound that the peer holds it to.

    Raises ``InvalidInput``.
    """
    data = fields.encode_json(offer_json(offer))
    _bounded("offer", data, MAX_OFFER_BYTES)
    parse_offer(data, strict=not offer.terms.others)
    return data


def read_offer(data: bytes) -> Offer:
    """The offer of a message; with parts that mean nothing here, which are for the terms' check
    to refuse. Raises ``InvalidInput``."""
    return parse_offer(data, strict=False)


_ERROR, _NOTICE, _TRANSFER_ERROR = "ContractNegotiationError", "AgreementNotice", "TransferError"
_TRANSFERS = frozenset(kind.value for kind in TransferType)
_KEYS = frozenset(
    {"type", "consumerPid", "providerPid", "offer", "agreement", "signature", "secret"}
    | {"code", "reason", "agreementId", "statement", "format", "callback", "dataAddress"}
)


def encode(content: Content) -> bytes:
    """The outbox's JSON: empty fields are left out, bytes are base64."""
    value: dict[str, Any]
    if isinstance(content, AgreementNotice):
        value = {
            "type": _NOTICE,
            "agreementId": content.agreement_id,
            "statement": content.statement,
        }
    else:
        value = {
            "consumerPid": content.consumer_pid,
            "providerPid": content.provider_pid,
            "code": content.code,
            "reason": content.reason,
        }
        match content:
            case ContractNegotiationError():
                value["type"] = _ERROR
            case TransferError():
                value["type"] = _TRANSFER_ERROR
            case Message():
                value |= {
                    "type": content.type.value,
                    "offer": base64.b64encode(content.offer).decode(),
                    "agreement": base64.b64encode(content.agreement).decode(),
                    "signature": content.signature,
                    "secret": base64.b64encode(content.secret).decode(),
                }
            case TransferMessage():
                address = content.data_address
                value |= {
                    "type": content.type.value,
                    "agreementId": content.agreement_id,
                    "format": content.format,
                    "callback": content.callback,
                    "dataAddress": address_json(address) if address else None,
                }
    return fields.encode_json({name: part for name, part in value.items() if part})


def decode(data: bytes) -> Content:
    """Strict parser of ``encode``'s JSON. Raises ``InvalidInput``."""
    value = fields.as_object(
        fields.parse_json(data, limit=MAX_ENCODED_BYTES, what="message"), "message"
    )
    fields.only_keys(value, _KEYS, "message")
    content = _content(fields.text(value, "type", limit=64), value)
    if encode(content) != fields.encode_json(value):
        raise InvalidInput("message: a field that its type does not have")
    return content


def _content(type_: str, value: Any) -> Content:
    if type_ == _NOTICE:
        return AgreementNotice(_text(value, "agreementId"), _text(value, "statement"))
    if type_ in (_ERROR, _TRANSFER_ERROR):
        error = ContractNegotiationError if type_ == _ERROR else TransferError
        return error(
            _text(value, "consumerPid"),
            _text(value, "providerPid"),
            _text(value, "code"),
            _text(value, "reason"),
        )
    if type_ in _TRANSFERS:
        address = value.get("dataAddress")
        return TransferMessage(
            type=TransferType(type_),
            consumer_pid=_text(value, "consumerPid"),
            provider_pid=_text(value, "providerPid"),
            agreement_id=_text(value, "agreementId"),
            format=_text(value, "format"),
            callback=_text(value, "callback"),
            data_address=None if address is None else parse_address(address),
            code=_text(value, "code"),
            reason=_text(value, "reason"),
        )
    return _message(type_, value)


def _message(type_: str, value: Any) -> Message:
    try:
        message_type = MessageType(type_)
    except ValueError as error:
        raise InvalidInput("type: not a message of this protocol") from error
    return Message(
        type=message_type,
        consumer_pid=_text(value, "consumerPid"),
        provider_pid=_text(value, "providerPid"),
        offer=_octets(value, "offer"),
        agreement=_octets(value, "agreement"),
        signature=_text(value, "signature"),
        secret=_octets(value, "secret"),
        code=_text(value, "code"),
        reason=_text(value, "reason"),
    )


def _text(value: Any, key: str) -> str:
    return fields.text(value, key, limit=MAX_STATEMENT, default="")


def _octets(value: Any, key: str) -> bytes:
    encoded = fields.text(value, key, limit=MAX_ENCODED_BYTES, default="")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidInput(f"{key}: not base64") from error
