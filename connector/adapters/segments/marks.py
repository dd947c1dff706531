"""The kept mark: where the log stood once, and what everything up to there came to.

    "tdsmark1" | length (4) | position | state | SHA-256 of all before (32)

    position   log id (16) | segment (8) | commit (8) | end (8) | size (8) | chain (32)
               | number of subtrees (1) | subtrees (32 each) | checkpoint note

It saves time alone. One that is damaged, or not of this log, is not used; one that speaks of more
than the log holds shows that the log was cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from connector.adapters.segments.frames import LOG_ID_BYTES
from connector.errors import InvalidInput

MAGIC = b"tdsmark1"
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
