"""C2SP tlog-witness: the bytes of ``add-checkpoint``, both ways.

    old 20852014
    <consistency proof, a hash in base64 a line>

    <checkpoint>

Leaves out: HTTP, what a witness checks (``metering.witness``), ``sign-subtree``.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import merkle, note

MAX_PROOF = 63  # consistency proof lines
MAX_REQUEST_BYTES = note.MAX_NOTE_BYTES + 4096
MAX_ANSWER_BYTES = note.MAX_NOTE_BYTES
SIZE_TYPE = "text/x.tlog.size"  # the content type of a 409

_SIZE = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """What a log sends to a witness: ``consistency`` leads from ``old_size`` to ``checkpoint``."""

    old_size: int
    consistency: tuple[bytes, ...]
    checkpoint: bytes


def encode_request(request: CheckpointRequest) -> bytes:
    """The body of a POST to ``add-checkpoint``."""
    proof = "".join(f"{base64.b64encode(item).decode()}\n" for item in request.consistency)
    return f"old {request.old_size}\n{proof}\n".encode() + request.checkpoint


def parse_request(body: bytes) -> CheckpointRequest:
    """Strict. Raises ``InvalidInput``; ``VerificationFailed`` for an empty tree whose root is not
    the empty tree's, which the specification has answered otherwise."""
    if len(body) > MAX_REQUEST_BYTES:
        raise InvalidInput(f"witness: a request larger than {MAX_REQUEST_BYTES} bytes")
    head, blank, checkpoint = body.partition(b"\n\n")
    first, *lines = head.split(b"\n", MAX_PROOF + 1)
    if not blank or not first.startswith(b"old "):
        raise InvalidInput("witness: must be an old size, a proof, an empty line and a checkpoint")
    if len(lines) > MAX_PROOF:
        raise InvalidInput(f"witness: a proof of more than {MAX_PROOF} hashes")
    proof = tuple(_hash(line) for line in lines)
    old_size = parse_size(first.removeprefix(b"old "))
    _, size, root = (*note.parse(checkpoint).text.split(b"\n", 3), b"", b"", b"")[:3]
    if size == b"0" and root != base64.b64encode(merkle.EMPTY_ROOT):
        raise VerificationFailed("witness: an empty tree has one root")
    return CheckpointRequest(old_size, proof, checkpoint)


def origin_of(checkpoint: bytes) -> str:
    """The first line of a signed note, NOT verified: only to learn whose keys to look up."""
    return note.parse(checkpoint).text.split(b"\n", 1)[0].decode()


def encode_size(size: int) -> bytes:
    """The body of a 409: the size that the witness has."""
    return f"{size}\n".encode()


def parse_size(value: bytes) -> int:
    """A tree's size in its one spelling, without a newline. Raises ``InvalidInput``."""
    if not _SIZE.fullmatch(value) or int(value) > merkle.MAX_SIZE:
        raise InvalidInput("witness: the size must be a decimal number")
    return int(value)


def parse_cosignatures(body: bytes) -> tuple[note.Signature, ...]:
    """The signature lines of a 200, NOT verified. Raises ``InvalidInput``."""
    if len(body) > MAX_ANSWER_BYTES:
        raise InvalidInput("witness: an answer too large")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("witness: an answer that is not UTF-8") from error
    lines = text.removesuffix("\n").split("\n", note.MAX_SIGNATURES)
    if not text.endswith("\n") or len(lines) > note.MAX_SIGNATURES:
        raise InvalidInput("witness: an answer must be signature lines")
    return tuple(note.parse_signature(line) for line in lines)


def _hash(line: bytes) -> bytes:
    try:
        digest = note.decode_base64(line.decode("ascii"), "witness")
    except UnicodeDecodeError as error:
        raise InvalidInput("witness: not base64") from error
    if len(digest) != merkle.HASH_BYTES:
        raise InvalidInput("witness: a hash has 32 bytes")
    return digest
