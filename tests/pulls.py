"""What tests of pulls share: one provider with a real meter, store and file, and its consumer."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connector.adapters.dataset_files import LocalDatasetFiles
from connector.adapters.pull_store import SqlitePullStore
from connector.errors import NotFound, Reason, Unavailable
from connector.gate.pulls import Pulls
from connector.metering.meter import Meter
from connector.metering.refusals import RefusalLimiter
from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.negotiation import Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import UseReceipt
from connector.model.terms import Offer, agreement_document, parse_agreement
from connector.model.transfer import PULL, DataAddress, TransferProcess, TransferState
from connector.ports.clock import Clock
from connector.ports.datasets import PublishedDataset
from tests.agreements import PROVIDERS, SECRET, TERMS
from tests.logs import CONSUMER, ORIGIN, PROVIDER
from tests.negotiators import record_of
from tests.trips import DATASET as TRIPS

DATASET: Dataset = dataclasses.replace(
    TRIPS,
    publisher=PROVIDER,
    classification=Classification.GENERAL,
    columns=(Column("city", "VARCHAR", Role.DIMENSION), Column("n", "BIGINT", Role.MEASURE)),
)
DOCUMENT = agreement_document(
    id="urn:uuid:agreement-1",
    offer=Offer("urn:uuid:offer-1", DATASET.id, PROVIDER, TERMS),
    assignee=CONSUMER,
    timestamp=datetime(2026, 11, 1, tzinfo=UTC),
    space="did:web:space.example",
    classification="general",
    secret_commitment=hashlib.sha256(SECRET).hexdigest(),
    provider_log=ORIGIN,
    consumer_log="tourism.example/log",
)
AGREEMENT = dataclasses.replace(PROVIDERS, terms=parse_agreement(DOCUMENT))
SCOPE = AGREEMENT.terms.id
NO_OBLIGATIONS = {"minimum_group": 0, "privacy_unit": "", "row_cap": 0, "hidden_columns": []}
BASE = "https://airport.example/dsp"


class Policy:
    """Allows, or refuses with ``reasons``; ``down``: does not answer."""

    digest = b"p" * 32

    def __init__(self) -> None:
        self.reasons: tuple[Reason, ...] = ()
        self.down = False
        self.row_cap = 0
        self.documents: list[dict[str, Any]] = []

    async def evaluate(self, entry: str, document: dict[str, Any]) -> Any:
        assert entry == "dataspace/usage/decision"
        self.documents.append(document)
        if self.down:
            raise Unavailable("no answer")
        return {
            "allow": not self.reasons,
            "reasons": [dataclasses.asdict(reason) for reason in self.reasons],
            "obligations": {} if self.reasons else {**NO_OBLIGATIONS, "row_cap": self.row_cap},
        }


class Store(SqlitePullStore):
    """Fails while ``down``."""

    down = False
    moves = 0

    async def save(self, pull: Any) -> None:
        self._look()
        await super().save(pull)

    async def move(self, moved: Any) -> None:
        self._look()
        self.moves += 1
        await super().move(moved)

    def _look(self) -> None:
        if self.down:
            raise Unavailable("the disk is full")


class Provider:
    """``publish`` first; ``restart`` makes a new ``pulls`` on the same store."""

    def __init__(
        self, folder: Path, meter: Meter, clock: Clock, *, base: str = BASE, policy: Any = None
    ) -> None:
        self.folder, self.meter, self.clock, self.base = folder, meter, clock, base
        self.policy = policy or Policy()
        self.agreements: dict[str, StoredAgreement] = {SCOPE: AGREEMENT}
        self.published: PublishedDataset | None = None
        self.trouble: Exception | None = None  # of the directory's view, or the member
        self.observed: list[UseReceipt] = []
        self.exports: list[tuple[str, ...]] = []
        self.files = LocalDatasetFiles(folder / "files", folder / "gate", self._export)
        self._number = 0
        self._open()

    def _open(self) -> None:
        self.store = Store(self.folder / "pulls.db")
        self.pulls = Pulls(
            did=PROVIDER,
            base=self.base,
            agreement=self._agreement,
            datasets=self,  # type: ignore[arg-type]
            files=self.files,
            engine=self.policy,
            meter=self.meter,
            refusals=RefusalLimiter(self.clock, per_second=1, burst=50),
            store=self.store,
            clock=self.clock,
            random=os.urandom,
            member=self._member,
            observe=self.observed.append,
        )

    async def open(self) -> None:
        await self.pulls.open()
        await self.pulls.take_up()

    async def close(self) -> None:
        await self.pulls.close()
        self.store.close()

    async def restart(self, *, crash: bool = True) -> None:
        """As after a crash: nothing is closed but the file."""
        if not crash:
            await self.pulls.close()
        self.store.close()
        self._open()
        await self.open()

    async def publish(self, content: bytes, *, suffix: str = ".csv", keep: bool = True) -> None:
        self._number += 1
        database = f"{self._number:032x}.duckdb"
        if keep:
            source = self.folder / f"source{suffix}"
            await asyncio.to_thread(source.write_bytes, content)
            await self.files.keep(source, database, await self.files.stamp(source))
        self.published = PublishedDataset(DATASET, "", database, 3, False, False)

    async def serve(self, source: Path) -> None:
        """Publish this file, once, whatever run it is."""
        database = f"{0:032x}.duckdb"
        self.published = PublishedDataset(DATASET, "", database, 3, False, False)
        if not list((self.folder / "files").glob(f"{0:032x}-*")):
            await self.files.keep(source, database, await self.files.stamp(source))

    async def get(self, dataset_id: str) -> PublishedDataset | None:
        assert dataset_id == DATASET.id
        return self.published

    async def _export(
        self, database: Path, table: str, columns: tuple[str, ...], target: Path
    ) -> None:
        self.exports.append(columns)
        await asyncio.to_thread(target.write_bytes, b"PAR1" + database.name.encode())

    async def _agreement(self, agreement_id: str) -> StoredAgreement:
        if agreement_id not in self.agreements:
            raise NotFound("there is no such agreement")
        return self.agreements[agreement_id]

    def _member(self, did: str) -> Participant:
        if self.trouble is not None:
            raise self.trouble
        return record_of(did)

    async def start(self, pid: str = "urn:uuid:1", **changes: Any) -> DataAddress:
        return await self.pulls.start(AGREEMENT, process(pid, **changes))

    def uses(self) -> tuple[int, int]:
        counters = self.meter.counters(SCOPE)
        return counters.uses, counters.reserved


def process(pid: str = "urn:uuid:1", **changes: Any) -> TransferProcess:
    made = TransferProcess(
        pid=pid,
        peer_pid=f"{pid}-theirs",
        party=Party.PROVIDER,
        peer=CONSUMER,
        agreement_id=SCOPE,
        format=PULL,
        state=TransferState.REQUESTED,
        revision=1,
    )
    return dataclasses.replace(made, **changes)


def prop(address: DataAddress, name: str) -> str:
    """The one property that is called this, or ends so."""
    (found,) = {v for n, v in address.properties if n == name or n.endswith(f"/{name}")}
    return found
