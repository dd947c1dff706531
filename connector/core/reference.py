"""The metering core in Python: what a leaf is made of, what is hashed, what is refused and why.

Leaves are as ``model.receipt`` encodes them (docs/evidence.md, section 2), hashes and trees as in
RFC 6962 section 2.1. It is plain first and fast second, and fast where plainness allows: what is
the same in all rows of a report is written once, columns are checked as a whole, and rows are
looked at one by one only in a column that fails.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Final

from connector.core.checks import check_report, check_steps, check_tree
from connector.core.interface import (
    KEY_BYTES,
    Claim,
    Columns,
    Fault,
    Keys,
    Leaves,
    Made,
    Place,
    RecordRun,
    key_of,
    key_prefix,
)
from connector.core.keys import FileKeys
from connector.errors import InvalidInput
from connector.model import cbor, receipt
from connector.model.receipt import (
    HASH_BYTES,
    MAX_QUANTITY,
    MAX_TIME_MS,
    MAX_USE_ID,
    SALT_BYTES,
    Kind,
    Quantity,
    RecordReceipt,
)
from connector.tlog import merkle
from connector.tlog.tiles import TILE_HEIGHT

_VISIBLE = bytes(range(0x21, 0x7F))
# How a record leaf begins: a map of 12, version 1, kind 2, the head of the salt.
_BEGIN = bytes((0xAC, 0, 1, 1, Kind.RECORD.value, 2, 0x40 | SALT_BYTES))
_VERSION_AND_KIND = _BEGIN[1:5]
_TEXT_HEADS = tuple(
    cbor.encode("x" * length).removesuffix(b"x" * length) for length in range(MAX_USE_ID + 1)
)
_SMALL = tuple(cbor.encode(number) for number in range(256))
# For numbers from the first on: the head, and how head and number are packed.
_WIDER = (
    (1 << 32, 0x1B, Struct(">BQ").pack),
    (1 << 16, 0x1A, Struct(">BI").pack),
    (1 << 8, 0x19, Struct(">BH").pack),
)


class Reference:
    """``interface.Core``. ``detail``: why it is this one, for people."""

    name: Final = "python"

    def __init__(self, detail: str = "hashlib") -> None:
        self.detail: Final = detail

    def make_records(self, columns: Columns, place: Place, keys: Keys) -> Made:
        check_report(columns, place)
        use_ids = columns.use_ids.split(b"\n")
        served = _numbers(columns.served)
        amounts = {quantity: _numbers(column) for quantity, column in columns.amounts}
        calls = amounts[Quantity.CALLS]
        faults = _faults(use_ids, served, amounts, place)
        if faults:  # what is refused needs no leaf
            use_ids = [b"" if row in faults else use_id for row, use_id in enumerate(use_ids)]
        names = [_TEXT_HEADS[len(use_id)] + use_id for use_id in use_ids]
        prefix = key_prefix(Kind.USE, place.scope)
        found_by = [sha256(prefix + use_id).digest()[:KEY_BYTES] for use_id in use_ids]
        quantities = _quantities(amounts)
        ends = _uints(served)
        numbers = _uints(range(place.number + 1, place.number + 1 + len(use_ids)))
        salts = place.salts
        # What stands between the parts that differ, with the keys of the fields (section 2).
        before_number = b"\x03" + cbor.encode(place.scope) + b"\x04"
        before_head = b"\x05" + cbor.encode(place.time_ms) + b"\x06\x58\x20"
        before_quantities = b"\x0e" + cbor.encode(columns.purpose) + b"\x13"
        before_served = b"\x15" + cbor.encode(place.reporter) + b"\x16"

        packed: list[bytes] = []
        hashes: list[bytes] = []
        refused: list[tuple[int, int]] = []
        head, left, made, taken = place.head, place.left, 0, 0
        find, stage, index = keys.find, keys.stage, place.index
        for row, key in enumerate(found_by):
            if faults and row in faults:
                refused.append((row, faults[row]))
                continue
            if find(key) is not None:
                refused.append((row, Fault.DUPLICATE.value))
                continue
            if left is not None:
                if calls[row] > left:
                    refused.append((row, Fault.EXHAUSTED.value))
                    continue
                left -= calls[row]
            leaf = b"".join(
                (
                    _BEGIN,
                    salts[row * SALT_BYTES : row * SALT_BYTES + SALT_BYTES],
                    before_number,
                    numbers[made],
                    before_head,
                    head,
                    b"\x0a",
                    names[row],
                    before_quantities,
                    quantities[row],
                    before_served,
                    ends[row],
                )
            )
            head = sha256(b"\x00" + leaf).digest()
            stage(key, index + made)
            packed.append(len(leaf).to_bytes(2, "big") + leaf)
            hashes.append(head)
            made += 1
            taken += calls[row]
        return Made(Leaves(b"".join(packed), b"".join(hashes)), taken, head, refused)

    def leaf_hashes(self, packed: bytes) -> bytes:
        return b"".join([merkle.leaf_hash(leaf) for leaf in _unpack(packed)])

    def offsets(self, packed: bytes, skip: int, step: int) -> list[int]:
        check_steps(skip, step)
        offsets, at = [], 0
        for leaf in _unpack(packed):
            offsets.append(at)
            at += 2 + len(leaf)
        return offsets[skip::step]

    def extend(
        self, size: int, subtrees: Sequence[bytes], hashes: bytes
    ) -> tuple[list[bytes], Mapping[int, bytes]]:
        check_tree(size, subtrees, hashes)
        smallest_first = list(reversed(subtrees))
        taken = 0  # subtrees that were looked at
        grown: list[bytes] = []  # smallest first
        completed: dict[int, bytes] = {}
        level, row = 0, hashes
        while row or taken < len(smallest_first):
            if row and level % TILE_HEIGHT == 0:
                completed[level // TILE_HEIGHT] = row
            if size >> level & 1:
                row = smallest_first[taken] + row
                taken += 1
            pairs = len(row) // (2 * HASH_BYTES) * 2 * HASH_BYTES
            if pairs < len(row):
                grown.append(row[pairs:])
            row = b"".join(
                [
                    sha256(b"\x01" + row[at : at + 2 * HASH_BYTES]).digest()
                    for at in range(0, pairs, 2 * HASH_BYTES)
                ]
            )
            level += 1
        return grown[::-1], completed

    def read_records(self, packed: bytes, index: int, keys: Keys) -> list[RecordRun | bytes]:
        found: list[RecordRun | bytes] = []
        for leaf in _unpack(packed):
            if leaf[1:5] != _VERSION_AND_KIND:
                found.append(leaf)
                index += 1
                continue
            record = receipt.decode(leaf)
            if not isinstance(record, RecordReceipt):
                raise InvalidInput("receipt: a field too many or too few for its kind")
            key = key_of(Kind.USE, record.scope, record.use_id)
            known = keys.find(key)
            if known is None:
                keys.stage(key, index)
            elif known != index:
                raise InvalidInput("receipt: its use has another one")
            last = found[-1] if found else None
            run = _run_of(record, merkle.leaf_hash(leaf))
            if isinstance(last, RecordRun) and _follows(last, run):
                found[-1] = _joined(last, run)
            else:
                found.append(run)
            index += 1
        return found

    def verify_inclusion(
        self, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
    ) -> None:
        merkle.verify_inclusion(leaf, index, size, proof, root)

    def verify_inclusions(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            merkle.verify_inclusion(*claim)

    def open_keys(self, folder: Path) -> Keys:
        return FileKeys(folder)


def _numbers(column: bytes) -> array[int]:
    numbers = array("Q", column)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _faults(
    use_ids: Sequence[bytes],
    served: array[int],
    amounts: Mapping[Quantity, array[int]],
    place: Place,
) -> dict[int, int]:
    """What speaks against rows without regard to the others: row to fault.

    Later faults are entered first, so that an earlier one takes their place.
    """
    faults: dict[int, int] = {}
    if place.running and not place.running.isdisjoint(use_ids):
        for row, use_id in enumerate(use_ids):
            if use_id in place.running:
                faults[row] = Fault.RUNNING.value
    _outside(served, place.first_ms, place.last_ms, Fault.OUT_OF_TIME, faults)
    _outside(served, 0, MAX_TIME_MS, Fault.MALFORMED, faults)
    for quantity, column in amounts.items():
        low = 1 if quantity is Quantity.CALLS else 0
        _outside(column, low, MAX_QUANTITY, Fault.MALFORMED, faults)
    lengths = [len(use_id) for use_id in use_ids]
    _outside(lengths, 1, MAX_USE_ID, Fault.MALFORMED, faults)
    if b"".join(use_ids).translate(None, _VISIBLE):
        for row, use_id in enumerate(use_ids):
            if use_id.translate(None, _VISIBLE):
                faults[row] = Fault.MALFORMED.value
    return faults


def _outside(
    column: Sequence[int], low: int, high: int, fault: Fault, faults: dict[int, int]
) -> None:
    if min(column) < low or max(column) > high:
        for row, number in enumerate(column):
            if not low <= number <= high:
                faults[row] = fault.value


def _quantities(amounts: Mapping[Quantity, array[int]]) -> list[bytes]:
    """The map of amounts for each row."""
    parts = [
        [_SMALL[quantity.value] + amount for amount in _uints(column)]
        for quantity, column in amounts.items()
    ]
    begin = bytes((0xA0 | len(parts),))
    if len(parts) == 1:
        return [begin + part for part in parts[0]]
    return [begin + b"".join(row) for row in zip(*parts, strict=True)]


def _uints(numbers: Sequence[int]) -> list[bytes]:
    """Each as deterministic CBOR."""
    low, high = min(numbers), max(numbers)
    if high < 256:
        return [_SMALL[number] for number in numbers]
    for first, head, pack in _WIDER:
        if low >= first and (high < first * first or head == 0x1B):
            return [pack(head, number) for number in numbers]
    return [cbor.encode(number) for number in numbers]


def _unpack(packed: bytes) -> Iterator[bytes]:
    at, size = 0, len(packed)
    while at < size:
        begin = at + 2
        at = begin + int.from_bytes(packed[at:begin], "big")
        if begin > size or at > size:
            raise InvalidInput("log: leaves are cut short")
        yield packed[begin:at]


def _run_of(record: RecordReceipt, head: bytes) -> RecordRun:
    return RecordRun(
        scope=record.scope,
        first=record.number,
        count=1,
        previous=record.previous,
        head=head,
        calls=record.calls,
        time_ms=record.time_ms,
    )


def _follows(run: RecordRun, after: RecordRun) -> bool:
    return (run.scope, run.first + run.count, run.head) == (
        after.scope,
        after.first,
        after.previous,
    )


def _joined(run: RecordRun, after: RecordRun) -> RecordRun:
    return RecordRun(
        scope=run.scope,
        first=run.first,
        count=run.count + after.count,
        previous=run.previous,
        head=after.head,
        calls=run.calls + after.calls,
        time_ms=max(run.time_ms, after.time_ms),
    )
