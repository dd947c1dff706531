"""Withholding, on tables made by hand."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from connector.gate.output import undecided, withhold
from connector.ports.query import Program


def program(*, keys: int, counts: int, guards: Sequence[int], minimum: int = 3) -> Program:
    return Program("t", "", "x", "", keys, counts, tuple(guards), minimum, 0, None, 0)


def table(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    return pa.table({name: list(values) for name, values in columns.items()})


CORE = table(
    {
        "k0": ["enough", "few", "unsure", "one row", None],
        "n": [9, 9, 9, 1, 9],
        "u0": [3, 0, 2, 1, 3],
        "u1": [3, 0, 2, 1, 1],
        "a0": [9, 9, 9, 1, 9],
        "a1": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)
PROGRAM = program(keys=1, counts=2, guards=(0, 1))


def test_undecided_are_those_that_could_have_enough() -> None:
    """A group of one row cannot; one without any known unit has none."""
    assert undecided(CORE, PROGRAM).to_pydict() == {"g": [2, 4], "k0": ["unsure", None]}


def test_few_units_are_withheld() -> None:
    exact = table({"g": [4, 2], "u0": [4, 3], "u1": [2, 3]})
    released = withhold(CORE, PROGRAM, exact)
    assert released.table.to_pydict() == {
        "k0": ["enough", "unsure", None],
        "a0": [9, 9, 9],
        "a1": [1.0, 3.0, None],
    }
    assert (released.groups_withheld, released.cells_withheld) == (2, 1)


def test_undecided_without_an_answer_is_withheld() -> None:
    released = withhold(CORE, PROGRAM, None)
    assert released.table.column("k0").to_pylist() == ["enough", None]
    assert released.table.column("a1").to_pylist() == [1.0, None]


def test_no_groups() -> None:
    released = withhold(CORE.slice(0, 0), PROGRAM, None)
    assert released.table.num_rows == 0
    assert released.table.column_names == ["k0", "a0", "a1"]
    assert undecided(CORE.slice(0, 0), PROGRAM).num_rows == 0


def test_a_whole_table_is_a_group() -> None:
    whole = program(keys=0, counts=1, guards=(0,))
    few = withhold(table({"n": [2], "u0": [2], "a0": [2]}), whole, None)
    many = withhold(table({"n": [3], "u0": [3], "a0": [3]}), whole, None)
    assert (few.table.num_rows, few.groups_withheld) == (0, 1)
    assert (many.table.to_pydict(), many.groups_withheld) == ({"a0": [3]}, 0)


def test_no_minimum_withholds_nothing() -> None:
    core = table({"k0": [1], "a0": [1]})
    released = withhold(core, program(keys=1, counts=0, guards=(), minimum=0), None)
    assert released.table is core
