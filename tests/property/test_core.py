"""The metering cores: what the definition says, and one like the other, byte for byte."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.interface import Claim, Columns, Core, Keys, Place, RecordRun
from connector.errors import ConnectorError, InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import (
    MAX_QUANTITY,
    MAX_TIME_MS,
    NO_PREVIOUS,
    ActReceipt,
    Quantity,
    RecordReceipt,
)
from connector.tlog import merkle
from tests.cores import (
    NATIVE,
    PLACE,
    REFERENCE,
    SERVED,
    column,
    columns,
    expected,
    key,
    needs_native,
    outcome,
    packed,
    salted,
    unpacked,
)

# Where CBOR heads grow, where bounds are, and beyond.
BORDERS = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32]
AMOUNTS = st.sampled_from([*BORDERS, MAX_QUANTITY, MAX_QUANTITY + 1, 2**63, 2**64 - 1])
TIMES = st.sampled_from([*BORDERS, SERVED, MAX_TIME_MS, MAX_TIME_MS + 1, 2**63, 2**64 - 1])
USE_IDS = st.one_of(
    st.sampled_from([b"use-1", b"use-2", b"!", b"~" * 23, b"x" * 24, b"x" * 64, b"x" * 65]),
    st.sampled_from([b"", b" ", b"\x7f", b"a b", "\N{LATIN SMALL LETTER E WITH ACUTE}".encode()]),
    st.binary(max_size=70).map(lambda use_id: use_id.replace(b"\n", b"")),
    st.integers(0, 99).map(lambda number: b"record-%d" % number),
)
TEXTS = st.sampled_from(["a", "x" * 23, "x" * 24, "\N{EURO SIGN}" * 64, "\N{EURO SIGN}" * 85])
LIMITS = st.none() | st.sampled_from([0, 1, 5, 300, MAX_QUANTITY, 2**64, 2**200])
WINDOWS = st.sampled_from(
    [(0, MAX_TIME_MS), (SERVED, SERVED), (24, 65_535), (-5, -1), (-(2**80), 2**80), (7, 6)]
)


@st.composite
def reports(draw: st.DrawFn) -> tuple[Columns, Place]:
    """Columns and their place; one in a few can become no leaf at all."""
    use_ids = draw(st.lists(USE_IDS, min_size=1, max_size=12).filter(any))
    rows = len(use_ids)
    mostly = st.lists(st.just(SERVED), min_size=rows, max_size=rows)
    few = st.lists(st.integers(1, 30), min_size=rows, max_size=rows)
    wild = st.lists(AMOUNTS, min_size=rows, max_size=rows)
    more = draw(st.dictionaries(st.sampled_from(list(Quantity)[1:]), wild, max_size=6))
    number = draw(st.sampled_from([*BORDERS[:-2], 2**32 - 4, MAX_QUANTITY - 12]))
    first, last = draw(WINDOWS)
    place = replace(
        PLACE,
        scope=draw(TEXTS),
        reporter=draw(TEXTS)[:64],
        number=number,
        head=bytes([7]) * 32 if number else NO_PREVIOUS,
        left=draw(LIMITS),
        first_ms=first,
        last_ms=last,
        running=frozenset(draw(st.lists(USE_IDS, max_size=2))),
        time_ms=draw(st.sampled_from([0, 24, SERVED, MAX_TIME_MS])),
        index=draw(st.sampled_from([0, 1, 2**32, 2**48 - 13])),
    )
    made = columns(
        use_ids,
        served=draw(mostly | st.lists(TIMES, min_size=rows, max_size=rows)),
        calls=draw(few | wild),
        purpose=draw(TEXTS | st.just("")),
        more=more,
    )
    return made, salted(place, rows)


@pytest.fixture(scope="module")
def keys(core: Core, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Nothing in them is ever settled."""
    opened = core.open_keys(tmp_path_factory.mktemp("keys"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keys, Keys]]:
    """Keys of the reference and of the native core."""
    assert NATIVE is not None
    opened = tuple(
        core.open_keys(tmp_path_factory.mktemp(core.name)) for core in (REFERENCE, NATIVE)
    )
    yield opened[0], opened[1]
    for keys in opened:
        keys.close()


@given(reports(), st.lists(USE_IDS, max_size=2))
def test_records_are_as_their_definition_says(
    core: Core, keys: Keys, report: tuple[Columns, Place], known: list[bytes]
) -> None:
    given_columns, place = report
    for use_id in known:
        keys.stage(key(use_id, place.scope), 5)
    wanted = expected(given_columns, place, known)
    made = core.make_records(given_columns, place, keys)
    staged = {name: keys.find(name) for name in wanted.keys}
    read = core.read_records(made.leaves.packed, place.index, keys)
    keys.discard()
    assert made == wanted.made
    assert staged == wanted.keys
    assert all(keys.find(name) is None for name in wanted.keys)
    assert core.leaf_hashes(made.leaves.packed) == made.leaves.hashes
    if made.leaves.count:
        run = RecordRun(
            scope=place.scope,
            first=place.number + 1,
            count=made.leaves.count,
            previous=place.head,
            head=made.head,
            calls=made.calls,
            time_ms=place.time_ms,
        )
        assert read == [run]
    else:
        assert read == []


def test_a_large_report(core: Core, keys: Keys) -> None:
    """Ten thousand rows, a tenth of them wrong in one way or another."""
    dice = random.Random(3)
    use_ids = [b"record-%d" % dice.randrange(95_000) for _ in range(10_000)]
    served = [dice.choice((SERVED, SERVED + 9, 5)) for _ in use_ids]
    calls = [dice.choice((1, 1, 2, 30, 300, 70_000, 0)) for _ in use_ids]
    report = columns(use_ids, served=served, calls=calls, more={Quantity.DURATION_MS: calls})
    place = salted(
        replace(PLACE, number=65_000, head=b"h" * 32, first_ms=6, left=40_000_000), len(use_ids)
    )
    wanted = expected(report, place)
    made = core.make_records(report, place, keys)
    keys.discard()
    assert made == wanted.made
    assert {fault for _, fault in made.refused} == {1, 2, 3, 4}


RECORD = RecordReceipt(
    salt=b"s" * 16,
    scope="agreement",
    number=24,
    time_ms=SERVED,
    previous=b"p" * 32,
    use_id="use-1",
    purpose="planning",
    quantities={Quantity.CALLS: 3, Quantity.BYTES_RETURNED: 70_000},
    reporter="gateway-1",
    served_ms=SERVED - 5,
)
ACT = ActReceipt(
    salt=b"s" * 16,
    scope="agreement",
    number=1,
    time_ms=SERVED,
    previous=NO_PREVIOUS,
    actor="did:web:a",
    act="agreement.ended",
    statement=b"x",
)
NUMBERS = st.sampled_from([*BORDERS, MAX_TIME_MS, MAX_QUANTITY])
PLAIN = st.text(max_size=30)


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    """Record leaves that may be right, that almost are, and leaves of other kinds."""
    leaf = receipts.encode(draw(st.sampled_from([RECORD, RECORD, ACT])))
    if draw(st.booleans()):
        with contextlib.suppress(ConnectorError):  # then it stays as it was
            leaf = receipts.encode(
                replace(
                    RECORD,
                    scope=draw(PLAIN),
                    number=draw(NUMBERS),
                    previous=draw(st.sampled_from([NO_PREVIOUS, b"p" * 32])),
                    time_ms=draw(NUMBERS),
                    use_id=draw(st.text("!~a\N{EURO SIGN}", max_size=66)),
                    purpose=draw(PLAIN),
                    quantities=draw(st.dictionaries(st.sampled_from(list(Quantity)), NUMBERS)),
                    reporter=draw(PLAIN),
                    served_ms=draw(NUMBERS),
                )
            )
    damage = draw(st.sampled_from(["none", "byte", "bit", "cut", "add", "swap"]))
    at = draw(st.integers(0, len(leaf) - 1))
    if damage == "byte":
        return leaf[:at] + draw(st.binary(min_size=1, max_size=1)) + leaf[at + 1 :]
    if damage == "bit":
        return leaf[:at] + bytes([leaf[at] ^ 1 << draw(st.integers(0, 7))]) + leaf[at + 1 :]
    if damage == "cut":
        return leaf[:at]
    if damage == "add":
        return leaf[:at] + draw(st.binary(max_size=3)) + leaf[at:]
    if damage == "swap":
        return leaf[at:] + leaf[:at]
    return leaf


def is_record(leaf: bytes) -> bool:
    """What ``read_records`` parses: version 1 and kind 2 are where they are in a record leaf."""
    return leaf[1:5] == receipts.encode(RECORD)[1:5]


@given(leaves())
def test_a_record_is_read_if_and_only_if_it_decodes(core: Core, keys: Keys, leaf: bytes) -> None:
    read = outcome(core, keys, packed([leaf]), 7)
    keys.discard()
    if not is_record(leaf):
        assert read == [leaf]
        with contextlib.suppress(InvalidInput):
            assert not isinstance(receipts.decode(leaf), RecordReceipt)
        return
    try:
        record = receipts.decode(leaf)
    except InvalidInput:
        assert read is InvalidInput
        return
    assert isinstance(record, RecordReceipt)
    assert read == [
        RecordRun(
            scope=record.scope,
            first=record.number,
            count=1,
            previous=record.previous,
            head=merkle.leaf_hash(leaf),
            calls=record.calls,
            time_ms=record.time_ms,
        )
    ]


def test_every_changed_bit_is_seen_alike(core: Core, keys: Keys) -> None:
    leaf = receipts.encode(RECORD)
    for at in range(len(leaf)):
        for bit in range(8):
            changed = leaf[:at] + bytes([leaf[at] ^ 1 << bit]) + leaf[at + 1 :]
            if not is_record(changed):
                continue
            read = outcome(core, keys, packed([changed]), 0)
            keys.discard()
            try:
                receipts.decode(changed)
            except InvalidInput:
                assert read is InvalidInput, (at, bit)
            else:
                assert isinstance(read, list), (at, bit)


@needs_native
@given(st.lists(st.tuples(leaves(), st.booleans()), max_size=6), st.integers(0, 3), st.binary())
def test_logs_are_read_alike(
    both: tuple[Keys, Keys], several: list[tuple[bytes, bool]], index: int, tail: bytes
) -> None:
    assert NATIVE is not None
    data = packed(leaf for leaf, twice in several for _ in range(1 + twice))
    for given_bytes in (data, data + tail, data[:-1]):
        found = [
            outcome(core, keys, given_bytes, index)
            for core, keys in zip((REFERENCE, NATIVE), both, strict=True)
        ]
        assert found[0] == found[1]
        for keys in both:
            keys.discard()


def test_leaves_of_every_length_have_their_hash(core: Core) -> None:
    """Where SHA-256 pads within a block and into another; neighbours differ in blocks."""
    leaves = [b"x" * (size if size % 3 else 321 - size) for size in range(322)]
    hashes = b"".join(merkle.leaf_hash(leaf) for leaf in leaves)
    assert core.leaf_hashes(packed(leaves)) == hashes
    assert core.leaf_hashes(packed([*leaves, b"y" * 65_535])[:-1] + b"z")[-32:] == (
        merkle.leaf_hash(b"y" * 65_534 + b"z")
    )


@needs_native
@given(st.binary(max_size=80) | st.lists(st.binary(max_size=40)).map(packed))
def test_hostile_bytes_are_cut_up_alike(data: bytes) -> None:
    assert NATIVE is not None
    found = []
    for core in (REFERENCE, NATIVE):
        try:
            found.append(
                (core.leaf_hashes(data), core.offsets(data, 0, 1), core.offsets(data, 1, 3))
            )
        except InvalidInput as error:
            found.append(type(error))
    assert found[0] == found[1]


HASHES = [merkle.leaf_hash(number.to_bytes(4)) for number in range(70_000)]
NODES = [HASHES]  # by level: complete subtrees, as RFC 6962 defines them
while len(NODES[-1]) > 1:
    pairs_ = zip(NODES[-1][::2], NODES[-1][1::2], strict=False)
    NODES.append([merkle.node_hash(left, right) for left, right in pairs_])


@given(st.integers(0, 700), st.integers(0, 700))
def test_trees_grow_as_they_are_defined(core: Core, size: int, more: int) -> None:
    check_growth(core, size, more)


@pytest.mark.parametrize(("size", "more"), [(0, 66_000), (65_535, 2), (255, 65_281), (257, 0)])
def test_trees_grow_over_tiles(core: Core, size: int, more: int) -> None:
    check_growth(core, size, more)


def check_growth(core: Core, size: int, more: int) -> None:
    end = size + more
    subtrees, gained = core.extend(size, complete(size), b"".join(HASHES[size:end]))
    assert subtrees == complete(end)
    rows = {level: NODES[8 * level][size >> 8 * level : end >> 8 * level] for level in range(3)}
    assert gained == {level: b"".join(row) for level, row in rows.items() if row}


def complete(size: int) -> list[bytes]:
    """The complete subtrees of the tree of ``size`` leaves, the largest first."""
    levels = reversed(range(size.bit_length()))
    return [NODES[level][(size >> level) - 1] for level in levels if size >> level & 1]


@needs_native
@given(st.integers(1, 2**63 - 1), st.data())
def test_huge_trees_grow_alike(size: int, data: st.DataObject) -> None:
    assert NATIVE is not None
    subtrees = [bytes([number]) * 32 for number in range(size.bit_count())]
    hashes = b"".join(HASHES[: data.draw(st.integers(0, 600))])
    found = []
    for core in (REFERENCE, NATIVE):
        try:
            found.append(core.extend(size, subtrees, hashes))
        except InvalidInput as error:
            found.append(type(error))
    assert found[0] == found[1]


PROOF = st.lists(st.sampled_from(HASHES[:40]) | st.binary(max_size=40), max_size=70)
SIZES = st.integers(0, 70) | st.sampled_from([-1, 2**63 - 1, 2**63, 2**64, 2**100])


@needs_native
@given(PROOF, SIZES, SIZES, st.sampled_from([HASHES[0], b"short"]))
def test_no_proof_is_taken_by_one_alone(
    proof: list[bytes], index: int, size: int, leaf: bytes
) -> None:
    assert NATIVE is not None
    found = []
    for core in (REFERENCE, NATIVE):
        with pytest.raises(ConnectorError) as raised:
            core.verify_inclusion(leaf, index, size, proof, HASHES[1])
        found.append((type(raised.value), raised.value.message))
    assert found[0][0] is found[1][0]


@given(st.integers(1, 3000), st.data())
def test_inclusion_holds(core: Core, size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    read = merkle.reader_of(HASHES[:size])
    root = merkle.tree_root(size, read)
    proof = merkle.inclusion_proof(index, size, read)
    core.verify_inclusion(HASHES[index], index, size, proof, root)
    for wrong in (proof[:-1], [*proof, root], [*proof[:-1], bytes(32)]):
        if wrong != proof:
            with pytest.raises(ConnectorError):
                core.verify_inclusion(HASHES[index], index, size, wrong, root)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 8)), max_size=7), st.data())
def test_many_inclusions_hold_if_each_does(
    core: Core, shapes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """The first that does not hold says why, whatever follows it."""
    claims: list[Claim] = []
    for size, wrong in shapes:
        index = data.draw(st.integers(0, size - 1))
        read = merkle.reader_of(HASHES[:size])
        proof, root = merkle.inclusion_proof(index, size, read), merkle.tree_root(size, read)
        match wrong:
            case 0:
                root = HASHES[1]
            case 1:
                proof = [*proof, root]
            case 2:
                index = size
            case 3:
                proof = [*proof, b"short"]
            case 4:
                proof = proof[1:]
        claims.append((HASHES[index], index, size, proof, root))
    expected = refusal_of(lambda: [core.verify_inclusion(*claim) for claim in claims])
    assert refusal_of(lambda: core.verify_inclusions(claims)) == expected


def refusal_of(call: Callable[[], object]) -> tuple[type[ConnectorError], str] | None:
    try:
        call()
    except ConnectorError as error:
        return type(error), error.message
    return None


def test_columns_are_little_endian() -> None:
    assert column([1, 2**32]) == b"\1\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0"


def test_leaves_are_unpacked_as_they_were_packed(tmp_path: Path) -> None:
    assert unpacked(packed([b"", b"a", b"x" * 300])) == [b"", b"a", b"x" * 300]
