"""The metering core in Rust (``rust/``), which lets other threads run while it works.

Leaves out: everything it does; importing this raises ``ImportError`` where it was not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from connector.core import _native
from connector.core.checks import check_report, check_steps, check_tree
from connector.core.interface import Columns, Keys, Leaves, Made, Place, RecordRun
from connector.model.receipt import MAX_TIME_MS


class Native:
    """``interface.Core``. Keys are those of ``open_keys``; others raise ``TypeError``."""

    name: Final = "native"
    verify_inclusion = staticmethod(_native.verify_inclusion)  # too fast to wrap
    verify_inclusions = staticmethod(_native.verify_inclusions)

    def __init__(self) -> None:
        self.detail: Final[str] = _native.detail()

    def make_records(self, columns: Columns, place: Place, keys: Keys) -> Made:
        check_report(columns, place)
        packed, hashes, calls, head, refused = _native.make_records(
            keys,
            columns.use_ids,
            columns.served,
            [(quantity.value, column) for quantity, column in columns.amounts],
            place.salts,
            (place.scope, columns.purpose, place.reporter),
            place.head,
            place.number,
            place.time_ms,
            place.index,
            (_time(place.first_ms), _time(place.last_ms)),
            None if place.left is None else max(0, min(place.left, 2**127)),
            list(place.running),
        )
        return Made(Leaves(packed, hashes), calls, head, refused)

    def leaf_hashes(self, packed: bytes) -> bytes:
        return _native.leaf_hashes(packed)

    def offsets(self, packed: bytes, skip: int, step: int) -> list[int]:
        check_steps(skip, step)
        return _native.offsets(packed, skip, step)

    def extend(
        self, size: int, subtrees: Sequence[bytes], hashes: bytes
    ) -> tuple[list[bytes], Mapping[int, bytes]]:
        check_tree(size, subtrees, hashes)
        return _native.extend(size, subtrees, hashes)

    def read_records(self, packed: bytes, index: int, keys: Keys) -> list[RecordRun | bytes]:
        found = _native.read_records(keys, packed, index)
        return [item if isinstance(item, bytes) else RecordRun(*item) for item in found]

    def open_keys(self, folder: Path) -> Keys:
        return _native.open_keys(folder)


def _time(time_ms: int) -> int:
    """A bound of times, brought to where times are."""
    return max(-1, min(time_ms, MAX_TIME_MS + 1))
