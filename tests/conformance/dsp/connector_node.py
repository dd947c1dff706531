"""A real ``connector serve`` as the conformance suite's system under test.

Everything here is what any user has: a space of real processes, a peer named in ``connector.toml``,
the client library and its stream of events. What the suite expects to be there beforehand is made
by dealing with the node over the protocol, as the suite's own participant: ``Counterpart`` plays it
before the suite takes its place.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.client import Node
from connector.transport.http.server import HttpDoor
from tests.conformance.dsp.harness import Event
from tests.conformance.dsp.script import CONSUMER_AGREEMENTS, DATASETS, PROVIDER_AGREEMENTS
from tests.conformance.dsp.suite import System
from tests.e2e.space import Space, free_ports, space

SUITE = "TCK_PARTICIPANT"  # the suite's name for itself
TOKEN = "static-token-of-the-suite"
CONTEXT = ["https://w3id.org/dspace/2025/1/context.jsonld"]
TERMS = {"permission": [{"action": "use"}]}
SEED = "CAT0101"  # the dataset behind the agreements under which the suite asks for transfers
PATIENCE_S = 30.0


@dataclass
class ConnectorNode:
    """``harness.Node`` over the client library. ``subjects``: the suite's names of agreements that
    have other ids here."""

    node: Node
    subjects: Mapping[str, str]

    async def negotiate(self, peer_url: str, dataset: str, offer: str) -> str:
        found = await self.node.negotiate(SUITE, dataset, offer_id=offer, terms=TERMS, follow_s=0.1)
        return found.pid

    async def offer(self, pid: str) -> None:
        await self.node.decide(pid, "counter", terms=TERMS)

    counter = offer

    async def agree(self, pid: str) -> None:
        await self.node.decide(pid, "approve")

    accept = verify = finalize = agree

    async def terminate(self, pid: str) -> None:
        await self.node.decide(pid, "reject", reason="the script says so")

    async def request_transfer(self, peer_url: str, agreement: str, format: str) -> str:
        found = await self.node.request_transfer(agreement, format=format, follow_s=0.1)
        return found.pid

    async def start_transfer(self, pid: str) -> None:
        await self.node.decide_transfer(pid, "start")

    async def suspend_transfer(self, pid: str) -> None:
        await self.node.decide_transfer(pid, "suspend", reason="the script says so")

    async def complete_transfer(self, pid: str) -> None:
        await self.node.decide_transfer(pid, "complete")

    async def terminate_transfer(self, pid: str) -> None:
        await self.node.decide_transfer(pid, "terminate", reason="the script says so")

    async def events(self) -> AsyncIterator[Event]:
        async with self.node.events() as events:
            async for event in events:
                of_transfer = event.kind == "transfer"
                subject = event.agreement_id if of_transfer else event.dataset_id
                yield Event(event.pid, event.state, self.subjects.get(subject, subject))


@dataclass
class Counterpart:
    """The suite's participant, before the suite itself: it makes the agreements that the suite
    takes for granted, one after the other, over the Dataspace Protocol."""

    node: Node
    url: str  # of the node's door, with the version
    did: str
    http: httpx.AsyncClient
    base: str  # where we are reached
    heard: asyncio.Queue[tuple[str, dict[str, Any]]] = field(default_factory=asyncio.Queue)

    def application(self) -> Starlette:
        async def take(request: Request) -> Response:
            message = await request.json()
            self.heard.put_nowait((request.url.path, message))
            if request.url.path != "/negotiations/request":
                return Response(status_code=200)
            answer = {
                "@context": CONTEXT,
                "@type": "ContractNegotiation",
                "consumerPid": message["consumerPid"],
                "providerPid": f"urn:uuid:{uuid.uuid4()}",
                "state": "REQUESTED",
            }
            self.heard.put_nowait(("answered", answer))
            return JSONResponse(answer, status_code=201)

        return Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])

    async def next(self, ending: str) -> dict[str, Any]:
        """The next thing that the node says to us, at a path with this ending."""
        async with asyncio.timeout(PATIENCE_S):
            path, message = await self.heard.get()
        assert path.endswith(ending), (path, message)
        return message

    async def say(self, path: str, type: str, **fields: Any) -> dict[str, Any]:
        """Say something to the node, which must take it; its answer, if it has one."""
        answer = await self.http.post(
            self.url + path,
            json={"@context": CONTEXT, "@type": type, **fields},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    async def as_consumer(self, dataset: str) -> str:
        """An agreement on one of the node's datasets; its id."""
        offer = {"@type": "Offer", "@id": f"CD123:{dataset}:456", "target": dataset, **TERMS}
        pids = {"consumerPid": f"urn:uuid:{uuid.uuid4()}"}
        begun = await self.say(
            "/negotiations/request",
            "ContractRequestMessage",
            offer=offer,
            callbackAddress=self.base,
            **pids,
        )
        pids["providerPid"] = begun["providerPid"]
        await self.node.decide(pids["providerPid"], "approve")
        agreed = await self.next("/agreement")
        path = f"/negotiations/{pids['providerPid']}/agreement/verification"
        await self.say(path, "ContractAgreementVerificationMessage", **pids)
        await self.node.decide(pids["providerPid"], "approve")
        finalized = await self.next("/events")
        assert finalized["eventType"] == "FINALIZED"
        return str(agreed["agreement"]["@id"])

    async def as_provider(self, agreement: str) -> None:
        """An agreement of this id on a dataset of ours."""
        dataset = f"seed-{agreement}"
        begun = await self.node.negotiate(
            SUITE, dataset, offer_id=f"offer{dataset}", terms=TERMS, follow_s=0.1
        )
        await self.next("/negotiations/request")
        answered = await self.next("answered")
        pids = {key: answered[key] for key in ("consumerPid", "providerPid")}
        await self.say(
            f"/negotiations/{begun.pid}/agreement",
            "ContractAgreementMessage",
            agreement={
                "@type": "Agreement",
                "@id": agreement,
                "target": dataset,
                "assigner": SUITE,
                "assignee": self.did,
                "timestamp": "2026-01-01T00:00:00Z",
                **TERMS,
            },
            **pids,
        )
        await self.node.decide(begun.pid, "approve")
        await self.next("/agreement/verification")
        await self.say(
            f"/negotiations/{begun.pid}/events",
            "ContractNegotiationEventMessage",
            eventType="FINALIZED",
            **pids,
        )


SETTINGS = """
[automation]
decide = false
agree = false
verify = false
finalize = false
start = false
[dsp]
listen = "127.0.0.1:{port}"
url = "http://127.0.0.1:{port}"
plain_http = true
allow = ["127.0.0.1"]
[[peer]]
id = "{suite}"
name = "The conformance suite"
url = "http://127.0.0.1:{suite_port}"
accepts = "suite.token"
"""


@asynccontextmanager
async def under_test(folder: Path) -> AsyncIterator[tuple[ConnectorNode, System, int]]:
    """A node with everything that the suite expects, and the port at which the suite must be."""
    port, suite_port = free_ports(2)
    async with space(folder) as members:
        settings = SETTINGS.format(port=port, suite=SUITE, suite_port=suite_port)
        member = members.prepare("connector", settings)
        (member.data / "suite.token").write_text(TOKEN)
        (member.data / "suite.token").chmod(0o600)
        await members.enrol("connector", ["provider", "consumer"])
        async with members.node("connector") as node:
            await _publish(members, node)
            url = f"http://127.0.0.1:{port}/2025-1"
            agreements = await _agree(node, url, member.did, suite_port)
            subjects = {found: name for name, found in agreements.items()}
            system = System(
                dsp_url=url,
                base_url=f"http://127.0.0.1:{port}",
                participant=member.did,
                negotiate_url="",
                transfer_url="",
                authorization=f"Bearer {TOKEN}",
                agreements=agreements,
            )
            yield ConnectorNode(node, subjects), system, suite_port


async def _publish(found: Space, node: Node) -> None:
    source = found.folder / "numbers.csv"
    source.write_text("number,square\n" + "".join(f"{n},{n * n}\n" for n in range(100)))
    for dataset in DATASETS:
        await node.publish(
            source,
            title=f"Numbers for {dataset}",
            table="numbers",
            classification="general",
            terms=TERMS,
            own_id=dataset,
            offer_id=f"CD123:{dataset}:456",
        )


async def _agree(node: Node, url: str, did: str, port: int) -> dict[str, str]:
    """The suite's names of agreements, and the ids that they have."""
    async with httpx.AsyncClient(trust_env=False) as http:
        counterpart = Counterpart(node, url, did, http, f"http://127.0.0.1:{port}")
        door = HttpDoor(counterpart.application(), f"127.0.0.1:{port}")
        await door.open()
        try:
            ids = {name: await counterpart.as_consumer(SEED) for name in PROVIDER_AGREEMENTS}
            for name in CONSUMER_AGREEMENTS:
                await counterpart.as_provider(name)
        finally:
            await door.close()
    return ids | {name: name for name in CONSUMER_AGREEMENTS}
