"""What the leaves of a whole log say: receipts, numbered and chained in each scope, uses once.

Memory: some hundred bytes for each scope. Uses are remembered by the core's ``Keys``, most of
them on disk. Where leaves are not there (dropped) or not believed, numbers may jump over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from connector.core.interface import Core, Keys, RecordRun, key_of
from connector.errors import InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import (
    NO_PREVIOUS,
    ActReceipt,
    DeliveryReceipt,
    Kind,
    Outcome,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from connector.tlog import merkle
from connector.tlog.tiles import TILE_WIDTH, Tile, width_at
from connector.verifier.batches import Piece

_LENGTH = 2  # bytes before a packed leaf


class Said(IntEnum):
    """The numbered step to which something found belongs."""

    FORM = 5
    CHAIN = 6
    ONCE = 7


@dataclass(slots=True)
class Scope:
    """One scope's receipts so far.

    ``number``, ``head``, ``index``: of the last one. ``unseen``: numbers jumped over where leaves
    are not there. ``allowed``: allowed uses, those of ``reported`` (calls of records) among them.
    """

    number: int = 0
    head: bytes = NO_PREVIOUS
    index: int = -1
    receipts: int = 0
    unseen: int = 0
    allowed: int = 0
    refused: int = 0
    failed: int = 0
    interrupted: int = 0
    records: int = 0
    reported: int = 0
    deliveries: int = 0
    acts: int = 0


class Chains:
    """Fed with the leaves of a log of ``size``, in order. ``say`` takes all that is wrong."""

    def __init__(self, core: Core, keys: Keys, size: int, say: Callable[[Said, str], None]) -> None:
        self.scopes: dict[str, Scope] = {}
        self._core = core
        self._keys = keys
        self._size = size
        self._say = say
        self._unknown = 0  # leaves below this may be missing: a number may jump

    def skip(self, end: int) -> None:
        """Leaves that stand before ``end`` are not there, or not believed."""
        self._unknown = end

    def read(self, piece: Piece) -> None:
        try:
            found = self._core.read_records(piece.packed, piece.index, self._keys)
        except InvalidInput:
            self._keys.discard()
            for part in self._parts(piece):
                self.read(part)
            return
        index = piece.index
        for item in found:
            if isinstance(item, RecordRun):
                self._run(index, item)
                index += item.count
            else:
                self._leaf(index, item)
                index += 1
        self._settle(index)

    def _parts(self, piece: Piece) -> Iterator[Piece]:
        """Bundle by bundle; a bundle is read here, leaf by leaf."""
        width = TILE_WIDTH if piece.count > TILE_WIDTH else 1
        begins = [*self._core.offsets(piece.packed, 0, width), len(piece.packed)]
        for place, (begin, end) in enumerate(pairwise(begins)):
            index = piece.index + place * width
            if width == 1:
                self._leaf(index, piece.packed[begin + _LENGTH : end])
            else:
                count = min(width, piece.index + piece.count - index)
                yield Piece(index, count, piece.packed[begin:end])
        self._settle(piece.index + piece.count)

    def _settle(self, size: int) -> None:
        self._keys.settle()
        if self._keys.pending >= self._keys.freeze_at:
            self._keys.freeze(size)

    def _leaf(self, index: int, leaf: bytes) -> None:
        """One leaf whose use, if it is one, is not among the keys yet."""
        try:
            receipt = receipts.decode(leaf)
        except InvalidInput as error:
            self._say(Said.FORM, f"{self._where(index)}: {error.message}")
            self.skip(index + 1)
            return
        number = receipt.number
        scope = self._follow(receipt.scope, index, number, number, receipt.previous)
        scope.head = merkle.leaf_hash(leaf)
        _count(scope, receipt)
        if isinstance(receipt, UseReceipt | RecordReceipt):
            key = key_of(Kind.USE, receipt.scope, receipt.use_id)
            first = self._keys.find(key)
            if first is None:
                self._keys.stage(key, index)
            else:
                self._say(
                    Said.ONCE,
                    f"{self._where(index)}: receipt {number} of {receipt.scope} is of a use that "
                    f"leaf {first} is of",
                )

    def _run(self, index: int, run: RecordRun) -> None:
        last = run.first + run.count - 1
        scope = self._follow(run.scope, index, run.first, last, run.previous)
        scope.index = index + run.count - 1
        scope.head = run.head
        scope.receipts += run.count
        scope.records += run.count
        scope.reported += run.calls
        scope.allowed += run.calls

    def _follow(self, name: str, index: int, first: int, last: int, previous: bytes) -> Scope:
        """The scope, at the receipts ``first`` to ``last`` that begin at leaf ``index``."""
        scope = self.scopes.setdefault(name, Scope())
        expected = scope.number + 1
        if first > expected and scope.index + 1 < self._unknown:
            scope.unseen += first - expected
        elif first != expected or previous != scope.head:
            broken = _broken(first, expected)
            self._say(Said.CHAIN, f"{self._where(index)}: receipt {first} of {name} {broken}")
        scope.number = max(scope.number, last)
        scope.index = index
        return scope

    def _where(self, index: int) -> str:
        bundle = index // TILE_WIDTH
        return f"{Tile(None, bundle, width_at(0, bundle, self._size)).path()}: leaf {index}"


def _broken(number: int, expected: int) -> str:
    if number < expected:
        return "is there twice, or out of order"
    if number == expected:
        return "names another leaf hash than that of the one before it"
    lost = f"{expected}" if number == expected + 1 else f"{expected} to {number - 1}"
    return f"has no receipt {lost} before it"


def _count(scope: Scope, receipt: Receipt) -> None:
    scope.receipts += 1
    if isinstance(receipt, ActReceipt):
        scope.acts += 1
        return
    if isinstance(receipt, RecordReceipt):
        scope.records += 1
        scope.reported += receipt.calls
        scope.allowed += receipt.calls
        return
    if isinstance(receipt, DeliveryReceipt):
        scope.deliveries += 1
    if receipt.outcome is Outcome.ALLOWED:
        scope.allowed += 1
    elif receipt.outcome is Outcome.REFUSED:
        scope.refused += 1
    elif receipt.outcome is Outcome.FAILED:
        scope.failed += 1
    else:
        scope.interrupted += 1
