"""Aggregates: over columns alone, added and subtracted.

Any other function of a row's value inside an aggregate of many can make it the value of one: a
CASE or FILTER picks the row, a high power or a large constant (whose rounding is a threshold)
lets the largest value outweigh all others, a multiplication that overflows tells by its error.
Scaling and rounding work as well on the aggregate, where this gate allows them.
"""

from __future__ import annotations

from sqlglot import exp

from connector.gate.expressions import Aggregate, Kind, Term
from connector.gate.functions import AGGREGATES, said
from connector.gate.scope import Scope, fold
from connector.gate.sql import check_keys, refuse, shown

MAX_COLUMNS = 16  # inside one aggregate
_ALLOWED_INSIDE = "columns, added and subtracted; compute on the aggregate instead"


def is_aggregate(source: exp.Expr) -> bool:
    kind = type(source)
    return kind is exp.Count or kind in AGGREGATES or _is_mean(source)


def aggregate(source: exp.Expr, scope: Scope) -> Aggregate:
    """An aggregate, and a note of its columns in ``scope``. Raises ``Refused``."""
    if type(source) is exp.Count:
        return _count(source, scope)
    if _is_mean(source):
        name, inside = "avg", source.expressions[0]
    else:
        check_keys(source, {"this"}, "aggregate", "an aggregate of columns")
        name, inside = AGGREGATES[type(source)], source.this
    if type(inside) is exp.Distinct:
        refuse("aggregate", f"{name}(DISTINCT ...)", "count(DISTINCT column)")
    terms = _terms(inside, name, scope)
    for term in terms:
        if term.field.kind is not Kind.NUMBER:
            refuse("type", f"{name} of {term.field.kind}", f"{name} of {Kind.NUMBER}")
    if len({term.field for term in terms}) != len(terms):
        refuse("aggregate", f"{name} of a column twice", _ALLOWED_INSIDE)
    scope.aggregates.add(name)
    return Aggregate(name, terms)


def _count(source: exp.Expr, scope: Scope) -> Aggregate:
    check_keys(source, {"this", "big_int"}, "aggregate", "count(*), count(column)")
    inside, name = source.this, "count"
    if type(inside) is exp.Distinct:
        check_keys(inside, {"expressions"}, "aggregate", "count(DISTINCT column)")
        if len(inside.expressions) != 1:
            refuse("aggregate", "count(DISTINCT) of many", "count(DISTINCT column)")
        inside, name = inside.expressions[0], "count_distinct"
    scope.aggregates.add(name)
    if name == "count":
        if inside is None or (type(inside) is exp.Literal and not inside.is_string):
            return Aggregate(name, ())  # count(), count(1)
        if type(inside) is exp.Star:
            check_keys(inside, frozenset(), "aggregate", "count(*)")
            return Aggregate(name, ())
    terms = _terms(inside, name, scope)
    if len(terms) != 1:
        refuse("aggregate", f"{name} of a sum", "count(*), count(column)")
    return Aggregate(name, terms)


def _terms(source: exp.Expr, name: str, scope: Scope) -> tuple[Term, ...]:
    """Columns added and subtracted, flat."""
    terms: list[Term] = []
    pending = [(source, False)]
    while pending:
        node, negative = pending.pop()
        kind = type(node)
        if kind is exp.Column:
            column = scope.find(node)
            if column is None:
                refuse("column", shown(node.name), "columns of the dataset")
            terms.append(Term(negative, scope.touch(column, "aggregate", name)))
        elif kind is exp.Paren:
            check_keys(node, {"this"}, "operator", "an expression in parentheses")
            pending.append((node.this, negative))
        elif kind in (exp.Add, exp.Sub):
            check_keys(node, {"this", "expression"}, "aggregate", _ALLOWED_INSIDE)
            pending.append((node.expression, negative is not (kind is exp.Sub)))
            pending.append((node.this, negative))
        else:
            refuse("aggregate", f"{name} of {said(node)}", _ALLOWED_INSIDE)
        if len(terms) > MAX_COLUMNS:
            refuse("size", f"more than {MAX_COLUMNS} columns in an aggregate", _ALLOWED_INSIDE)
    return tuple(terms)


def _is_mean(source: exp.Expr) -> bool:
    return (
        type(source) is exp.Anonymous
        and isinstance(source.this, str)
        and fold(source.this) == "mean"
        and len(source.expressions) == 1
    )
