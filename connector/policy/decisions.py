"""The engine's answers, read strictly.

A decision allows if its ``allow`` is exactly ``true``, it gives no reasons, and its obligations
can be read. Whatever else comes back is a refusal: these readers never raise.

The bounds on reasons are those of a receipt (``model.receipt``), so that what was decided is what
is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from connector.errors import Reason
from connector.model.receipt import MAX_QUANTITY, MAX_REASONS, MAX_TEXT
from connector.model.use import Decision, Obligations

# What an engine is asked: the path of a rule below ``data``.
ADMISSION = "dataspace/admission/decision"
LISTING = "dataspace/listing/decision"
METERING = "dataspace/metering/decision"
NEGOTIATION = "dataspace/negotiation/decision"
USAGE = "dataspace/usage/decision"
ENTRIES = (ADMISSION, LISTING, METERING, NEGOTIATION, USAGE)

UNREADABLE = Reason("policy", "an answer that cannot be read", "a decision")
NO_ANSWER = Reason("policy", "no answer", "a decision")

_HELD_TO = frozenset({"first_ms", "last_ms", "limit"})
_OBLIGATIONS = frozenset({"minimum_group", "privacy_unit", "row_cap", "hidden_columns"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """An admission's or a listing's: ``reasons`` is empty exactly if ``allow`` is true."""

    allow: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Reportable:
    """Whether an agreement's uses may be reported: ``reasons`` is empty exactly if they may.

    Then each record is held to this: it was served from ``first_ms`` to ``last_ms``, and there are
    ``limit`` calls in all at most (None: any number).
    """

    reasons: tuple[Reason, ...]
    first_ms: int = 0
    last_ms: int = 0
    limit: int | None = None


class Outcome(StrEnum):
    """What to answer to requested terms."""

    APPROVE = "approve"
    ASK = "ask"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Answer:
    """A negotiation's: ``reasons`` say why a person is asked, or why it is refused."""

    outcome: Outcome
    reasons: tuple[Reason, ...]


def read_usage(answer: Any, policy_digest: bytes) -> Decision:
    """One use's decision; ``policy_digest`` (32 bytes) is of the bundle that answered."""
    reasons = _verdict(answer, frozenset())
    obligations = None if reasons else _obligations(answer["obligations"])
    if obligations is None:
        return _refusal(reasons or (UNREADABLE,), policy_digest)
    return Decision(True, (), obligations, policy_digest)


def no_answer(policy_digest: bytes) -> Decision:
    """The refusal where the engine raised ``Unavailable``."""
    return _refusal((NO_ANSWER,), policy_digest)


def read_metering(answer: Any) -> Reportable:
    reasons = _verdict(answer, frozenset())
    if reasons:
        return Reportable(reasons)
    held = answer["obligations"]
    if not isinstance(held, dict) or set(held) != _HELD_TO:
        return Reportable((UNREADABLE,))
    first, last, limit = held["first_ms"], held["last_ms"], held["limit"]
    if not all(map(_is_quantity, (first, last, limit))) or last < first:
        return Reportable((UNREADABLE,))
    return Reportable((), first, last, limit or None)


def read_admission(answer: Any) -> Verdict:
    return _plain(answer)


def read_listing(answer: Any) -> Verdict:
    return _plain(answer)


def read_negotiation(answer: Any) -> Answer:
    reasons = _verdict(answer, frozenset({"outcome"}))
    outcome = answer["outcome"] if reasons != (UNREADABLE,) else None
    if not reasons and outcome == Outcome.APPROVE:
        return Answer(Outcome.APPROVE, ())
    if reasons and outcome in (Outcome.ASK, Outcome.REFUSE):
        return Answer(Outcome(outcome), reasons)
    return Answer(Outcome.REFUSE, (UNREADABLE,))


def _plain(answer: Any) -> Verdict:
    reasons = _verdict(answer, frozenset())
    if not reasons and answer["obligations"] != {}:
        reasons = (UNREADABLE,)
    return Verdict(not reasons, reasons)


def _refusal(reasons: tuple[Reason, ...], policy_digest: bytes) -> Decision:
    return Decision(False, reasons, Obligations(), policy_digest)


def _verdict(answer: Any, more: frozenset[str]) -> tuple[Reason, ...]:
    """No reasons if and only if this is an allowance; ``UNREADABLE`` alone if it is neither."""
    if not isinstance(answer, dict) or set(answer) != {"allow", "reasons", "obligations"} | more:
        return (UNREADABLE,)
    reasons = _reasons(answer["reasons"])
    if reasons is None or (answer["allow"] is not True) is not bool(reasons):
        return (UNREADABLE,)
    return reasons


def _reasons(value: Any) -> tuple[Reason, ...] | None:
    if not isinstance(value, list):
        return None
    reasons = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"term", "observed", "allowed"}:
            return None
        if not all(isinstance(part, str) for part in item.values()) or not item["term"]:
            return None
        reasons.append(Reason(_cut(item["term"]), _cut(item["observed"]), _cut(item["allowed"])))
    if len(reasons) > MAX_REASONS:
        more = len(reasons) - MAX_REASONS + 1
        reasons[MAX_REASONS - 1 :] = [Reason("more", f"{more} more terms that fail", "none")]
    return tuple(reasons)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _obligations(value: Any) -> Obligations | None:
    if not isinstance(value, dict) or set(value) != _OBLIGATIONS:
        return None
    minimum_group, row_cap = value["minimum_group"], value["row_cap"]
    privacy_unit, hidden = value["privacy_unit"], value["hidden_columns"]
    if not _is_quantity(minimum_group) or not _is_quantity(row_cap):
        return None
    if not isinstance(privacy_unit, str) or bool(privacy_unit) is not bool(minimum_group):
        return None
    if not isinstance(hidden, list) or not all(isinstance(name, str) for name in hidden):
        return None
    return Obligations(minimum_group, privacy_unit, row_cap, tuple(hidden))


def _is_quantity(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_QUANTITY
