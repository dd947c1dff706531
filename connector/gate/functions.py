"""The functions, operators and aggregates that a query may use: what is not listed is refused.

Each is free of side effects, reads nothing but its arguments, and gives an output of a size that
its input bounds (no ``repeat``, ``replace`` or ``lpad``, no regular expressions). Whether one can
fail on some values does not matter: all that can is written inside ``TRY`` and gives NULL.

Aggregates mix many rows. Those that hand out one row's value (min, max, median, any_value,
arg_max, list, string_agg ...) or that pick rows by a condition (count_if) are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from sqlglot import exp

from connector.gate.expressions import Kind
from connector.gate.sql import refuse, shown

NUMBER, TEXT, BOOLEAN = Kind.NUMBER, Kind.TEXT, Kind.BOOLEAN
TIME = Kind.TIMESTAMP  # as a parameter: a date, too


@dataclass(frozen=True, slots=True)
class Function:
    """``takes`` are the kinds of its arguments, the last ``optional`` of which may be missing.

    ``keys`` are where the parser's node keeps the arguments, ``notes`` what else it says there,
    which holds for each such call in DuckDB. ``same`` says that it takes any number of arguments
    of one kind, and gives that kind.
    """

    name: str
    keys: tuple[str, ...]
    takes: tuple[Kind, ...] = ()
    gives: Kind = NUMBER
    optional: int = 0
    same: bool = False
    notes: tuple[str, ...] = ()


def _of_text(name: str, gives: Kind = TEXT) -> Function:
    return Function(name, ("this",), (TEXT,), gives)


def _with_text(name: str) -> Function:
    return Function(name, ("this", "expression"), (TEXT, TEXT), BOOLEAN)


def _of_number(name: str) -> Function:
    return Function(name, ("this",), (NUMBER,))


def _of_time(name: str, gives: Kind = NUMBER) -> Function:
    return Function(name, ("this",), (TIME,), gives)


FUNCTIONS: Mapping[type[exp.Expr], Function] = {
    exp.Lower: _of_text("lower"),
    exp.Upper: _of_text("upper"),
    exp.Length: _of_text("length", NUMBER),
    exp.Trim: _of_text("trim"),
    exp.Left: Function("left", ("this", "expression"), (TEXT, NUMBER), TEXT),
    exp.Right: Function("right", ("this", "expression"), (TEXT, NUMBER), TEXT),
    exp.Substring: Function(
        "substring", ("this", "start", "length"), (TEXT, NUMBER, NUMBER), TEXT, optional=1
    ),
    exp.StartsWith: _with_text("starts_with"),
    exp.EndsWith: _with_text("ends_with"),
    exp.Contains: _with_text("contains"),
    exp.Abs: _of_number("abs"),
    exp.Ceil: _of_number("ceil"),
    exp.Floor: _of_number("floor"),
    exp.Round: Function("round", ("this", "decimals"), (NUMBER, NUMBER), optional=1),
    exp.Sign: _of_number("sign"),
    exp.Sqrt: _of_number("sqrt"),
    exp.Ln: _of_number("ln"),
    exp.Exp: _of_number("exp"),
    exp.Pow: Function("pow", ("this", "expression"), (NUMBER, NUMBER)),
    exp.Year: _of_time("year"),
    exp.Quarter: _of_time("quarter"),
    exp.Month: _of_time("month"),
    exp.Week: _of_time("week"),
    exp.Day: _of_time("day"),
    exp.DayOfWeek: _of_time("dayofweek"),
    exp.DayOfWeekIso: _of_time("isodow"),
    exp.DayOfYear: _of_time("dayofyear"),
    exp.Hour: _of_time("hour"),
    exp.Minute: _of_time("minute"),
    exp.Dayname: _of_time("dayname", TEXT),
    exp.Monthname: _of_time("monthname", TEXT),
    exp.Coalesce: Function("coalesce", ("this", "expressions"), same=True),
    exp.Greatest: Function("greatest", ("this", "expressions"), same=True, notes=("ignore_nulls",)),
    exp.Least: Function("least", ("this", "expressions"), same=True, notes=("ignore_nulls",)),
    exp.Nullif: Function("nullif", ("this", "expression"), same=True),
}

# Functions whose first argument names a part of a date.
PARTS = frozenset(
    {"year", "quarter", "month", "week", "day", "hour", "minute", "second"}
    | {"dow", "isodow", "doy", "isoyear", "decade", "century"}
)
TRUNCATING_PARTS = PARTS - {"dow", "isodow", "doy", "isoyear"}
PART_ALIASES = {"dayofweek": "dow", "weekday": "dow", "dayofyear": "doy", "dayofmonth": "day"}

COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
ARITHMETIC: Mapping[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.IntDiv: "//",
    exp.Mod: "%",
}
LIKES: Mapping[type[exp.Expr], str] = {exp.Like: "LIKE", exp.ILike: "ILIKE"}

# Operators and forms that ``connector.gate.render`` writes in their own way; all others are
# written as ``name(arguments)``.
OPERATORS = frozenset(
    {*COMPARISONS.values(), *ARITHMETIC.values(), *LIKES.values()}
    | {"AND", "OR", "NOT", "IS NULL", "IS TRUE", "IS FALSE", "IN", "BETWEEN", "||", "negate"}
)

CASTS: Mapping[exp.DType, tuple[str, Kind]] = {
    exp.DType.TEXT: ("VARCHAR", TEXT),
    exp.DType.VARCHAR: ("VARCHAR", TEXT),
    exp.DType.SMALLINT: ("SMALLINT", NUMBER),
    exp.DType.INT: ("INTEGER", NUMBER),
    exp.DType.BIGINT: ("BIGINT", NUMBER),
    exp.DType.FLOAT: ("FLOAT", NUMBER),
    exp.DType.DOUBLE: ("DOUBLE", NUMBER),
    exp.DType.BOOLEAN: ("BOOLEAN", BOOLEAN),
    exp.DType.DATE: ("DATE", Kind.DATE),
    exp.DType.TIMESTAMP: ("TIMESTAMP", Kind.TIMESTAMP),
    exp.DType.TIMESTAMPNTZ: ("TIMESTAMP", Kind.TIMESTAMP),
}
CASTABLE: Mapping[Kind, frozenset[Kind]] = {
    TEXT: frozenset({NUMBER, TEXT, BOOLEAN, Kind.DATE, Kind.TIMESTAMP}),
    NUMBER: frozenset({NUMBER, TEXT, BOOLEAN}),
    BOOLEAN: frozenset({NUMBER, TEXT, BOOLEAN}),
    Kind.DATE: frozenset({TEXT, Kind.DATE, Kind.TIMESTAMP}),
    Kind.TIMESTAMP: frozenset({TEXT, Kind.DATE, Kind.TIMESTAMP}),
}

# Aggregates of numbers, as policy names them, and as DuckDB does. ``count`` and
# ``count_distinct`` take a column of any kind.
AGGREGATES: Mapping[type[exp.Expr], str] = {
    exp.Sum: "sum",
    exp.Avg: "avg",
    exp.Stddev: "stddev_samp",
    exp.StddevSamp: "stddev_samp",
    exp.StddevPop: "stddev_pop",
    exp.Variance: "var_samp",
    exp.VariancePop: "var_pop",
}
AGGREGATE_NAMES = ("count", "count_distinct", *sorted(set(AGGREGATES.values())))

UNKNOWN_FUNCTION = "a function that this gate knows (docs/gate.md)"
_FORMS: Mapping[type[exp.Expr], str] = {
    exp.Subquery: "a subquery",
    exp.Select: "a subquery",
    exp.Window: "a window function",
    exp.Filter: "FILTER",
    exp.Star: "*",
    exp.Case: "CASE",
    exp.Literal: "a literal",
    exp.Mul: "a product",
    exp.Div: "a quotient",
    exp.Order: "ORDER BY",
    exp.WithinGroup: "WITHIN GROUP",
    exp.Interval: "INTERVAL",
    exp.Rollup: "ROLLUP",
    exp.Cube: "CUBE",
    exp.GroupingSets: "GROUPING SETS",
    exp.Tuple: "several values in parentheses",
    exp.Dot: "a field of a value",
    exp.SimilarTo: "SIMILAR TO",
    exp.Glob: "GLOB",
    exp.AtTimeZone: "AT TIME ZONE",
    **dict.fromkeys(COMPARISONS, "a comparison"),
    **dict.fromkeys((exp.And, exp.Or, exp.Not, exp.In, exp.Between), "a condition"),
}


def refuse_unknown(source: exp.Expr) -> NoReturn:
    """The node has no form here: say what it is, as well as the request says it."""
    if type(source) in (exp.IgnoreNulls, exp.RespectNulls):
        source = source.this
    if isinstance(source, exp.AggFunc):
        refuse("aggregate", said(source), ", ".join(AGGREGATE_NAMES))
    if isinstance(source, exp.Func):
        refuse("function", said(source), UNKNOWN_FUNCTION)
    refuse("operator", said(source), "a form that this gate knows (docs/gate.md)")


def said(source: exp.Expr) -> str:
    """The function or form, in a word or two."""
    if isinstance(source, exp.Anonymous):
        return shown(source.name)
    if type(source) is exp.Column:
        return shown(source.name)
    if isinstance(source, exp.Func):
        return source.sql_name().lower()
    return _FORMS.get(type(source), type(source).__name__)
