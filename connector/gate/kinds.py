"""Which values may meet: the checks of the gate's small typed language."""

from __future__ import annotations

from collections.abc import Sequence

from connector.gate.expressions import Kind, Node, Value
from connector.gate.literals import moment
from connector.gate.sql import refuse

MOMENTS = frozenset({Kind.DATE, Kind.TIMESTAMP})


def take(nodes: Sequence[Node], kinds: Sequence[Kind], name: str) -> tuple[Node, ...]:
    """The arguments of ``name``, of the kinds that it takes. Raises ``Refused``.

    A date is taken for a timestamp, NULL for anything.
    """
    found: list[Node] = []
    for node, kind in zip(nodes, kinds, strict=True):
        if kind is Kind.TIMESTAMP and isinstance(node, Value) and node.kind is Kind.TEXT:
            node = moment(node, kind)
        fits = node.kind in (kind, Kind.NULL)
        if not fits and not (kind is Kind.TIMESTAMP and node.kind is Kind.DATE):
            refuse("type", f"{name} of {node.kind}", f"{name} of {kind}")
        found.append(node)
    return tuple(found)


def agree(nodes: Sequence[Node], name: str) -> tuple[tuple[Node, ...], Kind]:
    """The operands of ``name``, which must be of one kind, and that kind. Raises ``Refused``.

    Written texts beside dates are read as dates.
    """
    kinds = {node.kind for node in nodes} - {Kind.NULL}
    if Kind.OTHER in kinds:
        refuse("type", f"{name} of a column {Kind.OTHER}", "count(column), IS NULL")
    if kinds & MOMENTS:
        nodes = [_as_moment(node, kinds) for node in nodes]
        kinds = {node.kind for node in nodes} - {Kind.NULL}
        if kinds == MOMENTS:
            return tuple(nodes), Kind.TIMESTAMP
    if len(kinds) > 1:
        seen = " and ".join(sorted(kind.value for kind in kinds))
        refuse("type", f"{name} of {seen}", "values of one kind; CAST")
    return tuple(nodes), kinds.pop() if kinds else Kind.NULL


def _as_moment(node: Node, kinds: set[Kind]) -> Node:
    """A written text as a date beside dates, unless it says a time of day."""
    if not isinstance(node, Value) or node.kind is not Kind.TEXT:
        return node
    dates_only = Kind.TIMESTAMP not in kinds and len(node.text.strip()) <= len("2013-06-01")
    return moment(node, Kind.DATE if dates_only else Kind.TIMESTAMP)
