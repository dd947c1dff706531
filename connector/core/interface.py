"""What a metering core does: make record leaves of a report, hash leaves, grow the tree, verify.

Everything is a function on bytes, but for ``Keys``. *Packed* leaves are what a C2SP tlog-tiles
entry bundle is: each leaf behind its length, a big-endian uint16; any number of them. Hashes are
32 bytes each, one after the other.

Leaves out: agreements and policy (whoever makes a ``Place``), the disk (``ports.receipts``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from connector.errors import InvalidInput
from connector.model import cbor
from connector.model.receipt import HASH_BYTES, MAX_TEXT, SALT_BYTES, Kind, Quantity

MAX_RECORDS = 10_000  # in one report
NUMBER_BYTES = 8  # of a number in a column
KEY_BYTES = 10
KEY_PREFIX_BYTES = 16


def key_of(kind: Kind, scope: str, use_id: str) -> bytes:
    """The key of a use's leaf. USE for use and record leaves alike: they share their use ids."""
    return hashlib.sha256(key_prefix(kind, scope) + use_id.encode()).digest()[:KEY_BYTES]


def key_prefix(kind: Kind, scope: str) -> bytes:
    """What stands before the use id in what is hashed: short, so that it is one block."""
    return hashlib.sha256(cbor.encode([kind.value, scope])).digest()[:KEY_PREFIX_BYTES]


@dataclass(frozen=True, slots=True)
class Leaves:
    """Packed leaves with their leaf hashes. ``NO_LEAVES`` is none."""

    packed: bytes
    hashes: bytes

    @property
    def count(self) -> int:
        return len(self.hashes) // HASH_BYTES


NO_LEAVES = Leaves(b"", b"")


class Fault(IntEnum):
    """Why a record of a report was refused. RUNNING is looked for before DUPLICATE, the others in
    this order."""

    MALFORMED = 1  # a use id, time or amount that cannot be
    OUT_OF_TIME = 2  # served before or after the agreement allows
    DUPLICATE = 3  # the use has its receipt, whatever its outcome
    EXHAUSTED = 4  # more than is left of the allowance
    RUNNING = 5  # the use is running at the gate: how it ends is not known yet


@dataclass(frozen=True, slots=True)
class Columns:
    """Records of one agreement and one purpose, by columns, as a reporter sent them.

    ``use_ids``: 1 to 64 visible ASCII characters each (0x21 to 0x7e), joined by line feeds.
    ``served``: when each was served, milliseconds since the Unix epoch; ``amounts``: one column
    for each ``Quantity``, ascending, CALLS among them (each at least 1). Numbers are unsigned,
    64 bits, little-endian. Raises ``InvalidInput`` unless all columns have the same number of
    rows, 1 to ``MAX_RECORDS``; what single rows hold is not looked at here.
    """

    purpose: str
    use_ids: bytes
    served: bytes
    amounts: tuple[tuple[Quantity, bytes], ...]

    def __post_init__(self) -> None:
        rows = self.use_ids.count(b"\n") + 1 if self.use_ids else 0
        if not 1 <= rows <= MAX_RECORDS:
            raise InvalidInput(f"report: 1 to {MAX_RECORDS} records")
        columns = (self.served, *(column for _, column in self.amounts))
        if any(len(column) != rows * NUMBER_BYTES for column in columns):
            raise InvalidInput("report: its columns are not of the same length")
        names = [name for name, _ in self.amounts]
        if names != sorted(set(names)) or Quantity.CALLS not in names:
            raise InvalidInput(
                "report: amounts are ascending by quantity, and calls are among them"
            )
        if len(self.purpose) > MAX_TEXT:
            raise InvalidInput(f"report: a purpose has at most {MAX_TEXT} characters")

    def __len__(self) -> int:
        return len(self.served) // NUMBER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the log the records of a report go, and what they are held to.

    ``scope``: the agreement; ``number`` and ``head`` of its last receipt (0 and zeros: none);
    ``left``: calls that its allowance still has, None: any number; ``first_ms`` to ``last_ms``:
    when a use may have been served; ``running``: use ids under way in the scope. ``time_ms``: of
    the receipts; ``index``: of the next leaf. ``salts``: 16 bytes for each row, used or not.
    """

    scope: str
    reporter: str
    number: int
    head: bytes
    left: int | None
    first_ms: int
    last_ms: int
    running: frozenset[bytes]
    time_ms: int
    index: int
    salts: bytes

    def __post_init__(self) -> None:
        if len(self.salts) % SALT_BYTES:
            raise InvalidInput("report: a salt has 16 bytes")


@dataclass(frozen=True, slots=True)
class Made:
    """Record leaves, in the order of their rows, numbered on from the place's ``number``.

    ``calls``: their sum; ``head``: leaf hash of the last (the place's, if there are none);
    ``refused``: ``(row, fault)``, ascending.
    """

    leaves: Leaves
    calls: int
    head: bytes
    refused: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RecordRun:
    """Neighbouring record leaves of one scope, read back: ``count`` of them from number ``first``.

    ``previous``: what the first one follows; ``head``: leaf hash of the last; ``calls``: their
    sum; ``time_ms``: the latest. Within the run each follows the one before it.
    """

    scope: str
    first: int
    count: int
    previous: bytes
    head: bytes
    calls: int
    time_ms: int


Claim: TypeAlias = tuple[bytes, int, int, Sequence[bytes], bytes]
"""What ``Core.verify_inclusion`` takes: leaf hash, index, size, proof, root."""


class Keys(Protocol):
    """Which use has which leaf: a map from 10-byte keys to leaf indices, most of it on disk.

    It follows from the log and can be made anew from it. One thread stages, seals, forgets and
    freezes, one settles; ``find`` may be called from any. What is *staged* is found, and becomes
    permanent or vanishes by the group. Memory does not grow with the number of keys.
    """

    def find(self, key: bytes) -> int | None:
        """The leaf's index."""
        ...

    def stage(self, key: bytes, index: int) -> None:
        """Add a key of a leaf that is about to be committed. A key twice: the first one stays."""
        ...

    def seal(self) -> None:
        """What was staged since the last ``seal`` is a group, which will be committed or not."""
        ...

    def settle(self) -> None:
        """The oldest sealed group was committed; if none is sealed, all that is staged was."""
        ...

    def unstage(self) -> None:
        """Forget what was staged since the last ``seal``."""
        ...

    def discard(self) -> None:
        """What is staged, sealed or not, was not committed, and is forgotten."""
        ...

    def freeze(self, size: int) -> None:
        """Begin to write out all settled keys, which are those of leaves below ``size``.

        Returns at once; ``covered`` tells when it is done. While an earlier freeze is under way
        this waits for it. Nothing may be staged.
        """
        ...

    @property
    def covered(self) -> int:
        """The files, durable, hold every key of leaves below this; what is above is in memory."""
        ...

    @property
    def pending(self) -> int:
        """Settled keys in memory that no ``freeze`` has taken yet."""
        ...

    @property
    def trouble(self) -> str:
        """Why files could not be written or read lately; empty if they could. Nothing is lost:
        the keys stay in memory until a ``freeze`` succeeds."""
        ...

    @property
    def freeze_at(self) -> int:
        """How many ``pending`` keys are worth a ``freeze``: more while an earlier one is under way,
        for which it would wait."""
        ...

    def wait(self) -> None:
        """Return when no ``freeze`` is under way any more, done or given up."""
        ...

    def clear(self) -> None:
        """Forget everything, files and all."""
        ...

    def close(self) -> None:
        """Waits for background work, stops merging between steps; memory that was not frozen is
        lost. Idempotent."""
        ...


class Core(Protocol):
    """Stateless. Every method may be called from any thread; the native ones let others run."""

    @property
    def name(self) -> str:
        """``python`` or ``native``."""
        ...

    @property
    def detail(self) -> str:
        """What it runs on, for people: ``SHA instructions`` or ``portable``, say."""
        ...

    def make_records(self, columns: Columns, place: Place, keys: Keys) -> Made:
        """Leaves for the rows that nothing speaks against; stages their keys.

        A row is looked at after those before it: the second of two with one use id is a
        DUPLICATE, and the allowance goes to whoever comes first and still fits.
        """
        ...

    def leaf_hashes(self, packed: bytes) -> bytes:
        """RFC 6962 leaf hashes. Raises ``InvalidInput`` if the bytes do not end with a leaf."""
        ...

    def offsets(self, packed: bytes, skip: int, step: int) -> list[int]:
        """Where leaves ``skip``, ``skip + step`` ... begin: offsets of their lengths."""
        ...

    def extend(
        self, size: int, subtrees: Sequence[bytes], hashes: bytes
    ) -> tuple[list[bytes], Mapping[int, bytes]]:
        """Append leaf hashes to a tree of ``size`` leaves whose complete subtrees are given,
        largest first. Its subtrees afterwards, and for each tile level (C2SP tlog-tiles) the
        hashes that were completed, level 0 being ``hashes``; levels without any are left out."""
        ...

    def read_records(self, packed: bytes, index: int, keys: Keys) -> list[RecordRun | bytes]:
        """Leaves read back, the first being leaf ``index`` of the log: record leaves as runs,
        their keys staged; every other leaf as its bytes. A run ends where the scope changes and
        where numbers or hashes do not follow. Raises ``InvalidInput`` for a record leaf that
        ``model.receipt.decode`` would refuse, and for a use that has another leaf already."""
        ...

    def verify_inclusion(
        self, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
    ) -> None:
        """As ``tlog.merkle.verify_inclusion``."""
        ...

    def verify_inclusions(self, claims: Sequence[Claim]) -> None:
        """Many of them: raises what ``verify_inclusion`` raises for the first that does not
        hold."""
        ...

    def open_keys(self, folder: Path) -> Keys:
        """The keys kept in ``folder``, made if it is not there. Files that make no sense are
        removed, with what follows from them: ``covered`` says how far what is left reaches."""
        ...
