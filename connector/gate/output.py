"""What may leave the first stage: groups and cells that rest on enough privacy units.

Pure functions on Arrow tables as ``connector.ports.query.Program`` describes them. A group with
fewer than the minimum of distinct units is left out and counted. In a group that stays, an
aggregate whose own rows have fewer units is NULL, as if there were nothing in it, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from connector.ports.query import Program


@dataclass(frozen=True, slots=True)
class Released:
    """Columns ``k0 ... a0 ...`` of the groups that stay, and how much did not."""

    table: pa.Table
    groups_withheld: int
    cells_withheld: int


def undecided(core: pa.Table, program: Program) -> pa.Table:
    """The groups that could have enough units, though the lower bounds do not prove it.

    Columns ``g`` (the group's row in ``core``) and ``k0, k1 ...``.
    """
    minimum = program.minimum_group
    open_questions = [
        pc.and_(pc.greater(count, 0), pc.less(count, minimum)) for count in _counts(core, program)
    ]
    mask = open_questions[0]
    for question in open_questions[1:]:
        mask = pc.or_(mask, question)
    mask = pc.and_(mask, pc.greater_equal(core.column("n"), minimum))
    keys = core.select(range(program.keys))
    return keys.add_column(0, "g", [pa.array(range(core.num_rows), pa.int64())]).filter(mask)


def withhold(core: pa.Table, program: Program, exact: pa.Table | None) -> Released:
    """Apply the minimum group. ``exact`` holds ``g, u0, u1 ...`` of what was undecided."""
    aggregates = range(program.keys + _hidden(program), core.num_columns)
    if not program.minimum_group:
        return Released(core, 0, 0)
    counts = _counts(core, program)
    if exact is not None and exact.num_rows:
        exact = exact.sort_by("g")
        groups = pa.array(range(core.num_rows), pa.int64())
        mask = pc.is_in(groups, value_set=exact.column("g").combine_chunks())
        counts = [
            pc.replace_with_mask(count, mask, _whole(exact.column(f"u{number}")))
            for number, count in enumerate(counts)
        ]
    enough = [pc.greater_equal(count, program.minimum_group) for count in counts]
    table = core.select(range(program.keys))
    cells = 0
    for number, column in enumerate(aggregates):
        guard = enough[program.guards[number]]
        cells += pc.sum(pc.and_(enough[0], pc.invert(guard))).as_py() or 0
        values = _combined(core.column(column))
        guarded = pc.if_else(guard, values, pa.scalar(None, values.type))
        table = table.append_column(f"a{number}", guarded)
    if not table.num_columns:  # neither keys nor aggregates: a constant of one group
        table = core.select(["n"])
    table = table.filter(enough[0])
    return Released(table, core.num_rows - table.num_rows, cells)


def _hidden(program: Program) -> int:
    return 1 + program.counts if program.minimum_group else 0


def _counts(core: pa.Table, program: Program) -> list[pa.Array]:
    return [_whole(core.column(f"u{number}")) for number in range(program.counts)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pc.fill_null(_combined(column).cast(pa.int64()), 0)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
