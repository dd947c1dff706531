"""Publishing a dataset: look at the source, judge the terms, prepare the rows, sign, list.

The rows that queries will see are copied into a file of the gate's own that holds no hidden
column. The space's listing policy decides before anything is copied or announced. A file that may
leave as a whole (general data, nothing hidden) is kept beside, for transfers (``gate.pulls``).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from connector.errors import ConnectorError, InvalidInput, Refused
from connector.identity.datasets import sign_dataset
from connector.identity.ourselves import Ourselves
from connector.model import fields
from connector.model.catalog import (
    Classification,
    Column,
    Dataset,
    Role,
    dataset_json,
    parse_dataset,
)
from connector.model.terms import Offer, parse_sections
from connector.policy import inputs
from connector.policy.constraints import may_leave_whole
from connector.policy.decisions import LISTING, read_listing
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore, PublishedDataset
from connector.ports.journal import Journal
from connector.ports.peers import DirectoryPeer
from connector.ports.policy import PolicyEngine
from connector.ports.pulls import SourceFiles
from connector.ports.query import QueryEngine, SourceInfo

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)

# It stands in paths, and is a scope of the log's: it must not look like a participant's.
_ID = re.compile(r"(?!did:)[A-Za-z0-9._~:-]{1,256}", re.ASCII)

PUBLISHED = "dataset.published"
WITHDRAWN = "dataset.withdrawn"
FREE_SQL_WARNING = (
    "free SQL with group minimums: a consumer who compares the answers to several questions can "
    "learn about single individuals; use approved queries or a privacy budget where that matters"
)
COPY_WARNING = "the rows were copied: publish again when the source changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What the owner says. ``terms`` is UTF-8 JSON of an offer's ODRL sections."""

    source: Path
    title: str
    description: str
    keywords: tuple[str, ...]
    classification: str
    table: str
    hidden_columns: tuple[str, ...]
    privacy_unit: str
    dimensions: tuple[str, ...]
    terms: bytes
    accept_free_sql: bool
    manual_approval: bool
    csv_null: str = ""
    dataset_id: str = ""  # of the dataset that this is a new version of
    own_id: str = ""  # for a new dataset; empty: one is made
    offer_id: str = ""  # empty: one is made


@dataclass(frozen=True, slots=True)
class Published:
    dataset_id: str
    offer_id: str
    rows: int
    warnings: tuple[str, ...]


class Publisher:
    """``folder`` is where the gate keeps its prepared rows, ``files`` where whole files are."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        store: DatasetStore,
        queries: QueryEngine,
        engine: PolicyEngine,
        directory: DirectoryPeer,
        journal: Journal,
        clock: Clock,
        folder: Path,
        files: SourceFiles,
    ) -> None:
        self._ourselves = ourselves
        self._store = store
        self._queries = queries
        self._engine = engine
        self._directory = directory
        self._journal = journal
        self._clock = clock
        self._folder = folder
        self._files = files

    async def publish(self, wanted: Publication) -> Published:
        """Raises ``InvalidInput``, ``Refused`` (by the listing policy), ``Unavailable``."""
        stamp = await self._files.stamp(wanted.source)
        source = await self._queries.inspect(wanted.source, wanted.csv_null)
        dataset = await self._describe(wanted, source)
        await self._judge(dataset, wanted.accept_free_sql)
        visible = tuple(c.name for c in dataset.columns if c.role is not Role.HIDDEN)
        record = sign_dataset(self._ourselves.signing_key, dataset)
        database = f"{hashlib.sha256(record.encode()).hexdigest()[:32]}.duckdb"
        # What may leave as it is, is kept as it is; then queries read the same bytes.
        kept = None
        if may_leave_whole(dataset.classification, (one.role for one in dataset.columns)):
            kept = await self._files.keep(wanted.source, database, stamp)
        before = await self._store.get(dataset.id)
        try:
            rows = await self._queries.prepare(
                kept or wanted.source,
                visible,
                dataset.table,
                self._folder / database,
                wanted.csv_null,
                dataset.privacy_unit,
            )
            await self._put_up(wanted, dataset, record, database, rows, before)
        except ConnectorError:
            await self._files.drop(database)
            raise
        if before is not None:
            await self._files.drop(before.database)
        warnings = [COPY_WARNING]
        if wanted.accept_free_sql:
            warnings.insert(0, FREE_SQL_WARNING)
        return Published(dataset.id, dataset.offers[0].id, rows, tuple(warnings))

    async def _put_up(
        self,
        wanted: Publication,
        dataset: Dataset,
        record: str,
        database: str,
        rows: int,
        before: PublishedDataset | None,
    ) -> None:
        """Offer what is prepared: here, in the log, at the directory."""
        await self._store.save(
            PublishedDataset(
                dataset=dataset,
                record=record,
                database=database,
                rows=rows,
                accept_free_sql=wanted.accept_free_sql,
                manual_approval=wanted.manual_approval,
            )
        )
        digest = hashlib.sha256(record.encode()).hexdigest()
        await self._log(
            PUBLISHED,
            dataset.id,
            recordDigest=digest,
            freeSqlAccepted=wanted.accept_free_sql,
            rows=rows,
        )
        try:
            await self._directory.publish(record)
        except ConnectorError:
            await self._take_back(dataset.id, before, digest)
            raise

    async def _take_back(
        self, dataset_id: str, before: PublishedDataset | None, digest: str
    ) -> None:
        """What the directory did not list is not offered: the version before it is, if any."""
        if before is None:
            await self._store.remove(dataset_id)
        else:
            await self._store.save(before)
        await self._log(WITHDRAWN, dataset_id, recordDigest=digest)

    async def _log(self, act: str, scope: str, **details: object) -> None:
        statement = self._ourselves.act(act, scope, self._clock.now(), **details)
        await self._journal(scope=scope, actor=self._ourselves.did, act=act, statement=statement)

    async def _describe(self, wanted: Publication, source: SourceInfo) -> Dataset:
        """The dataset as it will be listed; every limit of the model holds."""
        if not _TABLE_NAME.fullmatch(wanted.table):
            raise InvalidInput("table: lower-case letters, digits and underscores, a letter first")
        try:
            classification = Classification(wanted.classification)
        except ValueError as error:
            raise InvalidInput(
                f"classification: must be one of {', '.join(Classification)}"
            ) from error
        dataset_id = await self._dataset_id(wanted)
        offer = Offer(
            id=wanted.offer_id or f"urn:uuid:{uuid.uuid4()}",
            target=dataset_id,
            assigner=self._ourselves.did,
            terms=parse_sections(wanted.terms),
        )
        dataset = Dataset(
            id=dataset_id,
            title=wanted.title,
            description=wanted.description,
            keywords=wanted.keywords,
            publisher=self._ourselves.did,
            classification=classification,
            table=wanted.table,
            columns=_columns(wanted, source),
            offers=(offer,),
        )
        return parse_dataset(fields.encode_json(dataset_json(dataset)))

    async def _dataset_id(self, wanted: Publication) -> str:
        if wanted.dataset_id:
            if wanted.own_id or await self._store.get(wanted.dataset_id) is None:
                raise InvalidInput("dataset_id: this node publishes no such dataset")
            return wanted.dataset_id
        if wanted.own_id and not _ID.fullmatch(wanted.own_id):
            raise InvalidInput("own_id: letters, digits and -._~: only, and not a DID")
        if wanted.own_id and await self._store.get(wanted.own_id) is not None:
            raise InvalidInput(
                "own_id: this node publishes such a dataset already",
                hint="give it as dataset_id to publish a new version",
            )
        return wanted.own_id or f"urn:uuid:{uuid.uuid4()}"

    async def _judge(self, dataset: Dataset, accept_free_sql: bool) -> None:
        document = inputs.listing_input(
            now=self._clock.now(), dataset=dataset, accept_free_sql=accept_free_sql
        )
        answer = read_listing(await self._engine.evaluate(LISTING, document))
        if not answer.allow:
            raise Refused(answer.reasons, hint="change the terms or the classification")


def _columns(wanted: Publication, source: SourceInfo) -> tuple[Column, ...]:
    """A role for each column of the source: hidden, unit, dimension, and the rest measures."""
    names = {column.name for column in source.columns}
    named = {*wanted.hidden_columns, *wanted.dimensions} | (
        {wanted.privacy_unit} if wanted.privacy_unit else set()
    )
    unknown = sorted(named - names)
    if unknown:
        raise InvalidInput(f"the source has no column {unknown[0]!r}")
    roles = dict.fromkeys(wanted.dimensions, Role.DIMENSION)
    if wanted.privacy_unit:
        roles[wanted.privacy_unit] = Role.UNIT
    roles |= dict.fromkeys(wanted.hidden_columns, Role.HIDDEN)
    return tuple(
        Column(column.name, column.type, roles.get(column.name, Role.MEASURE))
        for column in source.columns
    )
