"""C2SP signed-note: text, a blank line, and one line for each signature; Ed25519 keys.

    text

    — name base64(key id || signature)

A parsed note is unverified text. ``verify`` follows the specification: signatures by unknown
keys are ignored, every signature by a known key must verify, and one at least must be there.

Leaves out: ECDSA, RFC 6962 and ML-DSA-44 signature types, whose lines are kept and ignored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from connector.errors import InvalidInput, VerificationFailed

ED25519 = 0x01
COSIGNATURE_V1 = 0x04  # tlog-cosignature

MAX_NOTE_BYTES = 1 << 17
MAX_SIGNATURES = 32  # the specification asks for 16 at least
MAX_NAME = 256
_KEY_ID_BYTES = 4
_DASH = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. ``key_id`` has 4 bytes; ``data`` depends on the key's type."""

    name: str
    key_id: bytes
    data: bytes

    def line(self) -> str:
        """The line, without its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Note:
    """``text`` ends in a newline; it is what the signatures are over."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        lines = "".join(f"{signature.line()}\n" for signature in self.signatures)
        return self.text + b"\n" + lines.encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named public key (32 bytes) of one signature type: what C2SP calls a vkey."""

    name: str
    public_key: bytes
    type: int = ED25519

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key), its first 4 bytes."""
        typed = bytes([self.type]) + self.public_key
        return hashlib.sha256(self.name.encode() + b"\n" + typed).digest()[:_KEY_ID_BYTES]

    def encode(self) -> str:
        """``name+hex(key id)+base64(type || public key)``."""
        typed = base64.b64encode(bytes([self.type]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{typed}"

    def matches(self, signature: Signature) -> bool:
        """Whether the line claims to be by this key."""
        return signature.name == self.name and signature.key_id == self.key_id


def parse_verifier_key(value: str) -> VerifierKey:
    """A vkey in its one spelling, Ed25519 or cosignature/v1. Raises ``InvalidInput``."""
    parts = value.split("+", 2) if len(value) <= 2 * MAX_NAME else []
    if len(parts) != 3 or not is_name(parts[0]):
        raise InvalidInput("verifier key: must be name+id+key")
    typed = decode_base64(parts[2], "verifier key")
    if len(typed) != 33 or typed[0] not in (ED25519, COSIGNATURE_V1):
        raise InvalidInput("verifier key: not an Ed25519 key")
    key = VerifierKey(parts[0], typed[1:], typed[0])
    if key.encode() != value:
        raise InvalidInput("verifier key: the id is not the key's")
    return key


def is_name(value: str) -> bool:
    """A key name: not empty, no spaces or control characters, no plus, no half surrogate pair."""
    return 0 < len(value) <= MAX_NAME and not any(
        char.isspace() or char == "+" or char < " " or "\ud800" <= char <= "\udfff"
        for char in value
    )


def sign(text: bytes, name: str, key: Ed25519PrivateKey) -> Note:
    """A note with one Ed25519 signature. Raises ``InvalidInput`` if the text cannot be a note."""
    verifier = VerifierKey(name, key.public_key().public_bytes_raw())
    note = Note(text, (Signature(name, verifier.key_id, key.sign(text)),))
    return parse(note.encode())


def parse(data: bytes) -> Note:
    """Strict: one encoding for each note. Raises ``InvalidInput``."""
    if len(data) > MAX_NOTE_BYTES:
        raise InvalidInput(f"note: larger than {MAX_NOTE_BYTES} bytes")
    try:
        decoded = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("note: not UTF-8") from error
    if any(char < " " and char != "\n" for char in decoded):
        raise InvalidInput("note: control characters")
    text, blank, tail = decoded.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise InvalidInput("note: no signatures behind a blank line")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise InvalidInput(f"note: more than {MAX_SIGNATURES} signatures")
    return Note(f"{text}\n".encode(), tuple(_signature(line) for line in lines))


def verify(note: Note, key: VerifierKey) -> None:
    """Check the note's Ed25519 signatures by ``key``. Raises ``VerificationFailed``."""
    verify_lines(note, (key,))


def verify_lines(note: Note, keys: Iterable[VerifierKey]) -> None:
    """As ``verify``, for a signer that has more than one key: any of them will do."""
    found = False
    for key in keys:
        for signature in note.signatures:
            if key.matches(signature):
                verify_bytes(key.public_key, signature.data, note.text)
                found = True
    if not found:
        raise VerificationFailed("note: no signature by the expected key")


def verify_bytes(public_key: bytes, signature: bytes, message: bytes) -> None:
    """One Ed25519 signature (RFC 8032). Raises ``VerificationFailed``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationFailed("note: the signature does not verify") from error


def parse_signature(line: str) -> Signature:
    """One signature line without its newline. Raises ``InvalidInput``."""
    if len(line) > MAX_NOTE_BYTES:
        raise InvalidInput("note: a signature line too long")
    return _signature(line)


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not is_name(name):
        raise InvalidInput("note: not a signature line")
    data = decode_base64(encoded, "note")
    if len(data) <= _KEY_ID_BYTES:
        raise InvalidInput("note: a signature too short")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def decode_base64(value: str, what: str) -> bytes:
    """RFC 4648 section 4, padded, in its one spelling. Raises ``InvalidInput``."""
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{what}: not base64") from error
    if base64.b64encode(data).decode() != value:
        raise InvalidInput(f"{what}: not base64 in its one spelling")
    return data
