"""A parsed expression to the gate's own, default-deny, and a note of each column it touches.

Every node of the parser's tree is matched by its exact class, and each of its fields must be one
that is looked at. Kinds are checked as in a small typed language, so that the engine never has to
cast a column's values on its own: an error of such a cast would tell of a row that no group
minimum protects.

Left out: aggregates (``connector.gate.aggregates``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from sqlglot import exp

from connector.gate.aggregates import aggregate, is_aggregate
from connector.gate.expressions import Call, Kind, Node, Value, fields_of
from connector.gate.functions import (
    ARITHMETIC,
    CASTABLE,
    CASTS,
    COMPARISONS,
    FUNCTIONS,
    LIKES,
    PART_ALIASES,
    PARTS,
    TRUNCATING_PARTS,
    UNKNOWN_FUNCTION,
    Function,
    refuse_unknown,
)
from connector.gate.kinds import MOMENTS, agree, take
from connector.gate.literals import literal, moment
from connector.gate.scope import Scope, fold
from connector.gate.sql import check_keys, refuse, shown

MAX_DEPTH = 64  # levels of one expression
NULL = Value("null", Kind.NULL)
_STRFTIME = re.compile(r"([^%]|%[aAbBdHIjmMpSuVwWyYG%]|%-[dHImMSjy])+")


class Translator:
    """Expressions of one clause. ``place`` is the clause's word in a description.

    ``names`` are the select list's aliases, where the clause may use them; ``prefer_names`` says
    that an alias comes before a column of the same name.
    """

    def __init__(
        self,
        scope: Scope,
        place: str,
        *,
        may_aggregate: bool,
        names: Mapping[str, Node] | None = None,
        prefer_names: bool = False,
    ) -> None:
        self._scope = scope
        self._place = place
        self._may_aggregate = may_aggregate
        self._names = names or {}
        self._prefer_names = prefer_names
        self._depth = 0

    def node(self, source: exp.Expr) -> Node:
        """Raises ``Refused`` for whatever has no form here."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            refuse("size", "an expression that is nested too deeply", f"{MAX_DEPTH} levels")
        kind = type(source)
        if is_aggregate(source):
            found = self._aggregate(source)
        elif kind in _HANDLERS:
            found = _HANDLERS[kind](self, source)
        elif kind in FUNCTIONS:
            found = self._function(source, FUNCTIONS[kind])
        else:
            refuse_unknown(source)
        self._depth -= 1
        return found

    def condition(self, source: exp.Expr) -> Node:
        found = self.node(source)
        if found.kind not in (Kind.BOOLEAN, Kind.NULL):
            refuse("type", f"{found.kind} as a condition", "a truth value")
        return found

    # Names and literals.

    def _column(self, source: exp.Expr) -> Node:
        column = self._scope.find(source)
        alias = None if source.args.get("table") else self._names.get(fold(source.name))
        if alias is not None and (column is None or self._prefer_names):
            self._scope.touch_again(fields_of(alias), self._place)
            return alias
        if column is None:
            refuse("column", shown(source.name), "columns of the dataset")
        found = self._scope.touch(column, self._place)
        if alias is not None and alias != found:
            refuse("name", f"{shown(source.name)}, a column and an alias", "one meaning for a name")
        return found

    def _literal(self, source: exp.Expr) -> Node:
        return literal(source.name, is_text=bool(source.args["is_string"]))

    def _boolean(self, source: exp.Expr) -> Node:
        return Value("true" if source.this else "false", Kind.BOOLEAN)

    def _null(self, source: exp.Expr) -> Node:
        return NULL

    def _paren(self, source: exp.Expr) -> Node:
        check_keys(source, {"this"}, "operator", "an expression in parentheses")
        return self.node(source.this)

    # Operators.

    def _connective(self, source: exp.Expr) -> Node:
        """AND and OR, which a parser stacks to the left, in one flat list."""
        kind = type(source)
        parts: list[exp.Expr] = []
        rest: exp.Expr = source
        while type(rest) is kind:
            check_keys(rest, {"this", "expression"}, "operator", "AND, OR, NOT")
            parts.append(rest.expression)
            rest = rest.this
        parts.append(rest)
        arguments = tuple(self.condition(part) for part in reversed(parts))
        return Call("AND" if kind is exp.And else "OR", arguments, Kind.BOOLEAN)

    def _not(self, source: exp.Expr) -> Node:
        check_keys(source, {"this"}, "operator", "AND, OR, NOT")
        return Call("NOT", (self.condition(source.this),), Kind.BOOLEAN)

    def _is(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression"}, "operator", "IS NULL, IS TRUE, IS FALSE")
        found = self.node(source.this)
        if type(source.expression) is exp.Null:
            return Call("IS NULL", (found,), Kind.BOOLEAN)
        if type(source.expression) is not exp.Boolean:
            refuse("operator", "IS with another value", "IS NULL, IS TRUE, IS FALSE")
        take([found], [Kind.BOOLEAN], "IS TRUE or FALSE")
        return Call("IS TRUE" if source.expression.this else "IS FALSE", (found,), Kind.BOOLEAN)

    def _comparison(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression"}, "operator", "a comparison of two values")
        name = COMPARISONS[type(source)]
        return self._compared(name, [source.this, source.expression])

    def _between(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "low", "high"}, "operator", "BETWEEN two values")
        return self._compared("BETWEEN", [source.this, source.args["low"], source.args["high"]])

    def _in(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expressions"}, "operator", "IN a list of values")
        return self._compared("IN", [source.this, *source.expressions])

    def _compared(self, name: str, sources: Sequence[exp.Expr]) -> Node:
        arguments, _ = agree([self.node(source) for source in sources], name)
        return Call(name, arguments, Kind.BOOLEAN)

    def _like(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression", "negate"}, "operator", "LIKE and a text")
        arguments = self._take([source.this, source.expression], (Kind.TEXT, Kind.TEXT), "LIKE")
        found = Call(LIKES[type(source)], arguments, Kind.BOOLEAN)
        return Call("NOT", (found,), Kind.BOOLEAN) if source.args.get("negate") else found

    def _arithmetic(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression", "typed", "safe"}, "operator", "arithmetic")
        name = ARITHMETIC[type(source)]
        numbers = (Kind.NUMBER, Kind.NUMBER)
        return Call(name, self._take([source.this, source.expression], numbers, name), Kind.NUMBER)

    def _negate(self, source: exp.Expr) -> Node:
        check_keys(source, {"this"}, "operator", "arithmetic")
        (found,) = self._take([source.this], (Kind.NUMBER,), "-")
        if isinstance(found, Value) and found.kind is Kind.NUMBER and found.text[0] != "-":
            return Value(f"-{found.text}", Kind.NUMBER)
        return Call("negate", (found,), Kind.NUMBER)

    def _joined(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression", "safe"}, "operator", "text || text")
        sources = [source.this, source.expression]
        return Call("||", self._take(sources, (Kind.TEXT, Kind.TEXT), "||"), Kind.TEXT)

    # Forms of their own.

    def _concat(self, source: exp.Expr) -> Node:
        check_keys(source, {"expressions", "safe", "coalesce"}, "function", "concat of texts")
        self._scope.functions.add("concat")
        texts = tuple(Kind.TEXT for _ in source.expressions)
        return Call("concat", self._take(source.expressions, texts, "concat"), Kind.TEXT)

    def _case(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "ifs", "default"}, "operator", "CASE WHEN")
        tests: list[Node] = []
        values: list[Node] = []
        for branch in source.args["ifs"]:
            check_keys(branch, {"this", "true"}, "operator", "CASE WHEN")
            if source.this is None:
                tests.append(self.condition(branch.this))
            else:
                tests.append(self._compared("=", [source.this, branch.this]))
            values.append(self.node(branch.args["true"]))
        default = source.args.get("default")
        values.append(NULL if default is None else self.node(default))
        return self._chosen(tests, values)

    def _if(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "true", "false"}, "function", "if(condition, then, else)")
        default = source.args.get("false")
        values = [self.node(source.args["true"]), NULL if default is None else self.node(default)]
        return self._chosen([self.condition(source.this)], values)

    def _chosen(self, tests: Sequence[Node], values: Sequence[Node]) -> Node:
        """``case``: test, value, test, value ..., and last the value when no test holds."""
        agreed, kind = agree(values, "CASE")
        pairs = zip(tests, agreed, strict=False)
        arguments = [node for pair in pairs for node in pair]
        return Call("case", (*arguments, agreed[-1]), kind)

    def _cast(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "to", "safe"}, "operator", "CAST(value AS type)")
        target = source.args["to"]
        check_keys(target, {"this", "nested"}, "type", "a plain type")
        if target.this not in CASTS:
            refuse("type", shown(str(target.this.value)), "a plain type")
        name, kind = CASTS[target.this]
        found = self.node(source.this)
        if found.kind is Kind.TEXT and isinstance(found, Value) and kind in MOMENTS:
            return moment(found, kind)
        if found.kind is not Kind.NULL and kind not in CASTABLE.get(found.kind, frozenset()):
            refuse("type", f"{found.kind} cast to {name}", "a cast that means something")
        return Call(f"cast {name}", (found,), kind)

    def _date_part(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "expression"}, "function", "extract(part FROM value)")
        return self._part("date_part", source.this, source.expression)

    def _date_trunc(self, source: exp.Expr) -> Node:
        check_keys(
            source, {"this", "unit", "input_type_preserved"}, "function", "date_trunc(part, value)"
        )
        return self._part("date_trunc", source.args["unit"], source.this)

    def _part(self, name: str, unit: exp.Expr, source: exp.Expr) -> Node:
        self._scope.functions.add(name)
        part = fold(unit.name)
        part = PART_ALIASES.get(part, part)
        known = TRUNCATING_PARTS if name == "date_trunc" else PARTS
        if part not in known:
            refuse("function", f"{name} with {shown(unit.name)}", ", ".join(sorted(known)))
        (value,) = self._take([source], (Kind.TIMESTAMP,), name)
        gives = Kind.TIMESTAMP if name == "date_trunc" else Kind.NUMBER
        return Call(name, (Value(part, Kind.TEXT), value), gives)

    def _strftime(self, source: exp.Expr) -> Node:
        check_keys(source, {"this", "format"}, "function", "strftime(value, 'format')")
        self._scope.functions.add("strftime")
        kinds = (Kind.TIMESTAMP, Kind.TEXT)
        value, form = self._take([source.this, source.args["format"]], kinds, "strftime")
        if not isinstance(form, Value) or not _STRFTIME.fullmatch(form.text):
            refuse("function", "strftime with another format", "a format as '%Y-%m-%d', as text")
        return Call("strftime", (value, form), Kind.TEXT)

    def _anonymous(self, source: exp.Expr) -> Node:
        """Functions that the parser does not know by name."""
        name, arguments = fold(source.name), source.expressions
        if not isinstance(source.this, str) or name not in ("date_part", "prefix", "suffix"):
            refuse_unknown(source)
        if name == "date_part":
            if len(arguments) != 2 or type(arguments[0]) is not exp.Literal:
                refuse("function", "date_part of something else", "date_part('part', value)")
            return self._part(name, arguments[0], arguments[1])
        self._scope.functions.add(name)
        found = self._take(arguments, (Kind.TEXT, Kind.TEXT), name)
        return Call(name, found, Kind.BOOLEAN)

    def _function(self, source: exp.Expr, function: Function) -> Node:
        check_keys(source, {*function.keys, *function.notes}, "function", UNKNOWN_FUNCTION)
        self._scope.functions.add(function.name)
        sources: list[exp.Expr] = []
        for key in function.keys:
            found = source.args.get(key)
            sources.extend(found if isinstance(found, list) else [found] if found else [])
        if function.same:
            agreed, kind = agree([self.node(each) for each in sources], function.name)
            return Call(function.name, agreed, kind)
        takes = function.takes
        if not len(takes) - function.optional <= len(sources) <= len(takes):
            refuse("function", f"{function.name} of {len(sources)}", f"{len(takes)} arguments")
        arguments = self._take(sources, takes[: len(sources)], function.name)
        return Call(function.name, arguments, function.gives)

    def _aggregate(self, source: exp.Expr) -> Node:
        if not self._may_aggregate:
            refuse("aggregate", f"an aggregate in {self._place}", "SELECT, HAVING, ORDER BY")
        return aggregate(source, self._scope)

    def _take(
        self, sources: Sequence[exp.Expr], kinds: Sequence[Kind], name: str
    ) -> tuple[Node, ...]:
        if len(sources) != len(kinds):
            refuse("function", f"{name} of {len(sources)}", f"{len(kinds)} arguments")
        return take([self.node(source) for source in sources], kinds, name)


_HANDLERS: Mapping[type[exp.Expr], Callable[[Translator, exp.Expr], Node]] = {
    exp.Column: Translator._column,
    exp.Literal: Translator._literal,
    exp.Boolean: Translator._boolean,
    exp.Null: Translator._null,
    exp.Paren: Translator._paren,
    exp.And: Translator._connective,
    exp.Or: Translator._connective,
    exp.Not: Translator._not,
    exp.Is: Translator._is,
    exp.Between: Translator._between,
    exp.In: Translator._in,
    exp.Neg: Translator._negate,
    exp.DPipe: Translator._joined,
    exp.Concat: Translator._concat,
    exp.Case: Translator._case,
    exp.If: Translator._if,
    exp.Cast: Translator._cast,
    exp.TryCast: Translator._cast,
    exp.Extract: Translator._date_part,
    exp.TimestampTrunc: Translator._date_trunc,
    exp.DateTrunc: Translator._date_trunc,
    exp.TimeToStr: Translator._strftime,
    exp.Anonymous: Translator._anonymous,
    **dict.fromkeys(COMPARISONS, Translator._comparison),
    **dict.fromkeys(ARITHMETIC, Translator._arithmetic),
    **dict.fromkeys(LIKES, Translator._like),
}
