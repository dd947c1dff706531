"""What tests of the Dataspace Protocol's door share: a node behind it, and a peer that calls it
without a network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from connector.adapters.dataset_store import SqliteDatasetStore
from connector.identity.statements import public_bytes
from connector.model.participant import Participant
from connector.negotiation import messages
from connector.negotiation.automation import Automation
from connector.transport.calls import OpenCalls, Watch
from connector.transport.http.dsp import codec, schemas
from connector.transport.http.dsp.authority import (
    MemberTokens,
    StaticTokens,
    by_bearer,
    issue_dsp_token,
)
from connector.transport.http.dsp.did import did_document
from connector.transport.http.dsp.door import Sources, application
from connector.transport.http.dsp.holds import Holds
from tests.negotiators import AIRPORT, DATASET, TOURISM, Clock, Node, key_of, record_of

STRANGER = "BPNL00000003CRHK"
STRANGER_TOKEN = "a-token-of-the-stranger"
ANOTHER, ANOTHER_TOKEN = "BPNL00000003OTHER", "a-token-of-somebody-else"
CALLBACK = "https://stranger.example/dsp"
ROOT = "https://airport.example/dsp"
BASE = "/2025-1"
FORMAT = "HttpData-PULL"
CONTEXT = {"@context": [schemas.CONTEXT]}


def outsider(name: str) -> Participant:
    return dataclasses.replace(record_of(name), signing_keys=(), log_origin="", revision=0)


class Place:
    """A node, its door, and who calls it."""

    def __init__(self, did: str = AIRPORT, automation: Automation | None = None) -> None:
        self.node = Node(did, automation)
        self.node.members |= {name: outsider(name) for name in (STRANGER, ANOTHER)}
        self.store = SqliteDatasetStore(Path(":memory:"))
        self.holds = Holds()
        self.observed: list[tuple[str, str]] = []
        self.calls = OpenCalls()
        self.clock = Clock()
        lookup = self.node.lookup
        static = StaticTokens({STRANGER: STRANGER_TOKEN, ANOTHER: ANOTHER_TOKEN}, lookup)
        self.authenticate = by_bearer([static, MemberTokens(did, lookup, self.clock)])
        self.app = application(
            Sources(
                did=did,
                root=ROOT,
                formats=(FORMAT,),
                document=did_document(
                    did, public_bytes(key_of(did)), root=ROOT, endpoint="airport.example:9443"
                ),
                authenticate=self.authenticate,
                receive=self.receive,
                negotiation=self.negotiation,
                transfer=self.transfer,
                agreement=self.agreement,
                datasets=self.store,
                holds=self.holds,
                watch=Watch(self.calls, self.clock, self.observe),
            )
        )

    def observe(self, name: str, status: str, _: float) -> None:
        self.observed.append((name, status))

    async def receive(self, channel, content, digest):
        return await self.node.service.receive(channel, content, digest)

    async def negotiation(self, pid):
        return await self.node.service.negotiation(pid)

    async def transfer(self, pid):
        return await self.node.service.transfers.transfer(pid)

    async def agreement(self, agreement_id):
        return await self.node.service.agreement(agreement_id)

    async def posts(self) -> list[Any]:
        """What we would say next, as the stranger would get it; taken by it."""
        said = []
        for post in await self.node.service.posts():
            content = messages.decode(post.body)
            body = codec.encode(content, signs=self.node.lookup(post.peer).signs)
            schemas.check(body["@type"], body)
            said.append(body)
            await self.node.service.delivered(post)
        return said


class Caller:
    """``token``: empty for a member, who makes one for each request."""

    def __init__(self, place: Place, token: str = STRANGER_TOKEN, member: str = TOURISM) -> None:
        self._place = place
        self._token = token
        self._member = member
        transport = httpx.ASGITransport(place.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://door")
        self._jti = 0

    def headers(self) -> dict[str, str]:
        token = self._token or issue_dsp_token(
            key_of(self._member),
            did=self._member,
            audience=self._place.node.did,
            clock=self._place.clock,
        )
        return {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(BASE + path, headers=self.headers())

    async def post(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(
            BASE + path,
            content=content,
            headers={"Content-Type": "application/json", **self.headers(), **headers},
        )


@contextlib.asynccontextmanager
async def opened(did: str = AIRPORT, automation: Automation | None = None) -> AsyncIterator[Place]:
    place = Place(did, automation)
    for published in place.node.datasets.kept.values():
        await place.store.save(published)
    await place.node.service.start()
    try:
        yield place
    finally:
        await place.node.service.close()
        place.store.close()


def request_body(pid: str = "their-1", **offer: Any) -> dict[str, Any]:
    """A ContractRequestMessage that begins a negotiation about ``DATASET``."""
    return {
        **CONTEXT,
        "@type": "ContractRequestMessage",
        "@id": hashlib.sha256(pid.encode()).hexdigest(),
        "consumerPid": pid,
        "callbackAddress": CALLBACK + "/",
        "offer": {
            "@type": "Offer",
            "@id": DATASET.offers[0].id,
            "target": DATASET.id,
            "permission": [
                {
                    "action": "use",
                    "constraint": [
                        {
                            "leftOperand": "purpose",
                            "operator": "eq",
                            "rightOperand": "tourism-planning",
                        },
                        {"leftOperand": "count", "operator": "lteq", "rightOperand": "20"},
                    ],
                }
            ],
            **offer,
        },
    }


def message(type_: str, consumer: str, provider: str, **more: Any) -> dict[str, Any]:
    return {
        **CONTEXT,
        "@type": type_,
        "consumerPid": consumer,
        "providerPid": provider,
        **more,
    }
