"""The names that one query may use, and a note of what it does with each column."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from connector.gate.expressions import Field
from connector.gate.sql import check_keys, refuse, shown
from connector.model.catalog import Column, Dataset
from connector.model.use import ColumnUse, Description


@dataclass(slots=True)
class Touched:
    """What a query does with one column."""

    column: Column
    places: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Scope:
    """``qualifiers`` are the names, folded, by which the query may call its table."""

    dataset: Dataset
    qualifiers: frozenset[str]
    touched: dict[str, Touched] = field(default_factory=dict)
    aggregates: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def find(self, source: exp.Expr) -> Column | None:
        """The column that a name means, or None. Raises ``Refused`` for another table's."""
        check_keys(source, {"this", "table"}, "column", "a column's name")
        if not isinstance(source.this, exp.Identifier):
            refuse("column", "* inside an expression", "a column's name")
        table = source.args.get("table")
        if table is not None and fold(table.name) not in self.qualifiers:
            refuse("column", shown(f"{table.name}.{source.name}"), "columns of the dataset")
        wanted = fold(source.name)
        return next((c for c in self.dataset.columns if fold(c.name) == wanted), None)

    def touch(self, column: Column, place: str, aggregate: str = "") -> Field:
        touched = self.touched.setdefault(column.name, Touched(column))
        touched.places.add(place)
        if aggregate:
            touched.aggregates.add(aggregate)
        return Field(column.name, column.type.upper())

    def touch_again(self, fields: tuple[Field, ...], place: str) -> None:
        """The columns of an alias, used in one more place."""
        for each in fields:
            self.touched[each.name].places.add(place)

    def description(self, output: str) -> Description:
        return Description(
            output=output,
            tables=(self.dataset.table,),
            columns=tuple(
                ColumnUse(
                    name=name,
                    role=touched.column.role.value,
                    places=tuple(sorted(touched.places)),
                    aggregates=tuple(sorted(touched.aggregates)),
                )
                for name, touched in sorted(self.touched.items())
            ),
            aggregates=tuple(sorted(self.aggregates)),
            functions=tuple(sorted(self.functions)),
        )


def fold(name: str) -> str:
    """ASCII letters match in either case, as in DuckDB; no other letters do."""
    return "".join(char.lower() if char.isascii() else char for char in name)
