"""The bytes of a log segment: header, frames, commits; written and strictly read.

A segment file is a header and then commits, one after the other. A commit is frames: records,
then all its leaves in one bundle, then a seal. All integers are big-endian.

    header   "tdslog1\\n" | log id (16) | position (8) | leaves (8) | chain (32) | check (24)
    frame    type (1) | length (4) | payload
    bundle   leaves, packed: each behind its length, a uint16
    seal     log id (16) | size (8) | chain (32) | check (16) | checkpoint note

``position`` counts the bytes of all segments, headers included, so a segment is named by where
it starts. ``chain`` is SHA-256(previous chain | size | SHA-256(record frames) | SHA-256(note)),
and the root in the note covers the leaves: a changed, missing or moved byte is visible in every
later commit. ``check`` is a truncated SHA-256 of what stands beside it, so that a seal is known
for one without what came before it. ``log id`` is random and never leaves the node: nobody can
put something into a leaf that looks like a seal.

Logs of before version 0.2 have a frame for each leaf, and commits whose chain covers all frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import IO

from connector.ports.receipts import MAX_BATCH_BYTES, MAX_RECORD_BYTES
from connector.tlog.note import MAX_NOTE_BYTES
from connector.tlog.tiles import MAX_ENTRY_BYTES

MAGIC = b"tdslog1\n"
LOG_ID_BYTES = 16
HEADER_BYTES = 96
FRAME_HEAD = 5
FIRST_CHAIN = bytes(32)

_SEALED = LOG_ID_BYTES + 8 + 32  # of a commit's payload, what the check covers beside the note
_CHECK = 16


class Type(IntEnum):
    LEAF = 1
    RECORD = 2
    COMMIT = 3
    BUNDLE = 4
    SEAL = 5


_LIMITS = {
    Type.LEAF: MAX_ENTRY_BYTES,
    Type.RECORD: MAX_RECORD_BYTES,
    Type.COMMIT: _SEALED + _CHECK + MAX_NOTE_BYTES,
    Type.BUNDLE: MAX_BATCH_BYTES,
    Type.SEAL: _SEALED + _CHECK + MAX_NOTE_BYTES,
}
_ENDS = (Type.COMMIT, Type.SEAL)


class Broken(Exception):
    """Here the bytes stop being commits of this log."""


@dataclass(frozen=True, slots=True)
class Header:
    """Where a segment begins: ``position`` in bytes, ``leaves`` and ``chain`` before it."""

    log_id: bytes
    position: int
    leaves: int
    chain: bytes

    def encode(self) -> bytes:
        body = (
            MAGIC + self.log_id + self.position.to_bytes(8) + self.leaves.to_bytes(8) + self.chain
        )
        return body + _check(body, HEADER_BYTES - len(body))


@dataclass(slots=True)
class Batch:
    """One commit as it was read: ``count`` leaves, packed.

    ``places`` are the offsets in the segment of the frames that hold leaves, each with how many
    leaves of the commit come before it. ``note`` is empty if there are no leaves; ``end`` is the
    offset after the commit.
    """

    start: int
    records: list[bytes] = field(default_factory=list)
    packed: bytes = b""
    count: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    chain: bytes = b""
    note: bytes = b""
    end: int = 0


def parse_header(data: bytes) -> Header:
    """Raises ``Broken``."""
    if len(data) != HEADER_BYTES or not data.startswith(MAGIC):
        raise Broken
    header = Header(
        log_id=data[8:24],
        position=int.from_bytes(data[24:32]),
        leaves=int.from_bytes(data[32:40]),
        chain=data[40:72],
    )
    if header.encode() != data:
        raise Broken
    return header


def frame(type: Type, payload: bytes) -> bytes:
    return frame_head(type, len(payload)) + payload


def frame_head(type: Type, length: int) -> bytes:
    return type.to_bytes(1) + length.to_bytes(4)


def read_head(head: bytes) -> tuple[Type, int]:
    """Type and payload length. Raises ``Broken``."""
    if len(head) != FRAME_HEAD or head[0] not in _TYPES:
        raise Broken
    type_, length = _TYPES[head[0]], int.from_bytes(head[1:])
    if length > _LIMITS[type_]:
        raise Broken
    return type_, length


def seal_frame(log_id: bytes, previous: bytes, records: bytes, size: int, note: bytes) -> bytes:
    """The frame that seals a commit with these record frames; see ``chain_of``."""
    chain = _chain(previous, hashlib.sha256(records).digest(), size, note)
    sealed = log_id + size.to_bytes(8) + chain
    return frame(Type.SEAL, sealed + _check(sealed + note, _CHECK) + note)


def chain_of(seal: bytes) -> bytes:
    """The chain value in a whole seal frame."""
    return seal[FRAME_HEAD + LOG_ID_BYTES + 8 : FRAME_HEAD + _SEALED]


def is_end(data: bytes, log_id: bytes, chain: bytes) -> bool:
    """Whether ``data`` is the frame that ends a commit, with this chain value."""
    try:
        type_, length = read_head(data[:FRAME_HEAD])
    except Broken:
        return False
    payload = data[FRAME_HEAD:]
    whole = type_ in _ENDS and len(payload) == length and _is_commit(payload, log_id)
    return whole and chain_of(data) == chain


def end_bytes(note: bytes) -> int:
    """The length of the frame that ends a commit with this note."""
    return FRAME_HEAD + _SEALED + _CHECK + len(note)


def read_batches(
    file: IO[bytes], log_id: bytes, chain: bytes, size: int, at: int, *, verify: bool = True
) -> Iterator[Batch]:
    """The commits from offset ``at`` of a segment on, where ``file`` stands, in order.

    ``chain`` and ``size`` (leaves) are those before the first. Raises ``Broken`` at the first byte
    that belongs to no whole commit; of every batch yielded before, records, form and note are
    sound, and the caller compares its leaves with the root in the note (in old commits the chain
    covers them too). Without ``verify`` hashes are taken on trust (the log was checked when it
    was opened) and only the form is checked.
    """
    while True:
        batch = Batch(start=at)
        every, records = hashlib.sha256(), hashlib.sha256()
        leaves: list[bytes] = []
        while True:
            head = file.read(FRAME_HEAD)
            if not head and at == batch.start:
                return
            type_, length = read_head(head)
            payload = file.read(length)
            if len(payload) != length:
                raise Broken
            if type_ in _ENDS:
                break
            if verify and type_ is not Type.BUNDLE:
                every.update(head + payload)
            if batch.packed or (type_ is Type.BUNDLE and (leaves or not payload)):
                raise Broken  # one bundle, the last frame before the seal, and no leaves beside it
            if type_ is Type.RECORD:
                records.update(head + payload)
                batch.records.append(payload)
            elif type_ is Type.LEAF:
                batch.places.append((at, len(leaves)))
                leaves.append(len(payload).to_bytes(2) + payload)
            else:
                batch.places.append((at, 0))
                batch.packed = payload
            at += FRAME_HEAD + length
            if at - batch.start > MAX_BATCH_BYTES:
                raise Broken
        if (type_ is Type.SEAL and leaves) or (type_ is Type.COMMIT and batch.packed):
            raise Broken
        if not _is_commit(payload, log_id):
            raise Broken
        batch.packed = batch.packed or b"".join(leaves)
        batch.size = int.from_bytes(payload[LOG_ID_BYTES : LOG_ID_BYTES + 8])
        batch.chain = payload[LOG_ID_BYTES + 8 : _SEALED]
        batch.note = payload[_SEALED + _CHECK :]
        batch.count = batch.size - size
        if batch.count < 0 or (leaves and batch.count != len(leaves)):
            raise Broken
        if bool(batch.count) != bool(batch.packed) or (batch.count and not batch.note):
            raise Broken
        if verify:
            covered = every if type_ is Type.COMMIT else records
            if batch.chain != _chain(chain, covered.digest(), batch.size, batch.note):
                raise Broken
        size, chain = batch.size, batch.chain
        at += FRAME_HEAD + length
        batch.end = at
        yield batch


def is_torn(tail: bytes, offset: int, log_id: bytes) -> bool:
    """Whether ``tail``, the unsound bytes from ``offset`` of the last segment on, can be one
    commit that a crash cut short, and not damage to what was once durable.

    It can if no whole commit frame is in it. A power cut may also write the end of a commit and
    not its middle; disks write whole sectors, so a sector of zeros is then where the middle
    should be (nothing that we write has 512 zero bytes), and the commit is the last thing there.
    Of the sector where it begins, only the part behind the commit before is missing then.
    """
    commits = list(_commits_in(tail, log_id))
    if not commits:
        return True
    sector = 512
    first = -offset % sector
    holes = any(
        not any(tail[at : at + sector]) for at in range(first, commits[0] - sector + 1, sector)
    )
    begins_in_one = 0 < first <= commits[0] and not any(tail[:first])
    return len(commits) == 1 and (holes or begins_in_one)


def _commits_in(tail: bytes, log_id: bytes) -> Iterator[int]:
    """Where whole commit frames start."""
    at = tail.find(log_id)
    while at != -1:
        start = at - FRAME_HEAD
        if start >= 0 and tail[start] in _ENDS:
            length = int.from_bytes(tail[start + 1 : at])
            if _is_commit(tail[at : at + length], log_id):
                yield start
        at = tail.find(log_id, at + 1)


_TYPES = {int(type_): type_ for type_ in Type}


def _is_commit(payload: bytes, log_id: bytes) -> bool:
    sealed, rest = payload[:_SEALED], payload[_SEALED:]
    check, note = rest[:_CHECK], rest[_CHECK:]
    return sealed.startswith(log_id) and check == _check(sealed + note, _CHECK)


def _check(data: bytes, size: int) -> bytes:
    return hashlib.sha256(data).digest()[:size]


def _chain(previous: bytes, body: bytes, size: int, note: bytes) -> bytes:
    return hashlib.sha256(
        previous + size.to_bytes(8) + body + hashlib.sha256(note).digest()
    ).digest()
