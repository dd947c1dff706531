"""Untrusted SQL to a plan: one SELECT over the dataset's one table, or a refusal with its reason.

    SELECT columns and aggregates FROM table [WHERE] [GROUP BY] [HAVING] [ORDER BY] [LIMIT] [OFFSET]

Reading is not allowing: a query for rows, for a hidden column or grouped by the privacy unit has
a plan, whose description says so; policy refuses it with the term that it breaks. What is refused
here is what cannot be understood, or what no group minimum could make safe.

Names are looked up as DuckDB does: aliases in GROUP BY and HAVING after the table's columns, in
ORDER BY before them. A name that could mean two different things is refused where DuckDB's own
choice would surprise.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from connector.gate.expressions import Call, Field, Node, aggregates_of, fields_of
from connector.gate.plan import Ordering, Output, Plan
from connector.gate.scope import Scope, fold
from connector.gate.sql import check_keys, parse, refuse, shown
from connector.gate.translate import Translator
from connector.model.catalog import Dataset, Role

MAX_OUTPUTS = 256
MAX_KEYS = 32
MAX_DIGITS = 9  # of LIMIT, OFFSET and column numbers
MAX_NAME = 128  # characters of an alias

__all__ = ["Plan", "describe"]


def describe(query: str, dataset: Dataset) -> Plan:
    """The plan of a query, with its description for policy. Raises ``Refused``, nothing else.

    ``query`` is hostile text of at most 64 KiB. Takes up to about 100 ms of CPU.
    """
    select = parse(query)
    scope = Scope(dataset, frozenset({_table(select, dataset)}))
    outputs = _outputs(select, scope)
    names = _names(outputs)
    where_clause = select.args.get("where")
    where = None
    if where_clause is not None:
        where = Translator(scope, "filter", may_aggregate=False).condition(where_clause.this)
    grouped, keys = _keys(select, scope, outputs, names)
    having_clause = select.args.get("having")
    having = None
    if having_clause is not None:
        translator = Translator(scope, "filter", may_aggregate=True, names=names)
        having = translator.condition(having_clause.this)
    order = _order(select, scope, outputs, names)
    nodes = [output.node for output in outputs] + [ordering.node for ordering in order]
    nodes += [] if having is None else [having]
    aggregating = grouped or having is not None or any(aggregates_of(node) for node in nodes)
    if aggregating:
        for node in nodes:
            _check_covered(node, keys)
    return Plan(
        description=scope.description("aggregate" if aggregating else "rows"),
        table=dataset.table,
        privacy_unit=dataset.privacy_unit,
        outputs=outputs,
        where=where,
        keys=keys,
        having=having,
        order=order,
        limit=_number(select.args.get("limit"), exp.Limit, "LIMIT"),
        offset=_number(select.args.get("offset"), exp.Offset, "OFFSET") or 0,
    )


def _table(select: exp.Select, dataset: Dataset) -> str:
    """The name, folded, by which the query may call its table."""
    source = select.args.get("from_")
    if source is None:
        refuse("table", "no table", dataset.table)
    check_keys(source, {"this"}, "table", dataset.table)
    table = source.this
    if type(table) is not exp.Table or type(table.this) is not exp.Identifier:
        refuse("table", "something that is not a table's name", dataset.table)
    if table.args.get("db") is not None or table.args.get("catalog") is not None:
        refuse("table", shown(".".join(part.name for part in table.parts)), dataset.table)
    check_keys(table, {"this", "alias"}, "table", f"{dataset.table}, with or without an alias")
    if fold(table.name) != fold(dataset.table):
        refuse("table", shown(table.name), dataset.table)
    alias = table.args.get("alias")
    if alias is None:
        return fold(dataset.table)
    check_keys(alias, {"this"}, "table", "a table alias without column names")
    return fold(alias.name)


def _outputs(select: exp.Select, scope: Scope) -> tuple[Output, ...]:
    translator = Translator(scope, "select", may_aggregate=True)
    outputs: list[Output] = []
    for source in select.expressions:
        if _is_star(source):
            outputs += _star(source, scope)
        elif type(source) is exp.Alias:
            check_keys(source, {"this", "alias"}, "name", "an alias")
            if not 1 <= len(source.alias) <= MAX_NAME or not source.alias.isprintable():
                refuse("name", shown(source.alias), f"1 to {MAX_NAME} printable characters")
            outputs.append(Output(source.alias, translator.node(source.this)))
        else:
            outputs.append(Output("", translator.node(source)))
    if not 1 <= len(outputs) <= MAX_OUTPUTS:
        refuse("size", f"{len(outputs)} columns", f"1 to {MAX_OUTPUTS} columns")
    seen: set[str] = set()
    for output in outputs:
        if fold(output.label) in seen:
            refuse("name", f"two columns named {shown(output.label)}", "names that differ")
        seen.add(fold(output.label))
    return tuple(outputs)


def _is_star(source: exp.Expr) -> bool:
    return type(source) is exp.Star or (
        type(source) is exp.Column and type(source.this) is exp.Star
    )


def _star(source: exp.Expr, scope: Scope) -> list[Output]:
    """Every column that the table shows; a hidden one has to be named to be asked for."""
    star = source
    if type(source) is exp.Column:
        check_keys(source, {"this", "table"}, "column", "*")
        if fold(source.args["table"].name) not in scope.qualifiers:
            refuse("column", shown(f"{source.args['table'].name}.*"), "columns of the dataset")
        star = source.this
    check_keys(star, frozenset(), "column", "* without EXCLUDE, REPLACE, RENAME or LIKE")
    return [
        Output("", scope.touch(column, "select"))
        for column in scope.dataset.columns
        if column.role is not Role.HIDDEN
    ]


def _names(outputs: tuple[Output, ...]) -> Mapping[str, Node]:
    return {fold(output.name): output.node for output in outputs if output.name}


def _keys(
    select: exp.Select, scope: Scope, outputs: tuple[Output, ...], names: Mapping[str, Node]
) -> tuple[bool, tuple[Node, ...]]:
    """Whether there is a GROUP BY, and its keys: names, expressions, positions or ALL."""
    group = select.args.get("group")
    if group is None:
        return False, ()
    check_keys(group, {"expressions", "all"}, "clause", "GROUP BY columns")
    keys: list[Node] = []
    if group.args.get("all"):
        keys = [output.node for output in outputs if not aggregates_of(output.node)]
    for source in group.expressions:
        position = _position(source, outputs)
        if position is not None:
            keys.append(position)
            continue
        translator = Translator(scope, "group", may_aggregate=False, names=names)
        keys.append(translator.node(source))
    if len(keys) > MAX_KEYS:
        refuse("size", f"{len(keys)} group keys", f"at most {MAX_KEYS}")
    for key in keys:
        if aggregates_of(key):
            refuse("aggregate", "an aggregate in group", "SELECT, HAVING, ORDER BY")
        scope.touch_again(fields_of(key), "group")
    return True, tuple(dict.fromkeys(keys))


def _order(
    select: exp.Select, scope: Scope, outputs: tuple[Output, ...], names: Mapping[str, Node]
) -> tuple[Ordering, ...]:
    order = select.args.get("order")
    if order is None:
        return ()
    check_keys(order, {"expressions"}, "clause", "ORDER BY columns")
    found: list[Ordering] = []
    for source in order.expressions:
        check_keys(source, {"this", "desc", "nulls_first"}, "clause", "ORDER BY columns")
        node = _position(source.this, outputs)
        if node is None:
            translator = Translator(
                scope, "order", may_aggregate=True, names=names, prefer_names=True
            )
            node = translator.node(source.this)
        scope.touch_again(fields_of(node), "order")
        descending, nulls_first = source.args.get("desc"), source.args.get("nulls_first")
        found.append(Ordering(node, bool(descending), bool(nulls_first)))
    if len(found) > MAX_KEYS:
        refuse("size", f"{len(found)} columns in ORDER BY", f"at most {MAX_KEYS}")
    return tuple(found)


def _position(source: exp.Expr, outputs: tuple[Output, ...]) -> Node | None:
    """The output column that a bare number means in GROUP BY and ORDER BY."""
    if type(source) is not exp.Literal or source.is_string:
        return None
    text = source.name
    whole = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not whole or not 1 <= int(text) <= len(outputs):
        refuse("column", f"column number {shown(text)}", f"1 to {len(outputs)}")
    return outputs[int(text) - 1].node


def _check_covered(node: Node, keys: tuple[Node, ...]) -> None:
    """Whatever is shown of a group is the same for all its rows."""
    if node in keys:
        return
    if isinstance(node, Field):
        refuse("group", f"{node.name} outside an aggregate", "group keys and aggregates")
    if isinstance(node, Call):
        for argument in node.arguments:
            _check_covered(argument, keys)


def _number(source: exp.Expr | None, kind: type[exp.Expr], clause: str) -> int | None:
    """The number that LIMIT or OFFSET gives. Raises ``Refused`` for anything computed."""
    if source is None:
        return None
    allowed = f"{clause} and a number"
    if type(source) is not kind:
        refuse("clause", type(source).__name__.upper(), allowed)
    check_keys(source, {"expression"}, "clause", allowed)
    value = source.expression
    text = value.name if type(value) is exp.Literal and not value.is_string else ""
    if not text.isascii() or not text.isdigit():
        refuse("clause", f"{clause} with something else", allowed)
    if len(text) > MAX_DIGITS:
        refuse("size", f"{clause} {shown(text)}", f"at most {MAX_DIGITS} digits")
    return int(text)
