"""What both cores ask of their arguments before they look at single rows, leaves or hashes.

Whatever passes here can become receipts, but for what single rows hold; so a core has nothing
left to refuse but rows. Everything raises ``InvalidInput``.
"""

from __future__ import annotations

from collections.abc import Sequence

from connector.core.interface import Columns, Place
from connector.core.keyfiles import MAX_INDEX
from connector.errors import InvalidInput
from connector.model.receipt import (
    HASH_BYTES,
    MAX_QUANTITY,
    MAX_REPORTER,
    MAX_TEXT,
    MAX_TIME_MS,
    NO_PREVIOUS,
    SALT_BYTES,
)
from connector.tlog.merkle import MAX_SIZE


def check_report(columns: Columns, place: Place) -> None:
    """That rows of the columns can become record leaves at the place."""
    rows = len(columns)
    if len(place.salts) != rows * SALT_BYTES:
        raise InvalidInput("report: one salt for each record")
    if not 1 <= len(place.scope) <= MAX_TEXT or not 1 <= len(place.reporter) <= MAX_REPORTER:
        raise InvalidInput("report: the name of its agreement or reporter cannot be")
    if len(place.head) != HASH_BYTES or (place.number == 0) != (place.head == NO_PREVIOUS):
        raise InvalidInput("report: number 1, and only it, follows none")
    if not 0 <= place.number <= MAX_QUANTITY - rows or not 0 <= place.index <= MAX_INDEX + 1 - rows:
        raise InvalidInput("report: the log is full")
    if not 0 <= place.time_ms <= MAX_TIME_MS:
        raise InvalidInput("report: a time that cannot be")
    try:
        f"{place.scope}{place.reporter}{columns.purpose}".encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("report: half a surrogate pair") from error


def check_tree(size: int, subtrees: Sequence[bytes], hashes: bytes) -> None:
    """That the hashes can follow the leaves of a tree with these complete subtrees."""
    if len(hashes) % HASH_BYTES or any(len(item) != HASH_BYTES for item in subtrees):
        raise InvalidInput("log: a hash has 32 bytes")
    if not 0 <= size <= MAX_SIZE - len(hashes) // HASH_BYTES:
        raise InvalidInput("log: a size that cannot be")
    if len(subtrees) != size.bit_count():
        raise InvalidInput("log: a subtree for each bit of the size")


def check_steps(skip: int, step: int) -> None:
    """That these can say which leaves are meant."""
    if skip < 0 or step < 1:
        raise InvalidInput("log: no such leaves")
