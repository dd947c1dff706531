"""A log's segments as its operator sees them: sealed, and dropped when their time is over.

Leaves out: which segments may go (``operations.retention``), and their bytes (the storage).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Form(StrEnum):
    """How a segment is stored. OPEN is the last one, which is still written to."""

    OPEN = "open"
    COMPLETE = "complete"
    SEALED = "sealed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Segment:
    """``start``: its position in the log, by which it is named; ``leaves`` of them from index
    ``first`` on; ``stored``: bytes on the disk, derived files aside."""

    start: int
    first: int
    leaves: int
    stored: int
    form: Form
    kept: bool
    """The kept mark is behind it: opening needs nothing of it."""


class Segments(Protocol):
    """Any thread, while the log is written and read; ``seal`` and ``drop`` one at a time, a
    second call waits.

    A crash at any moment leaves a segment in its old form or in the new one.
    """

    def segments(self) -> list[Segment]:
        """From the first to the open one."""
        ...

    def seal(self, start: int) -> Segment:
        """Compress a complete segment, after it was checked from its first byte to its last;
        durable on return. One that is sealed already stays as it is.

        Raises ``NotFound``, ``Conflict`` for one that is open or dropped, ``CorruptLog`` for one
        that is damaged, ``Unavailable`` if the disk refuses or the log is being closed.
        """
        ...

    def drop(self, start: int) -> Segment:
        """Remove a segment's leaves for ever; their hashes stay, so that what remains can be
        proven. Durable on return. Reading them raises ``Gone`` from then on.

        Only the oldest one that is left can be dropped, and only if it is sealed and the kept
        mark is behind it; else ``Conflict``. Raises ``NotFound``, ``Unavailable``.
        """
        ...
