"""Publishing: what is judged and signed, in which order, and what is refused before any copy."""

import dataclasses
import json
from pathlib import Path

import pytest

from connector.errors import InvalidInput, Reason, Refused, Unavailable
from connector.identity.statements import public_bytes, read_statement
from connector.model.catalog import Role, parse_dataset
from connector.operations.publishing import COPY_WARNING, FREE_SQL_WARNING, Publication, Publisher
from connector.ports.query import SourceColumn, SourceInfo
from tests.logs import ManualClock
from tests.negotiators import AIRPORT, key_of, ourselves

SOURCE = SourceInfo(
    (
        SourceColumn("dest", "VARCHAR"),
        SourceColumn("tailnum", "VARCHAR"),
        SourceColumn("delay", "BIGINT"),
        SourceColumn("crew", "VARCHAR"),
    ),
    1500,
)
TERMS = {"permission": [{"action": "use"}]}
WANTED = Publication(
    source=Path("flights.parquet"),
    title="Flights",
    description="",
    keywords=("aviation",),
    classification="important",
    table="flights",
    hidden_columns=("crew",),
    privacy_unit="tailnum",
    dimensions=("dest",),
    terms=json.dumps(TERMS).encode(),
    accept_free_sql=True,
    manual_approval=False,
)


class Node:
    """Everything around a publisher, in one: what was done to it, in its order, is in ``done``."""

    digest = bytes(32)

    def __init__(self) -> None:
        self.done: list[str] = []
        self.allow = True
        self.kept: dict[str, object] = {}
        self.acts: list[dict] = []
        self.listed: list[str] = []
        self.fails = ""
        self.publisher = Publisher(
            ourselves=ourselves(AIRPORT),
            store=self,  # type: ignore[arg-type]
            queries=self,  # type: ignore[arg-type]
            engine=self,
            directory=self,  # type: ignore[arg-type]
            journal=self.journal,
            clock=ManualClock(),
            folder=Path("gate"),
            files=self,  # type: ignore[arg-type]
        )

    async def stamp(self, source):
        return b"as it is"

    async def keep(self, source, database, stamp):
        assert stamp == b"as it is"
        self._do("keep")
        return Path("files") / database

    async def drop(self, database):
        self.done.append(f"drop {len(database)}")

    def _do(self, what: str) -> None:
        if self.fails == what:
            raise Unavailable(f"{what} cannot be done now")
        self.done.append(what)

    async def inspect(self, source, csv_null):
        self._do("inspect")
        return SOURCE

    async def evaluate(self, entry, document):
        assert entry == "dataspace/listing/decision"
        self._do("judge")
        reasons = [{"term": "classification", "observed": "core", "allowed": "important"}]
        return {"allow": self.allow, "reasons": [] if self.allow else reasons, "obligations": {}}

    async def prepare(self, source, columns, table, target, csv_null, privacy_unit=""):
        self.prepared_from = source
        if not privacy_unit:
            self._do("copy")
            return 1500
        assert columns == ("dest", "tailnum", "delay"), "a hidden column is not even copied"
        assert (table, privacy_unit, target.parent) == ("flights", "tailnum", Path("gate"))
        self._do("copy")
        return 1500

    async def save(self, published):
        self._do("save")
        self.kept[published.dataset.id] = published

    async def remove(self, dataset_id):
        self._do("remove")
        del self.kept[dataset_id]

    async def get(self, dataset_id):
        return self.kept.get(dataset_id)

    async def journal(self, **act):
        self._do("log")
        self.acts.append(act)

    async def publish(self, record):
        self._do("list")
        self.listed.append(record)


@pytest.fixture
def node():
    return Node()


async def test_it_is_judged_before_it_is_copied_and_logged_before_it_is_listed(node) -> None:
    published = await node.publisher.publish(WANTED)
    assert node.done == ["inspect", "judge", "copy", "save", "log", "list"]
    assert published.warnings == (FREE_SQL_WARNING, COPY_WARNING)
    (record,) = node.listed
    dataset = parse_dataset(read_statement(record, "dataset", [public_bytes(key_of(AIRPORT))]))
    assert (dataset.id, dataset.publisher) == (published.dataset_id, AIRPORT)
    assert {column.name: column.role for column in dataset.columns} == {
        "dest": Role.DIMENSION,
        "tailnum": Role.UNIT,
        "delay": Role.MEASURE,
        "crew": Role.HIDDEN,
    }
    assert dataset.offers[0].id == published.offer_id
    (act,) = node.acts
    assert (act["act"], act["scope"], act["actor"]) == (
        "dataset.published",
        dataset.id,
        AIRPORT,
    )


async def test_what_the_policy_refuses_is_not_touched(node) -> None:
    node.allow = False
    with pytest.raises(Refused) as caught:
        await node.publisher.publish(WANTED)
    assert caught.value.reasons == (Reason("classification", "core", "important"),)
    assert node.done == ["inspect", "judge"]


@pytest.mark.parametrize("step", ["judge", "copy", "save", "log"])
async def test_nothing_is_listed_that_was_not_finished(node, step: str) -> None:
    node.fails = step
    with pytest.raises(Unavailable):
        await node.publisher.publish(WANTED)
    assert node.listed == []


async def test_what_the_directory_does_not_list_is_not_offered(node) -> None:
    node.fails = "list"
    with pytest.raises(Unavailable):
        await node.publisher.publish(WANTED)
    assert node.kept == {}
    assert [act["act"] for act in node.acts] == ["dataset.published", "dataset.withdrawn"]


async def test_a_version_that_is_not_listed_gives_way_to_the_one_before(node) -> None:
    first = await node.publisher.publish(WANTED)
    node.fails = "list"
    newer = dataclasses.replace(WANTED, dataset_id=first.dataset_id, title="Flights, corrected")
    with pytest.raises(Unavailable):
        await node.publisher.publish(newer)
    assert [kept.dataset.title for kept in node.kept.values()] == ["Flights"]


async def test_a_dataset_is_published_again_under_its_name(node) -> None:
    first = await node.publisher.publish(WANTED)
    again = await node.publisher.publish(
        dataclasses.replace(WANTED, dataset_id=first.dataset_id, title="Flights, corrected")
    )
    assert again.dataset_id == first.dataset_id
    assert again.offer_id != first.offer_id
    assert node.kept[first.dataset_id].dataset.title == "Flights, corrected"


OPEN = dataclasses.replace(
    WANTED, classification="general", hidden_columns=(), privacy_unit="", accept_free_sql=False
)


async def test_a_file_that_may_leave_is_kept_and_queries_read_the_same_bytes(node) -> None:
    first = await node.publisher.publish(OPEN)
    assert node.done == ["inspect", "judge", "keep", "copy", "save", "log", "list"]
    assert node.prepared_from.parent == Path("files")
    node.done.clear()
    await node.publisher.publish(dataclasses.replace(OPEN, dataset_id=first.dataset_id))
    assert node.done[-1].startswith("drop"), "the former version's"


@pytest.mark.parametrize("change", [{"classification": "important"}, {"hidden_columns": ("crew",)}])
async def test_a_file_that_may_not_leave_is_not_kept(node, change) -> None:
    await node.publisher.publish(dataclasses.replace(OPEN, **change))
    assert "keep" not in node.done


@pytest.mark.parametrize("step", ["copy", "list"])
async def test_the_file_of_what_was_not_published_is_dropped(node, step: str) -> None:
    node.fails = step
    with pytest.raises(Unavailable):
        await node.publisher.publish(OPEN)
    assert node.done[-1].startswith("drop")


WRONG = {
    "a table that is SQL": {"table": 'flights"; DROP'},
    "a table with a capital": {"table": "Flights"},
    "no table": {"table": ""},
    "a long table": {"table": "f" * 64},
    "an unknown class": {"classification": "secret"},
    "a hidden column that is not there": {"hidden_columns": ("pilot",)},
    "a unit that is not there": {"privacy_unit": "pilot"},
    "a dimension that is not there": {"dimensions": ("Dest",)},
    "terms with more than sections": {"terms": b'{"@type": "Offer"}'},
    "terms that are no JSON": {"terms": b"{"},
    "another's dataset": {"dataset_id": "urn:uuid:another"},
    "no title": {"title": ""},
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_an_owner_may_not_say(node, name: str) -> None:
    with pytest.raises(InvalidInput):
        await node.publisher.publish(dataclasses.replace(WANTED, **WRONG[name]))
    assert node.done == ["inspect"]


async def test_a_hidden_column_stays_hidden_whatever_else_it_is_called(node) -> None:
    wanted = dataclasses.replace(WANTED, dimensions=("dest", "crew"))
    published = await node.publisher.publish(wanted)
    roles = {c.name: c.role for c in node.kept[published.dataset_id].dataset.columns}
    assert roles["crew"] is Role.HIDDEN
