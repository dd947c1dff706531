"""ODRL policies on the wire, as DSP 2025-1 writes them (contract-schema.json), and as this node
keeps them (``model.terms``). Pure; JSON to JSON, so that what our model does not know travels on.

============================  ============================================================
kept                          on the wire
============================  ============================================================
``tds:`` terms and keys       absolute IRIs of our namespace; both spellings are read
``unit`` of a constraint      ODRL's absolute IRI: DSP's context has no such term, and a
                              JSON-LD processor drops what its context does not name
a whole number on the right   ``{"@value": "20", "@type": xsd:integer}``: the schema has no
                              numbers. A bare string is read as one where a number is due
a list on the right           a list; where one is due a single string is read as one, for
                              JSON-LD writes a list of one so, and the text of an expanded
                              list, as EDC writes longer ones
``action``, ``leftOperand``,  ODRL's terms that DSP's context does not name, as ``purpose``,
``operator``                  with its prefix ``odrl:``; bare ones and the absolute IRI are
                              read too. Terms of ODRL's that mean nothing here keep it
============================  ============================================================

Empty sections, and the types of rules and constraints, say nothing and are dropped when read.
Left out: whether it is a policy (``schemas``), and what its terms mean (``policy.constraints``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.terms import PROFILE, Constraint
from connector.policy.constraints import (
    DECLARATIVE_OBLIGATIONS,
    DECLARATIVE_PROHIBITIONS,
    REGISTRY,
    understood,
)

NAMESPACE = PROFILE
PREFIX = "tds:"
ODRL = "http://www.w3.org/ns/odrl/2/"
_ODRL_PREFIX = "odrl:"
_UNIT = f"{ODRL}unit"
_INTEGER = "http://www.w3.org/2001/XMLSchema#integer"
_INTEGERS = frozenset({_INTEGER, "xsd:integer", "http://www.w3.org/2001/XMLSchema#int", "xsd:int"})
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_SETS = frozenset({"isAnyOf", "isAllOf", "isNoneOf"})
# Terms that DSP's context names (``published/context/odrl.jsonld``), and those that it does not
# and that mean something here.
_NAMED = _SETS | {"use", "prohibit", "eq", "neq", "gt", "gteq", "lt", "lteq"}
_NAMED |= {"isA", "hasPart", "isPartOf"}
_UNNAMED = frozenset(
    term
    for term in (*REGISTRY, *DECLARATIVE_PROHIBITIONS, *DECLARATIVE_OBLIGATIONS)
    if not term.startswith(PREFIX)
)
_VOCABULARY = frozenset({"action", "leftOperand", "operator"})  # keys whose values are terms
_NESTED = frozenset(
    {"permission", "prohibition", "obligation", "duty", "remedy", "consequence", "constraint"}
    | {"refinement", "and", "andSequence", "or", "xone"}
)
_TYPES = frozenset({"Permission", "Prohibition", "Duty", "Constraint", "LogicalConstraint"})


def to_wire(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A policy that we keep, for a message or a catalogue. The message has the context."""
    return {_iri(key): _outward(key, value) for key, value in policy.items() if key != "@context"}


def from_wire(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A policy of a message or a catalogue, as we keep it."""
    found = {_term(key): value for key, value in policy.items() if key != "@context"}
    return {key: _inward(key, value) for key, value in found.items() if not _empty(key, value)}


def _iri(term: str) -> str:
    """A term or key of ours in full; others as they are."""
    return NAMESPACE + term[len(PREFIX) :] if term.startswith(PREFIX) else term


def _term(iri: str) -> str:
    """A term or key of ours, or of ODRL, in short."""
    if iri.startswith(NAMESPACE):
        return PREFIX + iri[len(NAMESPACE) :]
    for prefix in (ODRL, _ODRL_PREFIX):
        if iri.startswith(prefix):
            return iri[len(prefix) :]
    return iri


def _outward_value(term: str) -> str:
    return f"{_ODRL_PREFIX}{term}" if term in _UNNAMED else _iri(term)


def _inward_value(iri: str) -> str:
    """What has no meaning here keeps ODRL's prefix: it must go out again as it came."""
    term = _term(iri)
    return term if term in _NAMED | _UNNAMED or term.startswith(PREFIX) else _prefixed(iri)


def _prefixed(iri: str) -> str:
    return _ODRL_PREFIX + iri[len(ODRL) :] if iri.startswith(ODRL) else iri


def _each(value: Any, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """``change`` done to an object, or to the objects of a list."""
    if isinstance(value, list):
        return [change(item) if isinstance(item, dict) else item for item in value]
    return change(value) if isinstance(value, dict) else value


def _outward(key: str, value: Any) -> Any:
    if key in _VOCABULARY and isinstance(value, str):
        return _outward_value(value)
    return _each(value, _outward_part) if key in _NESTED else value


def _outward_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A rule or a constraint."""
    result = {_iri(key): _outward(key, value) for key, value in part.items()}
    if "leftOperand" in part:
        right = part.get("rightOperand")
        if isinstance(right, int) and not isinstance(right, bool):
            result["rightOperand"] = {"@value": str(right), "@type": _INTEGER}
        if "unit" in part:
            result[_UNIT] = result.pop("unit")
    return result


def _inward(key: str, value: Any) -> Any:
    if key in _VOCABULARY and isinstance(value, str):
        return _inward_value(value)
    return _each(value, _inward_part) if key in _NESTED else value


def _inward_part(part: Mapping[str, Any]) -> dict[str, Any]:
    result = from_wire(part)
    if result.get("@type") in _TYPES:
        del result["@type"]
    if "rightOperand" in result:
        result["rightOperand"] = _right(result)
    return result


def _empty(key: str, value: Any) -> bool:
    return key in _NESTED and value == []


def _right(constraint: Mapping[str, Any]) -> Any:
    """The right operand; a number or a list where only that is understood here."""
    left, operator = constraint.get("leftOperand"), constraint.get("operator")
    right = constraint["rightOperand"]
    if isinstance(right, dict) and right.keys() == {"@value", "@type"}:
        digits = str(right["@value"]) if type(right["@value"]) is int else right["@value"]
        whole = isinstance(digits, str) and _WHOLE.fullmatch(digits)
        return int(digits) if right["@type"] in _INTEGERS and whole else right
    if not isinstance(right, str) or left not in REGISTRY:
        return right
    if operator in _SETS:
        return _expanded(right) or [right]
    if _WHOLE.fullmatch(right):
        unit = constraint.get("unit")
        number = Constraint(
            str(left), str(operator), int(right), unit if isinstance(unit, str) else ""
        )
        return int(right) if understood(number) else right
    return right


def _expanded(text: str) -> list[str]:
    """The values of ``[{"@value":"a"},{"@value":"b"}]``; empty for any other text."""
    if not text.startswith("[{"):
        return []
    try:
        values = [value["@value"] for value in fields.parse_json(text.encode(), what="list")]
    except (InvalidInput, KeyError, TypeError):
        return []
    return values if all(isinstance(value, str) for value in values) else []
