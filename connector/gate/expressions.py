"""The gate's own typed expressions: all that a query may say.

A consumer's SQL is read by a third party's parser; whatever is understood is rebuilt as these few
values, and SQL is written from them alone (``connector.gate.render``). What has no form here
cannot run. Values are immutable and compare by content, so that a group key is found again in
the select list.

Left out: which functions there are and what they take (``connector.gate.functions``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Kind(StrEnum):
    """What an expression gives. Values of two kinds never meet in one operation, except dates and
    timestamps: an implicit cast that fails on some row would tell of that row."""

    NUMBER = "a number"
    TEXT = "a text"
    BOOLEAN = "a truth value"
    DATE = "a date"
    TIMESTAMP = "a timestamp"
    OTHER = "of a type that is only counted"
    NULL = "NULL"


_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
)
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_WIDE = frozenset({"UBIGINT", "HUGEINT", "UHUGEINT"})
_DECIMAL = re.compile(r"DECIMAL\((\d{1,2}),(\d{1,2})\)", re.ASCII)
_KINDS = {
    "VARCHAR": Kind.TEXT,
    "BOOLEAN": Kind.BOOLEAN,
    "DATE": Kind.DATE,
    "TIMESTAMP": Kind.TIMESTAMP,
}
SUMMED_DECIMAL_DIGITS = 18  # a sum of wider decimals could overflow, and the error would tell


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the dataset, by its name there; ``type`` as the dataset states it."""

    name: str
    type: str

    @property
    def kind(self) -> Kind:
        if self.type in _INTEGERS | _FLOATS | _WIDE or _DECIMAL.fullmatch(self.type):
            return Kind.NUMBER
        return _KINDS.get(self.type, Kind.OTHER)

    @property
    def is_integer(self) -> bool:
        return self.type in _INTEGERS

    @property
    def compares_without_cast_errors(self) -> bool:
        """Whether comparing it with a literal of its kind can never fail, whatever its values."""
        return self.kind is not Kind.NUMBER or self.type in _INTEGERS | _FLOATS

    @property
    def sums_exactly(self) -> bool:
        """Whether a sum of it cannot overflow; others are summed as DOUBLE."""
        decimal = _DECIMAL.fullmatch(self.type)
        if decimal is not None:
            return int(decimal[1]) <= SUMMED_DECIMAL_DIGITS
        return self.type in _INTEGERS | _FLOATS


@dataclass(frozen=True, slots=True)
class Value:
    """A literal. ``text`` is its value: digits, the text itself, an ISO date or timestamp,
    ``true``, ``false`` or ``null``."""

    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Call:
    """A scalar function or an operator, by its name in ``connector.gate.functions``."""

    name: str
    arguments: tuple[Node, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of one column, or of the rows where ``field`` is None.

    Nothing but a column may stand inside: with any other function of a single row's values an
    aggregate of many becomes the value of one (``connector.gate.aggregates``).
    """

    name: str
    field: Field | None

    @property
    def kind(self) -> Kind:
        return Kind.NUMBER


Node: TypeAlias = Field | Value | Call | Aggregate


def walk(node: Node) -> Iterator[Node]:
    """The node and everything in it, columns inside aggregates apart."""
    yield node
    if isinstance(node, Call):
        for argument in node.arguments:
            yield from walk(argument)


def fields_of(node: Node) -> tuple[Field, ...]:
    """The columns in it that stand outside any aggregate."""
    return tuple(inner for inner in walk(node) if isinstance(inner, Field))


def aggregates_of(node: Node) -> tuple[Aggregate, ...]:
    return tuple(inner for inner in walk(node) if isinstance(inner, Aggregate))
