"""What the leaves of a whole log say: receipts, numbered and chained in each scope, uses once.

Memory: some hundred bytes for each scope. Uses are remembered by the core's ``Keys``, most of
them on disk. Where leaves are not there (dropped) or not believed, numbers may jump over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

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
from connector.tlog.tiles import TILE_WIDTH
from connector.verifier.batches import Bundle

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
    """Fed with a log's leaves in order. ``say`` takes everything that is wrong."""

    def __init__(self, core: Core, keys: Keys, say: Callable[[Said, str], None]) -> None:
        self.scopes: dict[str, Scope] = {}
        self._core = core
        self._keys = keys
        self._say = say
        self._unknown = 0  # leaves below this may be missing: a number may jump

    def skip(self, end: int) -> None:
        """Leaves that stand before ``end`` are not there, or not believed."""
        self._unknown = end

    def read(self, bundles: Sequence[Bundle]) -> None:
        """Neighbouring bundles."""
        try:
            found = self._core.read_records(
                b"".join(bundle.packed for bundle in bundles), bundles[0].index, self._keys
            )
        except InvalidInput:
            self._keys.discard()
            if len(bundles) > 1:
                for bundle in bundles:
                    self.read([bundle])
            else:
                self._one_by_one(bundles[0])
            return
        index = bundles[0].index
        for item in found:
            if isinstance(item, RecordRun):
                self._run(index, item, bundles)
                index += item.count
            else:
                self._leaf(index, item, _path(bundles, index))
                index += 1
        self._settle(index)

    def _one_by_one(self, bundle: Bundle) -> None:
        at, index = 0, bundle.index
        while at < len(bundle.packed):
            end = at + _LENGTH + int.from_bytes(bundle.packed[at : at + _LENGTH])
            self._leaf(index, bundle.packed[at + _LENGTH : end], bundle.path)
            at, index = end, index + 1
        self._settle(index)

    def _settle(self, size: int) -> None:
        self._keys.settle()
        if self._keys.pending >= self._keys.freeze_at:
            self._keys.freeze(size)

    def _leaf(self, index: int, leaf: bytes, path: str) -> None:
        """One leaf whose use, if it is one, is not among the keys yet."""
        try:
            receipt = receipts.decode(leaf)
        except InvalidInput as error:
            self._say(Said.FORM, f"{path}: leaf {index}: {error.message}")
            self.skip(index + 1)
            return
        where = f"{path}: leaf {index}"
        scope = self._follow(
            receipt.scope, index, receipt.number, receipt.number, receipt.previous, where
        )
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
                    f"{where}: receipt {receipt.number} of {receipt.scope} is of a use that leaf "
                    f"{first} is of",
                )

    def _run(self, index: int, run: RecordRun, bundles: Sequence[Bundle]) -> None:
        where = f"{_path(bundles, index)}: leaf {index}"
        last = run.first + run.count - 1
        scope = self._follow(run.scope, index, run.first, last, run.previous, where)
        scope.index = index + run.count - 1
        scope.head = run.head
        scope.receipts += run.count
        scope.records += run.count
        scope.reported += run.calls
        scope.allowed += run.calls

    def _follow(
        self, name: str, index: int, first: int, last: int, previous: bytes, where: str
    ) -> Scope:
        """The scope, at the receipts ``first`` to ``last`` that begin at leaf ``index``."""
        scope = self.scopes.setdefault(name, Scope())
        expected = scope.number + 1
        if first > expected and scope.index + 1 < self._unknown:
            scope.unseen += first - expected
        elif first > expected:
            lost = f"{expected}" if first == expected + 1 else f"{expected} to {first - 1}"
            self._say(
                Said.CHAIN, f"{where}: receipt {first} of {name}, but no receipt {lost} before it"
            )
        elif first < expected:
            self._say(
                Said.CHAIN, f"{where}: receipt {first} of {name} is there twice, or out of order"
            )
        elif previous != scope.head:
            self._say(
                Said.CHAIN,
                f"{where}: receipt {first} of {name} names another leaf hash than that of the one "
                "before it",
            )
        scope.number = max(scope.number, last)
        scope.index = index
        return scope


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


def _path(bundles: Sequence[Bundle], index: int) -> str:
    """Of the file that holds leaf ``index``."""
    return bundles[(index - bundles[0].index) // TILE_WIDTH].path
