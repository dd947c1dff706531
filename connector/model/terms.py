"""ODRL 2.2 terms, offers and agreements, as DSP 2025-1 writes them in plain JSON.

This module knows shapes; what a constraint means and whether it is enforced is
``connector.policy.constraints``. Our own left operands carry the ``tds:`` prefix.

An agreement is signed over the exact bytes of its document. ``Agreement.document`` keeps those
bytes, and every other field is read from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from connector.errors import InvalidInput
from connector.model import fields

PROFILE = "https://w3id.org/tds/profile/v1#"  # the namespace of what is ours alone
CONTEXT = ("https://w3id.org/dspace/2025/1/context.jsonld", {"tds": PROFILE})
MAX_DOCUMENT_BYTES = 32_768
MAX_RULES = 16
MAX_CONSTRAINTS = 64

Operand: TypeAlias = str | int | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constraint:
    """``left operator right``; ``unit`` is ODRL's (for a group minimum: the privacy unit)."""

    left: str
    operator: str
    right: Operand
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """An ODRL permission, prohibition or duty."""

    action: str
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """``others``: what a peer wrote and this model does not know, as (key, its JSON) pairs in
    order. It is kept to be shown, and is never understood (``policy.constraints``)."""

    permissions: tuple[Rule, ...] = ()
    prohibitions: tuple[Rule, ...] = ()
    obligations: tuple[Rule, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    def find(self, left: str) -> tuple[Constraint, ...]:
        """Every constraint on ``left`` in the permissions."""
        return tuple(
            constraint
            for rule in self.permissions
            for constraint in rule.constraints
            if constraint.left == left
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """An ODRL Offer on one dataset. ``target`` is the dataset's id, ``assigner`` its provider."""

    id: str
    target: str
    assigner: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Agreement:
    """An ODRL Agreement: ``document`` is its exact bytes, the rest is read from them.

    Where its provider signs nothing, what is ours alone (from ``space`` on) is empty.

    ``secret_commitment`` is the SHA-256 (hex) of the secret that keys the digests in receipts;
    the logs' origins say where the parties' evidence will be found.
    """

    document: bytes
    id: str
    target: str
    assigner: str
    assignee: str
    timestamp: datetime
    terms: Terms
    space: str
    offer: str
    classification: str
    secret_commitment: str
    provider_log: str
    consumer_log: str


_RULE_KEYS = frozenset({"action", "constraint", "target"})
_CONSTRAINT_KEYS = frozenset({"leftOperand", "operator", "rightOperand", "unit"})
_TERM_KEYS = frozenset({"@context", "@id", "@type", "target", "assigner", "assignee", "profile"})
SECTIONS = ("permission", "prohibition", "obligation")
_OFFER_KEYS = _TERM_KEYS | frozenset(SECTIONS)
_AGREEMENT_KEYS = _OFFER_KEYS | {
    "timestamp",
    "tds:space",
    "tds:offer",
    "tds:classification",
    "tds:secretCommitment",
    "tds:providerLog",
    "tds:consumerLog",
}


def parse_terms(value: Mapping[str, Any], *, known: frozenset[str] | None = None) -> Terms:
    """The permission, prohibition and obligation of a policy object.

    With ``known`` rules of another shape, and fields beside the ``known`` ones, go into
    ``others``; without it they are refused.
    """
    others: list[tuple[str, str]] | None = None if known is None else []
    permissions, prohibitions, obligations = (_rules(value, name, others) for name in SECTIONS)
    if others is not None and known is not None:
        others += [(key, _text(value[key])) for key in sorted(set(value) - known)]
    return Terms(permissions, prohibitions, obligations, tuple(others or ()))


def parse_sections(data: bytes, *, strict: bool = True) -> Terms:
    """Terms from UTF-8 JSON with the three sections of an offer. What else is there is refused,
    or if not ``strict`` kept in ``Terms.others``. Raises ``InvalidInput``."""
    value = fields.as_object(fields.parse_json(data, what="terms"), "terms")
    if strict:
        fields.only_keys(value, frozenset(SECTIONS), "terms")
    return parse_terms(value, known=None if strict else frozenset(SECTIONS))


def parse_offer(data: bytes | Mapping[str, Any], *, strict: bool = True) -> Offer:
    """An Offer from its JSON. What the model does not know is refused, or if not ``strict`` kept
    in ``Terms.others``. Raises ``InvalidInput``."""
    value = _document(data, "Offer")
    if strict:
        fields.only_keys(value, _OFFER_KEYS, "Offer")
    return Offer(
        id=fields.text(value, "@id", limit=256),
        target=fields.text(value, "target", limit=256),
        assigner=fields.text(value, "assigner", limit=256),
        terms=parse_terms(value, known=None if strict else _OFFER_KEYS),
    )


def parse_agreement(document: bytes) -> Agreement:
    """An Agreement from its exact bytes. Raises ``InvalidInput``.

    One that has anything of our profile (``tds:``) must have all of it, but the consumer's log
    where it has none, and nothing that the model does not know; any other is from outside and
    read like an offer that is not ``strict``.
    """
    value = _document(document, "Agreement")
    ours = any(key.startswith("tds:") for key in value)
    if ours:
        fields.only_keys(value, _AGREEMENT_KEYS, "Agreement")
    default = None if ours else ""
    return Agreement(
        document=document,
        id=fields.text(value, "@id", limit=256),
        target=fields.text(value, "target", limit=256),
        assigner=fields.text(value, "assigner", limit=256),
        assignee=fields.text(value, "assignee", limit=256),
        timestamp=fields.parse_time(fields.text(value, "timestamp", limit=64), "timestamp"),
        terms=parse_terms(value, known=None if ours else _OFFER_KEYS | {"timestamp"}),
        space=fields.text(value, "tds:space", limit=256, default=default),
        offer=fields.text(value, "tds:offer", limit=256, default=default),
        classification=fields.text(value, "tds:classification", limit=32, default=default),
        secret_commitment=fields.text(value, "tds:secretCommitment", limit=64, default=default),
        provider_log=fields.text(value, "tds:providerLog", limit=256, default=default),
        consumer_log=fields.text(value, "tds:consumerLog", limit=256, default=""),
    )


def offer_json(offer: Offer) -> dict[str, Any]:
    return {
        "@context": list(CONTEXT),
        "@type": "Offer",
        "@id": offer.id,
        "target": offer.target,
        "assigner": offer.assigner,
        **terms_json(offer.terms),
    }


def terms_json(terms: Terms) -> dict[str, Any]:
    """The sections that are not empty, as ODRL writes them, with what is not known."""
    known = (terms.permissions, terms.prohibitions, terms.obligations)
    sections = zip(SECTIONS, known, strict=True)
    result: dict[str, Any] = {
        name: [_rule_json(rule) for rule in rules] for name, rules in sections if rules
    }
    for key, text in terms.others:
        value = json.loads(text)
        if key in SECTIONS:
            result.setdefault(key, []).append(value)
        else:
            result[key] = value
    return result


def agreement_document(
    *,
    id: str,
    offer: Offer,
    assignee: str,
    timestamp: datetime,
    space: str,
    classification: str,
    secret_commitment: str,
    provider_log: str,
    consumer_log: str,
) -> bytes:
    """The bytes that both parties sign."""
    return fields.encode_json(
        {
            **offer_json(offer),
            "@type": "Agreement",
            "@id": id,
            "assignee": assignee,
            "timestamp": fields.format_time(timestamp),
            "tds:space": space,
            "tds:offer": offer.id,
            "tds:classification": classification,
            "tds:secretCommitment": secret_commitment,
            "tds:providerLog": provider_log,
            **({"tds:consumerLog": consumer_log} if consumer_log else {}),
        }
    )


def _document(data: bytes | Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    if isinstance(data, bytes):
        data = fields.parse_json(data, limit=MAX_DOCUMENT_BYTES, what=kind)
    value = fields.as_object(data, kind)
    if value.get("@type") != kind:
        raise InvalidInput(f"@type: must be {kind}")
    return value


def _rules(
    value: Mapping[str, Any], section: str, others: list[tuple[str, str]] | None
) -> tuple[Rule, ...]:
    rules = value.get(section, [])
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise InvalidInput(f"{section}: must be a list of at most {MAX_RULES} rules")
    found = []
    for rule in rules:
        try:
            found.append(_rule(fields.as_object(rule, section)))
        except InvalidInput:
            if others is None:
                raise
            others.append((section, _text(rule)))
    return tuple(found)


def _text(value: Any) -> str:
    return fields.encode_json(value).decode()


def _rule(value: Mapping[str, Any]) -> Rule:
    fields.only_keys(value, _RULE_KEYS, "rule")
    constraints = value.get("constraint", [])
    if not isinstance(constraints, list) or len(constraints) > MAX_CONSTRAINTS:
        raise InvalidInput(f"constraint: must be a list of at most {MAX_CONSTRAINTS}")
    return Rule(
        action=fields.text(value, "action", limit=128),
        constraints=tuple(_constraint(fields.as_object(c, "constraint")) for c in constraints),
    )


def _constraint(value: Mapping[str, Any]) -> Constraint:
    fields.only_keys(value, _CONSTRAINT_KEYS, "constraint")
    right = value.get("rightOperand")
    operand: Operand
    if isinstance(right, list):
        operand = fields.texts(value, "rightOperand", limit=256, most=256)
    elif isinstance(right, str):
        operand = fields.text(value, "rightOperand", limit=1024)
    else:
        operand = fields.integer(value, "rightOperand")
    return Constraint(
        left=fields.text(value, "leftOperand", limit=128),
        operator=fields.text(value, "operator", limit=32),
        right=operand,
        unit=fields.text(value, "unit", limit=128, default=""),
    )


def _rule_json(rule: Rule) -> dict[str, Any]:
    result: dict[str, Any] = {"action": rule.action}
    if rule.constraints:
        result["constraint"] = [_constraint_json(constraint) for constraint in rule.constraints]
    return result


def _constraint_json(constraint: Constraint) -> dict[str, Any]:
    right: str | int | Sequence[str] = constraint.right
    result: dict[str, Any] = {
        "leftOperand": constraint.left,
        "operator": constraint.operator,
        "rightOperand": list(right) if isinstance(right, tuple) else right,
    }
    if constraint.unit:
        result["unit"] = constraint.unit
    return result
