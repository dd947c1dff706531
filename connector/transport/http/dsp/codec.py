"""Messages and processes of the Dataspace Protocol 2025-1 as plain JSON, and as the values that the
services take. Pure functions.

Owns what the HTTPS bindings of "Contract Negotiation" and "Transfer Process" put into a body. What
``decode`` takes has passed the schema of its type (``reading``); bounds on lengths are the
services' (``negotiation.messages``). JSON that the protocol does not name is not looked at.

Between two who sign (``signs``), an agreement's message carries besides the protocol's own fields
the exact bytes that both sign, the signature and the secret, under our namespace, and the
verification its signature. Towards others, and from them, they do not exist, nor do properties of
ours in the agreement; one from them has as its document the agreement of the message as ``odrl``
reads it, encoded by ``model.fields``.

Left out: policies (``odrl``), catalogues (``dcat``), where a message goes (``paths``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connector.errors import ConnectorError, InvalidInput, Refused
from connector.model import fields
from connector.model.negotiation import (
    AgreementNotice,
    ContractNegotiationError,
    Message,
    MessageType,
    Negotiation,
    Party,
    State,
)
from connector.model.participant import b64url, unb64url
from connector.model.terms import MAX_DOCUMENT_BYTES
from connector.model.transfer import (
    DataAddress,
    TransferError,
    TransferMessage,
    TransferProcess,
    TransferState,
    TransferType,
)
from connector.negotiation.messages import (
    MAX_CODE,
    MAX_PID,
    MAX_REASON,
    MAX_STATEMENT,
    SECRET_BYTES,
)
from connector.transport.http.dsp import odrl
from connector.transport.http.dsp.schemas import CONTEXT

NEGOTIATION_ERROR, TRANSFER_ERROR, CATALOG_ERROR = (
    "ContractNegotiationError",
    "TransferError",
    "CatalogError",
)
NEGOTIATION, TRANSFER = "ContractNegotiation", "TransferProcess"
NOTICE = f"{odrl.NAMESPACE}AgreementNotice"
MAX_NOTICE = 16_384  # bytes
_EVENT = "ContractNegotiationEventMessage"
_DOCUMENT, _SIGNATURE, _SECRET = (
    odrl.NAMESPACE + name for name in ("document", "signature", "secret")
)
_BETWEEN = "; "  # the parts of a reason in one text
_MAX_REASONS = 64

Sent = Message | ContractNegotiationError | TransferMessage | TransferError


def type_of(message: MessageType | TransferType) -> str:
    """The ``@type`` of a message, which names its schema."""
    return message.value.partition(":")[0]


def body(type_: str, **parts: Any) -> dict[str, Any]:
    """A body of this ``@type``; parts that are empty are left out, but process ids."""
    kept = {name: part for name, part in parts.items() if part or name.endswith("Pid")}
    return {"@context": [CONTEXT], "@type": type_, **kept}


# Messages.


def encode(content: Sent, *, signs: bool, id: str = "") -> dict[str, Any]:
    """A message's JSON. ``signs``: whether its receiver signs agreements (``Participant.signs``).

    ``id``: of this message alone, the same when it is sent again: who has an id can tell a
    repetition from a new message with the same words.
    """
    pids = {"consumerPid": content.consumer_pid, "providerPid": content.provider_pid}
    match content:
        case ContractNegotiationError() | TransferError():
            kind = NEGOTIATION_ERROR
            if isinstance(content, TransferError):
                kind = TRANSFER_ERROR
            return body(kind, **pids, code=content.code, reason=split_reason(content.reason))
        case Message():
            parts = _message_parts(content, signs)
        case TransferMessage():
            parts = _transfer_parts(content)
    if not content.provider_pid:
        del pids["providerPid"]
    if not content.consumer_pid:
        del pids["consumerPid"]
    own = {"@id": id} if id else {}
    return body(type_of(content.type), **own, **pids, **parts)


def encode_notice(notice: AgreementNotice) -> dict[str, Any]:
    """The signed end of an agreement, between two who sign: the protocol has no message for it."""
    return {"@type": NOTICE, "agreementId": notice.agreement_id, "statement": notice.statement}


def decode_notice(data: bytes) -> AgreementNotice:
    """Raises ``InvalidInput``. The statement is still to be verified."""
    value = fields.as_object(fields.parse_json(data, limit=MAX_NOTICE, what="notice"), "notice")
    fields.only_keys(value, frozenset({"@type", "agreementId", "statement"}), "notice")
    if value.get("@type") != NOTICE:
        raise InvalidInput(f"@type: must be {NOTICE}")
    return AgreementNotice(
        fields.text(value, "agreementId", limit=MAX_PID),
        fields.text(value, "statement", limit=MAX_STATEMENT),
    )


def _message_parts(message: Message, signs: bool) -> dict[str, Any]:
    match message.type:
        case MessageType.REQUEST | MessageType.OFFER:
            offer = fields.as_object(fields.parse_json(message.offer, what="offer"), "offer")
            begins = not (message.provider_pid and message.consumer_pid)
            address = {"callbackAddress": message.callback} if begins else {}
            return {"offer": odrl.to_wire(offer), **address}
        case MessageType.ACCEPTED | MessageType.FINALIZED:
            return {"eventType": message.type.value.partition(":")[2]}
        case MessageType.AGREEMENT:
            return _agreement_parts(message, signs)
        case MessageType.VERIFICATION:
            return {_SIGNATURE: message.signature} if signs else {}
        case MessageType.TERMINATION:
            return {"code": message.code, "reason": split_reason(message.reason)}


def _agreement_parts(message: Message, signs: bool) -> dict[str, Any]:
    agreement = _agreement(message.agreement)
    if not signs:
        # A policy is compared with the offer's, property by property, by connectors that hold
        # both as JSON-LD: ours would be a difference.
        agreement = {k: v for k, v in agreement.items() if not k.startswith(odrl.NAMESPACE)}
    parts: dict[str, Any] = {"agreement": agreement}
    if signs:
        parts |= {
            _DOCUMENT: b64url(message.agreement),
            _SIGNATURE: message.signature,
            _SECRET: b64url(message.secret),
        }
    return parts


def _agreement(document: bytes) -> dict[str, Any]:
    """An agreement's document as the message shows it."""
    found = fields.parse_json(document, limit=MAX_DOCUMENT_BYTES, what="agreement")
    return odrl.to_wire(fields.as_object(found, "agreement"))


def _transfer_parts(message: TransferMessage) -> dict[str, Any]:
    return {
        "agreementId": message.agreement_id,
        "format": message.format,
        "callbackAddress": message.callback,
        "dataAddress": _address_json(message.data_address) if message.data_address else None,
        "code": message.code,
        "reason": split_reason(message.reason),
    }


def decode(value: Mapping[str, Any], *, sender: str, receiver: str, signs: bool) -> Sent:
    """The message of a body whose ``@type`` and schema were checked.

    ``sender`` and ``receiver`` are participant ids: an offer that names no assigner is its
    provider's. ``signs``: whether the sender signs agreements. Raises ``InvalidInput``.
    """
    type_ = value["@type"]
    pids = value.get("consumerPid", ""), value.get("providerPid", "")
    if type_ in (NEGOTIATION_ERROR, TRANSFER_ERROR):
        code, reason = explanation(value)
        if type_ == TRANSFER_ERROR:
            return TransferError(*pids, code, reason)
        return ContractNegotiationError(*pids, code, reason)
    if type_ == _EVENT:
        return Message(MessageType(f"{type_}:{value['eventType']}"), *pids)
    try:
        kind = MessageType(type_)
    except ValueError:
        return _decode_transfer(type_, pids, value)
    match kind:
        case MessageType.REQUEST:
            offer = _offer(value, assigner=receiver)
            return Message(kind, *pids, offer=offer, callback=_callback(value))
        case MessageType.OFFER:
            offer = _offer(value, assigner=sender)
            return Message(kind, *pids, offer=offer, callback=_callback(value))
        case MessageType.AGREEMENT:
            return _decode_agreement(pids, value, signs)
        case MessageType.VERIFICATION:
            signature = _own(value, _SIGNATURE) if signs else ""
            return Message(kind, *pids, signature=signature)
        case _:
            code, reason = explanation(value)
            return Message(kind, *pids, code=code, reason=reason)


def _decode_transfer(
    type_: str, pids: tuple[str, str], value: Mapping[str, Any]
) -> TransferMessage:
    try:
        kind = TransferType(type_)
    except ValueError as error:
        raise InvalidInput("@type: not a message of this protocol") from error
    address = value.get("dataAddress")
    code, reason = explanation(value)
    begins = kind is TransferType.REQUEST
    explains = kind in (TransferType.SUSPENSION, TransferType.TERMINATION)
    return TransferMessage(
        kind,
        *pids,
        agreement_id=value["agreementId"] if begins else "",
        format=value["format"] if begins else "",
        callback=_callback(value) if begins else "",
        data_address=_data_address(address)
        if address is not None and (begins or kind is TransferType.START)
        else None,
        code=code if explains else "",
        reason=reason if explains else "",
    )


def _offer(value: Mapping[str, Any], *, assigner: str) -> bytes:
    offer = odrl.from_wire(value["offer"])
    fields.text(offer, "target", limit=256)  # the schema does not ask a request for it
    return fields.encode_json({"assigner": assigner, **offer})


def _callback(value: Mapping[str, Any]) -> str:
    address = value.get("callbackAddress", "")
    return address.rstrip("/") if isinstance(address, str) else ""


def _decode_agreement(pids: tuple[str, str], value: Mapping[str, Any], signs: bool) -> Message:
    """The bytes that were signed must say what the message shows, or the two could differ."""
    if not signs:
        document = fields.encode_json(odrl.from_wire(value["agreement"]))
        return Message(MessageType.AGREEMENT, *pids, agreement=document)
    document = unb64url(_own(value, _DOCUMENT))
    if odrl.from_wire(_agreement(document)) != odrl.from_wire(value["agreement"]):
        raise InvalidInput("agreement: the signed document says something else")
    return Message(
        MessageType.AGREEMENT,
        *pids,
        agreement=document,
        signature=_own(value, _SIGNATURE),
        secret=unb64url(_own(value, _SECRET), SECRET_BYTES),
    )


def _own(value: Mapping[str, Any], key: str) -> str:
    """A field of ours, which one that signs must send."""
    if not isinstance(value.get(key), str):
        raise InvalidInput(f"{key}: a member of this space sends it with this message")
    return fields.text(value, key, limit=2 * MAX_DOCUMENT_BYTES)


def _address_json(address: DataAddress) -> dict[str, Any]:
    properties = [
        {"@type": "EndpointProperty", "name": name, "value": value}
        for name, value in address.properties
    ]
    return {
        "@type": "DataAddress",
        "endpointType": address.endpoint_type,
        **({"endpoint": address.endpoint} if address.endpoint else {}),
        **({"endpointProperties": properties} if properties else {}),
    }


def _data_address(value: Mapping[str, Any]) -> DataAddress:
    address = DataAddress(
        value["endpointType"],
        value.get("endpoint", ""),
        tuple((one["name"], one["value"]) for one in value.get("endpointProperties", ())),
    )
    address.check()
    return address


# Processes.


def process_json(process: Negotiation | TransferProcess) -> dict[str, Any]:
    """A ContractNegotiation or a TransferProcess, as its peer sees it."""
    kind = NEGOTIATION if isinstance(process, Negotiation) else TRANSFER
    ours, theirs = process.pid, process.peer_pid
    consumer, provider = (ours, theirs) if process.party is Party.CONSUMER else (theirs, ours)
    return body(kind, consumerPid=consumer, providerPid=provider, state=process.state.value)


def read_process(value: Mapping[str, Any]) -> tuple[str, str, State | TransferState]:
    """(consumer's process id, provider's, state) of a body whose schema was checked."""
    states = State if value["@type"] == NEGOTIATION else TransferState
    return value["consumerPid"], value["providerPid"], states(value["state"])


# Refusals.


def error_json(
    kind: str, code: str, reasons: Sequence[str], *, consumer_pid: str = "", provider_pid: str = ""
) -> dict[str, Any]:
    """The error object of a binding (``kind`` is its ``@type``)."""
    pids = {"consumerPid": consumer_pid, "providerPid": provider_pid}
    if kind == CATALOG_ERROR:
        pids = {}
    return body(kind, **pids, code=code, reason=list(reasons))


def reasons_of(error: ConnectorError) -> list[str]:
    """What a refusal says, and what to do about it."""
    if isinstance(error, Refused):
        said = [str(reason) for reason in error.reasons]
    else:
        said = [error.message]
    return [*said[:_MAX_REASONS], *([error.hint] if error.hint else [])]


def split_reason(reason: str) -> list[str]:
    """The protocol's list of reasons; empty for no reason."""
    return [part for part in reason.split(_BETWEEN) if part.strip()]


def explanation(value: Mapping[str, Any]) -> tuple[str, str]:
    """(code, reason) of a termination, a suspension or an error, cut to what we keep: they only
    explain. The schema has a reason be a list of anything."""
    code, reasons = value.get("code", ""), value.get("reason", [])
    said = (_said(one) for one in (reasons if isinstance(reasons, list) else [reasons]))
    reason = _BETWEEN.join(one for one in said if one)
    code = code if isinstance(code, str) else ""
    return _cut(code, MAX_CODE), _cut(reason, MAX_REASON)


def _said(reason: Any) -> str:
    """One reason in words: a text, or an object around one as some connectors write it."""
    if isinstance(reason, dict):
        for key in ("@value", "message", "reason"):
            if isinstance(reason.get(key), str):
                return str(reason[key])
    return reason if isinstance(reason, str) else fields.encode_json(reason).decode()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
