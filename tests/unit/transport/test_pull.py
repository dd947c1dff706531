"""Data over HTTP as a consumer meets it: tokens, ranges, refreshes, and what errors do not say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from connector.adapters.memory_log import MemoryLog
from connector.errors import Reason, Unauthenticated, Unavailable
from connector.gate import flows
from connector.model.receipt import Quantity
from connector.transport.http.dsp import pull
from tests.logs import ManualClock, open_meter
from tests.pulls import BASE, Provider, prop

CONTENT = bytes(range(256)) * 4096  # a megabyte, four pieces
PID = "urn:uuid:1"
URL = f"{BASE}/data/{PID}"


@pytest.fixture
async def provider(tmp_path: Path):
    clock = ManualClock()
    meter = await open_meter(MemoryLog(), clock)
    made = Provider(tmp_path, meter, clock)
    await made.publish(CONTENT)
    await made.open()
    yield made
    await made.close()
    await meter.close()


@pytest.fixture
async def client(provider):
    app = Starlette(routes=pull.routes(provider.pulls))
    transport = httpx.ASGITransport(Below(app))
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


class Below:
    """The routes under the path of ``BASE``."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope | {"path": scope["path"].removeprefix("/dsp")}, receive, send)


@pytest.fixture
async def token(provider) -> str:
    return prop(await provider.start(), "authorization")


def by(token: str, **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Authorization": f"Bearer {token}", **named}


async def test_the_whole_file(client, token: str) -> None:
    got = await client.get(URL, headers=by(token))
    assert (got.status_code, got.content) == (200, CONTENT)
    assert got.headers["content-type"] == "text/csv"
    assert got.headers["content-length"] == str(len(CONTENT))
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["etag"].startswith('"')
    assert got.headers["cache-control"] == "private, no-store"
    assert got.headers["content-disposition"] == 'attachment; filename="trips.csv"'


async def test_a_head_moves_nothing(client, provider, token: str) -> None:
    got = await client.head(URL, headers=by(token))
    assert (got.status_code, got.content) == (200, b"")
    assert got.headers["content-length"] == str(len(CONTENT))
    await provider.pulls.end(PID)
    assert provider.observed[0].quantities == {}


async def test_ranges_and_resumes_are_counted_as_bytes_of_one_use(client, provider, token) -> None:
    first = await client.get(URL, headers=by(token, Range="bytes=0-99"))
    assert (first.status_code, first.content) == (206, CONTENT[:100])
    assert first.headers["content-range"] == f"bytes 0-99/{len(CONTENT)}"
    tag = first.headers["etag"]
    rest = await client.get(URL, headers=by(token, Range="bytes=100-", If_Range=tag))
    assert rest.content == CONTENT[100:]
    last = await client.get(URL, headers=by(token, Range="bytes=-7"))
    assert last.content == CONTENT[-7:]
    await provider.pulls.end(PID)
    receipt = provider.observed[0]
    assert receipt.quantities[Quantity.BYTES_RETURNED] == len(CONTENT) + 7
    assert receipt.quantities[Quantity.CALLS] == 1


async def test_a_range_that_is_not_there(client, provider, token: str) -> None:
    got = await client.get(URL, headers=by(token, Range="bytes=9999999-"))
    assert (got.status_code, got.content) == (416, b"")
    assert got.headers["content-range"] == f"bytes */{len(CONTENT)}"
    got = await client.get(URL, headers=by(token, Range="bytes=0-1,3-4"))
    assert got.status_code == 416


async def test_published_again_meanwhile(client, provider, token: str) -> None:
    tag = (await client.head(URL, headers=by(token))).headers["etag"]
    unchanged = await client.get(URL, headers=by(token, If_None_Match=tag))
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    await provider.publish(b"city,n\nnew,1\n")
    headers = by(token, Range="bytes=5-", If_Range=tag)
    got = await client.get(URL, headers=headers)
    assert (got.status_code, got.content) == (200, b"city,n\nnew,1\n")
    got = await client.get(URL, headers=by(token, Range="bytes=5-", If_Match=tag))
    assert (got.status_code, got.content) == (412, b"")


async def test_an_empty_file(client, provider, token: str) -> None:
    await provider.publish(b"")
    got = await client.get(URL, headers=by(token))
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   ", ""])
async def test_the_token_as_others_send_it(client, token: str, scheme: str) -> None:
    got = await client.head(URL, headers={"Authorization": scheme + token})
    assert got.status_code == 200


async def test_whoever_has_no_token_hears_the_same(client, provider, token: str) -> None:
    other = prop(await provider.start("urn:uuid:2"), "authorization")
    ended = prop(await provider.start("urn:uuid:3"), "authorization")
    await provider.pulls.end("urn:uuid:3")
    paths = {
        "unknown process": (f"{BASE}/data/urn:uuid:9", by(token)),
        "token of another process": (URL, by(other)),
        "our token there": (f"{BASE}/data/urn:uuid:2", by(token)),
        "of a process that ended": (f"{BASE}/data/urn:uuid:3", by(ended)),
        "none": (URL, {}),
        "an empty one": (URL, {"Authorization": "Bearer "}),
        "another scheme": (URL, {"Authorization": f"Basic {token}"}),
        "a long one": (URL, by("x" * 10_000)),
        "a long process": (f"{BASE}/data/{'x' * 5000}", by(token)),
        "a guess": (URL, by(token[:-1] + ("A" if token[-1] != "A" else "B"))),
    }
    answers = {}
    for name, (url, headers) in paths.items():
        got = await client.get(url, headers=headers)
        answers[name] = (got.status_code, got.content, sorted(got.headers.items()))
    provider.clock.advance(300)
    got = await client.get(URL, headers=by(token))
    answers["past its end"] = (got.status_code, got.content, sorted(got.headers.items()))
    await provider.pulls.suspend("urn:uuid:2")
    got = await client.get(f"{BASE}/data/urn:uuid:2", headers=by(other))
    answers["suspended"] = (got.status_code, got.content, sorted(got.headers.items()))
    assert len({str(answer) for answer in answers.values()}) == 1, answers
    assert answers["none"][0] == 401
    refresh = await client.post(f"{URL}/token?grant_type=refresh_token&refresh_token=x")
    assert (refresh.status_code, refresh.content) == answers["none"][:2]


async def test_two_authorization_headers_are_none(client, token: str) -> None:
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")]
    assert (await client.get(URL, headers=headers)).status_code == 401


async def test_who_holds_a_token_is_told_why(client, provider, token: str) -> None:
    provider.policy.reasons = (Reason("dateTime", "now", "before now"),)
    got = await client.get(URL, headers=by(token))
    assert got.status_code == 403
    assert got.json()["reasons"] == [
        {"term": "dateTime", "observed": "now", "allowed": "before now"}
    ]
    provider.policy.reasons = ()
    provider.trouble = Unavailable("the view of the directory is too old to serve by")
    got = await client.get(URL, headers=by(token))
    assert (got.status_code, got.headers["retry-after"]) == (503, "5")
    provider.trouble = Unauthenticated("suspended")
    assert (await client.get(URL, headers=by(token))).status_code == 401


async def test_a_full_disk_is_told_before_the_first_byte(client, provider, token: str) -> None:
    provider.store.down = True
    got = await client.get(URL, headers=by(token))
    assert got.status_code == 503
    provider.store.down = False
    assert (await client.get(URL, headers=by(token))).content == CONTENT


async def test_so_many_at_once(client, provider, token: str, monkeypatch) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS", 0)
    got = await client.get(URL, headers=by(token))
    assert (got.status_code, got.headers["retry-after"]) == (429, "5")


async def test_many_at_once_are_all_whole(client, provider, token: str) -> None:
    answers = await asyncio.gather(
        *(client.get(URL, headers=by(token)) for _ in range(flows.MOST_FLOWS))
    )
    assert all(got.content == CONTENT for got in answers)
    await provider.pulls.end(PID)
    moved = provider.observed[0].quantities[Quantity.BYTES_RETURNED]
    assert moved == flows.MOST_FLOWS * len(CONTENT)


@pytest.mark.parametrize("where", ["form", "query", "both"])
async def test_a_refresh(client, provider, where: str) -> None:
    refresh = prop(await provider.start(), "refreshToken")
    asked = {"grant_type": "refresh_token", "refresh_token": refresh}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    query, body = {
        "form": ({}, asked),
        "query": (asked, {}),
        "both": ({"grant_type": "refresh_token"}, {"refresh_token": refresh}),
    }[where]
    got = await client.post(f"{URL}/token", params=query, data=body, headers=form)
    assert got.status_code == 200
    assert got.headers["cache-control"] == "private, no-store"
    answer = got.json()
    assert set(answer) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert answer["expires_in"] == 300
    assert (await client.head(URL, headers=by(answer["access_token"]))).status_code == 200


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("", b"", "application/x-www-form-urlencoded"),
        ("grant_type=password&refresh_token=x", b"", ""),
        ("grant_type=refresh_token", b"", ""),
        ("grant_type=refresh_token&refresh_token=x&refresh_token=y", b"", ""),
        ("", json.dumps({"grant_type": "refresh_token"}).encode(), "application/json"),
        ("", b"grant_type=refresh_token&" + b"x" * 5000, "application/x-www-form-urlencoded"),
        ("", b"\xff\xfe", "application/x-www-form-urlencoded"),
        ("", b"&".join(b"a=%d" % n for n in range(100)), "application/x-www-form-urlencoded"),
        ("a" * 5000, b"", ""),
    ],
)
async def test_what_is_no_refresh(client, token: str, query: str, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    got = await client.post(f"{URL}/token?{query}", content=body, headers=headers)
    assert got.status_code == (413 if len(body) > 4096 else 400)
    assert set(got.json()) == {"error"}


async def test_a_refresh_that_does_not_come_is_not_waited_for(
    client, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"grant_type="
        await asyncio.sleep(60)

    monkeypatch.setattr("connector.transport.http.body.BODY_S", 0.1)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    got = await client.post(f"{URL}/token", content=slow(), headers=headers)
    assert (got.status_code, got.headers["connection"]) == (408, "close")


async def test_other_methods(client, token: str) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert (await client.request(method, URL, headers=by(token))).status_code == 405


async def test_a_consumer_that_goes_away_is_not_read_for(provider, token: str, tmp_path) -> None:
    """It is noticed between two pieces, and what did not move is not counted."""
    app = pull.routes(provider.pulls)[0]
    sent: list[Any] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        gone.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/data/{PID}",
        "path_params": {"pid": PID},
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }
    await app.endpoint(scope, receive, send)  # type: ignore[attr-defined]
    bodies = [message for message in sent if message["type"] == "http.response.body"]
    assert 1 <= len(bodies) < 4
    await provider.pulls.end(PID)
    moved = provider.observed[0].quantities[Quantity.BYTES_RETURNED]
    assert moved == sum(len(message["body"]) for message in bodies)
