"""Errors at the command line: what is printed, and the exit code.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     done
1     our failure, or something is unavailable now: the same command may succeed later
2     the command or a file given to it is wrong
3     a policy or a contract refuses; the reasons are printed
4     not found, or not in a state that allows it
5     this node is not who it says it is, or is no active member
6     the peer broke the protocol, or what it sent does not verify
130   interrupted from the keyboard
====  ==========================================================================
"""

from __future__ import annotations

from typing import Any

from connector import errors
from connector.cli import output

FAILURE = 1
INVALID = 2
REFUSED = 3
CONFLICT = 4
UNAUTHENTICATED = 5
PEER_FAULT = 6
INTERRUPTED = 130

# The first class that fits decides.
_CODES: tuple[tuple[type[errors.ConnectorError], int], ...] = (
    (errors.InvalidInput, INVALID),
    (errors.Refused, REFUSED),
    (errors.NotFound, CONFLICT),
    (errors.Conflict, CONFLICT),
    (errors.Unauthenticated, UNAUTHENTICATED),
    (errors.PeerFault, PEER_FAULT),
    (errors.ConnectorError, FAILURE),
)
_HINTS: dict[str, str] = {
    "unauthenticated": "connector status shows the membership; connector doctor says what is wrong",
    "not_found": "connector agreements list and connector catalog search show what there is",
    "conflict": "look at its present state first: connector agreements list, connector approvals",
    "rate_limited": "wait a minute and ask again",
    "peer_fault": "tell the peer's operator; connector receipts reconcile compares both sides",
    "verification_failed": "do not rely on what was received; tell the peer's operator",
    "unavailable": "try again; connector doctor says what is missing",
    "internal": "the node's log has the details under the same time",
}


def exit_code(error: errors.ConnectorError) -> int:
    return next(code for kind, code in _CODES if isinstance(error, kind))


def report(error: errors.ConnectorError, *, as_json: bool) -> int:
    """Prints the error and gives the exit code."""
    hint = error.hint or _HINTS.get(error.code, "")
    reasons = error.reasons if isinstance(error, errors.Refused) else ()
    receipt: Any = getattr(error, "receipt", None)
    if as_json:
        found: dict[str, Any] = {
            "code": error.code,
            "message": error.message,
            "hint": hint,
            "reasons": list(reasons),
        }
        if receipt is not None:
            found["receipt"] = receipt
        output.show_json({"error": found})
        return exit_code(error)
    if reasons:
        output.note("refused")
        for reason in reasons:
            output.note(f"  {reason.term}")
            output.note(f"    observed  {reason.observed}")
            output.note(f"    allowed   {reason.allowed}")
    else:
        output.note(f"error: {error.message}")
    if receipt is not None:
        output.note(f"receipt {receipt.number} of {receipt.scope}")
    if hint:
        output.note(f"what to do: {hint}")
    return exit_code(error)
