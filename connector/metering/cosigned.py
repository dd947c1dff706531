"""What witnesses have seen of our log, and the comparison that shows a log which lost its past.

For each witness the note of the largest tree that it cosigned is kept, apart from the log: a log
restored from yesterday's copy, or cut at its tail, does not match what was seen of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from connector.errors import Conflict, InvalidInput, VerificationFailed
from connector.metering.reader import LogReader
from connector.ports.receipts import CorruptLog, LogStorage
from connector.tlog import note as notes
from connector.tlog.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from connector.tlog.cosignature import add_line, verify_cosignature

_LOST = "restore the newest copy of the log's folder; if it is lost, tell the directory's operator"


class Cosigned:
    """``keys``: the public keys (32 bytes each) that our log's checkpoints are signed with, now
    and before. Any thread."""

    def __init__(
        self, storage: LogStorage, reader: LogReader, origin: str, keys: Sequence[bytes]
    ) -> None:
        self._storage = storage
        self._reader = reader
        self._origin = origin
        self._keys = tuple(keys)
        self._lock = threading.Lock()
        self._notes: dict[str, bytes] = {}
        for data in storage.cosigned():
            try:
                self._notes[_witness_in(data, origin)] = data
            except InvalidInput as error:
                raise CorruptLog("a stored cosignature cannot be read") from error

    def require_past(self, note: bytes) -> Checkpoint:
        """That the log still is, or grew from, what the checkpoint ``note`` covers.

        Raises ``Conflict`` if it is behind it or another one, ``InvalidInput`` or
        ``VerificationFailed`` if the checkpoint is not of this log at all.
        """
        seen = verify_checkpoint(note, self._origin, self._keys)
        if seen.size > self._reader.tip.size:
            raise Conflict("the log is behind a checkpoint that a witness has seen", hint=_LOST)
        if self._reader.root(seen.size) != seen.root:
            raise Conflict("the log is not the one that a witness has seen", hint=_LOST)
        return seen

    def require_own_past(self) -> None:
        """``require_past`` for every stored note. Raises ``Conflict`` alone."""
        for note in self._notes.values():
            try:
                self.require_past(note)
            except (InvalidInput, VerificationFailed) as error:
                raise Conflict("a stored cosignature is of another log", hint=_LOST) from error

    def add(self, note: bytes, witness: str, keys: Iterable[bytes]) -> None:
        """Keep a witness's cosignature of one of our checkpoints; durable on return.

        ``keys``: the witness's. Raises as ``require_past`` does, ``VerificationFailed`` if the
        cosignature does not verify, ``Unavailable`` if it cannot be stored. One of a smaller tree
        than the witness's last is verified and forgotten.
        """
        seen = self.require_past(note)
        verify_cosignature(note, witness, keys)
        if witness == self._origin:
            raise VerificationFailed("a log is not its own witness")
        kept = _only(note, (self._origin, witness))
        with self._lock:
            last = self._notes.get(witness)
            if last is None or parse_checkpoint(last).size <= seen.size:
                self._storage.keep_cosigned(witness, kept)
                self._notes[witness] = kept

    def latest(self, witness: str | None = None) -> bytes | None:
        """The largest checkpoint cosigned by ``witness``, or by anybody, with the cosignatures of
        all who cosigned that very one; None if there is none."""
        with self._lock:
            found = dict(self._notes)
        if witness is not None:
            found = {witness: found[witness]} if witness in found else {}
        if not found:
            return None
        size = max(parse_checkpoint(note).size for note in found.values())
        same = [note for note in found.values() if parse_checkpoint(note).size == size]
        merged = same[0]
        for other in same[1 : notes.MAX_SIGNATURES - 1]:
            for signature in notes.parse(other).signatures:
                if signature.name != self._origin:
                    merged = add_line(merged, signature.line())
        return merged


def _only(note: bytes, names: Sequence[str]) -> bytes:
    parsed = notes.parse(note)
    kept = tuple(item for item in parsed.signatures if item.name in names)
    return notes.Note(parsed.text, kept).encode()


def _witness_in(note: bytes, origin: str) -> str:
    for signature in notes.parse(note).signatures:
        if signature.name != origin:
            return signature.name
    raise InvalidInput("note: not cosigned")
