"""The terms that this connector understands, and how far each one binds.

ODRL 2.2 leaves the meaning of left operands to profiles; this is ours. ``policies/terms.rego``
holds the same list for the engines, and a test keeps the two alike. What is not in here is not
understood, and terms with something that is not understood are refused wherever they turn up:
when a dataset is listed, when terms are negotiated, at each use.

Left out: whether a constraint holds for one use. That is decided in Rego, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from connector.errors import InvalidInput, Reason
from connector.model import fields
from connector.model.catalog import Classification, Dataset, Role
from connector.model.terms import Constraint, Operand, Rule, Terms
from connector.model.use import ColumnUse, Description

MAX_SHOWN = 200  # characters of a part that is not understood
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Binding(StrEnum):
    """How far a term binds.

    ``enforced``: the provider's node makes it true. ``attested``: the consumer says so in a
    signed or receipted statement, and the node holds it to the statement. ``declarative``: a
    promise that no node can see kept; it binds by law alone.
    """

    ENFORCED = "enforced"
    ATTESTED = "attested"
    DECLARATIVE = "declarative"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One left operand. ``form`` tells an author what to write; ``unit`` is a must or a must not.
    ``of_results``: of what a query gives, so a dataset that leaves as a whole breaks it.

    ``valid`` judges operator and right operand.
    """

    left: str
    binding: Binding
    operators: frozenset[str]
    form: str
    meaning: str
    valid: Callable[[str, Operand], bool]
    unit: bool = False
    of_results: bool = False


def millis(text: str) -> int:
    """RFC 3339 with a zone to milliseconds since the Unix epoch.

    Raises ``InvalidInput``, also for a fraction of a millisecond: rounding would move an end.
    """
    try:
        time = fields.parse_time(text, "dateTime")
    except OverflowError as error:  # a zone that leaves the years 1 to 9999
        raise InvalidInput("dateTime: out of range") from error
    if time.microsecond % 1000:
        raise InvalidInput("dateTime: finer than a millisecond")
    return (time - _EPOCH) // _MILLISECOND


def _is_time(_: str, right: Operand) -> bool:
    if not isinstance(right, str):
        return False
    try:
        millis(right)
    except InvalidInput:
        return False
    return True


def _is_purposes(operator: str, right: Operand) -> bool:
    kind = str if operator == "eq" else tuple
    return isinstance(right, kind) and bool(right)


def _is_names(_: str, right: Operand) -> bool:
    return isinstance(right, tuple) and bool(right)


def _is_whole(least: int) -> Callable[[str, Operand], bool]:
    return lambda _, right: isinstance(right, int) and right >= least


def _is_aggregate(_: str, right: Operand) -> bool:
    return right == "aggregate"


REGISTRY: dict[str, Meaning] = {
    meaning.left: meaning
    for meaning in (
        Meaning(
            left="purpose",
            binding=Binding.ATTESTED,
            operators=frozenset({"eq", "isAnyOf"}),
            form="purpose eq a text, or isAnyOf a list of texts",
            meaning="the purpose that the consumer states with a use, and that its receipt keeps",
            valid=_is_purposes,
        ),
        Meaning(
            left="dateTime",
            binding=Binding.ENFORCED,
            operators=frozenset({"lt", "lteq", "gt", "gteq"}),
            form="dateTime lt, lteq, gt or gteq a date and time with its zone, to the millisecond",
            meaning="when a use may begin, by the provider's clock",
            valid=_is_time,
        ),
        Meaning(
            left="count",
            binding=Binding.ENFORCED,
            operators=frozenset({"lteq"}),
            form="count lteq a whole number from 1",
            meaning="uses of the whole agreement; a running use counts, a refused one does not",
            valid=_is_whole(1),
        ),
        Meaning(
            left="tds:output",
            binding=Binding.ENFORCED,
            operators=frozenset({"eq"}),
            form="tds:output eq aggregate",
            meaning="every row of a result comes from a group, none is a row of the data",
            valid=_is_aggregate,
            of_results=True,
        ),
        Meaning(
            left="tds:minimumGroup",
            binding=Binding.ENFORCED,
            operators=frozenset({"gteq"}),
            form="tds:minimumGroup gteq a whole number from 2, with the privacy unit as unit",
            meaning="a group with fewer distinct privacy units is withheld from the result",
            valid=_is_whole(2),
            unit=True,
            of_results=True,
        ),
        Meaning(
            left="tds:hiddenColumns",
            binding=Binding.ENFORCED,
            operators=frozenset({"isNoneOf"}),
            form="tds:hiddenColumns isNoneOf a list of columns",
            meaning="columns that a query may not touch, besides those hidden for everybody",
            valid=_is_names,
            of_results=True,
        ),
        Meaning(
            left="tds:rowCap",
            binding=Binding.ENFORCED,
            operators=frozenset({"lteq"}),
            form="tds:rowCap lteq a whole number from 1",
            meaning="rows of one result",
            valid=_is_whole(1),
            of_results=True,
        ),
    )
}

# A prohibition of use may be narrowed by these; ones of what happens after a use are promises.
PROHIBITION_OPERANDS = frozenset({"purpose", "dateTime"})
DECLARATIVE_PROHIBITIONS = frozenset({"distribute", "sell", "tds:reidentify"})
DECLARATIVE_OBLIGATIONS = frozenset({"attribute"})


def check_terms(terms: Terms) -> tuple[Reason, ...]:
    """What in these terms this connector does not understand, sorted; empty if all is well."""
    problems: set[tuple[str, str, str]] = set()
    permissions = len(terms.permissions) + sum(key == "permission" for key, _ in terms.others)
    if permissions != 1:
        problems.add(("permission", f"{permissions} permissions", "one permission"))
    for rule in terms.permissions:
        if rule.action != "use":
            problems.add(("permission", rule.action, "use"))
        for constraint in rule.constraints:
            if not understood(constraint):
                meaning = REGISTRY.get(constraint.left)
                form = meaning.form if meaning else "a term that this node enforces"
                problems.add((constraint.left, _written(constraint), form))
    for rule in terms.prohibitions:
        if not _prohibition_understood(rule):
            allowed = (
                "use by purpose or dateTime; distribute, sell, tds:reidentify without constraints"
            )
            problems.add(("prohibition", rule.action, allowed))
    for rule in terms.obligations:
        if rule.action not in DECLARATIVE_OBLIGATIONS or rule.constraints:
            problems.add(("obligation", rule.action, "attribute without constraints"))
    for key, text in terms.others:
        shown = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
        problems.add((key[:MAX_SHOWN], shown, "a term that this node understands"))
    return tuple(Reason(*problem) for problem in sorted(problems, key=_utf8))


def understood(constraint: Constraint) -> bool:
    """Whether a permission's constraint is one of the registry, in one of its forms."""
    meaning = REGISTRY.get(constraint.left)
    return (
        meaning is not None
        and constraint.operator in meaning.operators
        and bool(constraint.unit) is meaning.unit
        and meaning.valid(constraint.operator, constraint.right)
    )


def only_purpose(terms: Terms) -> str:
    """The purpose of a use that states none, as a transfer after DSP: the one that the terms leave,
    or empty where they leave several, or say nothing of purposes."""
    allowed = [
        {constraint.right} if isinstance(constraint.right, str) else set(constraint.right)
        for constraint in terms.find("purpose")
        if understood(constraint) and not isinstance(constraint.right, int)
    ]
    left = set.intersection(*allowed) if allowed else set()
    return left.pop() if len(left) == 1 else ""


def may_leave_whole(classification: str, roles: Iterable[str]) -> bool:
    """Whether there can be terms under which the file of a dataset leaves as it is; policy decides
    of each. ``roles``: of its columns."""
    return classification == Classification.GENERAL and not {Role.HIDDEN, Role.UNIT} & set(roles)


def let_whole(terms: Terms) -> bool:
    """Whether a file that leaves as it is can keep these terms."""
    left = {constraint.left for rule in terms.permissions for constraint in rule.constraints}
    return not any(REGISTRY[name].of_results for name in left & REGISTRY.keys())


def whole(dataset: Dataset) -> Description:
    """A transfer of the dataset's file, as policy sees it: all rows, each column shown."""
    columns = tuple(ColumnUse(c.name, c.role.value, ("select",)) for c in dataset.columns)
    return Description("rows", (dataset.table,), columns, (), (), whole=True)


def operand_text(right: Operand) -> str:
    """A right operand for people."""
    return ", ".join(right) if isinstance(right, tuple) else str(right)


def _prohibition_understood(rule: Rule) -> bool:
    if rule.action == "use":
        return all(c.left in PROHIBITION_OPERANDS and understood(c) for c in rule.constraints)
    return rule.action in DECLARATIVE_PROHIBITIONS and not rule.constraints


def _written(constraint: Constraint) -> str:
    text = operand_text(constraint.right) or "no value"
    unit = f" in {constraint.unit}" if constraint.unit else ""
    return f"{constraint.left} {constraint.operator} {text}{unit}"


def _utf8(problem: tuple[str, str, str]) -> tuple[bytes, ...]:
    """The engines order strings by their UTF-8 bytes."""
    return tuple(part.encode("utf-8", "surrogatepass") for part in problem)
