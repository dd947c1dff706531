"""Ours, not the protocol's: a member's signed word on an agreement, as its end, to another member
that is reached over HTTPS. Over gRPC it is one more frame of the stream.

    POST {base}/tds/notices/{the sender's role}    AgreementNotice

A notice twice is the same as once. One who signs nothing is sent none (``StoredAgreement``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.errors import InvalidInput, NotFound
from connector.model import fields
from connector.model.negotiation import AgreementNotice, Party
from connector.negotiation.messages import MAX_PID, MAX_STATEMENT
from connector.transport.http.dsp.odrl import NAMESPACE
from connector.transport.http.dsp.schemas import CONTEXT

NOTICES = "/tds/notices"
MAX_NOTICE = 16_384  # bytes
_TYPE, _AGREEMENT, _STATEMENT = (
    NAMESPACE + name for name in ("AgreementNotice", "agreementId", "statement")
)
_KEYS = frozenset({"@context", "@type", "@id", _AGREEMENT, _STATEMENT})


def path_of(sender: Party) -> str:
    """Below the receiver's base URL."""
    return f"{NOTICES}/{sender}"


def sender_of(role: str) -> Party:
    """The last step of the path. Raises ``NotFound``."""
    try:
        return Party(role)
    except ValueError as error:
        raise NotFound("no such path") from error


def encode(notice: AgreementNotice, *, id: str = "") -> dict[str, Any]:
    return {
        "@context": [CONTEXT],
        "@type": _TYPE,
        **({"@id": id} if id else {}),
        _AGREEMENT: notice.agreement_id,
        _STATEMENT: notice.statement,
    }


def decode(value: Mapping[str, Any]) -> AgreementNotice:
    """Raises ``InvalidInput``. Whose the statement is, and of what, ``Negotiations`` checks."""
    fields.only_keys(value, _KEYS, "AgreementNotice")
    if value.get("@type") != _TYPE:
        raise InvalidInput(f"@type: must be {_TYPE}")
    return AgreementNotice(
        fields.text(value, _AGREEMENT, limit=MAX_PID),
        fields.text(value, _STATEMENT, limit=MAX_STATEMENT),
    )
