"""``receipt.encode`` writes exactly what ``receipt.decode`` reads back as the same receipt.

The oracle takes the long way: write the map whatever it holds, parse the bytes, compare.
"""

import dataclasses
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from connector.errors import InvalidInput, Reason
from connector.model import cbor
from connector.model import receipt as receipts
from connector.model.receipt import (
    NO_PREVIOUS,
    ActReceipt,
    DeliveryReceipt,
    Outcome,
    Quantity,
    RecordReceipt,
    UseReceipt,
)

COMMON: dict[str, Any] = {
    "salt": bytes(16),
    "scope": "urn:uuid:1",
    "number": 2,
    "time_ms": 1_795_420_800_000,
    "previous": b"\x01" * 32,
}
USED: dict[str, Any] = {
    "use_id": "use-1",
    "provider": "did:web:airport.example",
    "consumer": "did:web:tourism.example",
    "outcome": Outcome.ALLOWED,
    "result_digest": bytes(32),
    "quantities": {Quantity.CALLS: 1, Quantity.ROWS_RETURNED: 7},
}
GOOD: list[receipts.Receipt] = [
    UseReceipt(
        **COMMON,
        **USED,
        purpose="tourism-planning",
        agreement_digest=bytes(32),
        policy_digest=bytes(32),
        request_digest=bytes(32),
        reasons=(Reason("purpose", "", ""),),
    ),
    RecordReceipt(
        **COMMON,
        use_id="use-1",
        purpose="",
        quantities={Quantity.CALLS: 1, Quantity.BYTES_RETURNED: 7},
        reporter="gateway",
        served_ms=1_795_420_799_000,
    ),
    ActReceipt(**COMMON, actor="did:web:a.example", act="agreement.ended", statement=b"x"),
    DeliveryReceipt(
        **COMMON, **USED, origin="a.example/log", leaf_hash=bytes(32), leaf_index=0, tree_size=9
    ),
]
BOUNDS = [0, 1, 2, 9, 2**53, 2**64, receipts.MAX_TIME_MS]
INTEGERS = st.sampled_from([bound + step for bound in BOUNDS for step in (-1, 0, 1)])
TEXTS = st.one_of(
    st.text(max_size=3),
    st.integers(63, 66).flatmap(lambda length: st.sampled_from("x~ ").map(lambda c: c * length)),
    st.integers(510, 514).map(lambda length: "文" * length),
    st.sampled_from(["\ud800", "x\udfff"]),
)
OCTETS = st.one_of(
    st.sampled_from([0, 1, 15, 16, 17, 31, 32, 33, 32_768, 32_769]).map(bytes),
    st.just(NO_PREVIOUS),
    st.just(b"\x01" * 32),
)
ODD = st.sampled_from([None, True, False, 1.0, -0.0, bytearray(32), [], (), ["x"], {}, {1: 1}])
REASONS = st.lists(st.builds(Reason, TEXTS | ODD, TEXTS, TEXTS), max_size=17)
VALUES = st.one_of(
    INTEGERS,
    TEXTS,
    OCTETS,
    ODD,
    REASONS,
    REASONS.map(tuple),
    st.dictionaries(st.sampled_from(list(Quantity)), INTEGERS | ODD, max_size=7),
)


@st.composite
def changed(draw: st.DrawFn) -> receipts.Receipt:
    """A good receipt of any kind with one or two fields exchanged for anything at all."""
    receipt = draw(st.sampled_from(GOOD))
    names = sorted({field.name for field in dataclasses.fields(receipt)} - {"outcome"})
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        value = draw(VALUES)
        if name == "quantities" and not isinstance(value, dict):
            continue
        if name == "quantities" and not all(isinstance(key, Quantity) for key in value):
            continue
        if name == "reasons" and not all(isinstance(item, Reason) for item in _items(value)):
            continue
        receipt = dataclasses.replace(receipt, **{name: value})
    return receipt


def _items(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [None]


def _the_long_way(receipt: receipts.Receipt) -> bytes | None:
    """The bytes, or nothing if they do not say what the receipt says."""
    try:
        data = cbor.encode(receipts._map(receipt))
        return data if receipts.decode(data) == receipt else None
    except (ValueError, InvalidInput):
        return None


@given(changed())
def test_encode_refuses_exactly_what_decode_would(receipt: receipts.Receipt) -> None:
    expected = _the_long_way(receipt)
    event("written" if expected else "refused")
    try:
        data = receipts.encode(receipt)
    except InvalidInput:
        data = None
    assert data == expected
