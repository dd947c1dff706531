"""The suite of ``ports.datasets.DatasetStore``: what is kept, and the pages of a list."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3

import pytest

from connector.adapters.dataset_store import SqliteDatasetStore
from connector.errors import InvalidInput
from connector.model.catalog import parse_dataset
from connector.ports.datasets import PublishedDataset, Wanted
from tests.negotiators import DATASET


def published(number: int, **changes) -> PublishedDataset:
    name = f"urn:uuid:{number}"
    offers = tuple(dataclasses.replace(offer, target=name) for offer in DATASET.offers)
    dataset = dataclasses.replace(
        DATASET, id=name, **{"title": f"Flights of day {number}", "offers": offers, **changes}
    )
    return PublishedDataset(dataset, f"record {number}", "rows.duckdb", 3, True, False)


@pytest.fixture
def store(tmp_path):
    store = SqliteDatasetStore(tmp_path / "datasets.db")
    yield store
    store.close()


async def ids(store, wanted=Wanted(), **where) -> list[str]:  # noqa: B008  frozen
    found = await store.listed(wanted, **{"limit": 100, **where})
    assert [one.number for one in found] == sorted(one.number for one in found)
    return [parse_dataset(one.dataset).id.removeprefix("urn:uuid:") for one in found]


async def test_what_is_kept_is_there_and_a_newer_version_replaces_it(store):
    await store.save(published(1))
    await store.save(published(2))
    assert await store.get("urn:uuid:1") == published(1)
    newer = published(1, title="Trains")
    await store.save(newer)
    assert await store.all() == (newer, published(2))
    await store.remove("urn:uuid:1")
    await store.remove("urn:uuid:1")
    assert await store.get("urn:uuid:1") is None
    assert await store.all() == (published(2),)


async def test_pages_forwards_and_backwards(store):
    for number in range(1, 8):
        await store.save(published(number))
    assert await ids(store, limit=3) == ["1", "2", "3"]
    page = await store.listed(Wanted(), after=3, limit=3)
    assert await ids(store, after=page[-1].number, limit=3) == ["7"]
    assert await ids(store, before=page[0].number, limit=2) == ["2", "3"]
    assert await ids(store, skip=5, limit=3) == ["6", "7"]
    assert await ids(store, after=2, skip=1, limit=2) == ["4", "5"]
    assert await ids(store, skip=7) == []
    assert await ids(store, before=1) == []
    assert await ids(store, after=7) == []


async def test_a_dataset_keeps_its_place_and_others_leave_no_gap_in_a_walk(store):
    for number in range(1, 5):
        await store.save(published(number))
    await store.save(published(1, title="Again"))
    await store.remove("urn:uuid:2")
    assert await ids(store) == ["1", "3", "4"]
    assert await ids(store, after=1) == ["3", "4"]
    await store.save(published(2))
    assert await ids(store) == ["1", "3", "4", "2"]


async def test_filters(store):
    await store.save(published(1, title="Flights 旅游局", keywords=("air", "北京")))
    await store.save(published(2, title="Trains", keywords=("rail",), description="to the airport"))
    await store.save(published(3, title="Ships"))
    for wanted, expected in (
        (Wanted(text="flights"), ["1"]),
        (Wanted(text="游局"), ["1"]),
        (Wanted(text="air"), ["1", "2"]),
        (Wanted(text="trains airport"), ["2"]),
        (Wanted(keyword="air"), ["1"]),
        (Wanted(keyword="北京"), ["1"]),
        (Wanted(keyword="trains"), []),
        (Wanted(text="air", keyword="rail"), ["2"]),
        (Wanted(id="urn:uuid:3"), ["3"]),
        (Wanted(id="urn:uuid:3", text="air"), []),
        (Wanted(id="urn:uuid:4"), []),
        (Wanted(text='" OR title:*'), []),
    ):
        assert await ids(store, wanted) == expected, wanted
    await store.save(published(1, title="Buses"))
    assert await ids(store, Wanted(text="flights")) == []
    await store.remove("urn:uuid:2")
    assert await ids(store, Wanted(text="trains")) == []


@pytest.mark.parametrize("text", ["!", " ", "word " * 17, "x" * 300])
async def test_questions_that_are_none(store, text):
    for wanted in (Wanted(text=text), Wanted(keyword=text)):
        with pytest.raises(InvalidInput):
            await store.listed(wanted, limit=1)


async def test_what_an_earlier_version_wrote_is_listed_and_found(tmp_path):
    path = tmp_path / "datasets.db"
    store = SqliteDatasetStore(path)
    await store.save(published(1))
    await store.save(published(2, title="Trains"))
    store.close()
    with sqlite3.connect(path) as database:
        database.executescript(
            "DROP TABLE dataset_words; DROP INDEX dataset_numbers;"
            "ALTER TABLE datasets DROP COLUMN number; PRAGMA user_version = 1"
        )
    store = SqliteDatasetStore(path)
    assert await ids(store) == ["1", "2"]
    assert await ids(store, Wanted(text="trains")) == ["2"]
    await store.save(published(3))
    assert await ids(store, after=2) == ["3"]
    store.close()


async def test_what_was_read_while_it_changed_is_not_remembered(store):
    await store.save(published(1))
    for number in range(20):
        newer = published(1, title=f"Trains of day {number}")
        before, _, after = await asyncio.gather(
            store.get("urn:uuid:1"), store.save(newer), store.get("urn:uuid:1")
        )
        assert before is not None
        assert after == newer
        assert await store.get("urn:uuid:1") == newer
    before, _ = await asyncio.gather(store.get("urn:uuid:1"), store.remove("urn:uuid:1"))
    assert before is not None
    assert await store.get("urn:uuid:1") is None
