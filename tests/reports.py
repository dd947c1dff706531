"""Reports for tests: columns from rows, and what a reader makes of the leaves."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from connector.core.interface import Columns
from connector.metering.types import Report
from connector.model.receipt import Quantity
from tests.logs import SCOPE

SERVED = 1_795_435_000_000  # ms: a little before the tests' clock
FOREVER = 253_402_300_799_999


def column(values: Iterable[int]) -> bytes:
    """Unsigned, 64 bits, little-endian."""
    found = array("Q", values)
    return found.tobytes()


def columns(
    use_ids: Sequence[str],
    *,
    calls: Sequence[int] | None = None,
    served: Sequence[int] | None = None,
    purpose: str = "tourism-planning",
    **amounts: Sequence[int],
) -> Columns:
    """``amounts`` by the quantity's name in lower case."""
    more = {Quantity[name.upper()]: column(values) for name, values in amounts.items()}
    more[Quantity.CALLS] = column(calls or [1] * len(use_ids))
    return Columns(
        purpose=purpose,
        use_ids="\n".join(use_ids).encode(),
        served=column(served or [SERVED] * len(use_ids)),
        amounts=tuple(sorted(more.items())),
    )


def report(use_ids: Sequence[str], **more: Any) -> Report:
    return Report(
        scope=more.pop("scope", SCOPE),
        reporter=more.pop("reporter", "gateway-1"),
        limit=more.pop("limit", None),
        first_ms=more.pop("first_ms", 0),
        last_ms=more.pop("last_ms", FOREVER),
        columns=columns(use_ids, **more),
    )
