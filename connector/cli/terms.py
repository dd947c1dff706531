"""Flags to ODRL terms: what ``publish``, ``negotiate`` and ``approvals counter`` share.

One permission with the action ``use``; each flag is one constraint of it. Left operands are
ODRL 2.2's (``purpose``, ``count``, ``dateTime``) and ours (``tds:``). What each one means, and
whether it is enforced, is ``connector.policy.constraints``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.terms import MAX_DOCUMENT_BYTES, parse_terms

_OF_AN_OFFER = frozenset({"@context", "@id", "@type", "target", "assigner", "assignee"})
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Purpose = Annotated[
    list[str] | None,
    typer.Option("--purpose", help="A purpose that is allowed; repeat for several."),
]
Uses = Annotated[int | None, typer.Option("--uses", min=1, help="How many uses, in all.")]
Until = Annotated[
    str | None,
    typer.Option(
        "--until", help="When it ends: 2027-01-31 (UTC) or RFC 3339.", metavar="DATE-OR-TIME"
    ),
]
AggregatesOnly = Annotated[
    bool, typer.Option("--aggregates-only", help="Results are groups, never single rows.")
]
MinimumGroup = Annotated[
    int | None,
    typer.Option("--minimum-group", min=1, help="Individuals that each group must have."),
]
PrivacyUnit = Annotated[
    str,
    typer.Option("--privacy-unit", help="The column whose values are the individuals."),
]
Hide = Annotated[
    list[str] | None, typer.Option("--hide", help="A column that nobody may use; repeatable.")
]
RowCap = Annotated[int | None, typer.Option("--row-cap", min=1, help="Most rows of one result.")]
TermsFile = Annotated[
    Path | None,
    typer.Option(
        "--terms", help="A JSON file with ODRL permissions instead of flags.", metavar="FILE"
    ),
]


@dataclass(frozen=True, slots=True)
class TermFlags:
    """The flags as given; what is ``None``, empty or false was not."""

    purposes: Sequence[str] = ()
    uses: int | None = None
    until: str | None = None
    aggregates_only: bool = False
    minimum_group: int | None = None
    privacy_unit: str = ""
    hidden: Sequence[str] = ()
    row_cap: int | None = None

    def constraints(self) -> list[dict[str, Any]]:
        """Raises ``InvalidInput``."""
        found: list[dict[str, Any]] = []
        if self.purposes:
            found.append(_constraint("purpose", "isAnyOf", list(self.purposes)))
        if self.uses is not None:
            found.append(_constraint("count", "lteq", self.uses))
        if self.until is not None:
            found.append(_constraint("dateTime", "lt", end_time(self.until)))
        if self.aggregates_only:
            found.append(_constraint("tds:output", "eq", "aggregate"))
        if self.minimum_group is not None:
            if not self.privacy_unit:
                raise InvalidInput(
                    "--minimum-group needs --privacy-unit",
                    hint="name the column whose distinct values are the individuals to protect",
                )
            group = _constraint("tds:minimumGroup", "gteq", self.minimum_group)
            found.append({**group, "unit": self.privacy_unit})
        if self.hidden:
            found.append(_constraint("tds:hiddenColumns", "isNoneOf", list(self.hidden)))
        if self.row_cap is not None:
            found.append(_constraint("tds:rowCap", "lteq", self.row_cap))
        return found


def build(flags: TermFlags, file: Path | None) -> dict[str, Any]:
    """The terms of an offer, from flags or from a file. Raises ``InvalidInput``."""
    constraints = flags.constraints()
    if file is not None:
        if constraints:
            raise InvalidInput("--terms and single terms exclude each other")
        return read(file)
    if not constraints:
        raise InvalidInput(
            "the offer has no terms",
            hint="say at least --purpose and --uses, or give --terms FILE",
        )
    return _checked({"permission": [{"action": "use", "constraint": constraints}]})


def revise(terms: Mapping[str, Any], flags: TermFlags, file: Path | None) -> dict[str, Any]:
    """``terms`` with the flags' constraints in place of those on the same left operands.

    Raises ``InvalidInput``.
    """
    constraints = flags.constraints()
    if file is not None:
        if constraints:
            raise InvalidInput("--terms and single terms exclude each other")
        return read(file)
    result: dict[str, Any] = {
        section: copy.deepcopy(terms[section])
        for section in ("permission", "prohibition", "obligation")
        if terms.get(section)
    }
    permissions = result.get("permission") or []
    if len(permissions) != 1:
        raise InvalidInput(
            "the offer has not exactly one permission", hint="give all the terms with --terms FILE"
        )
    replaced = {constraint["leftOperand"] for constraint in constraints}
    kept = [c for c in permissions[0].get("constraint", []) if c.get("leftOperand") not in replaced]
    permissions[0]["constraint"] = kept + constraints
    return _checked(result)


def stated(offer: Mapping[str, Any]) -> dict[str, Any]:
    """An offer's terms as they stand, with what nobody here understands."""
    return {key: value for key, value in offer.items() if key not in _OF_AN_OFFER}


def read(file: Path) -> dict[str, Any]:
    """Terms from a JSON file. Raises ``InvalidInput``."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    value = fields.parse_json(content, limit=MAX_DOCUMENT_BYTES, what=str(file))
    return _checked(dict(fields.as_object(value, str(file))))


def describe(terms: Mapping[str, Any]) -> list[str]:
    """One line for each constraint of an ODRL policy."""
    lines = []
    for section in ("permission", "prohibition", "obligation"):
        for rule in terms.get(section) or []:
            for c in rule.get("constraint") or []:
                right = c.get("rightOperand")
                shown = ", ".join(right) if isinstance(right, list) else str(right)
                unit = f" ({c['unit']})" if c.get("unit") else ""
                lines.append(f"{section}: {c.get('leftOperand')} {c.get('operator')} {shown}{unit}")
    return lines


def end_time(value: str) -> str:
    """RFC 3339 in UTC, from that or from a date (its midnight). Raises ``InvalidInput``."""
    if _DATE.fullmatch(value):
        value += "T00:00:00Z"
    return fields.format_time(fields.parse_time(value, "--until"))


def _constraint(left: str, operator: str, right: str | int | list[str]) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def _checked(terms: dict[str, Any]) -> dict[str, Any]:
    fields.only_keys(terms, frozenset({"permission", "prohibition", "obligation"}), "terms")
    parse_terms(terms)
    return terms
