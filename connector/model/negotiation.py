"""Contract negotiations: the states and messages of DSP 2025-1, chapter "Contract Negotiation".

Shapes only; which message may follow which state is ``connector.negotiation.machine``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    REQUESTED = "REQUESTED"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    AGREED = "AGREED"
    VERIFIED = "VERIFIED"
    FINALIZED = "FINALIZED"
    TERMINATED = "TERMINATED"


class Party(StrEnum):
    CONSUMER = "consumer"
    PROVIDER = "provider"

    @property
    def other(self) -> Party:
        return Party.PROVIDER if self is Party.CONSUMER else Party.CONSUMER


class MessageType(StrEnum):
    """DSP's message types; the two events are told apart by their ``eventType``."""

    REQUEST = "ContractRequestMessage"
    OFFER = "ContractOfferMessage"
    ACCEPTED = "ContractNegotiationEventMessage:ACCEPTED"
    AGREEMENT = "ContractAgreementMessage"
    VERIFICATION = "ContractAgreementVerificationMessage"
    FINALIZED = "ContractNegotiationEventMessage:FINALIZED"
    TERMINATION = "ContractNegotiationTerminationMessage"


@dataclass(frozen=True, slots=True)
class Message:
    """One DSP negotiation message, whatever the binding.

    ``offer`` holds the JSON bytes of an ODRL Offer (request, offer); ``agreement`` the exact
    bytes of the agreement; ``signature`` the sender's detached JWS over them (agreement:
    provider's; verification: consumer's); ``secret`` the 32 bytes that key receipts' digests
    (agreement only); ``code`` and ``reason`` explain a termination.
    """

    type: MessageType
    consumer_pid: str
    provider_pid: str
    offer: bytes = b""
    agreement: bytes = b""
    signature: str = ""
    secret: bytes = b""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Negotiation:
    """One side's record. ``revision`` grows by one with each change (compare and swap).

    ``pid`` is our own process id and ``peer_pid`` the peer's (empty until it answered).
    ``offer`` holds the last offer on the table; ``waiting`` is true while a person must decide.
    """

    pid: str
    peer_pid: str
    party: Party  # which side we are
    peer: str  # the peer's DID
    dataset: str
    state: State
    offer: bytes
    revision: int
    agreement_id: str = ""
    waiting: bool = False
    code: str = ""
    reason: str = ""
