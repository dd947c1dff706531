"""For tests of the metering cores: which there are, and what they must make, by the definition."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pytest

from connector.core.interface import Columns, Core, Fault, Keys, Leaves, Made, Place, key_of
from connector.core.reference import Reference
from connector.errors import InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import (
    MAX_QUANTITY,
    MAX_TIME_MS,
    NO_PREVIOUS,
    Kind,
    Quantity,
    RecordReceipt,
)
from connector.tlog import merkle

NOT_BUILT = "*** the native core is not built: `make native`; what it does is NOT TESTED ***"

try:
    from connector.core.native import Native
except ImportError:
    NATIVE: Core | None = None
else:
    NATIVE = Native()

REFERENCE: Core = Reference()
needs_native = pytest.mark.skipif(NATIVE is None, reason=NOT_BUILT)
CORES = [
    pytest.param(REFERENCE, id="python"),
    pytest.param(NATIVE, id="native", marks=needs_native),
]

SCOPE = "urn:uuid:6e1f3f9e-8f0e-4a8e-9a4e-0d6f3f1f7a11"
SERVED = 1_795_435_000_000
PLACE = Place(
    scope=SCOPE,
    reporter="gateway-1",
    number=0,
    head=NO_PREVIOUS,
    left=None,
    first_ms=0,
    last_ms=MAX_TIME_MS,
    running=frozenset(),
    time_ms=SERVED + 1000,
    index=0,
    salts=b"",
)


def column(values: Iterable[int]) -> bytes:
    return b"".join(struct.pack("<Q", value) for value in values)


def columns(
    use_ids: Sequence[bytes],
    *,
    served: Sequence[int] | None = None,
    calls: Sequence[int] | None = None,
    purpose: str = "tourism-planning",
    more: dict[Quantity, Sequence[int]] | None = None,
) -> Columns:
    amounts = {Quantity.CALLS: calls or [1] * len(use_ids), **(more or {})}
    return Columns(
        purpose=purpose,
        use_ids=b"\n".join(use_ids),
        served=column(served or [SERVED] * len(use_ids)),
        amounts=tuple((name, column(amounts[name])) for name in sorted(amounts)),
    )


def salted(place: Place, rows: int) -> Place:
    """With a salt for each row: not random, and no two alike."""
    return replace(place, salts=b"".join(row.to_bytes(16) for row in range(rows)))


def key(use_id: bytes, scope: str = SCOPE) -> bytes:
    return key_of(Kind.USE, scope, use_id.decode("latin-1"))


def packed(leaves: Iterable[bytes]) -> bytes:
    return b"".join(len(leaf).to_bytes(2) + leaf for leaf in leaves)


def unpacked(data: bytes) -> list[bytes]:
    leaves = []
    while data:
        size = int.from_bytes(data[:2])
        leaves.append(data[2 : 2 + size])
        data = data[2 + size :]
    return leaves


@dataclass
class Expected:
    """What ``make_records`` makes, row by row, as its definition says."""

    made: Made
    keys: dict[bytes, int]


def expected(columns: Columns, place: Place, known: Iterable[bytes] = ()) -> Expected:
    """``known``: use ids of the scope that have their leaf."""
    seen, keys = set(known), {}
    leaves: list[bytes] = []
    refused: list[tuple[int, int]] = []
    head, left, calls = place.head, place.left, 0
    for row, use_id in enumerate(columns.use_ids.split(b"\n")):
        at = slice(8 * row, 8 * row + 8)
        amounts = {q: int.from_bytes(values[at], "little") for q, values in columns.amounts}
        fault = _fault(use_id, int.from_bytes(columns.served[at], "little"), amounts, place)
        wanted = amounts[Quantity.CALLS]
        if fault is None and use_id in seen:
            fault = Fault.DUPLICATE
        if fault is None and left is not None and wanted > left:
            fault = Fault.EXHAUSTED
        if fault is not None:
            refused.append((row, fault))
            continue
        record = RecordReceipt(
            salt=place.salts[16 * row : 16 * row + 16],
            scope=place.scope,
            number=place.number + len(leaves) + 1,
            time_ms=place.time_ms,
            previous=head,
            use_id=use_id.decode(),
            purpose=columns.purpose,
            quantities=amounts,
            reporter=place.reporter,
            served_ms=int.from_bytes(columns.served[at], "little"),
        )
        keys[key(use_id, place.scope)] = place.index + len(leaves)
        leaves.append(receipts.encode(record))
        head = merkle.leaf_hash(leaves[-1])
        seen.add(use_id)
        calls += wanted
        left = None if left is None else left - wanted
    hashes = b"".join(merkle.leaf_hash(leaf) for leaf in leaves)
    return Expected(Made(Leaves(packed(leaves), hashes), calls, head, refused), keys)


def _fault(use_id: bytes, served: int, amounts: dict[Quantity, int], place: Place) -> Fault | None:
    visible = all(0x21 <= byte <= 0x7E for byte in use_id)
    if not visible or not 1 <= len(use_id) <= 64 or served > MAX_TIME_MS:
        return Fault.MALFORMED
    if not amounts[Quantity.CALLS] or max(amounts.values()) > MAX_QUANTITY:
        return Fault.MALFORMED
    if not place.first_ms <= served <= place.last_ms:
        return Fault.OUT_OF_TIME
    return Fault.RUNNING if use_id in place.running else None


def outcome(core: Core, keys: Keys, *arguments: object) -> object:
    """What ``read_records`` finds, or the class of what it raises; then nothing stays staged."""
    try:
        return core.read_records(*arguments, keys)  # type: ignore[arg-type]
    except InvalidInput as error:
        keys.discard()
        return type(error)
