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
