"""The management services over HTTP: what JSON becomes of which message, who comes in, how streams
and errors are told. The services behind are made up."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    InvalidInput,
    NotFound,
    PeerFault,
    RateLimited,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.transport.calls import OpenCalls, Watch
from connector.transport.http import answers, body, openapi
from connector.transport.http.management import Entry, application, path_of
from connector.transport.http.protojson import JSON, MAX_BYTES, media_type_of
from tests.logs import ManualClock

SERVICES = pb.DESCRIPTOR.services_by_name
ARROW = "application/vnd.apache.arrow.stream"
SUMMARY = pb.UseSummary(scope="urn:a", number=7, outcome="allowed", leaf_hash=b"\xff" * 32)
SERVED = [pb.QueryResponse(summary=SUMMARY), *(pb.QueryResponse(chunk=c) for c in (b"ab", b"\0"))]


class Servicer:
    """Answers each method with what ``on`` has for it: a message, a list of them, or an error
    (also as the last of a list). ``asked`` holds the requests."""

    def __init__(self) -> None:
        self.on: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.left: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = next(
            service.methods_by_name[name]
            for service in SERVICES.values()
            if name in service.methods_by_name
        )
        return self._many(name) if method.server_streaming else self._one(name, method)

    def _one(self, name: str, method: Any) -> Any:
        async def call(request: Any, context: object) -> Any:
            self.asked.append(request)
            found = self.on.get(name, getattr(pb, method.output_type.name)())
            if isinstance(found, Exception):
                raise found
            return found

        return call

    def _many(self, name: str) -> Any:
        async def call(request: Any, context: object) -> AsyncIterator[Any]:
            self.asked.append(request)
            try:
                for found in self.on.get(name, []):
                    if isinstance(found, Exception):
                        raise found
                    if found is None:
                        await asyncio.Event().wait()
                    yield found
            finally:
                self.left.append(name)

        return call


class Place:
    def __init__(self, entry: Entry = Entry()) -> None:  # noqa: B008  frozen
        self.servicer = Servicer()
        self.calls = OpenCalls()
        self.observed: list[tuple[str, str]] = []
        watch = Watch(
            self.calls, ManualClock(), lambda name, code, _: self.observed.append((name, code))
        )
        offered = [(SERVICES[name], self.servicer) for name in ("ManagementService", "LogService")]
        self.app = application(offered, watch, entry, version="1")

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app)
        url = "http://127.0.0.1:9"
        async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
            yield client

    async def post(self, path: str, value: Any = None, **headers: str) -> httpx.Response:
        async with self.client(**headers) as client:
            return await client.post(f"/v1/{path}", json={} if value is None else value)


@pytest.fixture
def place() -> Place:
    return Place()


def events(text: str) -> list[tuple[str, Any]]:
    """Each event's type and its data."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.split("\n") if ": " in line)
        if "data" in lines:
            found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


# The document.


def document() -> dict[str, Any]:
    methods = [
        (path_of(method), method) for service in SERVICES.values() for method in service.methods
    ]
    return openapi.document(methods, title="t", version="1")


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def test_everything_in_the_document_is_described() -> None:
    found = document()
    for path, item in found["paths"].items():
        assert item["post"]["summary"], path
    for name, schema in found["components"]["schemas"].items():
        for field, one in schema["properties"].items():
            assert one["description"], (name, field)


async def test_the_document_is_served_and_names_each_call(place: Place) -> None:
    async with place.client() as client:
        found = (await client.get("/openapi.json")).json()
    services = ("ManagementService", "LogService")
    wanted = {path_of(one) for name in services for one in SERVICES[name].methods}
    assert set(found["paths"]) == wanted
    assert "/v1/decide-approval" in wanted


def test_bytes_that_hold_json_say_so() -> None:
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if field.type == field.TYPE_BYTES:
                told = "JSON" in openapi.comments()[field.full_name]
                assert told == (media_type_of(field) == JSON), field.full_name


# Messages.


async def test_json_becomes_the_request_and_the_answer_json(place: Place) -> None:
    offer = {"@id": "urn:o", "permission": [{"action": "use"}], "名": 1.5}
    place.servicer.on["DecideApproval"] = pb.DecideApprovalResponse(
        negotiation=pb.Negotiation(pid="urn:p", offer=json.dumps(offer).encode())
    )
    terms = {"permission": [{"action": "use"}]}
    answer = await place.post(
        "decide-approval", {"pid": "urn:p", "decision": "counter", "terms": terms}
    )
    (asked,) = place.servicer.asked
    assert (asked.pid, json.loads(asked.terms)) == ("urn:p", terms)
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    told = answer.json()["negotiation"]
    assert (told["offer"], told["waiting"], told["peerPid"]) == (offer, False, "")


async def test_fields_have_their_two_protobuf_names(place: Place) -> None:
    for name in ("agreementId", "agreement_id"):
        await place.post("reconcile", {name: "urn:a"})
    assert [one.agreement_id for one in place.servicer.asked] == ["urn:a", "urn:a"]


async def test_bytes_without_json_are_base64_and_large_numbers_text(place: Place) -> None:
    place.servicer.on["GetReceiptProof"] = pb.GetReceiptProofResponse(
        leaf=b"\x00\xff", index=2**60, inclusion=[b"\x01"]
    )
    told = (await place.post("get-receipt-proof", {"number": "3"})).json()
    assert base64.b64decode(told["leaf"]) == b"\x00\xff"
    assert (told["index"], told["inclusion"], told["checkpoint"]) == (str(2**60), ["AQ=="], "")


async def test_documents_in_lists_are_json_too(place: Place) -> None:
    place.servicer.on["SearchCatalog"] = pb.SearchCatalogResponse(datasets=[b'{"a":1}', b"{}"])
    assert (await place.post("search-catalog")).json()["datasets"] == [{"a": 1}, {}]


async def test_no_body_is_an_empty_request(place: Place) -> None:
    async with place.client() as client:
        assert (await client.post("/v1/get-status")).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"[]",
        b"{",
        b"null",
        b'{"pid": 5}',
        b'{"pidd": "x"}',
        b'{"pid": "a", "pid": "b"}',
        b'{"dataset_id": "a", "datasetId": "b"}',
        b'{"accept": "yes"}',
        b'{"followSeconds": ' + b"9" * 400 + b"}",
        b'{"terms": "\\ud800"}',
        b'{"pid": "\\ud800"}',
        b'{"pid": "\xff"}',
        b'{"terms": ' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
async def test_a_request_that_is_none(place: Place, sent: bytes) -> None:
    async with place.client() as client:
        answer = await client.post("/v1/negotiate", content=sent, headers={"Content-Type": JSON})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_input"
    assert place.servicer.asked == []


_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NAMES = sorted(
    {
        name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        for name in (field.name, field.json_name)
    }
)
_METHODS = [
    method for name in ("ManagementService", "LogService") for method in SERVICES[name].methods
]


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(_METHODS),
    value=st.dictionaries(st.sampled_from(_NAMES) | st.text(), _VALUES, max_size=5) | _VALUES,
)
def test_no_json_makes_the_door_fail(method: Any, value: Any) -> None:
    async def ask() -> httpx.Response:
        async with Place().client() as client:
            return await client.post(
                path_of(method), content=json.dumps(value), headers={"Content-Type": JSON}
            )

    assert asyncio.run(ask()).status_code in (200, 400)


# Errors.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("no", hint="do"), 400),
        (Unauthenticated("no"), 403),  # a peer, or this node: no token would help
        (NotFound("no"), 404),
        (Conflict("no"), 409),
        (RateLimited("no"), 429),
        (PeerFault("no"), 502),
        (Unavailable("no"), 503),
        (InternalError("no"), 500),
    ],
)
async def test_an_error_is_a_problem(place: Place, error: ConnectorError, status: int) -> None:
    place.servicer.on = {"GetStatus": error, "Negotiate": [error]}
    for path, name in (("get-status", "GetStatus"), ("negotiate", "Negotiate")):
        answer = await place.post(path)
        told = answer.json()
        assert (answer.status_code, told["status"]) == (status, status)
        assert (told["detail"], told["code"], told["hint"]) == ("no", error.code, error.hint)
        assert place.observed[-1] == (
            f"/dataspace.management.v1.ManagementService/{name}",
            error.code,
        )


async def test_a_refusal_states_its_reasons(place: Place) -> None:
    place.servicer.on["ProposeOffer"] = Refused([Reason("count", "21", "20")])
    answer = await place.post("propose-offer")
    assert answer.status_code == 403
    assert answer.json()["reasons"] == [{"term": "count", "observed": "21", "allowed": "20"}]


async def test_a_defect_says_nothing_of_itself(place: Place) -> None:
    place.servicer.on["GetStatus"] = ValueError("a secret")
    answer = await place.post("get-status")
    assert (answer.status_code, "secret" in answer.text) == (500, False)


async def test_what_is_not_there(place: Place) -> None:
    async with place.client() as client:
        for answer, status in (
            (await client.post("/v1/get-statuses", json={}), 404),
            (await client.get("/"), 404),
            (await client.post("/v1/get-status/", json={}), 404),
            (await client.get("/v1/get-status"), 405),
        ):
            assert (answer.status_code, answer.json()["status"]) == (status, status)


# Streams.


async def test_a_stream_is_events(place: Place) -> None:
    states = ("REQUESTED", "FINALIZED")
    place.servicer.on["Negotiate"] = [
        pb.NegotiateResponse(negotiation=pb.Negotiation(state=state, reason="a\nb"))
        for state in states
    ]
    answer = await place.post("negotiate")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [data["negotiation"]["state"] for _, data in found] == list(states)
    assert found[0][1]["negotiation"]["reason"] == "a\nb"


async def test_a_stream_that_fails_says_so_last(place: Place) -> None:
    place.servicer.on["Negotiate"] = [pb.NegotiateResponse(), Unavailable("gone")]
    answer = await place.post("negotiate")
    (_, (kind, told)) = events(answer.text)
    assert (answer.status_code, kind, told["code"]) == (200, "error", "unavailable")


async def test_an_empty_stream_is_an_answer(place: Place) -> None:
    answer = await place.post("seal-segments")
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_quiet_stream_begins_and_lives(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_S", 0.01)
    monkeypatch.setattr(answers, "BEAT_S", 0.01)
    place.servicer.on["Negotiate"] = [None]

    async def cut() -> None:
        await asyncio.sleep(0.2)
        assert place.calls.cut_streams() == 1

    cutting = asyncio.create_task(cut())
    answer = await place.post("negotiate")
    await cutting
    assert answer.text.count(":\n\n") > 3
    ((kind, told),) = events(answer.text)
    assert (kind, told["detail"]) == ("error", "the node is shutting down")
    assert place.servicer.left == ["Negotiate"]


async def test_a_call_ends_with_its_caller(place: Place) -> None:
    place.servicer.on["Negotiate"] = [pb.NegotiateResponse(), None]
    sent: list[Any] = []
    arrived = asyncio.Event()
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if asked:
            return asked.pop()
        await arrived.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            arrived.set()

    scope = {"type": "http", "method": "POST", "path": "/v1/negotiate", "headers": []}
    async with asyncio.timeout(10):
        await place.app({**scope, "query_string": b"", "root_path": ""}, receive, send)
    assert place.servicer.left == ["Negotiate"]


# Bytes by themselves.


async def test_a_result_is_arrow_where_arrow_is_wanted(place: Place) -> None:
    place.servicer.on["Query"] = SERVED
    answer = await place.post("query", Accept=ARROW)
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW)
    assert answer.content == b"ab\0"
    told = json.loads(answer.headers["tds-summary"])
    assert (told["number"], told["outcome"]) == ("7", "allowed")
    assert len(events((await place.post("query")).text)) == 3


async def test_a_refused_use_has_no_result(place: Place) -> None:
    refused = pb.UseSummary(outcome="refused", reasons=[pb.Reason(term="purpose", observed="x")])
    failed = pb.UseSummary(outcome="failed")
    for summary, status, code in ((refused, 403, "refused"), (failed, 503, "use_failed")):
        place.servicer.on["Query"] = [pb.QueryResponse(summary=summary)]
        answer = await place.post("query", Accept=ARROW)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (status, code)
        assert told["summary"]["outcome"] == summary.outcome


async def test_bytes_that_cannot_be_ended_are_broken_off(place: Place) -> None:
    place.servicer.on["Query"] = [*SERVED, Unavailable("gone")]
    sent: list[Any] = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return asked.pop() if asked else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept", ARROW.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/query", "headers": headers}
    await place.app({**scope, "query_string": b"", "root_path": ""}, receive, send)
    assert [one.get("more_body") for one in sent] == [None, True, True]  # and no last one


async def test_evidence_is_a_file(place: Place) -> None:
    place.servicer.on["ExportEvidence"] = pb.ExportEvidenceResponse(evidence=b'{"a": 1}\n')
    answer = await place.post("export-evidence", Accept="application/octet-stream")
    assert answer.content == b'{"a": 1}\n'
    told = (await place.post("export-evidence")).json()
    assert base64.b64decode(told["evidence"]) == b'{"a": 1}\n'


# Who comes in.

TOKEN = "t" * 43
PORT = Entry(TOKEN, frozenset({"127.0.0.1", "localhost", "[::1]"}))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer {TOKEN}", "Host": "localhost:9090"}, 200),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "[::1]:9090"}, 200),
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer \xe9"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "attacker.example"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1.attacker.example:80"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://127.0.0.1:9090"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "null"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_who_comes_in_at_a_port(headers: dict[str, str], status: int) -> None:
    place = Place(PORT)
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    async with place.client() as client:
        for answer in (
            await client.post("/v1/get-status", json={}, headers=raw),
            await client.get("/openapi.json", headers=raw),
        ):
            assert answer.status_code == status, answer.text
            assert ("www-authenticate" in answer.headers) == (status == 401)
    assert len(place.servicer.asked) == (status == 200)


async def test_pages_do_not_reach_the_socket_either(place: Place) -> None:
    assert (await place.post("get-status", Origin="http://a.example")).status_code == 403
    assert (await place.post("get-status", Host="any")).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_form_cannot_be_a_request(place: Place, kind: str) -> None:
    async with place.client() as client:
        headers = {"Content-Type": kind} if kind else {}
        answer = await client.post("/v1/get-status", content=b"{}", headers=headers)
    assert (answer.status_code, place.servicer.asked) == (415, [])


async def test_a_request_that_is_too_large_or_does_not_come(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await place.post("enrol", {"invitation": "x" * MAX_BYTES})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    monkeypatch.setattr(body, "BODY_S", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.1)
        yield b"}"

    async with place.client() as client:
        answer = await client.post("/v1/get-status", content=slow(), headers={"Content-Type": JSON})
    assert (answer.status_code, place.servicer.asked) == (408, [])
