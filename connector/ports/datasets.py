"""The provider's own datasets: what is listed, and where its rows are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.model.catalog import Dataset


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """A dataset that this node publishes.

    ``record`` is our own JWS over its JSON. ``database`` is the name of the file, below the gate's
    folder, that holds the rows without the hidden columns; ``rows`` counts them.
    """

    dataset: Dataset
    record: str
    database: str
    rows: int
    accept_free_sql: bool
    manual_approval: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which datasets: all that an empty value says nothing of. ``text``: words in title,
    description or keywords; ``keyword``: words in the keywords; ``id``: of the one dataset."""

    text: str = ""
    keyword: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A dataset in a list, not parsed: ``number`` is its place, ``dataset`` its JSON."""

    number: int
    dataset: bytes


class DatasetStore(Protocol):
    """Coroutines may overlap. Raises ``Unavailable`` when the disk refuses."""

    async def save(self, published: PublishedDataset) -> None:
        """Keep it, or replace the earlier version; durable on return."""
        ...

    async def remove(self, dataset_id: str) -> None:
        """Durable on return, whether it was there or not."""
        ...

    async def get(self, dataset_id: str) -> PublishedDataset | None: ...

    async def all(self) -> tuple[PublishedDataset, ...]: ...

    async def listed(
        self, wanted: Wanted, *, after: int = 0, before: int = 0, skip: int = 0, limit: int
    ) -> tuple[Listed, ...]:
        """In order of their numbers, which a dataset keeps: the first ones beyond ``after``; or,
        if ``before`` is given, the last ones below it. The first ``skip`` of these are left out.

        Raises ``InvalidInput`` for words that are too many, or none.
        """
        ...
