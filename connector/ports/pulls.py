"""What the data plane for HTTP pull keeps of running transfers, and the files that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from connector.ports.datasets import PublishedDataset


class PullState(StrEnum):
    OPEN = "open"
    SUSPENDED = "suspended"
    ENDED = "ended"  # cut for good; its receipt is to be written


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPull:
    """A transfer process whose use is reserved and has no receipt yet.

    ``moved``: bytes that may have left, never fewer than did. ``started_ms``: since the Unix
    epoch. ``reason``: why it ended, if it was not completed. ``tokens``: ``gate.tokens`` as JSON;
    it holds digests, no token.
    """

    pid: str
    agreement_id: str
    consumer: str
    started_ms: int
    state: PullState = PullState.OPEN
    moved: int = 0
    reason: str = ""
    tokens: bytes = b""


class PullStore(Protocol):
    """A write is on stable storage when it returns, or nothing of it happened; calls may overlap.
    Raises ``Unavailable`` when the disk refuses, and then the write may have happened all the
    same."""

    async def all(self) -> Sequence[StoredPull]: ...

    async def save(self, pull: StoredPull) -> None:
        """A new one, or what changed of one that is there, ``moved`` not among it."""
        ...

    async def move(self, moved: Mapping[str, int]) -> None:
        """``moved`` of several pulls, by pid."""
        ...

    async def remove(self, pid: str) -> None:
        """Whether it was there or not."""
        ...


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file that does not change. ``etag``: strong, in its quotes, of the bytes. ``name``: what
    a recipient may call it, of letters, digits, ``_`` and ``.``."""

    path: Path
    size: int
    etag: str
    media_type: str
    name: str


class DatasetFiles(Protocol):
    """The bytes of whole datasets; coroutines may overlap. Raises ``Unavailable``."""

    async def of(self, published: PublishedDataset) -> ServedFile:
        """The file of this publication: the owner's own, if it was kept, or else one that is
        made from the prepared rows, once. The same bytes each time, after a restart too.

        MUST be asked for datasets alone that may leave as a whole: it knows no terms.
        """
        ...


class SourceFiles(Protocol):
    """Where a publication leaves the owner's file. Raises ``Unavailable`` if the disk refuses."""

    async def stamp(self, source: Path) -> bytes:
        """What changes when the file does; empty for what is not one file."""
        ...

    async def keep(self, source: Path, database: str, stamp: bytes) -> Path | None:
        """Copy the file for the publication with this ``database``; None for what is not one
        file. Durable on return. Raises ``InvalidInput`` if it is not as it was at ``stamp``."""
        ...

    async def drop(self, database: str) -> None:
        """Forget the copy, if there is one; who reads it reads on."""
        ...
