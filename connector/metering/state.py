"""What the log says, kept at hand: counters, open reservations, where receipts are.

All of it follows from the log by replay; nothing here is stored anywhere else. A ``State`` may
lie over another one, so that a batch can be tried and dropped: lookups fall through, ``merge``
moves what is new into the one below.

Memory: about 170 bytes for each use ever recorded (its key and place) and 8 for each receipt; ten
million receipts take about 2 GB. Leaves are never kept.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, replace
from typing import TypeAlias

from connector.errors import InvalidInput
from connector.metering.types import Reservation
from connector.model import cbor
from connector.model.receipt import (
    NO_PREVIOUS,
    ActReceipt,
    DeliveryReceipt,
    Kind,
    Outcome,
    Receipt,
    UseReceipt,
)
from connector.ports.receipts import CorruptLog
from connector.tlog.merkle import leaf_hash

Key: TypeAlias = tuple[str, str]  # scope and use id

_RESERVED = 1  # the one kind of record so far
_FIELDS = range(9)


@dataclass(frozen=True, slots=True)
class Scope:
    """``number`` and ``head``: the last receipt's number and leaf hash. ``uses``: allowed ones.
    ``reserved``: open reservations."""

    number: int = 0
    head: bytes = NO_PREVIOUS
    uses: int = 0
    reserved: int = 0


class State:
    """``size``: leaves. ``time_ms``: of the last receipt. Changed by one thread; single lookups
    may come from any."""

    def __init__(self, below: State | None = None) -> None:
        self._below = below
        self._scopes: dict[str, Scope] = {}
        self._open: dict[Key, Reservation | None] = {}
        self._done: dict[bytes, int] = {}
        self._places: dict[str, array[int]] = {}
        self.size: int = below.size if below else 0
        self.time_ms: int = below.time_ms if below else 0

    def scope(self, name: str) -> Scope:
        found = self._scopes.get(name)
        if found is None:
            return self._below.scope(name) if self._below else Scope()
        return found

    def reservation(self, key: Key) -> Reservation | None:
        """The open one."""
        if key in self._open or self._below is None:
            return self._open.get(key)
        return self._below.reservation(key)

    def done(self, kind: Kind, key: Key) -> int | None:
        """The index of the leaf of this kind for this use."""
        return self._find(_identity(kind, key))

    def open_reservations(self) -> list[Reservation]:
        """Of this layer, oldest first."""
        return [reservation for reservation in self._open.values() if reservation]

    def scopes(self) -> list[str]:
        """Of this layer, in the order of their first receipts."""
        return list(self._places)

    def places(self, name: str, first: int, count: int) -> list[int]:
        """Of this layer: the leaf indices of the scope's receipts ``first``, ``first + 1`` ..."""
        return list(self._places.get(name, _NONE)[first - 1 : first - 1 + count])

    def reserve(self, reservation: Reservation) -> None:
        scope = self.scope(reservation.scope)
        self._scopes[reservation.scope] = replace(scope, reserved=scope.reserved + 1)
        self._open[reservation.scope, reservation.use_id] = reservation

    def record(self, receipt: Receipt, leaf: bytes) -> None:
        """The next leaf. Raises ``CorruptLog`` if it does not follow from what is here."""
        scope = self.scope(receipt.scope)
        if (receipt.number, receipt.previous) != (scope.number + 1, scope.head):
            raise CorruptLog("the log's receipts are not numbered without gaps")
        uses, reserved = scope.uses, scope.reserved
        if not isinstance(receipt, ActReceipt):
            key = receipt.scope, receipt.use_id
            self._done[_identity(kind_of(receipt), key)] = self.size
            if isinstance(receipt, UseReceipt):
                uses += receipt.outcome is Outcome.ALLOWED
                reserved -= self._close(key)
        self._scopes[receipt.scope] = Scope(receipt.number, leaf_hash(leaf), uses, reserved)
        self._places.setdefault(receipt.scope, array("Q")).append(self.size)
        self.size += 1
        self.time_ms = max(self.time_ms, receipt.time_ms)

    def merge(self, above: State) -> None:
        """Take over what ``above``, a state over this one, has."""
        self._scopes |= above._scopes
        self._done |= above._done
        for key, reservation in above._open.items():
            if reservation is None:
                self._close(key)
            else:
                self._open[key] = reservation
        for name, places in above._places.items():
            self._places.setdefault(name, array("Q")).extend(places)
        self.size, self.time_ms = above.size, above.time_ms

    def _close(self, key: Key) -> bool:
        """Whether there was a reservation to close."""
        if self.reservation(key) is None:
            return False
        if self._below is None:
            del self._open[key]
        else:
            self._open[key] = None  # hides the one below
        return True

    def _find(self, identity: bytes) -> int | None:
        found = self._done.get(identity)
        if found is None and self._below:
            return self._below._find(identity)
        return found


_NONE: array[int] = array("Q")


def kind_of(receipt: Receipt) -> Kind:
    if isinstance(receipt, UseReceipt):
        return Kind.USE
    return Kind.DELIVERY if isinstance(receipt, DeliveryReceipt) else Kind.ACT


def encode_reservation(reservation: Reservation) -> bytes:
    """A reservation as a record of the log. The limit is the contract's, not the log's."""
    return cbor.encode(
        {
            0: _RESERVED,
            1: reservation.scope,
            2: reservation.use_id,
            3: reservation.provider,
            4: reservation.consumer,
            5: reservation.purpose,
            6: reservation.agreement_digest,
            7: reservation.policy_digest,
            8: reservation.request_digest,
        }
    )


def decode_reservation(record: bytes) -> Reservation:
    """Raises ``CorruptLog``: only our own records are in our log."""
    try:
        value = cbor.decode(record)
    except InvalidInput as error:
        raise CorruptLog("the log has a record that cannot be read") from error
    if not isinstance(value, dict) or set(value) != set(_FIELDS) or value[0] != _RESERVED:
        raise CorruptLog(
            "the log has a record of a kind unknown here",
            hint="it may have been written by a newer version of this program",
        )
    texts = [item for item in map(value.get, _FIELDS[1:6]) if isinstance(item, str)]
    digests = [item for item in map(value.get, _FIELDS[6:]) if isinstance(item, bytes)]
    if len(texts) != 5 or len(digests) != 3:
        raise CorruptLog("the log has a record that cannot be read")
    return Reservation(
        scope=texts[0],
        use_id=texts[1],
        limit=None,
        provider=texts[2],
        consumer=texts[3],
        purpose=texts[4],
        agreement_digest=digests[0],
        policy_digest=digests[1],
        request_digest=digests[2],
    )


def _identity(kind: Kind, key: Key) -> bytes:
    return hashlib.sha256(cbor.encode([kind.value, *key])).digest()[:16]
