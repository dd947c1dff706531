"""Transfer processes: the states and messages of DSP 2025-1, chapter "Transfer Process".

Which message may follow which state is ``connector.negotiation.transfer_machine``. Left out: the
data itself, which takes another way (``connector.ports.dataplane``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.negotiation import Channel, Party
from connector.model.terms import PROFILE

PULL = "HttpData-PULL"  # the format of whole datasets, pulled over HTTP
QUERY = f"{PROFILE}Query"  # of SQL where the data is, over gRPC between members
MAX_ENDPOINT = 2048  # characters of a URL
MAX_PROPERTIES = 32
MAX_NAME = 256  # characters of an endpoint's type, or of a property's name
MAX_VALUE = 8192  # characters of a property's value: a token may be long
MAX_ADDRESS = 24_576  # characters of one data address, all together
_ADDRESS_KEYS = frozenset({"endpointType", "endpoint", "endpointProperties"})


class TransferState(StrEnum):
    REQUESTED = "REQUESTED"
    STARTED = "STARTED"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    TERMINATED = "TERMINATED"


class TransferType(StrEnum):
    """DSP's message types."""

    REQUEST = "TransferRequestMessage"
    START = "TransferStartMessage"
    COMPLETION = "TransferCompletionMessage"
    SUSPENSION = "TransferSuspensionMessage"
    TERMINATION = "TransferTerminationMessage"


@dataclass(frozen=True, slots=True)
class DataAddress:
    """Where data is, and how to get it. ``properties`` are DSP's ``endpointProperties`` as
    (name, value): a token may be among them, so they are never shown."""

    endpoint_type: str
    endpoint: str = ""
    properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def check(self) -> None:
        """Raises ``InvalidInput`` if it is larger than anybody may send."""
        sizes = [len(self.endpoint_type), len(self.endpoint)]
        for name, value in self.properties:
            if not 1 <= len(name) <= MAX_NAME or len(value) > MAX_VALUE:
                raise InvalidInput("dataAddress: a property that is too long or has no name")
            sizes += (len(name), len(value))
        if not 1 <= sizes[0] <= MAX_NAME or sizes[1] > MAX_ENDPOINT:
            raise InvalidInput("dataAddress: an endpoint that is too long or has no type")
        if len(self.properties) > MAX_PROPERTIES or sum(sizes) > MAX_ADDRESS:
            raise InvalidInput("dataAddress: too large")


def address_json(address: DataAddress) -> dict[str, Any]:
    """As this node keeps it; bindings have their own encodings."""
    return {
        "endpointType": address.endpoint_type,
        "endpoint": address.endpoint,
        "endpointProperties": [list(pair) for pair in address.properties],
    }


def parse_address(value: Any) -> DataAddress:
    """Strict parser of ``address_json``'s value. Raises ``InvalidInput``."""
    found = fields.as_object(value, "dataAddress")
    fields.only_keys(found, _ADDRESS_KEYS, "dataAddress")
    pairs = found.get("endpointProperties", [])
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in pairs
    ):
        raise InvalidInput("endpointProperties: must be pairs of a name and a value")
    address = DataAddress(
        fields.text(found, "endpointType", limit=MAX_NAME),
        fields.text(found, "endpoint", limit=MAX_ENDPOINT, default=""),
        tuple((name, value) for name, value in pairs),
    )
    address.check()
    return address


@dataclass(frozen=True, slots=True)
class TransferMessage:
    """One DSP transfer message, whatever the binding.

    ``agreement_id``, ``format`` and ``callback`` (the sender's base URL, over HTTPS) are of a
    request; ``data_address`` of a start (pull) or a request (push); ``code`` and ``reason``
    explain a suspension or a termination.
    """

    type: TransferType
    consumer_pid: str
    provider_pid: str
    agreement_id: str = ""
    format: str = ""
    callback: str = ""
    data_address: DataAddress | None = None
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TransferError:
    """DSP's answer to a transfer message that was refused (a message, not an exception).

    It changes no state. The process ids are as far as the sender knows them, and may be empty.
    """

    consumer_pid: str
    provider_pid: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class TransferProcess:
    """One side's record. ``revision`` grows by one with each change (compare and swap).

    ``pid`` is our own process id and ``peer_pid`` the peer's (empty until it answered).
    ``data_address`` is the one in force, so only while the process is STARTED; ``waiting`` is true
    while a person must decide. ``code`` and ``reason`` are of the last suspension, termination,
    error, or question to a person.
    """

    pid: str
    peer_pid: str
    party: Party  # which side we are
    peer: str  # the peer's DID
    agreement_id: str
    format: str
    state: TransferState
    revision: int
    dataset: str = ""  # the agreement's target
    address: str = ""  # base URL of the peer's HTTPS binding; empty: the channel's stream
    data_address: DataAddress | None = None
    waiting: bool = False
    code: str = ""
    reason: str = ""
    left: TransferState | None = None  # the state in which our last message was sent, until heard
    resuming: bool = False  # provider: the consumer asked to go on and has no new address yet
    heard: str = ""  # SHA-256 (hex) of the last message that came by itself (HTTPS)
    updated_ms: int = 0  # milliseconds since the Unix epoch, by our clock

    @property
    def channel(self) -> Channel:
        return Channel(self.peer, self.party)
