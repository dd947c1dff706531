"""Our CBOR subset against cbor2: what we write it reads, what we read it writes the same."""

import contextlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import InvalidInput
from connector.model import cbor

NUMBERS = st.integers(0, 2**64 - 1) | st.sampled_from(
    [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]
)
SCALARS = NUMBERS | st.binary(max_size=300) | st.text(max_size=100)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NUMBERS, inner, max_size=6),
    max_leaves=20,
)


def depth(value: cbor.Value) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES)
def test_we_write_what_cbor2_writes(value: cbor.Value) -> None:
    data = cbor.encode(value)
    assert data == cbor2.dumps(value, canonical=True)
    assert cbor2.loads(data) == value
    if depth(value) <= cbor.MAX_DEPTH and len(data) <= cbor.MAX_BYTES:
        assert cbor.decode(data) == value
    else:
        with pytest.raises(InvalidInput):
            cbor.decode(data)


@given(st.binary(max_size=60))
def test_what_we_read_cbor2_reads_and_has_one_encoding(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except InvalidInput:
        return
    assert cbor2.loads(data) == value
    assert cbor.encode(value) == data


@given(VALUES, st.data())
def test_one_changed_byte_is_another_value_or_none(value: cbor.Value, data: st.DataObject) -> None:
    encoded = cbor.encode(value)
    at = data.draw(st.integers(0, len(encoded) - 1))
    broken = bytearray(encoded)
    broken[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidInput):
        assert cbor.decode(bytes(broken)) != value
