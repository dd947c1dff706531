"""The bytes of a log segment: header, frames, commits; written and strictly read.

A segment file is a header and then commits, one after the other. A commit is frames: records,
then leaves, then one commit frame that seals them. All integers are big-endian.

    header   "tdslog1\\n" | log id (16) | position (8) | leaves (8) | chain (32) | check (24)
    frame    type (1) | length (4) | payload
    commit   log id (16) | size (8) | chain (32) | check (16) | checkpoint note

``position`` counts the bytes of all segments, headers included, so a segment is named by where
it starts. ``chain`` is SHA-256(previous chain | size | SHA-256(frames) | SHA-256(note)): it makes
a changed, missing or moved byte visible in every later commit. ``check`` is a truncated SHA-256
of what stands beside it, so that a commit frame is known for one without what came before it.
``log id`` is random and never leaves the node: nobody can put something into a leaf that looks
like a commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import BinaryIO

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


_LIMITS = {
    Type.LEAF: MAX_ENTRY_BYTES,
    Type.RECORD: MAX_RECORD_BYTES,
    Type.COMMIT: _SEALED + _CHECK + MAX_NOTE_BYTES,
}


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
    """One commit as it was read. ``places`` are the offsets of the leaf frames in the segment;
    ``note`` is empty if the commit had no leaves; ``end`` is the offset after the commit."""

    start: int
    records: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
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
    return type.to_bytes(1) + len(payload).to_bytes(4) + payload


def commit_frame(log_id: bytes, previous: bytes, body: bytes, size: int, note: bytes) -> bytes:
    """The frame that seals ``body``, the frames before it; see ``chain_of``."""
    sealed = log_id + size.to_bytes(8) + _chain(previous, hashlib.sha256(body).digest(), size, note)
    return frame(Type.COMMIT, sealed + _check(sealed + note, _CHECK) + note)


def chain_of(commit: bytes) -> bytes:
    """The chain value in a whole commit frame."""
    return commit[FRAME_HEAD + LOG_ID_BYTES + 8 : FRAME_HEAD + _SEALED]


def read_batches(file: BinaryIO, header: Header, *, verify: bool = True) -> Iterator[Batch]:
    """The commits of a segment whose header was just read from ``file``, in order.

    Raises ``Broken`` at the first byte that belongs to no whole commit; every batch yielded
    before is sound. Without ``verify`` hashes are taken on trust (the log was checked when it was
    opened) and only the form is checked.
    """
    chain, size, at = header.chain, header.leaves, HEADER_BYTES
    while True:
        batch = Batch(start=at)
        digest = hashlib.sha256()
        while True:
            head = file.read(FRAME_HEAD)
            if not head and at == batch.start:
                return
            type_, payload = _read_frame(file, head)
            if type_ is Type.COMMIT:
                break
            if verify:
                digest.update(head)
                digest.update(payload)
            if type_ is Type.LEAF:
                batch.places.append(at)
                batch.leaves.append(payload)
            else:
                batch.records.append(payload)
            at += FRAME_HEAD + len(payload)
            if at - batch.start > MAX_BATCH_BYTES:
                raise Broken
        if not _is_commit(payload, header.log_id):
            raise Broken
        size += len(batch.leaves)
        batch.size = int.from_bytes(payload[LOG_ID_BYTES : LOG_ID_BYTES + 8])
        batch.chain = payload[LOG_ID_BYTES + 8 : _SEALED]
        batch.note = payload[_SEALED + _CHECK :]
        if batch.size != size:
            raise Broken
        if verify and batch.chain != _chain(chain, digest.digest(), size, batch.note):
            raise Broken
        chain = batch.chain
        at += FRAME_HEAD + len(payload)
        batch.end = at
        yield batch


def is_torn(tail: bytes, offset: int, log_id: bytes) -> bool:
    """Whether ``tail``, the unsound bytes from ``offset`` of the last segment on, can be one
    commit that a crash cut short, and not damage to what was once durable.

    It can if no whole commit frame is in it. A power cut may also write the end of a commit and
    not its middle; disks write whole sectors, so a sector of zeros is then where the middle
    should be (nothing that we write has 512 zero bytes), and the commit is the last thing there.
    """
    commits = list(_commits_in(tail, log_id))
    if not commits:
        return True
    sector = 512
    first = -offset % sector
    holes = any(
        not any(tail[at : at + sector]) for at in range(first, commits[0] - sector + 1, sector)
    )
    return len(commits) == 1 and holes


def _commits_in(tail: bytes, log_id: bytes) -> Iterator[int]:
    """Where whole commit frames start."""
    at = tail.find(log_id)
    while at != -1:
        start = at - FRAME_HEAD
        if start >= 0 and tail[start] == Type.COMMIT:
            length = int.from_bytes(tail[start + 1 : at])
            if _is_commit(tail[at : at + length], log_id):
                yield start
        at = tail.find(log_id, at + 1)


def _read_frame(file: BinaryIO, head: bytes) -> tuple[Type, bytes]:
    if len(head) != FRAME_HEAD or head[0] not in _TYPES:
        raise Broken
    type_ = _TYPES[head[0]]
    length = int.from_bytes(head[1:])
    if length > _LIMITS[type_]:
        raise Broken
    payload = file.read(length)
    if len(payload) != length:
        raise Broken
    return type_, payload


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
