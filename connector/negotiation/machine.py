"""The one table of contract negotiation: (who sends, state, message) -> state.

Owns DSP 2025-1, chapter "Contract Negotiation", section "State Machine". Leaves out everything
else: who may speak for a party, whether an offer or a signature is good, storage, time.

Theory of operation
-------------------
Both parties keep a record of the negotiation and move it with the same table: the sender when it
saves the message, the receiver when it has accepted it. ``None`` is the state before the first
message. A pair that is not in the table is illegal: ``after`` raises ``Conflict``, and nothing
has changed, because nothing here changes anything.

Rows that are not ``drawn`` are the ones that the specification's figure leaves out and its text
allows ("The message MAY be sent at any state"): terminations by the party whose turn it is not.

Messages can cross. In each state at most one party has something to send besides a termination,
so only a termination can cross with another message. A termination is legal in every state that
is not final, so it wins, and the message that it crossed is refused at the side that left, with
one exception: a consumer that terminates in VERIFIED may cross with the provider's FINALIZED,
which is final at the provider already. By the specification a termination takes effect when the
other side has acknowledged it, which a provider in FINALIZED does not. So ``overtaken`` tells the
consumer that its termination came too late, and both sides are FINALIZED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connector.errors import Conflict
from connector.model.negotiation import MessageType, Party, State

FINAL = frozenset({State.FINALIZED, State.TERMINATED})


@dataclass(frozen=True, slots=True)
class Row:
    """``sender`` may send ``message`` in ``state``, which leads to ``next``."""

    sender: Party
    state: State | None
    message: MessageType
    next: State
    drawn: bool = True


_C, _P = Party.CONSUMER, Party.PROVIDER
_TERMINATION = MessageType.TERMINATION

ROWS = (
    Row(_C, None, MessageType.REQUEST, State.REQUESTED),
    Row(_P, None, MessageType.OFFER, State.OFFERED),
    Row(_C, State.REQUESTED, _TERMINATION, State.TERMINATED),
    Row(_P, State.REQUESTED, MessageType.OFFER, State.OFFERED),
    Row(_P, State.REQUESTED, MessageType.AGREEMENT, State.AGREED),
    Row(_P, State.REQUESTED, _TERMINATION, State.TERMINATED),
    Row(_C, State.OFFERED, MessageType.REQUEST, State.REQUESTED),
    Row(_C, State.OFFERED, MessageType.ACCEPTED, State.ACCEPTED),
    Row(_C, State.OFFERED, _TERMINATION, State.TERMINATED),
    Row(_P, State.OFFERED, _TERMINATION, State.TERMINATED),
    Row(_C, State.ACCEPTED, _TERMINATION, State.TERMINATED, drawn=False),
    Row(_P, State.ACCEPTED, MessageType.AGREEMENT, State.AGREED),
    Row(_P, State.ACCEPTED, _TERMINATION, State.TERMINATED),
    Row(_C, State.AGREED, MessageType.VERIFICATION, State.VERIFIED),
    Row(_C, State.AGREED, _TERMINATION, State.TERMINATED),
    Row(_P, State.AGREED, _TERMINATION, State.TERMINATED, drawn=False),
    Row(_C, State.VERIFIED, _TERMINATION, State.TERMINATED, drawn=False),
    Row(_P, State.VERIFIED, MessageType.FINALIZED, State.FINALIZED),
    Row(_P, State.VERIFIED, _TERMINATION, State.TERMINATED),
)

TABLE: Mapping[tuple[Party, State | None, MessageType], State] = {
    (row.sender, row.state, row.message): row.next for row in ROWS
}


def after(sender: Party, state: State | None, message: MessageType) -> State:
    """The state after ``sender`` sent ``message`` in ``state``. Raises ``Conflict``."""
    try:
        return TABLE[sender, state, message]
    except KeyError:
        raise Conflict(
            f"a {sender} may not send {message} {f'in {state}' if state else 'first'}",
            hint="ask for the negotiation's state; the other side may have ended it",
        ) from None


def overtaken(party: Party, state: State | None, left: State | None, message: MessageType) -> bool:
    """Whether ``message`` to ``party`` shows that its own termination, sent in ``left``, came too
    late: the negotiation is to be taken up again where it was left."""
    return (
        party is Party.CONSUMER
        and state is State.TERMINATED
        and left is State.VERIFIED
        and message is MessageType.FINALIZED
    )


def diagram() -> str:
    """The table as a Mermaid state diagram; ``docs/negotiation.md`` carries it."""
    lines = ["stateDiagram-v2"]
    for row in ROWS:
        label = f"{row.sender.value[0].upper()} {row.message}".replace(":", " ")
        if not row.drawn:
            label = f"({label})"
        lines.append(f"    {row.state or '[*]'} --> {row.next}: {label}")
    lines += [f"    {state} --> [*]" for state in sorted(FINAL)]
    return "\n".join(lines) + "\n"
