"""A client of the EDC's management API (version 3): what an operator of an EDC does by hand."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]

EDC = "https://w3id.org/edc/v0.0.1/ns/"
# The policy part of DSP's own context: what an offer means on the wire is what it means here.
ODRL = "https://w3id.org/dspace/2025/1/odrl-profile.jsonld"
PROTOCOL = "dataspace-protocol-http:2025-1"
TIMEOUT_S = 30.0
POLL_S = 0.1


class Failed(AssertionError):
    """The EDC refused, or a process of it ended otherwise than hoped."""


@dataclass(frozen=True)
class Peer:
    """Whom the EDC is to talk to: a participant and its DSP address."""

    id: str
    url: str


@dataclass(frozen=True)
class DataReference:
    """Where to pull from, and with what ``Authorization``."""

    endpoint: str
    authorization: str
    properties: Json


class Management:
    """One EDC's management API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        # One address for all transfers: an EDC that cannot get rid of an event delivers no other.
        self._events = events()
        self._events_to, self._received = "", queue.Queue[Json]()

    def __enter__(self) -> Self:
        self._events_to, self._received = self._events.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
        self._events.__exit__(kind, error, trace)

    # --- as a provider ---

    def offer(self, asset: str, source: str, policy: Json | None = None) -> None:
        """Offer what ``source`` (an HTTP address) serves, under ``policy`` (default: any use)."""
        self._post(
            "/v3/assets",
            {
                "@id": asset,
                "properties": {"name": asset, "contenttype": "application/octet-stream"},
                "dataAddress": {"type": "HttpData", "baseUrl": source},
            },
        )
        access = self.policy({})
        contract = self.policy(policy or {})
        self._post(
            "/v3/contractdefinitions",
            {
                "@id": f"{asset}-definition",
                "accessPolicyId": access,
                "contractPolicyId": contract,
                "assetsSelector": [
                    {
                        "@type": "Criterion",
                        "operandLeft": f"{EDC}id",
                        "operator": "=",
                        "operandRight": asset,
                    }
                ],
            },
        )

    def policy(self, rules: Json) -> str:
        """A policy definition of these ODRL rules, with terms as on DSP's wire; its id."""
        policy = {"@context": ODRL, "@type": "Set", **rules}
        return str(self._post("/v3/policydefinitions", {"policy": policy})["@id"])

    # --- as a consumer ---

    def catalog(self, peer: Peer, **query: Any) -> Json:
        """The peer's catalogue, as the EDC understood it. ``query``: parts of a QuerySpec."""
        spec = {"querySpec": {"@type": "QuerySpec", **query}} if query else {}
        found: Json = self._post(
            "/v3/catalog/request", {"@type": "CatalogRequest", **_at(peer), **spec}
        )
        return found

    def dataset(self, peer: Peer, dataset: str) -> Json:
        """One dataset of the peer's, as the EDC understood it."""
        found: Json = self._post(
            "/v3/catalog/dataset/request", {"@type": "DatasetRequest", "@id": dataset, **_at(peer)}
        )
        return found

    def request(self, peer: Peer, dataset: Json) -> str:
        """Start a negotiation about the first offer of a dataset that ``dataset`` gave; its id."""
        offer = dataset["hasPolicy"][0]
        policy = {
            "@context": [
                ODRL,
                *(known for known in dataset["@context"] if isinstance(known, dict)),
            ],
            **offer,
            "assigner": peer.id,
            "target": dataset["@id"],
        }
        started = self._post(
            "/v3/contractnegotiations", {"@type": "ContractRequest", **_at(peer), "policy": policy}
        )
        return str(started["@id"])

    def negotiation(self, id: str) -> Json:
        """A negotiation's record."""
        found: Json = self._get(f"/v3/contractnegotiations/{id}")
        return found

    def process(self, transfer: str) -> Json:
        """A transfer's record."""
        found: Json = self._get(f"/v3/transferprocesses/{transfer}")
        return found

    def negotiated(self, id: str, state: str) -> Json:
        """Wait until a negotiation is in a state; its record."""
        return self._await(f"/v3/contractnegotiations/{id}", state)

    def agreed(self, id: str) -> str:
        """Wait until a negotiation is FINALIZED; the agreement's id."""
        return str(self.negotiated(id, "FINALIZED")["contractAgreementId"])

    def transfer(self, peer: Peer, agreement: str) -> str:
        """Request a pull under an agreement; its id."""
        callback = {
            "transactional": False,
            "uri": self._events_to,
            "events": ["transfer.process.started"],
        }
        started = self._post(
            "/v3/transferprocesses",
            {
                "@type": "TransferRequest",
                **_at(peer),
                "contractId": agreement,
                "transferType": "HttpData-PULL",
                "callbackAddresses": [callback],
            },
        )
        return str(started["@id"])

    def transferred(self, id: str, state: str) -> Json:
        """Wait until a transfer is in a state (STARTED, SUSPENDED, ...); its record."""
        return self._await(f"/v3/transferprocesses/{id}", state)

    def pull(self, peer: Peer, agreement: str) -> tuple[str, DataReference]:
        """Request a pull and wait for where to pull from; the transfer's id, and that."""
        transfer = self.transfer(peer, agreement)
        return transfer, self.reference(transfer)

    def reference(self, transfer: str, last: DataReference | None = None) -> DataReference:
        """Wait for a start of a transfer, and where it says to pull from.

        ``last``: what an earlier start said, which may come twice.
        """
        while True:
            started = _first(self._received, transfer, "TransferProcessStarted")
            properties = started["dataAddress"]["properties"]
            short = {key.removeprefix(EDC): value for key, value in properties.items()}
            if not {"endpoint", "authorization"} <= short.keys():
                raise Failed(f"nowhere to pull from: {short}")
            found = DataReference(short["endpoint"], short["authorization"], short)
            if found != last:
                return found

    # --- of either side's processes ---

    def transfers(self) -> list[Json]:
        """All transfers."""
        found: list[Json] = self._post("/v3/transferprocesses/request", {"@type": "QuerySpec"})
        return found

    def negotiations(self) -> list[Json]:
        """All negotiations."""
        found: list[Json] = self._post("/v3/contractnegotiations/request", {"@type": "QuerySpec"})
        return found

    def suspend(self, transfer: str, reason: str) -> None:
        """Suspend a transfer."""
        self._post(f"/v3/transferprocesses/{transfer}/suspend", {"reason": reason})

    def resume(self, transfer: str) -> None:
        """Resume a transfer."""
        self._post(f"/v3/transferprocesses/{transfer}/resume", {})

    def terminate(self, transfer: str, reason: str) -> None:
        """Terminate a transfer."""
        self._post(f"/v3/transferprocesses/{transfer}/terminate", {"reason": reason})

    def terminate_negotiation(self, id: str, reason: str) -> None:
        """Terminate a negotiation."""
        self._post(
            f"/v3/contractnegotiations/{id}/terminate",
            {"@type": "TerminateNegotiation", "@id": id, "reason": reason},
        )

    def data_planes(self) -> list[str]:
        """The states of the data planes that registered."""
        return [str(plane["state"]) for plane in self._get("/v3/dataplanes")]

    def _await(self, path: str, state: str) -> Json:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            record: Json = self._get(path)
            if record["state"] == state:
                return record
            if record["state"] == "TERMINATED":
                break
            time.sleep(POLL_S)
        raise Failed(f"not {state}: {json.dumps(record, indent=2)}")

    def _post(self, path: str, body: Json) -> Any:
        return _answer(self._http.post(path, json={"@context": {"@vocab": EDC}, **body}))

    def _get(self, path: str) -> Any:
        return _answer(self._http.get(path))


@contextmanager
def events() -> Iterator[tuple[str, queue.Queue[Json]]]:
    """An address on loopback for the EDC's events, and what arrived there."""
    received: queue.Queue[Json] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what arrived is in the queue."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        server.server_close()


def _first(received: queue.Queue[Json], transfer: str, kind: str) -> Json:
    while True:
        try:
            event = received.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise Failed(f"no {kind} of {transfer}") from None
        payload: Json = event["payload"]
        if event["type"] == kind and payload["transferProcessId"] == transfer:
            return payload


def _at(peer: Peer) -> Json:
    return {
        "counterPartyId": peer.id,
        "counterPartyAddress": peer.url,
        "protocol": PROTOCOL,
    }


def _answer(response: httpx.Response) -> Any:
    if not response.is_success:
        raise Failed(f"{response.request.url}: {response.status_code} {response.text}")
    return response.json() if response.content else {}
