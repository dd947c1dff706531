"""The kept mark: where the log stood once, and what everything up to there came to.

    "tdsmark1" | length (4) | position | state | SHA-256 of all before (32)

    position   log id (16) | segment (8) | commit (8) | end (8) | size (8) | chain (32)
               | number of subtrees (1) | subtrees (32 each) | checkpoint note

It saves time alone, as long as nothing was dropped. One that is damaged, or not of this log, is
not used; one that speaks of more than the log holds shows that the log was cut. Before a segment
is dropped the mark is copied, as without any the receipts that are left do not explain themselves.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from connector.adapters.segments.disk import Disk
from connector.adapters.segments.frames import LOG_ID_BYTES
from connector.errors import InvalidInput
from connector.ports.receipts import CorruptLog

MAGIC = b"tdsmark1"
KEPT = ("kept", "kept-before-drop")  # in the order in which an opening tries them
_HASH = 32


@dataclass(frozen=True, slots=True)
class Position:
    """After some commit: it began at ``commit`` and ended at ``end``, both counted as segments'
    positions are, in the segment that starts at ``segment``. ``commit`` is ``end`` if the segment
    has none yet."""

    log_id: bytes
    segment: int
    commit: int
    end: int
    size: int
    chain: bytes
    subtrees: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        numbers = (self.segment, self.commit, self.end, self.size)
        return (
            self.log_id
            + b"".join(number.to_bytes(8) for number in numbers)
            + self.chain
            + len(self.subtrees).to_bytes(1)
            + b"".join(self.subtrees)
            + self.note
        )


def parse_position(data: bytes) -> Position:
    """Raises ``InvalidInput``."""
    at = LOG_ID_BYTES + 4 * 8 + _HASH
    count = data[at] if len(data) > at else 0
    after = at + 1 + count * _HASH
    if len(data) < after or len(data) <= at:
        raise InvalidInput("mark: cut short")
    numbers = [
        int.from_bytes(data[start : start + 8]) for start in range(LOG_ID_BYTES, at - _HASH, 8)
    ]
    return Position(
        log_id=data[:LOG_ID_BYTES],
        segment=numbers[0],
        commit=numbers[1],
        end=numbers[2],
        size=numbers[3],
        chain=data[at - _HASH : at],
        subtrees=tuple(data[start : start + _HASH] for start in range(at + 1, after, _HASH)),
        note=data[after:],
    )


def encode_kept(position: bytes, state: bytes) -> bytes:
    data = MAGIC + len(position).to_bytes(4) + position + state
    return data + hashlib.sha256(data).digest()


def read_kept(path: Path) -> tuple[Position, bytes] | None:
    """Position and state; None if there is nothing that can be used. Raises ``OSError``."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body, digest = data[:-_HASH], data[-_HASH:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    start = len(MAGIC) + 4
    end = start + int.from_bytes(body[len(MAGIC) : start])
    try:
        return parse_position(body[start:end]), body[end:]
    except InvalidInput:
        return None


class Marks:
    """The kept mark and its copy. ``last``: the one kept last. Whoever writes holds ``lock``."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self.lock = threading.Lock()
        self.last: Position | None = None

    def read(self) -> list[tuple[Position, bytes]]:
        """Those that can be used, the one kept last first. Raises ``OSError``."""
        found = [read_kept(self._folder / name) for name in KEPT]
        return [mark for mark in found if mark is not None]

    def keep(self, position: Position, state: bytes) -> None:
        """Durable on return. An older one than is there is ignored. Raises ``OSError``."""
        if self.last is None or position.end >= self.last.end:
            self._disk.replace(self._folder / KEPT[0], encode_kept(position.encode(), state))
            self.last = position

    def copy(self, beyond: int) -> None:
        """Have a second copy of a mark behind the segment that starts at ``beyond``.

        Raises ``CorruptLog`` if the first one is not what was written, ``OSError``.
        """
        found = read_kept(self._folder / KEPT[0])
        if found is None or found[0].segment <= beyond:
            raise CorruptLog("the log's kept state is damaged: nothing was dropped")
        position, state = found
        self._disk.replace(self._folder / KEPT[1], encode_kept(position.encode(), state))
