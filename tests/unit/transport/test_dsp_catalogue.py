"""Catalogues over the Dataspace Protocol: pages, filters, what is listed, and reading a peer's."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import httpx
import pytest

from connector.errors import InvalidInput
from connector.model.catalog import Classification, parse_offers
from connector.model.terms import Constraint
from connector.ports.datasets import PublishedDataset, Wanted
from connector.transport.http.dsp import catalogue, dcat, reading, schemas
from connector.transport.http.dsp.catalogue import Question, make_link, read_filter, read_link
from tests.dsp_doors import CONTEXT, FORMAT, ROOT, Caller, opened
from tests.negotiators import AIRPORT, DATASET, UNKNOWN_TERMS, terms

VECTORS = Path(__file__).parents[2] / "vectors" / "dsp" / "catalog"
REQUEST = {**CONTEXT, "@type": "CatalogRequestMessage"}
NAMESPACE = "https://w3id.org/tds/profile/v1#"


def published(name: str, *offered, **changes) -> PublishedDataset:
    offers = tuple(
        dataclasses.replace(DATASET.offers[0], id=f"{name}-{at}", target=name, terms=each)
        for at, each in enumerate(offered or (terms(),))
    )
    dataset = dataclasses.replace(DATASET, id=name, offers=offers, **{"title": name, **changes})
    return PublishedDataset(dataset, "record", "rows.duckdb", 3, True, False)


@pytest.fixture
async def place():
    async with opened() as place:
        await place.store.remove(DATASET.id)
        yield place


def listed(response) -> list[str]:
    assert response.status_code == 200, response.text
    schemas.check("Catalog", response.json())
    return [one["@id"] for one in response.json().get("dataset", [])]


def link(response, relation: str) -> str:
    """The path and query of a link; empty if there is none of this relation."""
    links = re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers.get("link", ""))
    found = [url for url, rel in links if rel == relation]
    assert all(url.startswith(f"{ROOT}/2025-1/catalog/request?page=") for url in found)
    return found[0].removeprefix(f"{ROOT}/2025-1") if found else ""


async def test_an_empty_catalogue(place):
    response = await Caller(place).post("/catalog/request", REQUEST)
    assert listed(response) == []
    assert "link" not in response.headers
    assert response.json()["participantId"] == AIRPORT
    (service,) = response.json()["service"]
    assert service["endpointURL"] == f"{ROOT}/2025-1"


async def test_a_walk_through_the_pages_and_back(place, monkeypatch):
    monkeypatch.setattr(catalogue, "PAGE", 3)
    names = [f"d{number}" for number in range(8)]
    for name in names:
        await place.store.save(published(name))
    caller = Caller(place)
    page = await caller.post("/catalog/request", {**REQUEST, "filter": []})
    seen = [listed(page)]
    while following := link(page, "next"):
        page = await caller.post(following, REQUEST)
        seen.append(listed(page))
    assert seen == [names[:3], names[3:6], names[6:]]
    back = [seen[-1]]
    while following := link(page, "previous"):
        page = await caller.get(following)
        back.append(listed(page))
    assert back[::-1] == seen
    assert link(page, "next")


async def test_a_page_is_bounded_in_bytes(place, monkeypatch):
    monkeypatch.setattr(catalogue, "PAGE_BYTES", 2000)
    names = [f"d{number}" for number in range(6)]
    for name in names:
        await place.store.save(published(name, description="x" * 900))
    caller = Caller(place)
    page = await caller.post("/catalog/request", REQUEST)
    seen = [listed(page)]
    while following := link(page, "next"):
        page = await caller.get(following)
        seen.append(listed(page))
    assert seen == [[name] for name in names]
    assert listed(await caller.get(link(page, "previous"))) == ["d4"]


async def test_a_walk_is_through_what_was_asked_for(place, monkeypatch):
    monkeypatch.setattr(catalogue, "PAGE", 2)
    for number in range(8):
        kind = "bus" if number % 2 else "train"
        await place.store.save(published(f"d{number}", title=f"{kind} 线路", keywords=(kind,)))
    caller = Caller(place)
    for wanted in ({"keyword": "bus"}, {"text": "线路 bus"}):
        page = await caller.post("/catalog/request", {**REQUEST, "filter": [wanted]})
        assert listed(page) == ["d1", "d3"]
        page = await caller.post(link(page, "next"), REQUEST)
        assert listed(page) == ["d5", "d7"]
    one = await caller.post("/catalog/request", {**REQUEST, "filter": [{"id": "d2"}]})
    assert listed(one) == ["d2"]


async def test_what_is_offered_and_how(place):
    hidden = Constraint("tds:minimumGroup", "gteq", 10, "tailnum")
    await place.store.save(published("mixed", UNKNOWN_TERMS, terms(20, hidden)))
    await place.store.save(published("nothing", UNKNOWN_TERMS))
    await place.store.save(
        published(
            "flows",
            classification=Classification.GENERAL,
            keywords=("air", "空"),
            columns=DATASET.columns[1:],
        )
    )
    await place.store.save(published("kept", classification=Classification.GENERAL))
    caller = Caller(place)
    page = await caller.post("/catalog/request", REQUEST)
    assert listed(page) == ["mixed", "flows", "kept"]
    mixed, flows, kept = page.json()["dataset"]
    (offer,) = mixed["hasPolicy"]
    assert offer["@id"] == "mixed-1"
    assert "target" not in offer
    left = [one["leftOperand"] for one in offer["permission"][0]["constraint"]]
    assert NAMESPACE + "minimumGroup" in left
    for one in (mixed, kept):  # the second has a privacy unit
        assert [each["format"] for each in one["distribution"]] == [NAMESPACE + "Query"]
    assert [one["format"] for one in flows["distribution"]] == [FORMAT, NAMESPACE + "Query"]
    assert flows["dcat:keyword"] == ["air", "空"]
    response = await caller.get("/catalog/datasets/flows")
    schemas.check("Dataset", response.json())
    assert {**CONTEXT, **flows} == response.json()
    for name in ("nothing", "none", "x" * 300):
        response = await caller.get(f"/catalog/datasets/{name}")
        assert response.status_code == 404
        schemas.check("CatalogError", response.json())
    # A newer version is shown at once.
    await place.store.save(published("flows", title="Newer"))
    page = await caller.post("/catalog/request", REQUEST)
    assert page.json()["dataset"][1]["dct:title"] == "Newer"


async def test_ids_with_any_characters(place):
    name = "https://airport.example/data?a=b#c/ d"
    await place.store.save(published(name))
    response = await Caller(place).get(
        "/catalog/datasets/https%3A%2F%2Fairport.example%2Fdata%3Fa%3Db%23c%2F%20d"
    )
    assert response.json()["@id"] == name


async def test_what_our_catalogue_says_a_peer_of_ours_reads(place):
    hidden = Constraint("tds:hiddenColumns", "isNoneOf", ("a",))
    kept = published("flows", terms(20, hidden), classification=Classification.GENERAL)
    original = kept.dataset
    await place.store.save(kept)
    page = await Caller(place).post("/catalog/request", REQUEST)
    (found,) = dcat.read_catalog(page.json(), AIRPORT)
    assert (found.id, found.title, found.offers) == (original.id, original.title, original.offers)
    assert found.distributions == (dcat.Distribution(NAMESPACE + "Query", f"{ROOT}/2025-1"),)
    assert parse_offers(found.record, "flows", AIRPORT) == original.offers


@pytest.mark.parametrize("name", ["catalog.json", "dataset.json", "nested-catalog.json"])
def test_official_examples_are_read(name):
    value = json.loads((VECTORS / name).read_text())
    if value["@type"] == "Dataset":
        found = [dcat.read_dataset(value, "P")]
    else:
        found = list(dcat.read_catalog(value, "P"))
    for one in found:
        assert one.offers[0].assigner == "P"
        assert one.offers[0].target == one.id
        assert one.distributions == (
            dcat.Distribution("HttpData-PULL", "https://provider-a.com/connector"),
        )
    assert bool(found) is (name != "nested-catalog.json")


def test_a_dataset_out_of_bounds_does_not_hide_the_others():
    value = json.loads((VECTORS / "catalog.json").read_text())
    (one,) = value["dataset"]
    value["dataset"] = [one, {**one, "@id": "x" * 300}, {**one, "@id": "last"}]
    assert [found.id for found in dcat.read_catalog(value, "P")] == [one["@id"], "last"]


def test_an_offer_that_breaks_the_schema_does_not_hide_the_others():
    value = json.loads((VECTORS / "catalog.json").read_text())
    (one,) = value["dataset"]
    (offer,) = one["hasPolicy"]
    bare = {"@type": "Offer", "@id": "bare"}  # no rule: EDC's policy for everything
    wrong = [{**one, "@id": "bare", "hasPolicy": [bare]}, 7, {**one, "hasPolicy": {}}]
    value["dataset"] = [*wrong, {**one, "@id": "both", "hasPolicy": [bare, offer]}, one]
    found, said = reading.read_catalog(json.dumps(value).encode(), limit=1 << 20)
    assert [each["@id"] for each in found["dataset"]] == ["both", one["@id"]]
    assert found["dataset"][0]["hasPolicy"] == [offer]
    assert len(said) == 3
    assert "permission" in said[0]
    for broken in ({**value, "participantId": 7}, {**value, "dataset": {}}):
        with pytest.raises(InvalidInput):
            reading.read_catalog(json.dumps(broken).encode(), limit=1 << 20)


@pytest.mark.parametrize(
    "value",
    [
        [{}],
        ["words"],
        [{"text": ""}],
        [{"text": 1}],
        [{"text": "a", "keyword": "b"}],
        [{"text": "a"}, {"text": "b"}],
        [{"title": "a"}],
        [{"id": "x" * 257}],
        [{"@type": "QuerySpec", "offset": -1}],
        [{"@type": "QuerySpec", "limit": "many"}],
        [{"@type": "QuerySpec", "sortField": "name"}],
        [{"@type": "QuerySpec", "filterExpression": [{"operandLeft": "a"}]}],
        [{"@type": "Other"}],
        [None],
    ],
)
async def test_filters_that_are_not_supported(place, value):
    with pytest.raises(InvalidInput):
        read_filter(value)
    response = await Caller(place).post("/catalog/request", {**REQUEST, "filter": value})
    assert response.status_code == 400
    schemas.check("CatalogError", response.json())
    assert response.json()["reason"]


def test_filters_that_are():
    assert read_filter([]) == Question()
    assert read_filter([{"text": "a b"}, {"keyword": "c"}]) == Question(Wanted("a b", "c"))
    edc = "https://w3id.org/edc/v0.0.1/ns/"
    plain = {"@type": "QuerySpec", "offset": 0, "limit": 50, "sortOrder": "ASC"}
    asked = read_filter([{**plain, "filterExpression": []}, {"id": "x"}])
    assert asked == Question(Wanted(id="x"), limit=50)
    spelt = {edc + "offset": {"@value": 7}, edc + "limit": "50", edc + "filterExpression": []}
    assert read_filter([{"@type": edc + "QuerySpec", **spelt}]) == Question(offset=7, limit=50)


async def test_pages_by_offset_and_limit(place):
    names = [f"d{number}" for number in range(8)]
    for name in names:
        await place.store.save(published(name))
    caller = Caller(place)

    async def asked(offset: int, limit: int) -> httpx.Response:
        query = {"@type": "QuerySpec", "offset": offset, "limit": limit, "filterExpression": []}
        return await caller.post("/catalog/request", {**REQUEST, "filter": [query]})

    assert [listed(await asked(at, 3)) for at in (0, 3, 6, 8)] == [
        names[:3],
        names[3:6],
        names[6:],
        [],
    ]
    page = await asked(3, 2)
    assert listed(await caller.post(link(page, "next"), REQUEST)) == names[5:]
    assert listed(await caller.get(link(page, "previous"))) == names[:3]
    assert link(await asked(0, 8), "next") == ""


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "e30",
        "W10",
        "A" * 5000,
        make_link(Wanted(), after=1, before=1),
        make_link(Wanted("x" * 300), after=1),
    ],
)
async def test_links_that_are_not_ours(place, bad):
    with pytest.raises(InvalidInput):
        read_link(bad)
    response = await Caller(place).get(f"/catalog/request?page={bad}")
    assert response.status_code == 400
    schemas.check("CatalogError", response.json())


def test_links_go_round():
    for wanted in (Wanted(), Wanted("a 旅", "b", "c")):
        assert read_link(make_link(wanted, after=5)) == (wanted, 5, 0)
        assert read_link(make_link(wanted, before=7)) == (wanted, 0, 7)
