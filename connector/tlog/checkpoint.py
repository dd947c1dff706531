"""C2SP tlog-checkpoint: a tree's origin, size and root, as a signed note.

The log's key name is its origin. Nothing here says whose the log is: the caller passes the keys
that it trusts for this origin.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import merkle, note

MAX_EXTENSIONS = 16
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ROOT = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``root``: 32 bytes over the first ``size`` leaves. ``extensions``: opaque lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def body(self) -> bytes:
        """The note's text: what the log and its witnesses sign."""
        root = base64.b64encode(self.root).decode()
        lines = (self.origin, str(self.size), root, *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


def sign_checkpoint(origin: str, size: int, root: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signed note. Raises ``InvalidInput`` if it would not parse."""
    if not note.is_name(origin):
        raise InvalidInput("checkpoint: an origin that signs has no spaces and no plus")
    data = note.sign(Checkpoint(origin, size, root).body(), origin, key).encode()
    parse_checkpoint(data)
    return data


def parse_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint in a signed note, NOT verified. Raises ``InvalidInput``."""
    return _parse_body(note.parse(data).text)


def verify_checkpoint(data: bytes, origin: str, keys: Iterable[bytes]) -> Checkpoint:
    """The checkpoint in a signed note by one of ``keys`` (32 bytes each) for ``origin``.

    Raises ``InvalidInput`` if it is no checkpoint, ``VerificationFailed`` if it is another log's
    or not signed by one of the keys.
    """
    signed = note.parse(data)
    checkpoint = _parse_body(signed.text)
    if checkpoint.origin != origin:
        raise VerificationFailed("checkpoint: of another log")
    note.verify_lines(signed, [note.VerifierKey(origin, key) for key in keys])
    return checkpoint


def _parse_body(text: bytes) -> Checkpoint:
    lines = text.decode()[:-1].split("\n")  # a parsed note's text is UTF-8 and ends in a newline
    if not 3 <= len(lines) <= 3 + MAX_EXTENSIONS or not all(lines):
        raise InvalidInput("checkpoint: must have three lines, none empty")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) > merkle.MAX_SIZE:
        raise InvalidInput("checkpoint: the size must be a decimal number")
    if not _ROOT.fullmatch(root):
        raise InvalidInput("checkpoint: the root must be 32 bytes in base64")
    checkpoint = Checkpoint(origin, int(size), base64.b64decode(root), tuple(lines[3:]))
    if checkpoint.body() != text:
        raise InvalidInput("checkpoint: the root must be in base64's one spelling")
    if checkpoint.size == 0 and checkpoint.root != merkle.EMPTY_ROOT:
        raise InvalidInput("checkpoint: an empty tree has one root")
    return checkpoint
