"""The gate's own expressions as DuckDB SQL.

Written from the typed tree alone: names are quoted, texts are quoted, numbers have been read.
Whatever can fail on some value stands inside ``TRY`` and gives NULL, so that no query fails
because of a row: whether it failed would be an answer that no group minimum protects. In the
second stage nothing is left to protect, and the same words give the same result.

TRY hides a comparison from the engine's row group pruning, so the common forms (a column against
literals of its own kind) that cannot fail are written without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from connector.gate.expressions import Aggregate, Call, Field, Kind, Node, Value
from connector.gate.functions import COMPARISONS, OPERATORS

_BETWEEN_VALUES = frozenset(COMPARISONS.values()) | {"IN", "BETWEEN"}
_NEVER_FAIL = frozenset(
    {"AND", "OR", "NOT", "IS NULL", "IS TRUE", "IS FALSE", "LIKE", "ILIKE", "||", "concat"}
    | {"lower", "upper", "length", "trim", "starts_with", "ends_with", "contains"}
    | {"prefix", "suffix"}
)


def render(node: Node, names: Mapping[Node, str] | None = None) -> str:
    """SQL for an expression. ``names`` says how parts of it are called where this SQL runs: group
    keys and aggregates are columns of the second stage."""
    name = None if names is None else names.get(node)
    if name is not None:
        return name
    match node:
        case Field():
            return identifier(node.name)
        case Value():
            return _value(node)
        case Aggregate():
            return aggregate(node)
        case Call():
            written = _call(node, [render(argument, names) for argument in node.arguments])
            return written if _cannot_fail(node) else f"TRY({written})"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def aggregate(node: Aggregate) -> str:
    """An aggregate over the table. None can overflow: what does not sum exactly is a DOUBLE."""
    if node.field is None:
        return "count(*)"
    column = identifier(node.field.name)
    match node.name:
        case "count":
            return f"count({column})"
        case "count_distinct":
            return f"count(DISTINCT {column})"
    inside = column if node.field.sums_exactly else f"CAST({column} AS DOUBLE)"
    return f"{node.name}({inside})"


def label(node: Node) -> str:
    """What an output column is called that got no name: the expression, as people write it."""
    match node:
        case Field():
            return node.name
        case Value():
            return node.text
        case Aggregate():
            inside = "*" if node.field is None else node.field.name
            if node.name == "count_distinct":
                return f"count(DISTINCT {inside})"
            return f"{node.name}({inside})"
        case Call():
            parts = [label(argument) for argument in node.arguments]
            if node.name in OPERATORS and len(parts) == 2:
                return f"({parts[0]} {node.name} {parts[1]})"
            return f"{node.name}({', '.join(parts)})"


def _value(value: Value) -> str:
    match value.kind:
        case Kind.TEXT:
            return text(value.text)
        case Kind.DATE:
            return f"DATE {text(value.text)}"
        case Kind.TIMESTAMP:
            return f"TIMESTAMP {text(value.text)}"
        case Kind.NUMBER:
            whole = value.text.removeprefix("-").isdigit()
            return f"({value.text})" if whole else f"CAST({value.text} AS DOUBLE)"
        case _:
            return value.text.upper()


def _call(node: Call, parts: list[str]) -> str:
    match node.name:
        case "AND" | "OR":
            return "(" + f" {node.name} ".join(parts) + ")"
        case "NOT":
            return f"(NOT {parts[0]})"
        case "IS NULL" | "IS TRUE" | "IS FALSE":
            return f"({parts[0]} {node.name})"
        case "IN":
            return f"({parts[0]} IN ({', '.join(parts[1:])}))"
        case "BETWEEN":
            return f"({parts[0]} BETWEEN {parts[1]} AND {parts[2]})"
        case "round" if len(parts) == 2:
            return f"round({parts[0]}, CAST({parts[1]} AS INTEGER))"
        case "negate":
            return f"(-{parts[0]})"
        case "case":
            tests = zip(parts[:-1:2], parts[1::2], strict=True)
            branches = " ".join(f"WHEN {test} THEN {value}" for test, value in tests)
            return f"(CASE {branches} ELSE {parts[-1]} END)"
        case name if name.startswith("cast "):
            return f"TRY_CAST({parts[0]} AS {name.removeprefix('cast ')})"
        case name if name in OPERATORS:
            return f"({parts[0]} {name} {parts[1]})"
    return f"{node.name}({', '.join(parts)})"


def _cannot_fail(node: Call) -> bool:
    """Whether the call itself, its arguments apart, gives a value for every row there can be."""
    if node.name in _NEVER_FAIL or node.name.startswith("cast "):
        return True
    if node.name not in _BETWEEN_VALUES:
        return False
    kinds = {argument.kind for argument in node.arguments}
    return len(kinds) == 1 and all(
        isinstance(argument, Value)
        or (isinstance(argument, Field) and argument.compares_without_cast_errors)
        or argument.kind not in (Kind.NUMBER, Kind.NULL)
        for argument in node.arguments
    )
