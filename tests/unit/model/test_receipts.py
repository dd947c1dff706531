"""Receipts: the vectors of tests/vectors/receipts.json, every limit, and what cannot be written."""

import dataclasses
import json
from typing import Any

import pytest

from connector.errors import InvalidInput, Reason
from connector.model import cbor
from connector.model import receipt as receipts
from connector.model.receipt import (
    NO_PREVIOUS,
    ActReceipt,
    DeliveryReceipt,
    Outcome,
    Quantity,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from tests.vectors import generate

VECTORS = json.loads((generate.FOLDER / "receipts.json").read_text())
COMMON: dict[str, Any] = {
    "salt": bytes(16),
    "scope": "urn:uuid:1",
    "number": 1,
    "time_ms": 1_795_420_800_000,
    "previous": NO_PREVIOUS,
}
USE = UseReceipt(
    **COMMON,
    use_id="use-1",
    provider="did:web:airport.example",
    consumer="did:web:tourism.example",
    outcome=Outcome.REFUSED,
    purpose="",
    agreement_digest=b"",
    policy_digest=bytes(32),
    request_digest=bytes(32),
    quantities={Quantity.CALLS: 1},
    reasons=(Reason("purpose", "", ""),),
)
RECORD = RecordReceipt(
    **COMMON,
    use_id="gateway-7:0001",
    purpose="",
    quantities={Quantity.CALLS: 1},
    reporter="api-gateway",
    served_ms=1_795_420_799_999,
)
ACT = ActReceipt(**COMMON, actor="did:web:airport.example", act="agreement.ended", statement=b"x")
DELIVERY = DeliveryReceipt(
    **COMMON,
    use_id="use-1",
    provider="did:web:airport.example",
    consumer="did:web:tourism.example",
    outcome=Outcome.ALLOWED,
    origin="airport.example/log",
    leaf_hash=bytes(32),
    leaf_index=0,
    tree_size=1,
)


@pytest.mark.parametrize("case", VECTORS["receipts"], ids=lambda case: case["name"])
def test_vectors_decode_field_by_field_and_encode_to_the_same_bytes(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    assert generate.shown(cbor.decode(data)) == case["fields"]
    assert receipts.encode(receipts.decode(data)) == data


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_bad_encodings_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        receipts.decode(bytes.fromhex(case["hex"]))


def test_no_bad_encoding_is_a_good_one_in_disguise() -> None:
    good = {case["hex"] for case in VECTORS["receipts"]}
    assert not good & {case["hex"] for case in VECTORS["refused"]}


LARGEST = {
    "texts": dataclasses.replace(USE, scope="文" * 512, use_id="u" * 512, purpose="p" * 512),
    "reasons": dataclasses.replace(USE, reasons=(Reason("t" * 512, "o" * 512, "a" * 512),) * 16),
    "numbers": dataclasses.replace(
        USE, number=2**53, previous=bytes(31) + b"\x01", quantities=dict.fromkeys(Quantity, 2**53)
    ),
    "time": dataclasses.replace(USE, time_ms=253_402_300_799_999),
    "record": dataclasses.replace(
        RECORD,
        use_id="!" + "~" * 63,
        purpose="p" * 512,
        reporter="文" * 64,
        served_ms=253_402_300_799_999,
        quantities=dict.fromkeys(Quantity, 2**53),
    ),
    "a record that counts nothing else": dataclasses.replace(
        RECORD, served_ms=0, quantities={Quantity.CALLS: 1, Quantity.ROWS_RETURNED: 0}
    ),
    "statement": dataclasses.replace(ACT, statement=bytes(32_768)),
    "index": dataclasses.replace(DELIVERY, leaf_index=2**53 - 1, tree_size=2**53),
    "nothing counted": dataclasses.replace(DELIVERY, quantities={}),
}


@pytest.mark.parametrize("receipt", LARGEST.values(), ids=LARGEST.keys())
def test_the_largest_of_everything_survives(receipt: Receipt) -> None:
    assert receipts.decode(receipts.encode(receipt)) == receipt


BEYOND = {
    "text too long": dataclasses.replace(USE, use_id="u" * 513),
    "text empty": dataclasses.replace(USE, use_id=""),
    "half a surrogate pair": dataclasses.replace(USE, use_id="\ud800"),
    "number 0": dataclasses.replace(USE, number=0, previous=bytes(31) + b"\x01"),
    "negative number": dataclasses.replace(USE, number=-1),
    "number 2 without a predecessor": dataclasses.replace(USE, number=2),
    "number 1 with a predecessor": dataclasses.replace(USE, previous=b"\x01" * 32),
    "negative quantity": dataclasses.replace(USE, quantities={Quantity.CALLS: -1}),
    "quantity beyond 64 bits": dataclasses.replace(USE, quantities={Quantity.CALLS: 2**64}),
    "quantity beyond 2^53": dataclasses.replace(USE, quantities={Quantity.CALLS: 2**53 + 1}),
    "time beyond the calendar": dataclasses.replace(USE, time_ms=253_402_300_800_000),
    "short salt": dataclasses.replace(USE, salt=bytes(15)),
    "statement too long": dataclasses.replace(ACT, statement=bytes(32_769)),
    "statement empty": dataclasses.replace(ACT, statement=b""),
    "leaf outside its tree": dataclasses.replace(DELIVERY, leaf_index=1),
    "use id of a record too long": dataclasses.replace(RECORD, use_id="u" * 65),
    "use id of a record empty": dataclasses.replace(RECORD, use_id=""),
    "use id of a record with a space": dataclasses.replace(RECORD, use_id="a b"),
    "use id of a record with a line feed": dataclasses.replace(RECORD, use_id="a\n"),
    "use id of a record with DEL": dataclasses.replace(RECORD, use_id="a\x7f"),
    "use id of a record beyond ASCII": dataclasses.replace(RECORD, use_id="é"),
    "a record of no calls": dataclasses.replace(RECORD, quantities={Quantity.CALLS: 0}),
    "a record without calls": dataclasses.replace(RECORD, quantities={Quantity.DURATION_MS: 1}),
    "a record that counts nothing": dataclasses.replace(RECORD, quantities={}),
    "a record of too many calls": dataclasses.replace(
        RECORD, quantities={Quantity.CALLS: 2**53 + 1}
    ),
    "a record by nobody": dataclasses.replace(RECORD, reporter=""),
    "a reporter too long": dataclasses.replace(RECORD, reporter="r" * 65),
    "purpose of a record too long": dataclasses.replace(RECORD, purpose="p" * 513),
    "served beyond the calendar": dataclasses.replace(RECORD, served_ms=253_402_300_800_000),
    "served before the epoch": dataclasses.replace(RECORD, served_ms=-1),
    "17 reasons": dataclasses.replace(USE, reasons=(Reason("t", "o", "a"),) * 17),
    "larger than an entry": dataclasses.replace(
        USE, reasons=(Reason("文" * 512, "文" * 512, "文" * 512),) * 16
    ),
    "a mutable list of reasons": dataclasses.replace(USE, reasons=[Reason("t", "o", "a")]),  # type: ignore[arg-type]
    "a boolean": dataclasses.replace(USE, quantities={Quantity.CALLS: True}),
}


@pytest.mark.parametrize("receipt", BEYOND.values(), ids=BEYOND.keys())
def test_what_a_parser_would_refuse_is_not_written(receipt: Receipt) -> None:
    with pytest.raises(InvalidInput):
        receipts.encode(receipt)


def test_cbor_writes_nothing_outside_its_subset() -> None:
    for value in (True, None, 1.5, -1, 2**64, (1,), {"a": 1}, {True: 1}, {-1: 1}, {1: None}):
        with pytest.raises(ValueError, match=r"subset|unsigned"):
            cbor.encode(value)  # type: ignore[arg-type]


def test_map_keys_are_written_in_order() -> None:
    assert cbor.encode({256: 0, 24: 0, 1: 0}) == bytes.fromhex("a3 0100 181800 19010000")
