"""C2SP tlog-witness, both sides, without the transport.

The witness's side (``Witness.add_checkpoint``) numbers the specification's checks:

1. the log is known, and the checkpoint is signed by it;
2. the old size is not larger than the new one;
3. the old size is the size of the last checkpoint cosigned for this log;
4. if the sizes are equal, so are the roots;
5. the consistency proof verifies;
6. the new checkpoint is stored, in the place of exactly the old one, before anything is answered.

The log's side (``request_for``, ``Meter.add_cosignature``) builds the request and takes the
answer. Any participant may witness any other's log.

Leaves out: who may ask (the door), HTTP and gRPC, ML-DSA-44 cosignatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Conflict, InvalidInput, VerificationFailed
from connector.metering.reader import LogReader
from connector.ports.clock import Clock
from connector.ports.witnesses import Witnessed, WitnessStore
from connector.tlog import cosignature, merkle, note
from connector.tlog.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from connector.tlog.witness import MAX_PROOF, CheckpointRequest

__all__ = [
    "CheckpointRequest",
    "NotTheLogs",
    "StaleSize",
    "Witness",
    "cosigned_note",
    "request_for",
]

REFRESHED_S = 60  # seconds; a cosignature over the same checkpoint is stored again after these
_ATTEMPTS = 8


class StaleSize(Conflict):
    """The old size is not the witness's. ``size``: what the witness has; ask again from there."""

    code = "stale_size"

    def __init__(self, size: int) -> None:
        super().__init__("the witness has cosigned another size", hint=f"its last one is {size}")
        self.size = size


class NotTheLogs(VerificationFailed):
    """The checkpoint has no valid signature by a key that is known to be the log's."""

    code = "not_the_logs"


class Witness:
    """``name`` is the witness's key name, ``key`` its cosignature key. Calls may overlap."""

    def __init__(
        self, store: WitnessStore, *, name: str, key: Ed25519PrivateKey, clock: Clock
    ) -> None:
        self._store = store
        self._name = name
        self._key = key
        self._clock = clock

    async def add_checkpoint(
        self, request: CheckpointRequest, *, origin: str, keys: Iterable[bytes]
    ) -> str:
        """The cosignature line (no newline), stored before it is returned.

        ``origin`` and ``keys`` (32 bytes each) are the log's, from the directory's record.
        Raises ``StaleSize``; ``NotTheLogs``; another ``VerificationFailed`` for a checkpoint that
        is not consistent with the last (the log's operator has then shown two histories, or lost
        one); ``InvalidInput`` for what cannot be a request; ``Unavailable``.
        """
        known = tuple(keys)
        for _ in range(_ATTEMPTS):
            last = await self._store.last(origin)
            new = _check(request, last, origin, known)
            time = int(self._clock.now().timestamp())
            line = cosignature.cosign(request.checkpoint, self._name, self._key, time)
            kept = cosignature.add_line(_signed_by(request.checkpoint, origin), line)
            if last is not None and self._is_known(last, kept, time):
                return line
            entry = Witnessed(new.size, new.root, kept)
            if await self._store.replace(origin, last, entry):  # 6
                return line
        raise StaleSize(last.size if last else 0)

    def _is_known(self, last: Witnessed, kept: bytes, time: int) -> bool:
        """Whether this very checkpoint is stored, with a cosignature that is nearly as new: so
        that repeating a request, which anybody can, costs no write."""
        if note.parse(last.checkpoint).text != note.parse(kept).text:
            return False
        key = self._key.public_key().public_bytes_raw()
        before = cosignature.cosignature_time(last.checkpoint, self._name, [key])
        return before is not None and 0 <= time - before < REFRESHED_S

    async def last(self, origin: str) -> Witnessed | None:
        """The last checkpoint cosigned for this log."""
        return await self._store.last(origin)


def request_for(log: LogReader, witnessed_size: int) -> CheckpointRequest:
    """The request that moves a witness from ``witnessed_size`` to the log's newest checkpoint.

    Raises ``InvalidInput`` if the witness is ahead: see ``Meter.require_not_behind``.
    """
    tip = log.tip
    proof = log.consistency(witnessed_size, tip.size)
    return CheckpointRequest(witnessed_size, tuple(proof), tip.checkpoint)


def cosigned_note(request: CheckpointRequest, line: str) -> bytes:
    """The checkpoint with the witness's answer, for ``Meter.add_cosignature``, which verifies."""
    return cosignature.add_line(request.checkpoint, line)


def _check(
    request: CheckpointRequest, last: Witnessed | None, origin: str, keys: Sequence[bytes]
) -> Checkpoint:
    if len(request.consistency) > MAX_PROOF:
        raise InvalidInput(f"witness: a proof of more than {MAX_PROOF} hashes")
    try:
        new = verify_checkpoint(request.checkpoint, origin, keys)  # 1
    except VerificationFailed as error:
        raise NotTheLogs(error.message) from error
    if not 0 <= request.old_size <= new.size:  # 2
        raise InvalidInput("witness: the old size is larger than the checkpoint's")
    if request.old_size != (last.size if last else 0):  # 3
        raise StaleSize(last.size if last else 0)
    old_root = last.root if last else merkle.EMPTY_ROOT
    if request.old_size == new.size and old_root != new.root:  # 4
        raise VerificationFailed("witness: another tree of the same size was cosigned before")
    merkle.verify_consistency(  # 5
        request.old_size, old_root, new.size, new.root, request.consistency
    )
    return new


def _signed_by(checkpoint: bytes, origin: str) -> bytes:
    """The note with the log's own signature lines alone: what others wrote on it is not kept."""
    parse_checkpoint(checkpoint)
    parsed = note.parse(checkpoint)
    own = tuple(item for item in parsed.signatures if item.name == origin)
    return note.Note(parsed.text, own).encode()
