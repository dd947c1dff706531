"""A query that was understood: what policy is told of it, and the program that runs it.

Two stages. The first is the aggregation alone, over the table, with hidden counts of distinct
privacy units. Groups and cells below the minimum are withheld (``connector.gate.output``) before
the second stage, which sees released groups only, filters (HAVING), orders and computes.

A group's units are those of its rows whose unit is known. Each aggregate is guarded by the units
of the rows that it is made of, those where its argument is not NULL: an average over a group of a
hundred may still be one unit's value. Small minimums are proved with a bitmap of hashes, which
can only count too few; where that proves nothing, distinct units are counted exactly.

SQL is put together from strings here, and every string comes from ``connector.gate.render``.

Policy has decided before ``program`` is called; the checks here hold without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from connector.errors import Reason, Refused
from connector.gate.expressions import Aggregate, Node, aggregates_of
from connector.gate.render import aggregate, identifier, label, render
from connector.model.catalog import Role
from connector.model.use import ColumnUse, Description, Obligations
from connector.ports.query import RELEASED, UNDECIDED, UNIT_BIT, Program

MAX_PROVED_BY_BITS = 40  # of 64: for more, hashes meet too often to prove it

_COUNTING = frozenset({"count", "count_distinct"})


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the result; ``name`` may be empty, then it is called as it is written."""

    name: str
    node: Node

    @property
    def label(self) -> str:
        return self.name or label(self.node)


@dataclass(frozen=True, slots=True)
class Ordering:
    node: Node
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One SELECT over ``table``. ``limit`` is None where the query has none.

    Of an aggregate query, ``keys`` are its group keys, and whatever stands in ``outputs``,
    ``having`` and ``order`` is made of them and of aggregates.
    """

    description: Description
    table: str
    privacy_unit: str
    outputs: tuple[Output, ...]
    where: Node | None
    keys: tuple[Node, ...]
    having: Node | None
    order: tuple[Ordering, ...]
    limit: int | None
    offset: int

    def program(self, obligations: Obligations) -> Program:
        """The SQL to run under these obligations. Raises ``Refused`` if there is none."""
        _check(self, obligations)
        if self.description.output == "rows":
            return self._rows(obligations)
        return self._groups(obligations)

    def _rows(self, obligations: Obligations) -> Program:
        select = ", ".join(
            f"{render(output.node)} AS {identifier(output.label)}" for output in self.outputs
        )
        return Program(
            table=self.table,
            core=f"SELECT {select}{self._source()}{_order(self.order, {})}",
            exact="",
            final="",
            keys=0,
            counts=0,
            guards=(),
            minimum_group=0,
            row_cap=obligations.row_cap,
            limit=self.limit,
            offset=self.offset,
        )

    def _groups(self, obligations: Obligations) -> Program:
        minimum = obligations.minimum_group
        found = self._aggregates()
        guarded = self._guarded(found) if minimum else ()
        guards = tuple(self._guard(each, guarded) for each in found) if minimum else ()
        by_bits = 0 < minimum <= MAX_PROVED_BY_BITS
        select = [f"{render(key)} AS k{number}" for number, key in enumerate(self.keys)]
        if minimum:
            unit = identifier(UNIT_BIT if by_bits else self.privacy_unit)
            count = f"bit_or({unit})" if by_bits else f"count(DISTINCT {unit})"
            counts = [count, *(f"{count} FILTER (WHERE {each} IS NOT NULL)" for each in guarded)]
            if by_bits:
                counts = [f"coalesce(bit_count({each}), 0)" for each in counts]
            select.append("count(*) AS n")
            select += [f"{each} AS u{number}" for number, each in enumerate(counts)]
        select += [f"{aggregate(each)} AS a{number}" for number, each in enumerate(found)]
        grouped = ", ".join(str(number + 1) for number in range(len(self.keys)))
        return Program(
            table=self.table,
            core=f"SELECT {', '.join(select) or '1'}{self._source()}"
            + (f" GROUP BY {grouped}" if grouped else ""),
            exact=self._exact(guarded) if by_bits else "",
            final=self._final(found),
            keys=len(self.keys),
            counts=1 + len(guarded) if minimum else 0,
            guards=guards,
            minimum_group=minimum,
            row_cap=obligations.row_cap,
            limit=self.limit,
            offset=self.offset,
        )

    def _aggregates(self) -> tuple[Aggregate, ...]:
        """Each aggregate once, in the order in which the query names them."""
        nodes = [output.node for output in self.outputs]
        nodes += [] if self.having is None else [self.having]
        nodes += [ordering.node for ordering in self.order]
        return tuple(dict.fromkeys(each for node in nodes for each in aggregates_of(node)))

    def _guarded(self, found: tuple[Aggregate, ...]) -> tuple[str, ...]:
        """The columns that aggregates are over: each may be NULL in some rows of a group."""
        fields = (each.field for each in found if each.field is not None)
        names = (field.name for field in fields if field.name != self.privacy_unit)
        return tuple(identifier(name) for name in dict.fromkeys(names))

    def _guard(self, found: Aggregate, guarded: tuple[str, ...]) -> int:
        """Which count of units guards an aggregate; 0 is that of the whole group."""
        if found.field is None or found.field.name == self.privacy_unit:
            return 0
        return 1 + guarded.index(identifier(found.field.name))

    def _exact(self, guarded: tuple[str, ...]) -> str:
        """Distinct units of the groups in ``undecided``, counted."""
        inner = [f"{render(key)} AS k{number}" for number, key in enumerate(self.keys)]
        inner.append(f"{identifier(self.privacy_unit)} AS unit")
        inner += [f"({each} IS NOT NULL) AS c{n}" for n, each in enumerate(guarded, start=1)]
        same = [f"t.k{n} IS NOT DISTINCT FROM d.k{n}" for n in range(len(self.keys))]
        counts = ["count(DISTINCT t.unit) AS u0"] + [
            f"count(DISTINCT t.unit) FILTER (WHERE t.c{n}) AS u{n}"
            for n in range(1, len(guarded) + 1)
        ]
        return (
            f"SELECT d.g AS g, {', '.join(counts)}"  # noqa: S608
            f" FROM (SELECT {', '.join(inner)}{self._source()}) AS t"
            f" JOIN {UNDECIDED} AS d ON {' AND '.join(same) or 'true'} GROUP BY d.g"
        )

    def _final(self, found: tuple[Aggregate, ...]) -> str:
        names: dict[Node, str] = {key: f"k{number}" for number, key in enumerate(self.keys)}
        for number, each in enumerate(found):
            whole = each.name == "sum" and each.field is not None and each.field.is_integer
            names[each] = f"CAST(a{number} AS HUGEINT)" if whole else f"a{number}"
        select = ", ".join(
            f"{render(output.node, names)} AS {identifier(output.label)}" for output in self.outputs
        )
        where = "" if self.having is None else f" WHERE {render(self.having, names)}"
        return f"SELECT {select} FROM {RELEASED}{where}{_order(self.order, names)}"  # noqa: S608

    def _source(self) -> str:
        where = "" if self.where is None else f" WHERE {render(self.where)}"
        return f" FROM {identifier(self.table)}{where}"


def _order(order: tuple[Ordering, ...], names: dict[Node, str]) -> str:
    if not order:
        return ""
    written = (
        f"{render(each.node, names)} {'DESC' if each.descending else 'ASC'}"
        f" NULLS {'FIRST' if each.nulls_first else 'LAST'}"
        for each in order
    )
    return f" ORDER BY {', '.join(written)}"


def _check(plan: Plan, obligations: Obligations) -> None:
    """What policy should have refused already."""
    reasons: list[Reason] = []
    hidden = {name.lower() for name in obligations.hidden_columns}
    for column in plan.description.columns:
        if column.role == Role.HIDDEN.value or column.name.lower() in hidden:
            reasons.append(Reason("tds:hiddenColumns", column.name, "columns that are not hidden"))
    if obligations.minimum_group > 0:
        reasons += _check_groups(plan, obligations)
    if reasons:
        raise Refused(reasons)


def _check_groups(plan: Plan, obligations: Obligations) -> list[Reason]:
    reasons: list[Reason] = []
    if plan.description.output != "aggregate":
        reasons.append(Reason("tds:minimumGroup", "rows", "aggregates only"))
    if not plan.privacy_unit or obligations.privacy_unit != plan.privacy_unit:
        reasons.append(
            Reason(
                "tds:privacyUnit",
                obligations.privacy_unit or "none",
                plan.privacy_unit or "a dataset with a privacy unit",
            )
        )
    for column in plan.description.columns:
        if column.role == Role.UNIT.value and not _only_counted(column):
            allowed = "only counted: count, count_distinct"
            reasons.append(Reason("tds:privacyUnit", _placed(column), allowed))
        if column.role == Role.MEASURE.value and column.places != ("aggregate",):
            allowed = "a measure only inside an aggregate"
            reasons.append(Reason("tds:columnRole", _placed(column), allowed))
    return reasons


def _only_counted(column: ColumnUse) -> bool:
    return column.places == ("aggregate",) and set(column.aggregates) <= _COUNTING


def _placed(column: ColumnUse) -> str:
    return f"{column.name} in {', '.join(column.places)}"
