"""Reports to measure with: unique use ids, made so cheaply that making them measures nothing.

A use id has 26 characters, as a ULID has: six of the run, twelve digits of the batch, eight of
the row. All ids of a batch are one template in which the batch's number is put in: 20 microseconds
for a thousand.
"""

from __future__ import annotations

from array import array

from connector.core.interface import Columns
from connector.metering.types import Report
from connector.model.receipt import Quantity

PURPOSE = "tourism-planning"
_NUMBER = b"@" * 12


class Batches:
    """Batches of ``rows`` records. ``run``: six characters that no other run has."""

    def __init__(self, run: str, rows: int, served_ms: int) -> None:
        assert len(run) == 6
        self.rows = rows
        self.served = array("Q", [served_ms] * rows).tobytes()
        self.calls = array("Q", [1] * rows).tobytes()
        self._ids = b"\n".join(run.encode() + _NUMBER + b"%08d" % row for row in range(rows))

    def use_ids(self, number: int) -> bytes:
        return self._ids.replace(_NUMBER, b"%012d" % number)

    def columns(self, number: int) -> Columns:
        return Columns(
            purpose=PURPOSE,
            use_ids=self.use_ids(number),
            served=self.served,
            amounts=((Quantity.CALLS, self.calls),),
        )

    def report(self, number: int, scope: str) -> Report:
        """Held to an allowance that is never reached, and to every time that has come."""
        return Report(
            scope=scope,
            reporter="gateway",
            limit=1 << 52,
            first_ms=0,
            last_ms=1 << 42,
            columns=self.columns(number),
        )
