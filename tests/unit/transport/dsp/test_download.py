"""Pulling data: what breaks off goes on, what expires is refreshed, what changed is not mixed."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import stamina

from connector.errors import Conflict, NotFound, PeerFault, Refused, Unavailable
from connector.model.negotiation import Party
from connector.model.transfer import DataAddress, TransferProcess, TransferState
from connector.ports.peers import PullBegun
from connector.transport.http.dsp import download
from connector.transport.http.dsp.download import Access, Downloads
from connector.transport.http.dsp.outgoing import WEB, Answer, Trust

PID, PEER = "t-1", "did:web:peer.example"
ENDPOINT = "https://data.example/data/t-1"
DATA = random.Random(7).randbytes(100_000)
EDC, TRACTUSX = "https://w3id.org/edc/v0.0.1/ns/", "https://w3id.org/tractusx/auth/"


@pytest.fixture(autouse=True)
def _no_pauses():
    stamina.set_testing(True, attempts=download.ATTEMPTS, cap=True)
    yield
    stamina.set_testing(False)


def address(token: str = "a-1", refresh: str = "r-1") -> DataAddress:  # noqa: S107
    return DataAddress(
        "https://w3id.org/idsa/v4.1/HTTP",
        ENDPOINT,
        (
            ("authorization", token),
            ("authType", "bearer"),
            (f"{EDC}authorization", token),
            (f"{TRACTUSX}refreshToken", refresh),
            (f"{TRACTUSX}refreshEndpoint", f"{ENDPOINT}/token"),
        ),
    )


class Opened:
    def __init__(self, status: int, body: bytes = b"", broken: bool = False, **headers: str):
        self.status = status
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers = httpx.Headers(names)
        self.body, self.broken = body, broken

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        for at in range(0, len(self.body), 1000):
            yield self.body[at : at + 1000]
        if self.broken:
            raise Unavailable("broke off")


class Source:
    """A provider's data plane and its network. ``cut``: after how many bytes an answer ends."""

    def __init__(self) -> None:
        self.data, self.etag = DATA, '"v1"'
        self.token, self.refresh, self.generation = "a-1", "r-1", 1
        self.scheme = "Bearer "
        self.cut = 0
        self.failing: list[Any] = []
        self.asked: list[dict[str, str]] = []
        self.refreshed: list[str] = []
        self.refusing_refresh: list[Any] = []
        self.process = TransferProcess(
            PID,
            "p-1",
            Party.CONSUMER,
            PEER,
            "agreement",
            "HttpData-PULL",
            TransferState.STARTED,
            3,
            data_address=address(),
        )

    @asynccontextmanager
    async def open(self, method: str, url: str, **given: Any) -> AsyncIterator[Opened]:
        assert (method, url) == ("GET", ENDPOINT)
        headers = given["headers"]
        self.asked.append(headers)
        if self.failing:
            failure = self.failing.pop(0)
            if isinstance(failure, Exception):
                raise failure
            yield failure
            return
        yield self._answer(headers)

    def _answer(self, headers: dict[str, str]) -> Opened:
        if headers.get("Authorization") != self.scheme + self.token:
            return Opened(401)
        size, start, status = len(self.data), 0, 200
        if "Range" in headers and headers.get("If-Range", self.etag) == self.etag:
            start, status = int(headers["Range"].removeprefix("bytes=").rstrip("-")), 206
            if start >= size:
                return Opened(416, content_range=f"bytes */{size}")
        end = min(start + self.cut, size) if self.cut else size
        about = {"content_length": str(size - start), "content_type": "text/csv"}
        if self.etag:
            about["etag"] = self.etag
        if status == 206:
            about["content_range"] = f"bytes {start}-{size - 1}/{size}"
        return Opened(status, self.data[start:end], end < size, **about)

    async def ask(self, method: str, url: str, **given: Any) -> Answer:
        assert (method, url) == ("POST", f"{ENDPOINT}/token")
        form = parse_qs(given["body"].decode())
        self.refreshed += form["refresh_token"]
        if self.refusing_refresh:
            found = self.refusing_refresh.pop(0)
            if isinstance(found, Exception):
                raise found
            return Answer(found, httpx.Headers(), b"{}")
        if form["refresh_token"] != [self.refresh]:
            return Answer(401, httpx.Headers(), b"{}")
        self.generation += 1
        self.token, self.refresh = f"a-{self.generation}", f"r-{self.generation}"
        body = {"access_token": self.token, "refresh_token": self.refresh, "expires_in": 60}
        return Answer(200, httpx.Headers(), json.dumps(body).encode())

    async def transfer(self, pid: str) -> TransferProcess:
        if pid != PID:
            raise NotFound("no such transfer")
        return self.process

    async def renewed(self, pid: str, known: DataAddress, new: DataAddress) -> None:
        if self.process.data_address == known:
            self.process = replace(self.process, data_address=new)

    def downloads(self) -> Downloads:
        def trust(peer: str) -> Trust:
            assert peer == PEER
            return WEB

        return Downloads(
            self,  # type: ignore[arg-type]
            transfer=self.transfer,
            renewed=self.renewed,
            trust=trust,
        )


async def pull(source: Source, offset: int = 0, etag: str = "") -> tuple[PullBegun, bytes]:
    begun, *rest = [piece async for piece in source.downloads().pull(PID, offset=offset, etag=etag)]
    assert isinstance(begun, PullBegun)
    return begun, b"".join(piece for piece in rest if isinstance(piece, bytes))


async def test_all_of_it() -> None:
    begun, data = await pull(Source())
    assert data == DATA
    assert begun == PullBegun(0, len(DATA), '"v1"', "text/csv")


async def test_nothing_at_all() -> None:
    source = Source()
    source.data = b""
    assert await pull(source) == (PullBegun(0, 0, '"v1"', "text/csv"), b"")


async def test_the_rest_of_it() -> None:
    begun, data = await pull(Source(), 40_000, '"v1"')
    assert (begun.offset, begun.size, data) == (40_000, len(DATA), DATA[40_000:])


async def test_there_is_no_rest() -> None:
    begun, data = await pull(Source(), len(DATA), '"v1"')
    assert (begun.offset, begun.size, data) == (len(DATA), len(DATA), b"")


async def test_another_version_begins_anew() -> None:
    for offset in (40_000, len(DATA) + 5):
        begun, data = await pull(Source(), offset, '"v0"')
        assert (begun.offset, data) == (0, DATA)


async def test_what_breaks_off_goes_on() -> None:
    source = Source()
    source.cut = 9_500
    begun, data = await pull(source)
    assert (begun.offset, data) == (0, DATA)
    assert [asked.get("Range", "") for asked in source.asked[:3]] == [
        "",
        "bytes=9500-",
        "bytes=19000-",
    ]
    assert source.asked[1]["If-Range"] == '"v1"'


async def test_what_does_not_begin_is_tried_again_and_given_up() -> None:
    source = Source()
    source.failing = [Unavailable("no"), Opened(503), Opened(429), Opened(200, b"", True)]
    assert (await pull(source))[1] == DATA
    source.failing = [Unavailable("no")] * 100
    with pytest.raises(Unavailable):
        await pull(source)
    assert len(source.failing) == 100 - download.ATTEMPTS


async def test_data_that_changes_on_the_way_is_not_mixed() -> None:
    source = Source()
    source.cut = 9_500
    with pytest.raises(Conflict, match="changed"):
        async for piece in source.downloads().pull(PID):
            if isinstance(piece, bytes):
                source.etag = '"v2"'


@pytest.mark.parametrize(
    "wrong",
    [
        Opened(206, DATA[10:], content_range="bytes 10-99999/100000", etag='"v1"'),
        Opened(206, DATA),
        Opened(206, DATA, content_range="bytes 40000-/100000"),
        Opened(302, location="https://169.254.169.254"),
        Opened(204),
        Opened(400),
    ],
)
async def test_answers_that_are_wrong(wrong: Opened) -> None:
    source = Source()
    source.failing = [wrong]
    with pytest.raises(PeerFault):
        await pull(source, 40_000, '"v1"')


async def test_a_range_of_another_version_is_not_mixed() -> None:
    source = Source()
    source.failing = [Opened(206, DATA, content_range="bytes 40000-99999/100000", etag='"v2"')]
    with pytest.raises(Conflict):
        await pull(source, 40_000, '"v1"')


async def test_a_token_that_expires_is_refreshed_and_kept() -> None:
    source = Source()
    source.cut = 30_000
    seen = b""
    async for piece in source.downloads().pull(PID):
        if isinstance(piece, bytes):
            seen += piece
            if len(seen) in (20_000, 50_000):
                source.token = "expired"
    assert seen == DATA
    assert source.refreshed == ["r-1", "r-2"]
    kept = Access.read(source.process.data_address or DataAddress(""))
    assert (kept.token, kept.refresh_token) == ("a-3", "r-3")
    assert (f"{EDC}authorization", "a-3") in (source.process.data_address or address()).properties


async def test_a_refresh_whose_answer_is_lost_is_asked_for_again() -> None:
    source = Source()
    source.token = "expired"
    source.refusing_refresh = [Unavailable("lost"), 503]
    assert (await pull(source))[1] == DATA
    assert source.refreshed == ["r-1"] * 3


async def test_a_token_that_another_pull_refreshed() -> None:
    source = Source()
    downloads = source.downloads()
    pieces = downloads.pull(PID)
    source.cut = 1000
    assert isinstance(await anext(pieces), PullBegun)
    source.token = "a-9"
    source.process = replace(source.process, data_address=address("a-9"))
    assert b"".join([piece async for piece in pieces if isinstance(piece, bytes)]) == DATA
    assert not source.refreshed


async def test_a_data_plane_that_takes_the_token_alone() -> None:
    source = Source()
    source.scheme, source.refusing_refresh = "", [401]
    assert (await pull(source))[1] == DATA
    assert [asked["Authorization"] for asked in source.asked] == ["Bearer a-1", "a-1"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_nothing_helps(status: int) -> None:
    source = Source()
    source.refusing_refresh = [403]
    source.failing = [Opened(status)] * 10
    with pytest.raises(Refused):
        await pull(source)
    assert len(source.asked) == 2  # as a bearer token, and alone


async def test_a_suspension_on_the_way_is_said() -> None:
    source = Source()
    source.cut = 9_500
    with pytest.raises(Conflict, match="SUSPENDED"):
        async for piece in source.downloads().pull(PID):
            if isinstance(piece, bytes):
                source.token = "revoked"
                source.process = replace(
                    source.process, state=TransferState.SUSPENDED, data_address=None
                )


@pytest.mark.parametrize("state", [each for each in TransferState if each != "STARTED"])
async def test_a_transfer_that_is_not_started(state: TransferState) -> None:
    source = Source()
    source.process = replace(source.process, state=state, data_address=None)
    with pytest.raises(Conflict):
        await pull(source)
    assert not source.asked


async def test_a_transfer_that_is_not_ours_to_pull() -> None:
    source = Source()
    source.process = replace(source.process, party=Party.PROVIDER)
    with pytest.raises(NotFound):
        await pull(source)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"access_token":7}', b'{"access_token":"a\\r\\nb"}']
)
async def test_refreshes_that_make_no_sense(body: bytes) -> None:
    source = Source()
    source.token = "expired"

    async def ask(*_: Any, **__: Any) -> Answer:
        return Answer(200, httpx.Headers(), body)

    source.ask = ask  # type: ignore[method-assign]
    with pytest.raises(Refused):
        await pull(source)


def test_what_a_data_address_says() -> None:
    edc = DataAddress(
        "x",
        "",
        (
            (f"{EDC}endpoint", ENDPOINT),
            (f"{EDC}authorization", "token"),
            (f"{EDC}authType", "bearer"),
        ),
    )
    access = Access.read(edc)
    assert (access.endpoint, access.headers()) == (ENDPOINT, {"Authorization": "Bearer token"})
    whole = replace(edc, properties=(("authorization", "Basic eA=="), ("authType", "basic")))
    with pytest.raises(PeerFault):
        Access.read(whole)
    access = Access.read(replace(whole, endpoint=ENDPOINT))
    assert access.headers() == {"Authorization": "Basic eA=="}
    assert Access.read(DataAddress("x", ENDPOINT)).headers() == {}
