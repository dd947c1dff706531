"""Record leaves of a report: why rows are refused, and what is no report at all; in both cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connector.core.interface import MAX_RECORDS, Columns, Core, Fault, Keys, Place, key_of
from connector.core.keyfiles import MAX_INDEX
from connector.errors import InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import (
    MAX_QUANTITY,
    MAX_TIME_MS,
    Kind,
    Quantity,
    RecordReceipt,
)
from tests.cores import (
    NATIVE,
    PLACE,
    REFERENCE,
    SCOPE,
    SERVED,
    columns,
    key,
    needs_native,
    packed,
    salted,
    unpacked,
)


@pytest.fixture
def keys(core: Core, tmp_path: Path) -> Iterator[Keys]:
    opened = core.open_keys(tmp_path / "keys")
    yield opened
    opened.close()


def test_a_row_becomes_the_receipt_that_it_describes(core: Core, keys: Keys) -> None:
    report = columns([b"a", b"b"], calls=[2, 3], more={Quantity.BYTES_RETURNED: [70_000, 0]})
    place = replace(salted(PLACE, 2), number=4, head=b"h" * 32, index=10)
    made = core.make_records(report, place, keys)
    leaves = unpacked(made.leaves.packed)
    assert [receipts.decode(leaf) for leaf in leaves] == [
        RecordReceipt(
            salt=row.to_bytes(16),
            scope=SCOPE,
            number=5 + row,
            time_ms=PLACE.time_ms,
            previous=[place.head, made.leaves.hashes[:32]][row],
            use_id="ab"[row],
            purpose="tourism-planning",
            quantities={
                Quantity.CALLS: 2 + row,
                Quantity.BYTES_RETURNED: [70_000, 0][row],
            },
            reporter="gateway-1",
            served_ms=SERVED,
        )
        for row in range(2)
    ]
    assert (made.calls, made.head, made.refused) == (5, made.leaves.hashes[32:], [])
    assert [keys.find(key(use_id)) for use_id in (b"a", b"b")] == [10, 11]
    assert keys.find(key_of(Kind.USE, "another", "a")) is None


MALFORMED = Fault.MALFORMED
REFUSALS: dict[str, tuple[Columns, Place, list[tuple[int, Fault]]]] = {
    "no use id": (columns([b"a", b"", b"c"]), PLACE, [(1, MALFORMED)]),
    "no use id at the end": (columns([b"a", b""]), PLACE, [(1, MALFORMED)]),
    "a use id too long": (columns([b"x" * 65, b"y" * 64]), PLACE, [(0, MALFORMED)]),
    "a space": (columns([b"a b", b"ab"]), PLACE, [(0, MALFORMED)]),
    "a carriage return": (columns([b"a\r", b"b\r"]), PLACE, [(0, MALFORMED), (1, MALFORMED)]),
    "a letter that is not ASCII": (columns([b"\xc3\xa9"]), PLACE, [(0, MALFORMED)]),
    "no calls": (columns([b"a", b"b"], calls=[0, 1]), PLACE, [(0, MALFORMED)]),
    "more calls than can be": (
        columns([b"a", b"b"], calls=[MAX_QUANTITY, MAX_QUANTITY + 1]),
        PLACE,
        [(1, MALFORMED)],
    ),
    "more of something than can be": (
        columns([b"a"], more={Quantity.CELLS_WITHHELD: [2**64 - 1]}),
        PLACE,
        [(0, MALFORMED)],
    ),
    "a time that cannot be": (
        columns([b"a", b"b"], served=[MAX_TIME_MS + 1, MAX_TIME_MS]),
        PLACE,
        [(0, MALFORMED)],
    ),
    "too early and too late": (
        columns([b"a", b"b", b"c", b"d"], served=[9, 10, 20, 21]),
        replace(PLACE, first_ms=10, last_ms=20),
        [(0, Fault.OUT_OF_TIME), (3, Fault.OUT_OF_TIME)],
    ),
    "twice in one report": (columns([b"a", b"b", b"a"]), PLACE, [(2, Fault.DUPLICATE)]),
    "running": (
        columns([b"a", b"b"]),
        replace(PLACE, running=frozenset({b"b"})),
        [(1, Fault.RUNNING)],
    ),
    "running, and other faults": (
        columns([b"a", b"a", b"b", b"a"], served=[SERVED, SERVED, SERVED, 5], calls=[0, 1, 1, 1]),
        replace(PLACE, running=frozenset({b"a"}), first_ms=6, left=0),
        [
            (0, MALFORMED),
            (1, Fault.RUNNING),
            (2, Fault.EXHAUSTED),
            (3, Fault.OUT_OF_TIME),
        ],
    ),
    "more than is left, and less again": (
        columns([b"a", b"b", b"c", b"d"], calls=[2, 4, 3, 1]),
        replace(PLACE, left=5),
        [(1, Fault.EXHAUSTED), (3, Fault.EXHAUSTED)],
    ),
    "nothing is left": (columns([b"a"]), replace(PLACE, left=0), [(0, Fault.EXHAUSTED)]),
    "twice, and more than is left": (
        columns([b"a", b"a", b"b"]),
        replace(PLACE, left=1),
        [(1, Fault.DUPLICATE), (2, Fault.EXHAUSTED)],
    ),
    "what was refused is not there twice": (
        columns([b"a", b"a", b"a"], calls=[9, 0, 1]),
        replace(PLACE, left=5),
        [(0, Fault.EXHAUSTED), (1, MALFORMED)],
    ),
    "several faults: the first one counts": (
        columns([b"a", b"a", b"a"], served=[SERVED, 5, 5], calls=[1, 0, 9]),
        replace(PLACE, first_ms=6, left=1),
        [(1, MALFORMED), (2, Fault.OUT_OF_TIME)],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_row_is_refused_and_the_others_are_not(core: Core, keys: Keys, name: str) -> None:
    report, place, refused = REFUSALS[name]
    made = core.make_records(report, salted(place, len(report)), keys)
    assert made.refused == refused
    assert made.leaves.count == len(report) - len(refused)
    numbers = [receipts.decode(leaf).number for leaf in unpacked(made.leaves.packed)]
    assert numbers == [*range(1, 1 + made.leaves.count)]


def test_a_use_has_one_leaf_whatever_happened_since(core: Core, keys: Keys) -> None:
    report, place = columns([b"a", b"b"]), salted(PLACE, 2)
    made = core.make_records(report, place, keys)
    keys.discard()
    assert core.make_records(report, place, keys) == made
    keys.settle()
    again = core.make_records(report, place, keys)
    assert again.refused == [(0, Fault.DUPLICATE), (1, Fault.DUPLICATE)]
    assert (again.leaves.packed, again.calls, again.head) == (b"", 0, place.head)
    keys.freeze(2)
    keys.wait()
    assert core.make_records(report, place, keys) == again


def test_a_use_has_one_leaf_while_keys_move_to_files(core: Core, keys: Keys) -> None:
    """Files are written, merged and removed beside it."""
    rows = 200
    everything: list[bytes] = []
    for end in range(rows, 20 * rows + 1, rows):
        fresh = [b"%d" % number for number in range(end - rows, end)]
        place = replace(salted(PLACE, rows), index=end - rows)
        made = core.make_records(columns(fresh), place, keys)
        assert made.refused == []
        keys.settle()
        everything += fresh
        keys.freeze(end)
        for _ in range(5):
            known = everything[:: end // rows]
            made = core.make_records(columns(known), salted(PLACE, len(known)), keys)
            assert made.refused == [(row, Fault.DUPLICATE) for row in range(len(known))]


IMPOSSIBLE = {
    "no scope": replace(PLACE, scope=""),
    "a scope too long": replace(PLACE, scope="x" * 513),
    "half a surrogate pair": replace(PLACE, scope="\ud800"),
    "no reporter": replace(PLACE, reporter=""),
    "a reporter too long": replace(PLACE, reporter="x" * 65),
    "a number without a head": replace(PLACE, number=1),
    "a head without a number": replace(PLACE, head=b"h" * 32),
    "a short head": replace(PLACE, number=1, head=b"h" * 31),
    "a negative number": replace(PLACE, number=-1, head=b"h" * 32),
    "too many receipts": replace(PLACE, number=MAX_QUANTITY, head=b"h" * 32),
    "too many leaves": replace(PLACE, index=MAX_INDEX + 1),
    "a negative index": replace(PLACE, index=-1),
    "a time that cannot be": replace(PLACE, time_ms=MAX_TIME_MS + 1),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_can_become_no_receipt_raises(core: Core, keys: Keys, name: str) -> None:
    with pytest.raises(InvalidInput):
        core.make_records(columns([b"a"]), salted(IMPOSSIBLE[name], 1), keys)
    assert keys.find(key(b"a")) is None


def test_there_is_a_salt_for_each_row(core: Core, keys: Keys) -> None:
    for salts in (0, 1, 3):
        with pytest.raises(InvalidInput):
            core.make_records(columns([b"a", b"b"]), salted(PLACE, salts), keys)


def test_as_many_rows_as_can_be(core: Core, keys: Keys) -> None:
    use_ids = [b"%d" % row for row in range(MAX_RECORDS)]
    report = columns(use_ids, calls=[MAX_QUANTITY] * MAX_RECORDS)
    made = core.make_records(report, salted(PLACE, MAX_RECORDS), keys)
    assert (made.leaves.count, made.calls) == (MAX_RECORDS, MAX_QUANTITY * MAX_RECORDS)
    [run] = core.read_records(made.leaves.packed, 0, keys)
    assert not isinstance(run, bytes)
    assert (run.first, run.count, run.calls, run.head) == (1, MAX_RECORDS, made.calls, made.head)


def test_what_does_not_follow_begins_a_run(core: Core, keys: Keys, tmp_path: Path) -> None:
    one = core.make_records(columns([b"a", b"b"]), salted(PLACE, 2), keys)
    other = core.make_records(
        columns([b"c"]), salted(replace(PLACE, scope="another", index=2), 1), keys
    )
    on = core.make_records(
        columns([b"d"]), salted(replace(PLACE, number=2, head=one.head, index=3), 1), keys
    )
    keys.discard()
    leaves = [unpacked(made.leaves.packed) for made in (one, other, on)]
    runs = core.read_records(packed([*leaves[0], *leaves[2], b"else", *leaves[1]]), 0, keys)
    assert [item if isinstance(item, bytes) else item.count for item in runs] == [3, b"else", 1]
    assert [keys.find(key(use_id)) for use_id in (b"a", b"b", b"d")] == [0, 1, 2]
    assert keys.find(key(b"c", "another")) == 4
    keys.discard()
    for order, counts in (([0, 1, 2], [2, 1, 1]), ([2, 0], [1, 2])):
        mixed = packed(leaf for at in order for leaf in leaves[at])
        runs = core.read_records(mixed, 0, keys)
        assert [item if isinstance(item, bytes) else item.count for item in runs] == counts
        keys.discard()


def test_a_use_with_two_leaves_is_not_read(core: Core, keys: Keys) -> None:
    made = core.make_records(columns([b"a"]), salted(PLACE, 1), keys)
    keys.settle()
    [run] = core.read_records(made.leaves.packed, 0, keys)
    assert not isinstance(run, bytes)
    for data, index in ((made.leaves.packed, 1), (2 * made.leaves.packed, 0)):
        with pytest.raises(InvalidInput):
            core.read_records(data, index, keys)
        keys.discard()


def test_cut_leaves_raise(core: Core, keys: Keys) -> None:
    for data in (b"\0", b"\0\2a", b"\0\1a\xff\xff"):
        for read in (
            lambda data=data: core.leaf_hashes(data),
            lambda data=data: core.offsets(data, 0, 1),
            lambda data=data: core.read_records(data, 0, keys),
        ):
            with pytest.raises(InvalidInput):
                read()


def test_offsets_are_of_the_leaves_asked_for(core: Core) -> None:
    data = packed([b"", b"ab", b"c", b"defg"])
    assert core.offsets(data, 0, 1) == [0, 2, 6, 9]
    assert core.offsets(data, 1, 2) == [2, 9]
    assert core.offsets(data, 4, 1) == core.offsets(b"", 0, 1) == []
    for skip, step in ((-1, 1), (0, 0), (0, -1)):
        with pytest.raises(InvalidInput):
            core.offsets(data, skip, step)


@needs_native
def test_the_native_core_takes_its_own_keys_alone(tmp_path: Path) -> None:
    assert NATIVE is not None
    keys = REFERENCE.open_keys(tmp_path)
    with pytest.raises(TypeError):
        NATIVE.make_records(columns([b"a"]), salted(PLACE, 1), keys)
    with pytest.raises(TypeError):
        NATIVE.read_records(b"", 0, keys)
    keys.close()


def test_quantities_are_those_that_the_native_core_knows() -> None:
    """A new one needs ``LAST_QUANTITY`` in ``rust/src/records.rs``."""
    assert [quantity.value for quantity in Quantity] == [1, 2, 3, 4, 5, 6, 7]
