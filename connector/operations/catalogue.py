"""Searching the space's catalogue: what the directory lists, believed only if its publisher
signed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from connector.errors import ConnectorError
from connector.identity.datasets import peek_publisher, read_dataset
from connector.model.catalog import Dataset
from connector.model.participant import Participant
from connector.ports.peers import DirectoryPeer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """Verified datasets, best first; ``next`` is the token of the next page, empty on the last."""

    datasets: tuple[Dataset, ...]
    next: str


class Catalogue:
    """``lookup`` gives the record of an active member or raises."""

    def __init__(self, directory: DirectoryPeer, lookup: Callable[[str], Participant]) -> None:
        self._directory = directory
        self._lookup = lookup

    async def search(self, query: str, size: int, token: str) -> Found:
        """Records that do not verify are left out, and logged."""
        page = await self._directory.search(query, size, token)
        datasets = []
        for record in page.records:
            try:
                datasets.append(self._verified(record))
            except ConnectorError as error:
                log.warning("a catalogue record does not verify", reason=error.message)
        return Found(tuple(datasets), page.next)

    def _verified(self, record: str) -> Dataset:
        return read_dataset(record, self._lookup(peek_publisher(record)).signing_keys)
