"""Where a log's bytes are kept: leaves, the state records beside them, and the tree's hashes.

A *commit* is the unit of durability: some records and some leaves, covered by one signed
checkpoint. Records are opaque to the storage; they are not part of the tree (a reservation is
one). What can be computed from the leaves (the tree's hashes) is kept too, for reading alone.

Leaves out: what leaves and records mean, who signs, and all reading by contract
(``connector.metering``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from connector.core.interface import Leaves
from connector.errors import InternalError

MAX_RECORD_BYTES = 65_535
MAX_BATCH_BYTES = 1 << 28  # of one commit; whoever appends keeps far below

Seal: TypeAlias = Callable[[int, bytes], bytes]
"""``(size, root)`` of the tree to the signed checkpoint note that covers it."""


class CorruptLog(InternalError):
    """What is stored is not what was written, or not all of it. Nothing was changed."""

    code = "log_corrupt"


@dataclass(frozen=True, slots=True)
class Tip:
    """The last commit's tree. ``checkpoint`` is the signed note over exactly ``size`` leaves;
    empty, with size 0, only while nothing at all was committed."""

    size: int
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a log stood after some commit: ``size`` leaves; ``position`` is the storage's own."""

    size: int
    position: bytes


@dataclass(frozen=True, slots=True)
class Replayed:
    """One commit as it was written: ``count`` leaves, packed, ``first`` the index of the first.

    ``known``: it is before the kept mark. ``packed`` is empty where the leaves were dropped.
    """

    first: int
    count: int
    records: tuple[bytes, ...]
    packed: bytes
    known: bool


class LogStorage(Protocol):
    """One log, with one writer in the whole machine: opening it a second time is a ``Conflict``.

    Reads (``tip``, ``leaves``, ``hashes``) may come from any thread at any time; they see the
    last commit that was durable, whole, and never wait for a write. They raise ``InvalidInput``
    for a range outside the tip.
    """

    @property
    def tip(self) -> Tip: ...

    def append(self, records: Sequence[bytes], leaves: Leaves, seal: Seal) -> Tip:
        """One commit: all of it is on stable storage on return.

        The leaves' hashes are taken as they are: they come from this process's core.
        ``seal`` is called once if there are leaves, or if there is no checkpoint yet; else the
        last checkpoint stays. Calls must not overlap. Raises ``Unavailable`` when the storage
        refuses. Then nothing of this commit is visible, but it may have been persisted all the
        same: it is then found at the next opening. Where that is uncertain, every further append
        raises ``Unavailable`` until the log is opened anew.
        """
        ...

    def mark(self) -> Mark:
        """Where the log stands now."""
        ...

    def keep(self, mark: Mark, state: bytes) -> None:
        """Keep ``state``, what all commits up to the mark come to, for the next opening, which
        then reads what follows alone. Replaces an earlier one; durable on return. Any thread.

        Raises ``Unavailable``; the earlier one is still there then.
        """
        ...

    @property
    def kept(self) -> tuple[int, bytes] | None:
        """Size and state of the mark that opening began from."""
        ...

    def replay(self, *, everything: bool = False) -> Iterator[Replayed]:
        """The commits after the kept mark in order, or every one from the first; memory does not
        grow with the log."""
        ...

    def leaves(self, start: int, count: int) -> list[bytes]:
        """``count`` leaves from index ``start``."""
        ...

    def hashes(self, tile_level: int, start: int, count: int) -> bytes:
        """``count`` hashes of tree level ``8 * tile_level``, 32 bytes each, from ``start``.

        Only complete subtrees are kept; see ``tlog.tiles.stored_hashes`` for the others.
        """
        ...

    def cosigned(self) -> list[bytes]:
        """The notes kept by ``keep_cosigned``, one for each witness, in no order."""
        ...

    def keep_cosigned(self, witness: str, note: bytes) -> None:
        """Replace the witness's note; durable on return. Any thread, one call at a time.

        Kept apart from the commits, so that a log that lost its tail is found out by it. Raises
        ``Unavailable``; the old note or the new one is there then.
        """
        ...

    def close(self) -> None:
        """Let the next one open it. Nothing else may be called afterwards."""
        ...
