"""The one table of transfer processes: (who sends, state, message) -> state.

Owns DSP 2025-1, chapter "Transfer Process", section "State Machine". Leaves out everything else:
who may speak for a party, whether an agreement allows it, the data, storage, time.

Theory of operation
-------------------
As in ``machine``: both parties move their record with the same table, and a pair that is not in
it raises ``Conflict`` and changes nothing.

Messages can cross, here more than in a negotiation, because both parties may speak in STARTED and
SUSPENDED. Who has sent its own last message in the state ``left`` and then receives one that was
legal in ``left`` has crossed with it, and so has the other side, the other way round. Both take
the more final of the two outcomes (``TERMINATED`` over ``COMPLETED`` over ``SUSPENDED`` over
``STARTED``), and so agree without another word. What this does not resolve is a suspension that is
taken back before the other side has had it, while that one suspends or resumes too: the two may
differ then, and no data flows unless the provider's state is STARTED, until either terminates.

A consumer's start asks a provider to go on after a suspension, and moves both to STARTED; but only
the provider knows where the data is then. So it answers with a start of its own, as though the two
had crossed: the second changes no state and brings the data address (``answer``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connector.errors import Conflict
from connector.model.negotiation import Party
from connector.model.transfer import TransferState, TransferType

FINAL = frozenset({TransferState.COMPLETED, TransferState.TERMINATED})


@dataclass(frozen=True, slots=True)
class Row:
    """``sender`` may send ``message`` in ``state``, which leads to ``next``."""

    sender: Party
    state: TransferState | None
    message: TransferType
    next: TransferState


_C, _P = Party.CONSUMER, Party.PROVIDER
_REQUESTED, _STARTED, _SUSPENDED = (
    TransferState.REQUESTED,
    TransferState.STARTED,
    TransferState.SUSPENDED,
)
_COMPLETED, _TERMINATED = TransferState.COMPLETED, TransferState.TERMINATED

ROWS = (
    Row(_C, None, TransferType.REQUEST, _REQUESTED),
    Row(_C, _REQUESTED, TransferType.TERMINATION, _TERMINATED),
    Row(_P, _REQUESTED, TransferType.START, _STARTED),
    Row(_P, _REQUESTED, TransferType.TERMINATION, _TERMINATED),
    Row(_C, _STARTED, TransferType.COMPLETION, _COMPLETED),
    Row(_C, _STARTED, TransferType.SUSPENSION, _SUSPENDED),
    Row(_C, _STARTED, TransferType.TERMINATION, _TERMINATED),
    Row(_P, _STARTED, TransferType.COMPLETION, _COMPLETED),
    Row(_P, _STARTED, TransferType.SUSPENSION, _SUSPENDED),
    Row(_P, _STARTED, TransferType.TERMINATION, _TERMINATED),
    Row(_C, _SUSPENDED, TransferType.START, _STARTED),
    Row(_C, _SUSPENDED, TransferType.TERMINATION, _TERMINATED),
    Row(_P, _SUSPENDED, TransferType.START, _STARTED),
    Row(_P, _SUSPENDED, TransferType.TERMINATION, _TERMINATED),
)

TABLE: Mapping[tuple[Party, TransferState | None, TransferType], TransferState] = {
    (row.sender, row.state, row.message): row.next for row in ROWS
}
_FINALITY = (_REQUESTED, _STARTED, _SUSPENDED, _COMPLETED, _TERMINATED)


def after(
    sender: Party,
    state: TransferState | None,
    message: TransferType,
    left: TransferState | None = None,
) -> TransferState:
    """The state after ``sender`` sent ``message`` in ``state``. Raises ``Conflict``.

    ``left``: the state in which the receiver sent its own last message, if the sender may not
    have had that yet.
    """
    found = TABLE.get((sender, state, message))
    if found is not None:
        return found
    crossed = TABLE.get((sender, left, message)) if left else None
    if crossed is None or state is None:
        raise Conflict(
            f"a {sender} may not send {message} {f'in {state}' if state else 'first'}",
            hint="ask for the process's state; the other side may have ended it",
        )
    return max(state, crossed, key=_FINALITY.index)


def answer(sender: Party, state: TransferState | None, *, resuming: bool) -> TransferState:
    """The state after a provider's start that answers a consumer's. Raises ``Conflict``."""
    if resuming and sender is _P and state is _STARTED:
        return _STARTED
    return after(sender, state, TransferType.START)


def diagram() -> str:
    """The table as a Mermaid state diagram; ``docs/negotiation.md`` carries it."""
    lines = ["stateDiagram-v2"]
    for row in ROWS:
        label = f"{row.sender.value[0].upper()} {row.message}"
        lines.append(f"    {row.state or '[*]'} --> {row.next}: {label}")
    lines += [f"    {state} --> [*]" for state in sorted(FINAL)]
    return "\n".join(lines) + "\n"
