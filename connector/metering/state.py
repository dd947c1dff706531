"""What the log says, kept at hand: counters, open reservations, where receipts are.

All of it follows from the log by replay; ``kept`` writes it down now and then, so that a start
need not replay everything. Which use has which leaf is in the core's ``Keys``, which write
themselves out.

A ``State`` may lie over another one, so that a call can be tried and dropped: lookups fall
through, ``merge`` moves what is new into the one below.

Memory: some hundred bytes for each agreement, and 16 for each run of neighbouring receipts of one
agreement; nothing for a receipt within a run. Leaves are never kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from connector.core.interface import Keys, Made, RecordRun, key_of
from connector.metering.types import Reservation
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

Key: TypeAlias = tuple[str, str]  # scope and use id


@dataclass(frozen=True, slots=True)
class Scope:
    """``number`` and ``head``: the last receipt's number and leaf hash. ``uses``: allowed ones.
    ``reserved``: open reservations."""

    number: int = 0
    head: bytes = NO_PREVIOUS
    uses: int = 0
    reserved: int = 0


@dataclass(slots=True)
class Places:
    """The leaf indices of one scope's receipts, as runs: from number ``numbers[i]`` on, leaves
    ``indices[i]``, ``indices[i] + 1`` ..."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    indices: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, number: int, index: int) -> None:
        """Receipts from ``number`` on are at ``index`` and what follows it."""
        if not self.numbers or index - self.indices[-1] != number - self.numbers[-1]:
            self.indices.append(index)
            self.numbers.append(number)  # last: a reader in another thread goes by these

    def find(self, number: int) -> int:
        """The leaf index of a receipt that is there."""
        run = bisect_right(self.numbers, number) - 1
        return self.indices[run] + number - self.numbers[run]

    def touches(self, first: int, end: int, last: int) -> bool:
        """Whether a receipt is in a leaf from ``first`` to ``end - 1``; ``last``: the number of
        the last receipt."""
        run = bisect_right(self.indices, end - 1) - 1
        if run < 0:
            return False
        following = self.numbers[run + 1] if run + 1 < len(self.numbers) else last + 1
        return self.indices[run] + following - self.numbers[run] > first


class State:
    """``size``: leaves. ``time_ms``: of the last receipt. Changed by one thread; single lookups
    may come from any."""

    def __init__(self, keys: Keys, below: State | None = None) -> None:
        self.keys = keys
        self._below = below
        self.scopes: dict[str, Scope] = {}  # of this layer, in the order of their first receipts
        self.places: dict[str, Places] = {}  # likewise
        self._open: dict[Key, Reservation | None] = {}
        self._done: dict[bytes, int] = {}  # of a call; merged, they are in the keys
        self.size: int = below.size if below else 0
        self.time_ms: int = below.time_ms if below else 0

    def over(self) -> State:
        """An empty layer over this one."""
        return State(self.keys, self)

    def rebase(self, below: State) -> None:
        """Lie over another one that says the same as the one below."""
        self._below = below

    def scope(self, name: str) -> Scope:
        found = self.scopes.get(name)
        if found is None:
            return self._below.scope(name) if self._below else Scope()
        return found

    def reservation(self, key: Key) -> Reservation | None:
        """The open one."""
        if key in self._open or self._below is None:
            return self._open.get(key)
        return self._below.reservation(key)

    def running(self, name: str) -> frozenset[bytes]:
        """The use ids of the scope's open reservations."""
        if not self.scope(name).reserved:
            return frozenset()
        below = self._below.running(name) if self._below else frozenset()
        mine = {
            use_id.encode(): there
            for (scope, use_id), there in list(self._open.items())
            if scope == name
        }
        ended = {use_id for use_id, there in mine.items() if there is None}
        return (below | frozenset(mine)) - ended

    def done(self, kind: Kind, key: Key) -> int | None:
        """The index of the leaf of this use. USE finds record leaves too: they share use ids."""
        return self._find(key_of(kind, *key))

    def open_reservations(self) -> list[Reservation]:
        """Of this layer, oldest first."""
        return [reservation for reservation in self._open.values() if reservation]

    def leaves_of(self, name: str, first: int, count: int) -> list[int]:
        """Of this layer: the leaf indices of the scope's receipts ``first``, ``first + 1`` ..."""
        places = self.places.get(name)
        if places is None:
            return []
        last = min(first + count - 1, self.scope(name).number)
        return [places.find(number) for number in range(first, last + 1)]

    def scopes_between(self, first: int, end: int) -> list[str]:
        """Of this layer: the scopes with a receipt in a leaf from ``first`` to ``end - 1``."""
        return [
            name
            for name, places in self.places.copy().items()
            if places.touches(first, end, self.scope(name).number)
        ]

    def reserve(self, reservation: Reservation) -> None:
        scope = self.scope(reservation.scope)
        self.scopes[reservation.scope] = replace(scope, reserved=scope.reserved + 1)
        self._open[reservation.scope, reservation.use_id] = reservation

    def record(self, receipt: Receipt, leaf_hash: bytes) -> None:
        """The next leaf, of any kind but RECORD. Raises ``CorruptLog`` if it does not follow from
        what is here."""
        scope = self.scope(receipt.scope)
        uses, reserved = scope.uses, scope.reserved
        if isinstance(receipt, UseReceipt | DeliveryReceipt):
            is_use = isinstance(receipt, UseReceipt)
            key = receipt.scope, receipt.use_id
            self._do(key_of(Kind.USE if is_use else Kind.DELIVERY, *key), self.size)
            if is_use:
                uses += receipt.outcome is Outcome.ALLOWED
                reserved -= self._close(key)
        elif not isinstance(receipt, ActReceipt):
            raise CorruptLog("the log has a record where none can be")
        self._follow(receipt.scope, receipt.number, receipt.previous, 1)
        self.scopes[receipt.scope] = Scope(receipt.number, leaf_hash, uses, reserved)
        self.time_ms = max(self.time_ms, receipt.time_ms)

    def take(self, name: str, made: Made) -> None:
        """The record leaves just made for the scope; their keys are staged already."""
        scope = self.scope(name)
        if count := made.leaves.count:
            self._follow(name, scope.number + 1, scope.head, count)
            self.scopes[name] = Scope(
                scope.number + count, made.head, scope.uses + made.calls, scope.reserved
            )

    def replayed(self, run: RecordRun) -> None:
        """Record leaves read back; their keys are staged already. Raises ``CorruptLog`` as
        ``record`` does."""
        scope = self.scope(run.scope)
        self._follow(run.scope, run.first, run.previous, run.count)
        self.scopes[run.scope] = Scope(
            run.first + run.count - 1, run.head, scope.uses + run.calls, scope.reserved
        )
        self.time_ms = max(self.time_ms, run.time_ms)

    def merge(self, above: State) -> None:
        """Take over what ``above``, a state over this one, has."""
        for name, places in above.places.items():  # first: a scope's number says what is there
            mine = self.places.setdefault(name, Places())
            for number, index in zip(places.numbers, places.indices, strict=True):
                mine.add(number, index)
        self.scopes |= above.scopes
        for key, index in above._done.items():
            self.keys.stage(key, index)
        for use, reservation in above._open.items():
            if reservation is None:
                self._close(use)
            else:
                self._open[use] = reservation
        self.size, self.time_ms = above.size, above.time_ms

    def _follow(self, name: str, number: int, previous: bytes, count: int) -> None:
        """The next ``count`` leaves are the scope's, from ``number`` on."""
        scope = self.scope(name)
        if (number, previous) != (scope.number + 1, scope.head):
            raise CorruptLog("the log's receipts are not numbered without gaps")
        self.places.setdefault(name, Places()).add(number, self.size)
        self.size += count

    def _do(self, key: bytes, index: int) -> None:
        if self._below is None:
            self.keys.stage(key, index)
        else:
            self._done[key] = index

    def _close(self, key: Key) -> bool:
        """Whether there was a reservation to close."""
        if self.reservation(key) is None:
            return False
        if self._below is None:
            del self._open[key]
        else:
            self._open[key] = None  # hides the one below
        return True

    def _find(self, key: bytes) -> int | None:
        found = self._done.get(key)
        if found is not None:
            return found
        return self._below._find(key) if self._below else self.keys.find(key)
