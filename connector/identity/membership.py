"""Membership events: what the directory says of its members, signed and numbered.

Event *n* carries the whole record that it wrote, so the latest event of a participant is its
record. Numbers run 1, 2, 3 ... without gaps over the whole space; event 1 is the space operator's
own record. A heartbeat says "so far, n is the last".

This module reads and writes single statements and owns the table of membership states. Order,
gaps and age are judged by ``directory.view``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Conflict, InvalidInput
from connector.identity.statements import read_statement, sign_statement
from connector.model import fields
from connector.model.participant import (
    Membership,
    Participant,
    parse_participant,
    participant_json,
)

EVENT = "membership"
HEARTBEAT = "heartbeat"
MAX_REASON = 256


class Change(StrEnum):
    """The type of a membership event."""

    ADMITTED = "admitted"
    UPDATED = "updated"  # a new key, name or endpoint
    SUSPENDED = "suspended"
    RESTORED = "restored"
    REVOKED = "revoked"  # final


# (state before, change) -> state after; what is not here is not allowed.
TRANSITIONS: Mapping[tuple[Membership | None, Change], Membership] = {
    (None, Change.ADMITTED): Membership.ACTIVE,
    (Membership.ACTIVE, Change.UPDATED): Membership.ACTIVE,
    (Membership.ACTIVE, Change.SUSPENDED): Membership.SUSPENDED,
    (Membership.ACTIVE, Change.REVOKED): Membership.REVOKED,
    (Membership.SUSPENDED, Change.RESTORED): Membership.ACTIVE,
    (Membership.SUSPENDED, Change.REVOKED): Membership.REVOKED,
}


@dataclass(frozen=True, slots=True)
class MembershipEvent:
    """``participant`` is the record as this event left it; its revision is ``number``."""

    number: int
    time: datetime
    type: Change
    reason: str
    participant: Participant


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """``number`` was the last event's at ``time``."""

    number: int
    time: datetime


def next_state(before: Membership | None, change: Change) -> Membership:
    """The state after ``change``; ``before`` is None for a DID that was never admitted.

    Raises ``Conflict``.
    """
    try:
        return TRANSITIONS[before, change]
    except KeyError as error:
        was = before.value if before else "not a member"
        raise Conflict(f"the participant is {was}: it cannot be {change.value}") from error


def sign_membership_event(space_key: Ed25519PrivateKey, event: MembershipEvent) -> str:
    payload = {
        "number": event.number,
        "time": fields.format_time(event.time),
        "type": event.type.value,
        "reason": event.reason,
        "participant": participant_json(event.participant),
    }
    return sign_statement(space_key, EVENT, payload)


def read_membership_event(statement: str, space_key: bytes) -> MembershipEvent:
    """The event, verified by the space's public key (32 bytes).

    Raises ``InvalidInput``, or ``VerificationFailed`` if the space did not sign it.
    """
    value = read_statement(statement, EVENT, [space_key])
    fields.only_keys(
        value, frozenset({"number", "time", "type", "reason", "participant"}), "membership event"
    )
    number = fields.integer(value, "number", low=1)
    try:
        change = Change(fields.text(value, "type", limit=16))
    except ValueError as error:
        raise InvalidInput("type: not a membership event's") from error
    participant = parse_participant(fields.as_object(value.get("participant"), "participant"))
    if participant.revision != number:
        raise InvalidInput("revision: must be the event's number")
    if all(change is not c or participant.state is not s for (_, c), s in TRANSITIONS.items()):
        raise InvalidInput("state: not what such an event leads to")
    return MembershipEvent(
        number=number,
        time=fields.parse_time(fields.text(value, "time", limit=40)),
        type=change,
        reason=fields.text(value, "reason", limit=MAX_REASON, default=""),
        participant=participant,
    )


def sign_heartbeat(space_key: Ed25519PrivateKey, heartbeat: Heartbeat) -> str:
    payload = {"number": heartbeat.number, "time": fields.format_time(heartbeat.time)}
    return sign_statement(space_key, HEARTBEAT, payload)


def read_heartbeat(statement: str, space_key: bytes) -> Heartbeat:
    """Raises as ``read_membership_event`` does."""
    value = read_statement(statement, HEARTBEAT, [space_key])
    fields.only_keys(value, frozenset({"number", "time"}), HEARTBEAT)
    return Heartbeat(
        number=fields.integer(value, "number"),
        time=fields.parse_time(fields.text(value, "time", limit=40)),
    )
