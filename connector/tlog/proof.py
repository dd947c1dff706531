"""C2SP tlog-proof: that an entry is in a log, as one text file that needs no network to check.

    c2sp.org/tlog-proof@v1
    extra base64            (may be absent; authenticated by nothing)
    index 73894
    base64 of a hash        (RFC 6962 section 2.1.1, from the leaf up; none in a tree of one)
                            (an empty line)
    a checkpoint, with its signature lines

The entry itself is not in the file: whoever checks it brings the bytes. ``verify_proof`` does the
specification's steps 2 to 4; step 1, the leaf hash, is ``merkle.leaf_hash`` of the entry.

Leaves out: which witnesses are enough, and what the times of cosignatures may be: the caller's
policy.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import merkle, note
from connector.tlog.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from connector.tlog.cosignature import verify_cosignature

HEADER = b"c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
MAX_EXTRA_BYTES = 65_536
MAX_PROOF_BYTES = note.MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES  # of a file

_EXTRA, _INDEX = b"extra ", b"index "
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Proof:
    """``index``: of the entry, from 0. ``hashes``: 32 bytes each, from the leaf up.

    ``checkpoint``: the signed note, with cosignatures. ``extra``: opaque and not to be trusted;
    None where the file has no such line.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class Proved:
    """``cosigned``: by the name of each witness that was asked for, when it cosigned, in seconds
    since the Unix epoch."""

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


def write_proof(proof: Proof) -> bytes:
    """The file's bytes. Raises ``InvalidInput`` for what ``parse_proof`` would refuse."""
    data = _encode(proof)
    if parse_proof(data) != proof:
        raise InvalidInput("proof: does not survive its own encoding")
    return data


def parse_proof(data: bytes) -> Proof:
    """Strict: one file for each proof. Proves nothing yet. Raises ``InvalidInput``."""
    if len(data) > MAX_PROOF_BYTES:
        raise InvalidInput(f"proof: larger than {MAX_PROOF_BYTES} bytes")
    head, blank, checkpoint = data.partition(b"\n\n")
    header, *lines = head.split(b"\n", merkle.MAX_PROOF + 4)
    if header != HEADER:
        raise InvalidInput("proof: not a C2SP tlog-proof, version 1")
    if not blank:
        raise InvalidInput("proof: no checkpoint behind an empty line")
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = _base64(lines.pop(0).removeprefix(_EXTRA))
        if len(extra) > MAX_EXTRA_BYTES:
            raise InvalidInput(f"proof: more than {MAX_EXTRA_BYTES} bytes of extra data")
    if not lines or not lines[0].startswith(_INDEX):
        raise InvalidInput("proof: no line with the index")
    index = lines[0].removeprefix(_INDEX)
    if not _DECIMAL.fullmatch(index) or int(index) >= merkle.MAX_SIZE:
        raise InvalidInput("proof: the index must be a decimal number")
    if len(lines) > 1 + merkle.MAX_PROOF:
        raise InvalidInput(f"proof: more than {merkle.MAX_PROOF} hashes")
    hashes = tuple(_base64(line) for line in lines[1:])
    if any(len(item) != merkle.HASH_BYTES for item in hashes):
        raise InvalidInput("proof: a hash has 32 bytes")
    parse_checkpoint(checkpoint)
    proof = Proof(int(index), hashes, checkpoint, extra)
    if _encode(proof) != data:
        raise InvalidInput("proof: not in its one spelling")
    return proof


def verify_proof(
    proof: Proof,
    leaf_hash: bytes,
    keys: Sequence[note.VerifierKey],
    witnesses: Sequence[note.VerifierKey] = (),
) -> Proved:
    """That the leaf is in a log of one of ``keys``, under a checkpoint that every one of
    ``witnesses`` cosigned.

    ``keys``: Ed25519 keys, each for the origin that it is named after. ``witnesses``:
    cosignature/v1 keys; two of one name are one witness, and either will do. Raises
    ``InvalidInput`` for a key of another type or what cannot be a proof, ``VerificationFailed``
    for one that does not prove it.
    """
    checkpoint = verify_signed(proof.checkpoint, keys)
    cosigned = verify_cosigned(proof.checkpoint, witnesses)
    merkle.verify_inclusion(leaf_hash, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return Proved(checkpoint, cosigned)


def verify_signed(checkpoint: bytes, keys: Sequence[note.VerifierKey]) -> Checkpoint:
    """The checkpoint, signed by one of ``keys`` that is named after its origin. Raises
    ``InvalidInput``, ``VerificationFailed``."""
    if any(key.type != note.ED25519 for key in keys):
        raise InvalidInput("verifier key: a log's is an Ed25519 key")
    origin = parse_checkpoint(checkpoint).origin
    of_origin = [key.public_key for key in keys if key.name == origin]
    if not of_origin:
        raise VerificationFailed("checkpoint: of a log whose key was not given")
    return verify_checkpoint(checkpoint, origin, of_origin)


def verify_cosigned(checkpoint: bytes, witnesses: Sequence[note.VerifierKey]) -> dict[str, int]:
    """When each witness cosigned, by name. Raises ``InvalidInput``, and ``VerificationFailed`` if
    one did not."""
    if any(key.type != note.COSIGNATURE_V1 for key in witnesses):
        raise InvalidInput("verifier key: a witness's is a cosignature/v1 key")
    by_name: dict[str, list[bytes]] = {}
    for key in witnesses:
        by_name.setdefault(key.name, []).append(key.public_key)
    return {name: verify_cosignature(checkpoint, name, keys) for name, keys in by_name.items()}


def _encode(proof: Proof) -> bytes:
    lines = [HEADER]
    if proof.extra is not None:
        lines.append(_EXTRA + base64.b64encode(proof.extra))
    lines.append(_INDEX + str(proof.index).encode())
    lines += [base64.b64encode(item) for item in proof.hashes]
    return b"\n".join(lines) + b"\n\n" + proof.checkpoint


def _base64(value: bytes) -> bytes:
    try:
        return note.decode_base64(value.decode("ascii"), "proof")
    except UnicodeDecodeError as error:
        raise InvalidInput("proof: not base64") from error
