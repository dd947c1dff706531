"""The input documents of the five decisions, from the model's values.

Each builder gives one JSON object, as ``docs/policy.md`` describes it, and nothing that an engine
would have to parse: times are milliseconds since the Unix epoch (``now`` and ``text`` repeat them
for people). ``encode`` is the guard that every engine puts before itself: a document that is too
large, too deep or not plain JSON never reaches an interpreter.

Left out: whether identities, signatures and tokens are good. They were checked before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.catalog import Dataset
from connector.model.participant import Membership, Participant
from connector.model.terms import Agreement, Constraint, Operand, Rule, Terms
from connector.model.use import Counters, Description
from connector.policy.constraints import millis, operand_text

MAX_BYTES = 1 << 20  # of one encoded document
MAX_DEPTH = 12  # levels; the documents below have 8
MAX_INTEGER = 2**53


def usage_input(
    *,
    now: datetime,
    agreement: Agreement,
    state: str,
    provider: str,
    consumer: Participant,
    dataset: Dataset,
    purpose: str,
    description: Description,
    counters: Counters,
    action: str = "use",
) -> dict[str, Any]:
    """For ``decisions.USAGE``: one use.

    ``state`` is the agreement's (``active`` is the one that allows); ``provider`` is our DID.
    """
    return {
        **_time(now),
        "agreement": {
            "id": agreement.id,
            "assigner": agreement.assigner,
            "assignee": agreement.assignee,
            "target": agreement.target,
            "classification": agreement.classification,
            "state": state,
            "terms": terms_input(agreement.terms),
        },
        "provider": provider,
        "consumer": _participant(consumer),
        "dataset": _dataset(dataset),
        "use": {"purpose": purpose, "action": action},
        "request": {
            "output": description.output,
            "columns": [
                {
                    "name": column.name,
                    "role": column.role,
                    "places": list(column.places),
                    "aggregates": list(column.aggregates),
                }
                for column in description.columns
            ],
            "aggregates": list(description.aggregates),
            "functions": list(description.functions),
            "whole": description.whole,
        },
        "counters": {"uses": counters.uses, "reserved": counters.reserved},
    }


def metering_input(
    *,
    now: datetime,
    agreement: Agreement,
    state: str,
    provider: str,
    consumer: Participant,
    dataset: Dataset,
    purpose: str,
) -> dict[str, Any]:
    """For ``decisions.METERING``: uses of an agreement that a reporter served, for one purpose.

    As ``usage_input``, without counters. A report does not show what was handed out: it stands
    for rows.
    """
    unseen = Description(output="rows", tables=(), columns=(), aggregates=(), functions=())
    document = usage_input(
        now=now,
        agreement=agreement,
        state=state,
        provider=provider,
        consumer=consumer,
        dataset=dataset,
        purpose=purpose,
        description=unseen,
        counters=Counters(uses=0, reserved=0),
    )
    del document["counters"]
    return document


def negotiation_input(
    *,
    now: datetime,
    provider: str,
    consumer: Participant,
    dataset: Dataset,
    offer: Terms,
    requested: Terms,
    manual_approval: bool,
) -> dict[str, Any]:
    """For ``decisions.NEGOTIATION``: requested terms against those of the published offer."""
    return {
        **_time(now),
        "provider": provider,
        "consumer": _participant(consumer),
        "dataset": _dataset(dataset),
        "offer": {"terms": terms_input(offer)},
        "requested": {"terms": terms_input(requested)},
        "manual_approval": manual_approval,
    }


def listing_input(
    *,
    now: datetime,
    dataset: Dataset,
    accept_free_sql: bool,
    publisher: Participant | None = None,
) -> dict[str, Any]:
    """For ``decisions.LISTING``: a dataset with all its offers.

    ``publisher`` is the directory's record of who lists it. A node that judges its own dataset
    passes none: its own standing is for others to judge.
    """
    standing = (
        _participant(publisher)
        if publisher
        else {
            "did": dataset.publisher,
            "state": Membership.ACTIVE.value,
            "roles": ["provider"],
        }
    )
    return {
        **_time(now),
        "publisher": standing,
        "dataset": {
            **_dataset(dataset),
            "publisher": dataset.publisher,
            "accept_free_sql": accept_free_sql,
        },
        "offers": [{"id": offer.id, "terms": terms_input(offer.terms)} for offer in dataset.offers],
    }


def admission_input(
    *,
    now: datetime,
    invited_organisation: str,
    invited_did: str,
    invited_roles: Sequence[str],
    expires: datetime,
    spent: bool,
    did: str,
    name: str,
    roles: Sequence[str],
    endpoint: str,
    existing: str = "",
) -> dict[str, Any]:
    """For ``decisions.ADMISSION``: a candidate with an invitation.

    ``invited_did`` may be empty: any DID. ``existing`` is the membership state that the DID has
    already, or empty.
    """
    return {
        **_time(now),
        "invitation": {
            "organisation": invited_organisation,
            "did": invited_did,
            "roles": list(invited_roles),
            "expires_ms": _now_ms(expires),
            "spent": spent,
        },
        "request": {"did": did, "name": name, "roles": list(roles), "endpoint": endpoint},
        "existing": existing,
    }


def terms_input(terms: Terms) -> dict[str, Any]:
    """Raises ``InvalidInput`` for terms with parts that no engine would see."""
    if terms.others:
        raise InvalidInput("terms: with parts that this connector does not understand")
    return {
        "permission": [_rule(rule) for rule in terms.permissions],
        "prohibition": [_rule(rule) for rule in terms.prohibitions],
        "obligation": [_rule(rule) for rule in terms.obligations],
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """The document as compact UTF-8 JSON. Raises ``InvalidInput`` if it is not one that is small,
    shallow, and made of objects, lists, text, booleans and integers within 2**53."""
    _check(document, MAX_DEPTH)
    try:
        data = fields.encode_json(document)
    except UnicodeEncodeError as error:
        raise InvalidInput("policy input: text that is not Unicode") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"policy input: larger than {MAX_BYTES} bytes")
    return data


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise InvalidInput(f"policy input: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInput("policy input: a key that is not text")
        for child in value.values():
            _check(child, depth - 1)
    elif isinstance(value, list):
        for child in value:
            _check(child, depth - 1)
    elif isinstance(value, bool | str):
        return
    elif not isinstance(value, int) or abs(value) > MAX_INTEGER:
        raise InvalidInput("policy input: neither text nor boolean nor integer within 2**53")


def _time(now: datetime) -> dict[str, Any]:
    return {"now_ms": _now_ms(now), "now": fields.format_time(now)}


def _now_ms(now: datetime) -> int:
    return millis(fields.format_time(now))


def _participant(participant: Participant) -> dict[str, Any]:
    return {
        "did": participant.did,
        "state": participant.state.value,
        "roles": list(participant.roles),
    }


def _dataset(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "classification": dataset.classification.value,
        "privacy_unit": dataset.privacy_unit,
        "columns": [{"name": c.name, "role": c.role.value} for c in dataset.columns],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "action": rule.action,
        "constraint": [_constraint(constraint) for constraint in rule.constraints],
    }


def _constraint(constraint: Constraint) -> dict[str, Any]:
    return {
        "left": constraint.left,
        "operator": constraint.operator,
        "right": _right(constraint),
        "unit": constraint.unit,
        "text": operand_text(constraint.right),
    }


def _right(constraint: Constraint) -> str | int | list[str]:
    """As it is, and a dateTime as milliseconds. One that cannot be read stays text, which the
    policies do not understand and so refuse."""
    right: Operand = constraint.right
    if constraint.left == "dateTime":
        try:
            return millis(operand_text(right)) if isinstance(right, str) else operand_text(right)
        except InvalidInput:
            return operand_text(right)
    return list(right) if isinstance(right, tuple) else right
