"""Administrative acts: invite, admit, suspend, publish, approve, end, each signed by its actor.

An act is a statement of kind ``act``; a log keeps it as an ``ActReceipt`` (``model.receipt``),
whose ``scope``, ``actor`` and ``act`` repeat what is signed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput
from connector.identity.statements import read_statement, sign_statement
from connector.model import fields
from connector.model.receipt import MAX_STATEMENT_BYTES, MAX_TEXT

KIND = "act"
_TYPE = re.compile(r"[a-z]{1,32}(\.[a-z]{1,32}){0,3}")
_OWN = frozenset({"type", "scope", "actor", "time"})


@dataclass(frozen=True, slots=True)
class Act:
    """``type`` as ``member.suspended``; ``scope`` is an agreement's id or a participant's DID.

    ``details`` are further members of the signed object, by name.
    """

    type: str
    scope: str
    actor: str
    time: datetime
    details: Mapping[str, Any] = field(default_factory=dict)


def sign_act(key: Ed25519PrivateKey, act: Act) -> str:
    """The statement. Raises ``InvalidInput`` if a log could not keep it."""
    if _OWN & set(act.details):
        raise InvalidInput("act: a detail has a reserved name")
    payload = {
        **act.details,
        "type": act.type,
        "scope": act.scope,
        "actor": act.actor,
        "time": fields.format_time(act.time),
    }
    _parse(payload)
    statement = sign_statement(key, KIND, payload)
    if len(statement) > MAX_STATEMENT_BYTES:
        raise InvalidInput(f"act: larger than {MAX_STATEMENT_BYTES} bytes")
    return statement


def read_act(statement: str, keys: Iterable[bytes]) -> Act:
    """The act, verified by one of its actor's ``keys`` (32 bytes each).

    The caller MUST compare ``actor`` with the participant whose keys it passed. Raises
    ``InvalidInput`` or ``VerificationFailed``.
    """
    return _parse(read_statement(statement, KIND, keys))


def _parse(value: Mapping[str, Any]) -> Act:
    type_ = fields.text(value, "type", limit=128)
    if not _TYPE.fullmatch(type_):
        raise InvalidInput("type: must be words joined by dots, as member.suspended")
    return Act(
        type=type_,
        scope=fields.text(value, "scope", limit=MAX_TEXT),
        actor=fields.text(value, "actor", limit=MAX_TEXT),
        time=fields.parse_time(fields.text(value, "time", limit=40)),
        details={name: item for name, item in value.items() if name not in _OWN},
    )
