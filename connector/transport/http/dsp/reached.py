"""What a peer's state says of whether a message of ours arrived (DSP 2025-1, state machines of
negotiations and transfers): for each message, the states that the peer cannot be in without it.

An earlier round may pass through a state that a later one begins in (an offer, a request, an offer
again; a start after a suspension): such a state says nothing, and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from connector.model.negotiation import MessageType, State
from connector.model.transfer import TransferState, TransferType

_AGREED = frozenset({State.AGREED, State.VERIFIED, State.FINALIZED})

REACHED: Mapping[MessageType | TransferType, frozenset[str]] = {
    MessageType.REQUEST: _AGREED | {State.REQUESTED},
    MessageType.OFFER: _AGREED | {State.OFFERED, State.ACCEPTED},
    MessageType.ACCEPTED: _AGREED | {State.ACCEPTED},
    MessageType.AGREEMENT: _AGREED,
    MessageType.VERIFICATION: frozenset({State.VERIFIED, State.FINALIZED}),
    MessageType.FINALIZED: frozenset({State.FINALIZED}),
    MessageType.TERMINATION: frozenset({State.TERMINATED}),
    TransferType.REQUEST: frozenset(TransferState) - {TransferState.TERMINATED},
    TransferType.START: frozenset({TransferState.STARTED, TransferState.COMPLETED}),
    TransferType.COMPLETION: frozenset({TransferState.COMPLETED}),
    TransferType.SUSPENSION: frozenset({TransferState.SUSPENDED}),
    TransferType.TERMINATION: frozenset({TransferState.TERMINATED}),
}
