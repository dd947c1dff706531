"""Asking the policy engine a question that has only yes or no, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.errors import InvalidInput, Reason, Refused, Unavailable
from connector.model import fields
from connector.ports.policy import PolicyEngine

ADMISSION = "dataspace/admission/decision"
LISTING = "dataspace/listing/decision"
MAX_REASONS = 16


async def judge(policy: PolicyEngine, entry: str, document: Mapping[str, Any]) -> None:
    """Return if the policy allows, exactly.

    Raises ``Refused`` with the policy's reasons, and ``Unavailable`` if there is no answer or one
    that makes no sense.
    """
    answer = await policy.evaluate(entry, document)
    try:
        allow, reasons = _read(fields.as_object(answer, "decision"))
    except InvalidInput as error:
        raise Unavailable("the policy gave no usable answer") from error
    if not allow:
        raise Refused(reasons or (Reason("policy", "not allowed by any rule", ""),))


def _read(answer: Mapping[str, Any]) -> tuple[bool, tuple[Reason, ...]]:
    reasons = answer.get("reasons", [])
    if not isinstance(reasons, list) or len(reasons) > MAX_REASONS:
        raise InvalidInput("reasons: must be a short list")
    allow = answer.get("allow")
    if not isinstance(allow, bool) or (allow and reasons):
        raise InvalidInput("allow: must be true or false, and true without reasons")
    return allow, tuple(_reason(fields.as_object(reason, "reason")) for reason in reasons)


def _reason(value: Mapping[str, Any]) -> Reason:
    return Reason(
        term=fields.text(value, "term", limit=512),
        observed=fields.text(value, "observed", limit=512, default=""),
        allowed=fields.text(value, "allowed", limit=512, default=""),
    )
