"""What every way through the gate does alike: ask the policy once, claim a place, name a use."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import structlog

from connector.errors import ConnectorError, Reason
from connector.metering.types import Reservation
from connector.model.negotiation import StoredAgreement
from connector.model.use import Counters, Decision
from connector.policy import decisions
from connector.ports.policy import PolicyEngine

log = structlog.get_logger()

UNKNOWN_AGREEMENT = Reason("agreement", "not an agreement of this consumer", "one in force")
NOT_OFFERED = Reason("target", "the dataset is not offered any more", "an offered dataset")
NO_DIGEST = bytes(32)  # of a request under no agreement: there is no secret to key it with


async def decide(engine: PolicyEngine, document: Mapping[str, Any]) -> Decision:
    """The usage policy's answer; without one it is a refusal."""
    try:
        answer = await engine.evaluate(decisions.USAGE, document)
    except ConnectorError as error:
        log.warning("no decision", reason=error.message)
        return decisions.no_answer(engine.digest)
    return decisions.read_usage(answer, engine.digest)


def reservation_of(
    agreement: StoredAgreement | None,
    *,
    use_id: str,
    provider: str,
    consumer: str,
    purpose: str,
    request: bytes,
    policy_digest: bytes,
) -> Reservation:
    """A use of the agreement; with none, of a consumer that named no agreement of its own."""
    return Reservation(
        scope=agreement.terms.id if agreement else consumer,
        use_id=use_id,
        limit=_limit(agreement) if agreement else None,
        provider=provider,
        consumer=consumer,
        purpose=purpose,
        agreement_digest=hashlib.sha256(agreement.terms.document).digest() if agreement else b"",
        policy_digest=policy_digest,
        request_digest=hmac.digest(agreement.secret, request, "sha256") if agreement else NO_DIGEST,
    )


def exhausted(reservation: Reservation, counters: Counters) -> Reason:
    used = counters.uses + counters.reserved
    return Reason(
        "count",
        f"{used} of {reservation.limit} uses",
        f"at most {reservation.limit} uses",
    )


def _limit(agreement: StoredAgreement) -> int | None:
    """The least that a count term allows. Policy has refused whatever else is said of counts."""
    limits = [
        constraint.right
        for constraint in agreement.terms.terms.find("count")
        if isinstance(constraint.right, int)
    ]
    return min(limits, default=None)
