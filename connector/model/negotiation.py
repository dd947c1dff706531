"""Contract negotiations: the states and messages of DSP 2025-1, chapter "Contract Negotiation",
and the agreements that they end in.

Shapes only; which message may follow which state is ``connector.negotiation.machine``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from connector.model.terms import Agreement


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
    (agreement only); ``code`` and ``reason`` explain a termination. ``callback`` is the
    callbackAddress of a request or an offer that came over HTTPS and begins a negotiation.
    Signature and secret are empty where a peer signs nothing.
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
    callback: str = ""


@dataclass(frozen=True, slots=True)
class ContractNegotiationError:
    """DSP's answer to a message that was refused (a message, not an exception).

    It changes no state. The process ids are as far as the sender knows them, and may be empty.
    """

    consumer_pid: str
    provider_pid: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgreementNotice:
    """Ours, not DSP's: a signed act about an agreement that both hold, as ``agreement.ended``."""

    agreement_id: str
    statement: str


@dataclass(frozen=True, slots=True)
class Channel:
    """All that passes between us in the role ``party`` and ``peer`` (a DID) in the other role.

    Messages are numbered for each channel and direction. Two participants that are each other's
    consumers have two channels, and so two streams that do not disturb each other.
    """

    peer: str
    party: Party


@dataclass(frozen=True, slots=True)
class Negotiation:
    """One side's record. ``revision`` grows by one with each change (compare and swap).

    ``pid`` is our own process id and ``peer_pid`` the peer's (empty until it answered).
    ``offer`` holds the last offer on the table; ``waiting`` is true while a person must decide.
    ``code`` and ``reason`` are of the last termination, error, or question to a person.
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
    accept_offers: bool = False  # consumer: accept a counter-offer without asking a person
    left: State | None = None  # the state in which our own termination was sent
    dataset_record: str = ""  # consumer: the publisher's JWS of the dataset
    updated_ms: int = 0  # milliseconds since the Unix epoch, by our clock
    address: str = ""  # base URL of the peer's HTTPS binding; empty: the channel's stream
    heard: str = ""  # SHA-256 (hex) of the last message that came by itself (HTTPS)
    accept_unenforced: bool = False  # consumer: accept terms that mean nothing here

    @property
    def channel(self) -> Channel:
        return Channel(self.peer, self.party)


class AgreementState(StrEnum):
    PROPOSED = "proposed"  # made, but not final on this side: nothing may be used under it
    ACTIVE = "active"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class StoredAgreement:
    """An agreement as one party keeps it. ``terms.document`` are the exact bytes that both sign.

    Signatures are detached JWS; the consumer's is empty until it verified. ``secret`` (32 bytes)
    keys the digests in receipts. ``dataset_record`` is the publisher's JWS of the dataset when the
    agreement was made. ``notice`` is the signed act that ended it. ``revision`` as in
    ``Negotiation``.

    With a peer that signs nothing only our own signature is there; as its consumer we have no
    secret, and ``terms.document`` is the agreement it sent, encoded again by ``model.fields``.
    """

    terms: Agreement
    pid: str  # of our negotiation
    party: Party  # which side we are
    peer: str
    state: AgreementState
    provider_signature: str
    secret: bytes
    dataset_record: str
    consumer_signature: str = ""
    ended_reason: str = ""
    notice: str = ""
    revision: int = 1
    address: str = ""  # as in ``Negotiation``

    @property
    def peer_signs(self) -> bool:
        """Whether the peer is held to a signature, as a member of the space is."""
        if self.party is Party.PROVIDER:
            return bool(self.terms.consumer_log)
        return bool(self.provider_signature)

    @property
    def channel(self) -> Channel:
        return Channel(self.peer, self.party)
