"""The whole way of one contract by HTTP alone: what a program without our client library does."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from tests.e2e.space import COUNT, PURPOSE, START_S, Member, free_ports, offer_terms, people, space

pytestmark = pytest.mark.e2e

ARROW = "application/vnd.apache.arrow.stream"
TIMEOUT = httpx.Timeout(60.0)


@asynccontextmanager
async def at(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The management socket of the node in a data folder."""
    transport = httpx.AsyncHTTPTransport(uds=str(data / "run" / "management-http.sock"))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://node/v1/", timeout=TIMEOUT
    ) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str, **request: Any) -> Any:
    answer = await client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def heard(client: httpx.AsyncClient, path: str, **request: Any) -> list[Any]:
    """The data of all events of a stream."""
    found = []
    async with client.stream("POST", path, json=request) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            assert not line.startswith("event: error")
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
    return found


async def until_ready(member: Member, client: httpx.AsyncClient) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            if (await ask(client, "get-status"))["state"] == "ready":
                return
        except httpx.TransportError:
            pass
        assert member.alive(), member.log
        assert asyncio.get_running_loop().time() < deadline, member.log
        await asyncio.sleep(0.05)


async def test_a_contract_by_http_alone(tmp_path: Path) -> None:
    async with space(tmp_path) as found, at(found.directory.data) as operator:
        provider = found.prepare("provider")
        (port,) = free_ports(1)
        consumer = found.prepare("consumer", f'[management]\nhttp = "127.0.0.1:{port}"')
        provider.start()
        consumer.start()
        async with at(provider.data) as owner, at(consumer.data) as user:
            for member, client, roles in (
                (provider, owner, ["provider", "consumer"]),
                (consumer, user, ["consumer"]),
            ):
                name = member.data.name
                invited = await ask(operator, "invite", organisation=name, roles=roles)
                await _until_there(member, client)
                joined = await ask(client, "enrol", invitation=invited["invitation"])
                assert joined["space"] == "did:web:space.example"
                await until_ready(member, client)
            members = (await ask(operator, "list-members"))["members"]
            assert {consumer.did, provider.did} < {one["did"] for one in members}
            published = await ask(
                owner,
                "publish-dataset",
                source=str(people(tmp_path / "people.csv")),
                title="People of three regions",
                table="people",
                classification="important",
                terms=offer_terms(uses=5, minimum=5),
                privacyUnit="person",
                dimensions=["region", "code"],
                hiddenColumns=["name"],
                acceptFreeSql=True,
            )
            assert published["rows"] == "200000"
            agreement = await _negotiated(user, provider.did, published["datasetId"])
            await _used(user, agreement)
            await _proposed(owner, user, consumer.did, published["datasetId"])
            evidence = await owner.post(
                "export-evidence",
                json={"agreementId": agreement},
                headers={"Accept": "application/octet-stream"},
            )
            assert json.loads(evidence.content)
            await _at_the_port(consumer, port)
            await _cut(consumer, user, provider.did, published["datasetId"])


async def _until_there(member: Member, client: httpx.AsyncClient) -> None:
    for _ in range(400):
        try:
            assert (await ask(client, "get-status"))["state"] == "not enrolled"
            return
        except httpx.TransportError:
            assert member.alive(), member.log
            await asyncio.sleep(0.05)
    raise AssertionError(member.log)


async def _negotiated(user: httpx.AsyncClient, provider: str, dataset: str) -> str:
    (listed,) = (await ask(user, "search-catalog", query="people"))["datasets"]
    assert listed["@id"] == dataset
    offer = listed["hasPolicy"][0]["@id"]
    changes = await heard(user, "negotiate", provider=provider, datasetId=dataset, offerId=offer)
    last = changes[-1]["negotiation"]
    assert last["state"] == "FINALIZED", changes
    assert last["offer"]["@id"] == offer
    same = await ask(user, "get-negotiation", pid=last["pid"])
    assert same["negotiation"] == last
    (agreement,) = (await ask(user, "list-agreements"))["agreements"]
    assert agreement["document"]["target"] == dataset
    return str(agreement["id"])


async def _used(user: httpx.AsyncClient, agreement: str) -> None:
    request = {"agreementId": agreement, "query": COUNT, "purpose": PURPOSE}
    for _ in range(6):  # a use that keeps its id is one use, however often it is asked for
        again = {**request, "useId": "once"}
        answer = await user.post("query", json=again, headers={"Accept": ARROW})
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.5)
    assert answer.headers["content-type"] == ARROW, answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.to_pydict()["region"] == ["r0", "r1"]
    assert json.loads(answer.headers["tds-summary"])["outcome"] == "allowed"
    refused = await user.post("query", json={**request, "purpose": "x"}, headers={"Accept": ARROW})
    assert refused.status_code == 403
    assert [one["term"] for one in refused.json()["reasons"]] == ["purpose"]
    (told,) = await heard(user, "query", **{**request, "purpose": "x"})
    assert told["summary"]["outcome"] == "refused"
    receipts = (await ask(user, "list-receipts", scope=agreement))["receipts"]
    outcomes = [one["outcome"] for one in receipts if one["kind"] == "delivery"]
    assert outcomes == ["allowed", "refused", "refused"]


async def _proposed(
    owner: httpx.AsyncClient, user: httpx.AsyncClient, consumer: str, dataset: str
) -> None:
    """The provider begins, a person at the consumer accepts."""
    begun = await ask(
        owner,
        "propose-offer",
        consumer=consumer,
        datasetId=dataset,
        terms=offer_terms(uses=3, minimum=5),
    )
    assert begun["negotiation"]["state"] == "OFFERED"
    waiting: list[Any] = []
    for _ in range(200):
        waiting = (await ask(user, "list-negotiations", waitingOnly=True))["negotiations"]
        if waiting:
            break
        await asyncio.sleep(0.05)
    (offered,) = waiting
    changes = await heard(user, "negotiate", pid=offered["pid"], accept=True)
    assert changes[-1]["negotiation"]["state"] == "FINALIZED"
    pid = begun["negotiation"]["pid"]
    final = await owner.post("terminate-negotiation", json={"pid": pid, "reason": "late"})
    assert (final.status_code, final.json()["code"]) == (409, "conflict")


async def _at_the_port(member: Member, port: int) -> None:
    path = member.data / "run" / "management.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((path.parent / "management-http.sock").stat().st_mode) == 0o600
    url = f"http://127.0.0.1:{port}/v1/get-status"
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        assert (await client.post(url)).status_code == 401
        headers = {"Authorization": f"Bearer {path.read_text().strip()}"}
        assert (await client.post(url, headers=headers)).json()["did"] == member.did
        rebound = {**headers, "Host": "attacker.example"}
        assert (await client.post(url, headers=rebound)).status_code == 403


async def _cut(member: Member, user: httpx.AsyncClient, provider: str, dataset: str) -> None:
    """A stream that would go on ends with an event when the node stops, and does not hold it."""
    request = {"provider": provider, "datasetId": dataset, "terms": offer_terms(uses=50, minimum=5)}
    lines: list[str] = []
    async with user.stream("POST", "negotiate", json={**request, "followSeconds": 600}) as answer:
        async for line in answer.aiter_lines():
            if not lines:
                signalled = asyncio.create_task(asyncio.to_thread(member.stop))
            lines.append(line)
    assert await signalled == 0
    assert "event: error" in lines, lines
    assert "shutting down" in lines[-2] + lines[-1]
