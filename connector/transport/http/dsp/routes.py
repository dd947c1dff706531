"""Which message of ours goes to which path of the peer (DSP 2025-1, "Path Bindings" of contract
negotiations and transfer processes), and what the peer's state says of whether it arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from connector.errors import InvalidInput
from connector.model.negotiation import MessageType, State
from connector.model.transfer import TransferState, TransferType

NEGOTIATIONS, TRANSFERS = "negotiations", "transfers"


@dataclass(frozen=True, slots=True)
class Route:
    """``begins``: the last step of the path for a message that begins a process, empty if it
    cannot. ``reached``: the states of the peer in which it has certainly had the message."""

    kind: str
    step: str
    reached: frozenset[str]
    begins: str = ""


_AGREED = (State.AGREED, State.VERIFIED, State.FINALIZED)

ROUTES: Mapping[MessageType | TransferType, Route] = {
    MessageType.REQUEST: Route(
        NEGOTIATIONS, "request", frozenset({State.REQUESTED, *_AGREED}), "request"
    ),
    MessageType.OFFER: Route(
        NEGOTIATIONS, "offers", frozenset({State.OFFERED, State.ACCEPTED, *_AGREED}), "offers"
    ),
    MessageType.ACCEPTED: Route(NEGOTIATIONS, "events", frozenset({State.ACCEPTED, *_AGREED})),
    MessageType.AGREEMENT: Route(NEGOTIATIONS, "agreement", frozenset(_AGREED)),
    MessageType.VERIFICATION: Route(
        NEGOTIATIONS, "agreement/verification", frozenset({State.VERIFIED, State.FINALIZED})
    ),
    MessageType.FINALIZED: Route(NEGOTIATIONS, "events", frozenset({State.FINALIZED})),
    MessageType.TERMINATION: Route(NEGOTIATIONS, "termination", frozenset({State.TERMINATED})),
    TransferType.REQUEST: Route(
        TRANSFERS,
        "request",
        frozenset(set(TransferState) - {TransferState.TERMINATED}),
        "request",
    ),
    TransferType.START: Route(
        TRANSFERS, "start", frozenset({TransferState.STARTED, TransferState.COMPLETED})
    ),
    TransferType.COMPLETION: Route(TRANSFERS, "completion", frozenset({TransferState.COMPLETED})),
    TransferType.SUSPENSION: Route(TRANSFERS, "suspension", frozenset({TransferState.SUSPENDED})),
    TransferType.TERMINATION: Route(
        TRANSFERS, "termination", frozenset({TransferState.TERMINATED})
    ),
}


def process_path(kind: str, peer_pid: str, step: str = "") -> str:
    """The path of the peer's process below its base URL. Raises ``InvalidInput`` for a process id
    that would be another path."""
    if peer_pid in ("", ".", ".."):
        raise InvalidInput("the peer's process id cannot be part of a path")
    path = f"/{kind}/{quote(peer_pid, safe=':')}"
    return f"{path}/{step}" if step else path
