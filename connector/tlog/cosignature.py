"""C2SP tlog-cosignature, cosignature/v1: a witness's word that a log only grew.

The witness says: at this time, this was the largest tree I had seen of this log, and it held
every earlier one. The signature line carries 8 bytes of time (seconds since the Unix epoch, big
endian) before the 64 bytes of Ed25519.

Leaves out: ML-DSA-44 cosignatures, whose lines are kept and ignored; the witness's duty to check
consistency and to persist before it answers, which is the directory's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import note
from connector.tlog.checkpoint import parse_checkpoint

_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_MAX_TIME = 2**63 - 1


def cosign(checkpoint: bytes, name: str, key: Ed25519PrivateKey, time: int) -> str:
    """The signature line (no newline) of the witness ``name`` for a checkpoint note.

    ``time``: seconds since the Unix epoch. The caller MUST have verified the checkpoint and that
    it is consistent with the last one it cosigned. Raises ``InvalidInput``.
    """
    parse_checkpoint(checkpoint)
    if not note.is_name(name):
        raise InvalidInput("cosignature: a witness's name has no spaces and no plus")
    if not 0 <= time <= _MAX_TIME:
        raise InvalidInput("cosignature: a time that cannot be")
    verifier = note.VerifierKey(name, key.public_key().public_bytes_raw(), note.COSIGNATURE_V1)
    signature = key.sign(_message(time, note.parse(checkpoint).text))
    return note.Signature(name, verifier.key_id, time.to_bytes(_TIME_BYTES) + signature).line()


def add_line(checkpoint: bytes, line: str) -> bytes:
    """The note with one more signature line; the same line twice is one.

    An older line by the same name and key gives way. Raises ``InvalidInput``. The line is not
    verified: see ``verify_cosignature``.
    """
    signed = note.parse(checkpoint)
    added = note.parse_signature(line)
    others = tuple(
        signature
        for signature in signed.signatures
        if (signature.name, signature.key_id) != (added.name, added.key_id)
    )
    data = dataclasses.replace(signed, signatures=(*others, added)).encode()
    note.parse(data)
    return data


def verify_cosignature(checkpoint: bytes, name: str, keys: Iterable[bytes]) -> int:
    """When the witness ``name`` cosigned this checkpoint, in seconds since the Unix epoch.

    As ``cosignature_time``, but that there is none is a ``VerificationFailed`` too.
    """
    time = cosignature_time(checkpoint, name, keys)
    if time is None:
        raise VerificationFailed("cosignature: none by the expected witness")
    return time


def cosignature_time(checkpoint: bytes, name: str, keys: Iterable[bytes]) -> int | None:
    """When the witness ``name`` cosigned this checkpoint, or None if it did not.

    ``keys``: the witness's public keys, 32 bytes each. With several cosignatures the latest
    counts, and every one must verify. Raises ``InvalidInput`` if it is no checkpoint,
    ``VerificationFailed`` if a line that claims to be by one of the keys is not.
    """
    parse_checkpoint(checkpoint)
    signed = note.parse(checkpoint)
    times = []
    for public_key in keys:
        key = note.VerifierKey(name, public_key, note.COSIGNATURE_V1)
        for signature in filter(key.matches, signed.signatures):
            if len(signature.data) != _TIME_BYTES + _SIGNATURE_BYTES:
                raise VerificationFailed("cosignature: a wrong length")
            time = int.from_bytes(signature.data[:_TIME_BYTES])
            if time > _MAX_TIME:
                raise VerificationFailed("cosignature: a time that cannot be")
            message = _message(time, signed.text)
            note.verify_bytes(public_key, signature.data[_TIME_BYTES:], message)
            times.append(time)
    return max(times, default=None)


def _message(time: int, text: bytes) -> bytes:
    return f"cosignature/v1\ntime {time}\n".encode() + text
