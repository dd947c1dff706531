"""The catalogue of the Dataspace Protocol's door, with 10 000 datasets: its first page, and a walk
through all of it.

The door runs in a process of its own behind uvicorn, without TLS, with everything that a request
passes in service: authentication, the schema, the store on disk. The baseline of the first page is
the same bytes from memory in the same server. ``python -m bench.catalog`` takes the figures up into
``bench/results/latest.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from bench.figures import Figure, figure, percentile, save, table
from connector.adapters.clock import SystemClock
from connector.adapters.dataset_store import SqliteDatasetStore
from connector.app import logs
from connector.errors import NotFound
from connector.model.catalog import Classification
from connector.ports.datasets import PublishedDataset
from connector.transport.calls import OpenCalls, Watch
from connector.transport.http.dsp.authority import StaticTokens, by_bearer
from connector.transport.http.dsp.door import Sources, application
from connector.transport.http.dsp.holds import Holds
from connector.transport.http.server import HttpDoor
from tests.negotiators import AIRPORT, DATASET, record_of

DATASETS = 10_000
REQUESTS = 1000
WALKS = 5
TOKEN = "a-token-for-the-bench"  # noqa: S105
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
REQUEST = (
    b'{"@context":["https://w3id.org/dspace/2025/1/context.jsonld"],'
    b'"@type":"CatalogRequestMessage"}'
)
_NEXT = re.compile(r'<([^>]+)>; rel="next"')


async def fill(store: SqliteDatasetStore, count: int) -> None:
    """Datasets as a large publisher has them: a title, a sentence, keywords, an offer. Unsynced,
    as it is not writing that is measured."""
    await store._sqlite.read(lambda database: database.execute("PRAGMA synchronous=OFF"))
    for number in range(count):
        id_ = f"urn:uuid:{number:012}"
        offer = replace(DATASET.offers[0], id=f"{id_}:offer", target=id_)
        dataset = replace(
            DATASET,
            id=id_,
            title=f"Flights of day {number}",
            description="All flights of a day by carrier and destination, with their delays. " * 2,
            keywords=("flights", "airport", f"day-{number % 365}"),
            classification=Classification.GENERAL,
            offers=(offer,),
        )
        await store.save(PublishedDataset(dataset, "record", "rows.duckdb", 3, True, False))


async def serve(folder: Path, count: int) -> None:
    """In a process of its own: says its address, and serves until it is ended."""
    logs.configure("info", AIRPORT)  # as a node does; on stderr, for stdout is the address's
    store = SqliteDatasetStore(folder / "datasets.db")
    await fill(store, count)

    async def nothing(*_: object) -> None:
        raise NotFound("nothing")

    root = "http://catalog.example"
    app = application(
        Sources(
            did=AIRPORT,
            root=root,
            formats=("HttpData-PULL",),
            document={"id": AIRPORT},
            authenticate=by_bearer([StaticTokens({"bench": TOKEN}, record_of)]),
            receive=nothing,
            negotiation=nothing,  # type: ignore[arg-type]
            transfer=nothing,  # type: ignore[arg-type]
            agreement=nothing,  # type: ignore[arg-type]
            datasets=store,
            holds=Holds(),
            watch=Watch(OpenCalls(), SystemClock(), lambda *_: None),
        )
    )
    page = b""

    async def same(request: Request) -> Response:
        nonlocal page
        page = page or await request.body()
        return Response(page, media_type="application/json")

    both = Starlette(routes=[Route("/same", same, methods=["POST"]), Mount("/", app)])
    door = HttpDoor(both, "127.0.0.1:0")
    print(await door.open(), flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def served(count: int = DATASETS) -> AsyncIterator[httpx.AsyncClient]:
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.catalog",
            folder,
            str(count),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            address = (await process.stdout.readline()).decode().strip()
            async with httpx.AsyncClient(base_url=f"http://{address}", headers=HEADERS) as client:
                yield client
        finally:
            process.terminate()
            await process.wait()


async def first_pages(client: httpx.AsyncClient, requests: int, path: str) -> list[float]:
    """Milliseconds of each request, one after the other; the first is cold."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        response = await client.post(path, content=REQUEST)
        times.append((time.perf_counter() - began) * 1000)
        assert response.status_code == 200, response.text
    return times


async def walk(client: httpx.AsyncClient) -> tuple[float, int]:
    """Seconds for every page, and how many datasets were in them."""
    began, seen, path = time.perf_counter(), 0, "/2025-1/catalog/request"
    while path:
        response = await client.post(path, content=REQUEST)
        seen += len(response.json()["dataset"])
        found = _NEXT.search(response.headers.get("link", ""))
        path = httpx.URL(found[1]).raw_path.decode() if found else ""
    return time.perf_counter() - began, seen


async def catalog_figures(
    count: int = DATASETS, requests: int = REQUESTS, walks: int = WALKS
) -> list[Figure]:
    async with served(count) as client:
        page = await client.post("/2025-1/catalog/request", content=REQUEST)
        await client.post("/same", content=page.content)
        found = await first_pages(client, requests, "/2025-1/catalog/request")
        plain = await first_pages(client, requests, "/same")
        walked = [await walk(client) for _ in range(walks)]
        assert {seen for _, seen in walked} == {count}
    return [
        figure(
            "catalog_10000_first_page_p99_ms",
            "ms",
            found,
            value=percentile(found, 0.99),
            baseline=("the same bytes from memory, p99", percentile(plain, 0.99)),
        ),
        figure("catalog_10000_walk_s", "s", [seconds for seconds, _ in walked]),
    ]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
    else:
        print(table(save(asyncio.run(catalog_figures()))))
