"""Anything at all, at every endpoint of the Dataspace Protocol's door: it is taken by the rules of
the protocol, or refused with the protocol's own error object, and then nothing has changed."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.negotiation.automation import Automation
from connector.transport.http.dsp import schemas
from tests.dsp_doors import STRANGER_TOKEN, Caller, Place, opened, request_body
from tests.negotiators import DATASET

VECTORS = Path(__file__).parents[1] / "vectors" / "dsp"
MANUAL = Automation(decide=False, agree=False, verify=False, finalize=False, start=False)
EXAMPLES = [
    json.loads(path.read_text())
    for kind in ("catalog", "negotiation", "transfer")
    for path in sorted((VECTORS / kind).glob("*.json"))
] + [request_body(), request_body("their-2", prohibition=[{"action": "tds:reidentify"}])]
PID = "urn:uuid:the-process"
ENDPOINTS = {
    "/catalog/request": "CatalogError",
    "/negotiations/request": "ContractNegotiationError",
    "/negotiations/offers": "ContractNegotiationError",
    f"/negotiations/{PID}/request": "ContractNegotiationError",
    f"/negotiations/{PID}/offers": "ContractNegotiationError",
    f"/negotiations/{PID}/events": "ContractNegotiationError",
    f"/negotiations/{PID}/agreement": "ContractNegotiationError",
    f"/negotiations/{PID}/agreement/verification": "ContractNegotiationError",
    f"/negotiations/{PID}/termination": "ContractNegotiationError",
    "/transfers/request": "TransferError",
    f"/transfers/{PID}/start": "TransferError",
    f"/transfers/{PID}/completion": "TransferError",
    f"/transfers/{PID}/suspension": "TransferError",
    f"/transfers/{PID}/termination": "TransferError",
}

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\x00", "\ud800", "tds:x", "did:web:airport.example", DATASET.id, "x" * 3000, "http://["]
)
NAMESPACE = "https://w3id.org/tds/profile/v1#"
KEYS = TEXT | st.sampled_from(
    [
        *("@context", "@id", "@type", "consumerPid", "providerPid", "callbackAddress", "code"),
        *("reason", "offer", "agreement", "dataAddress", "filter", "eventType", "agreementId"),
        *("assigner", "assignee", "target", "permission", "prohibition", "obligation", "duty"),
        *("constraint", "and", "leftOperand", "operator", "rightOperand", "unit", "action"),
        *(NAMESPACE + name for name in ("document", "signature", "secret", "space", "offer")),
        *("tds:space", "odrl:permission", "http://www.w3.org/ns/odrl/2/unit", "timestamp"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """An example with something in it exchanged, added or left out, a few times."""
    value = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(value))
        inside, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["other", "gone", "more", "example"])):
            case "other":
                inside[key] = draw(JSON)
            case "gone":
                del inside[key]
            case "more" if isinstance(inside, dict):
                inside[draw(KEYS)] = draw(JSON)
            case _:
                inside[key] = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
        if not value:
            break
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def place(loop: asyncio.AbstractEventLoop) -> Iterator[Place]:
    """A node with one negotiation that waits."""
    context = opened(automation=MANUAL)
    place = loop.run_until_complete(context.__aenter__())
    yield place
    loop.run_until_complete(context.__aexit__(None, None, None))


def kept(place: Place, loop: asyncio.AbstractEventLoop) -> Any:
    async def look() -> Any:
        service = place.node.service
        return (
            await service.negotiations(),
            await service.agreements(),
            await service.transfers.transfers(),
            await service.posts(),
        )

    return loop.run_until_complete(look())


def waiting(place: Place, loop: asyncio.AbstractEventLoop) -> str:
    """Our process id of a negotiation in REQUESTED; a new one if the last has moved."""
    caller = Caller(place)

    async def begin() -> str:
        found = [one for one in await place.node.service.negotiations() if one.waiting]
        if found:
            return found[0].pid
        number = len(await place.node.service.negotiations())
        response = await caller.post("/negotiations/request", request_body(f"their-own-{number}"))
        return str(response.json()["providerPid"])

    return loop.run_until_complete(begin())


def sent(
    place: Place,
    loop: asyncio.AbstractEventLoop,
    body: bytes,
    *,
    pid: str,
    token: str = STRANGER_TOKEN,
) -> None:
    """To every endpoint; ``token`` is empty for a member, who signs."""
    for path, kind in ENDPOINTS.items():
        before = kept(place, loop)
        path = path.replace(PID, pid)
        response = loop.run_until_complete(Caller(place, token).post(path, body))
        if response.status_code in (200, 201):
            schemas.check(json.loads(body)["@type"], json.loads(body))
            continue
        assert 400 <= response.status_code < 500, (path, response.status_code, response.text)
        schemas.check(kind, response.json())
        assert response.json()["code"]
        assert response.json()["reason"]
        assert len(response.content) < 20_000
        assert kept(place, loop) == before


@given(body=st.binary(max_size=200) | JSON.map(encoded))
def test_anything(place: Place, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
    sent(place, loop, body, pid=waiting(place, loop))


@given(value=mutated(), named=st.booleans(), token=st.sampled_from([STRANGER_TOKEN, ""]))
def test_nearly_a_message(
    place: Place, loop: asyncio.AbstractEventLoop, value: Any, named: bool, token: str
) -> None:
    pid = waiting(place, loop)
    if named and isinstance(value, dict):
        value |= {"consumerPid": "their-own-0", "providerPid": pid}
        value.pop("callbackAddress", None)
    sent(place, loop, encoded(value), pid=pid, token=token)


@given(
    path=st.text(st.characters(blacklist_categories=["Cs"]), max_size=40),
    query=st.text(st.characters(blacklist_categories=["Cs"]), max_size=40),
)
def test_any_identifier(
    place: Place, loop: asyncio.AbstractEventLoop, path: str, query: str
) -> None:
    for below, kind in (
        ("/negotiations/", "ContractNegotiationError"),
        ("/transfers/", "TransferError"),
        ("/catalog/datasets/", "CatalogError"),
        ("/catalog/request?page=", "CatalogError"),
    ):
        named = quote(query if "?" in below else path, safe="")
        response = loop.run_until_complete(Caller(place).get(below + named))
        assert 400 <= response.status_code < 500, response.text
        if response.headers.get("content-type") == "application/json":
            schemas.check(kind, response.json())
