"""Aggregates: each over one column as it is.

Any other function of a row's values inside an aggregate of many can make it the value of one:

- a CASE or FILTER picks the row;
- a high power, or a large constant whose rounding is a threshold, lets the largest value outweigh
  all others, and a product that overflows tells of it by the error;
- a sum of two columns leaves out the rows where either is NULL, so that sum(a) + sum(b) -
  sum(a + b) is the value of a in the one row that has no b.

Scaling, rounding and combining work as well on the aggregates, where this gate allows them.
"""

from __future__ import annotations

from sqlglot import exp

from connector.gate.expressions import Aggregate, Field, Kind
from connector.gate.functions import AGGREGATES, said
from connector.gate.scope import Scope, fold
from connector.gate.sql import check_keys, refuse, shown

_ALLOWED_INSIDE = "one column; compute on the aggregates: avg(a) - avg(b), sum(a) / 60"


def is_aggregate(source: exp.Expr) -> bool:
    kind = type(source)
    return kind is exp.Count or kind in AGGREGATES or _is_mean(source)


def aggregate(source: exp.Expr, scope: Scope) -> Aggregate:
    """An aggregate, and a note of its column in ``scope``. Raises ``Refused``."""
    if type(source) is exp.Count:
        return _count(source, scope)
    if _is_mean(source):
        name, inside = "avg", source.expressions[0]
    else:
        check_keys(source, {"this"}, "aggregate", "an aggregate of a column")
        name, inside = AGGREGATES[type(source)], source.this
    if type(inside) is exp.Distinct:
        refuse("aggregate", f"{name}(DISTINCT ...)", "count(DISTINCT column)")
    field = _field(inside, name, scope)
    if field.kind is not Kind.NUMBER:
        refuse("type", f"{name} of {field.kind}", f"{name} of {Kind.NUMBER}")
    scope.aggregates.add(name)
    return Aggregate(name, field)


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
            return Aggregate(name, None)  # count(), count(1)
        if type(inside) is exp.Star:
            check_keys(inside, frozenset(), "aggregate", "count(*)")
            return Aggregate(name, None)
    return Aggregate(name, _field(inside, name, scope))


def _field(source: exp.Expr, name: str, scope: Scope) -> Field:
    while type(source) is exp.Paren:
        check_keys(source, {"this"}, "operator", "an expression in parentheses")
        source = source.this
    if type(source) is not exp.Column:
        refuse("aggregate", f"{name} of {said(source)}", _ALLOWED_INSIDE)
    column = scope.find(source)
    if column is None:
        refuse("column", shown(source.name), "columns of the dataset")
    return scope.touch(column, "aggregate", name)


def _is_mean(source: exp.Expr) -> bool:
    return (
        type(source) is exp.Anonymous
        and isinstance(source.this, str)
        and fold(source.this) == "mean"
        and len(source.expressions) == 1
    )
