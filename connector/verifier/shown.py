"""A receipt as a person or a program reads it: names for keys, hexadecimal for bytes."""

from __future__ import annotations

from dataclasses import fields as fields_of
from enum import Enum
from typing import Any

from connector.model import fields
from connector.model.receipt import (
    ActReceipt,
    DeliveryReceipt,
    Kind,
    Receipt,
    RecordReceipt,
    UseReceipt,
)

_KINDS: dict[type, Kind] = {
    UseReceipt: Kind.USE,
    RecordReceipt: Kind.RECORD,
    ActReceipt: Kind.ACT,
    DeliveryReceipt: Kind.DELIVERY,
}


def show_receipt(receipt: Receipt) -> dict[str, Any]:
    """Every field of the receipt, as JSON has it; first its kind.

    Times are RFC 3339; the statement of an act is the JWS itself.
    """
    shown: dict[str, Any] = {"kind": _KINDS[type(receipt)].name.lower()}
    for field in fields_of(receipt):
        name, value = field.name, getattr(receipt, field.name)
        if name.endswith("_ms"):
            shown[name.removesuffix("_ms")] = fields.format_millis(value)
        elif name == "statement":
            shown[name] = value.decode("ascii", "replace")
        elif name == "quantities":
            shown[name] = {key.name.lower(): amount for key, amount in value.items()}
        elif name == "reasons":
            shown[name] = [str(reason) for reason in value]
        elif isinstance(value, Enum):
            shown[name] = value.name.lower()
        else:
            shown[name] = value.hex() if isinstance(value, bytes) else value
    return shown
