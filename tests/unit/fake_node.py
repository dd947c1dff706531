"""A management socket that answers what a test wants, for the client library and the commands.

It speaks the real protocol over a real Unix socket; only what stands behind it is made up.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.cli.configuration import render
from connector.config import Directory, Node
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.merkle import leaf_hash
from tests.exported import VKEY, records
from tests.vectors.scenario import PROVIDER

AGREEMENT = "urn:uuid:11111111-1111-4111-8111-111111111111"
TRANSFER = "urn:uuid:33333333-3333-4333-8333-333333333333"
TOKEN = "a secret token"
DATASET = "urn:uuid:22222222-2222-4222-8222-222222222222"
OFFER = {
    "@id": "urn:offer:1",
    "@type": "Offer",
    "permission": [
        {
            "action": "use",
            "constraint": [
                {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["planning"]},
                {"leftOperand": "count", "operator": "lteq", "rightOperand": 20},
            ],
        }
    ],
}
LISTED = {
    "@id": DATASET,
    "title": "Flights 航班",
    "description": "All departures",
    "keyword": ["aviation"],
    "publisher": "did:web:airport.example",
    "hasPolicy": [OFFER],
    "tds:classification": "important",
    "tds:table": "flights",
    "tds:columns": [{"name": "dest", "type": "VARCHAR", "role": "dimension"}],
}


(LEAF,) = records(1)  # all of the node's log
CHECKPOINT = sign_checkpoint(PROVIDER.origin, 1, leaf_hash(LEAF), PROVIDER.key)


class Fault(Exception):
    """What a handler raises to end a call with a status and trailing metadata."""

    def __init__(self, status: grpc.StatusCode, message: str, **metadata: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())


def refusal(term: str, observed: str, allowed: str) -> Fault:
    return Fault(
        grpc.StatusCode.PERMISSION_DENIED,
        f"{term}: observed {observed}; allowed {allowed}",
        error_code="refused",
        error_reasons_bin=json.dumps([[term, observed, allowed]]).encode(),
    )


def summary(outcome: str = "allowed", **more: Any) -> pb.UseSummary:
    return pb.UseSummary(
        scope=AGREEMENT,
        number=7,
        kind="use",
        outcome=outcome,
        use_id="u-1",
        time="2026-11-23T12:00:00.000Z",
        quantities={"rows_returned": 2, "groups_withheld": 1} if outcome == "allowed" else {},
        index=41,
        leaf_hash=bytes(32),
        purpose="planning",
        **more,
    )


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


TABLE = pa.table({"dest": ["LAX", "洛杉矶\n"], "n": [3, 4]})
STREAM = arrow(TABLE)


class FakeNode:
    """``asked`` holds every request; ``on[method]`` replaces an answer. An answer is a message,
    a list of messages for a stream, or a function of the request that gives either or raises
    ``Fault``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.on: dict[str, Any] = {
            "GetStatus": pb.GetStatusResponse(
                did="did:web:tourism.example",
                name="Tourism Bureau",
                space="did:web:space.example",
                state="ready",
                endpoint="127.0.0.1:1",
                log_size=12,
                view_age_seconds=0.5,
                version="0.1.0",
                certificate_expires="2026-12-23T00:00:00Z",
                space_key="A" * 43,
            ),
            "Enrol": pb.EnrolResponse(
                space="did:web:space.example", certificate_expires="2026-12-23T00:00:00Z"
            ),
            "PublishDataset": pb.PublishDatasetResponse(
                dataset_id=DATASET, offer_id="urn:offer:1", rows=336776, warnings=["careful"]
            ),
            "SearchCatalog": pb.SearchCatalogResponse(datasets=[json.dumps(LISTED).encode()]),
            "Negotiate": [negotiation("REQUESTED"), negotiation("FINALIZED")],
            "ProposeOffer": pb.ProposeOfferResponse(
                negotiation=negotiation("OFFERED", party="provider").negotiation
            ),
            "GetNegotiation": pb.GetNegotiationResponse(
                negotiation=negotiation("REQUESTED", waiting=True, party="provider").negotiation
            ),
            "TerminateNegotiation": pb.TerminateNegotiationResponse(
                negotiation=negotiation("TERMINATED").negotiation
            ),
            "ListNegotiations": pb.ListNegotiationsResponse(
                negotiations=[negotiation("REQUESTED", waiting=True, party="provider").negotiation]
            ),
            "DecideApproval": pb.DecideApprovalResponse(
                negotiation=negotiation("AGREED", party="provider").negotiation
            ),
            "ListAgreements": pb.ListAgreementsResponse(
                agreements=[
                    pb.Agreement(
                        id=AGREEMENT,
                        party="consumer",
                        peer="did:web:airport.example",
                        dataset_id=DATASET,
                        state="active",
                        document=json.dumps(OFFER).encode(),
                        uses=3,
                        concluded="2026-11-23T12:00:00Z",
                    )
                ]
            ),
            "RequestTransfer": pb.RequestTransferResponse(transfer=transfer("REQUESTED")),
            "ListTransfers": pb.ListTransfersResponse(transfers=[transfer("STARTED")]),
            "GetTransfer": pb.GetTransferResponse(
                transfer=transfer("STARTED"),
                data_address=pb.DataAddress(
                    endpoint_type="https",
                    endpoint="https://airport.example/pull",
                    properties={"authorization": TOKEN},
                ),
            ),
            "DecideTransfer": lambda request: pb.DecideTransferResponse(
                transfer=transfer("SUSPENDED", reason=request.reason)
            ),
            "FollowEvents": [
                pb.FollowEventsResponse(),
                pb.FollowEventsResponse(
                    event=pb.Event(kind="negotiation", pid="urn:pid:1", state="STARTED", number=1)
                ),
                pb.FollowEventsResponse(
                    event=pb.Event(kind="transfer", pid=TRANSFER, state="STARTED", number=2)
                ),
            ],
            "EndAgreement": pb.EndAgreementResponse(stopped_uses=1),
            "Query": [
                pb.QueryResponse(summary=summary()),
                pb.QueryResponse(chunk=STREAM[:100]),
                pb.QueryResponse(chunk=STREAM[100:]),
            ],
            "ListReceipts": pb.ListReceiptsResponse(receipts=[summary()], log_size=12),
            "GetReceiptProof": pb.GetReceiptProofResponse(leaf=LEAF, checkpoint=CHECKPOINT),
            "GetLogKeys": pb.GetLogKeysResponse(log=VKEY.encode()),
            "ExportEvidence": pb.ExportEvidenceResponse(evidence=b'{"format":"tds-evidence/1"}'),
            "Reconcile": pb.ReconcileResponse(
                lines=[
                    pb.ReconcileLine(name="allowed", provider=3, consumer=3, explained=True),
                    pb.ReconcileLine(name="interrupted", provider=1, consumer=0, explained=True),
                ],
                agree=True,
            ),
            "Diagnose": pb.DiagnoseResponse(
                checks=[pb.Check(name="directory", ok=True, detail="heard 0.5 s ago")]
            ),
            "Invite": pb.InviteResponse(invitation="e30.e30.x", expires="2026-11-24T00:00:00Z"),
            "ListMembers": pb.ListMembersResponse(
                members=[
                    pb.Member(
                        did="did:web:airport.example",
                        name="Airport",
                        roles=["provider"],
                        state="active",
                    )
                ]
            ),
            "SetMembership": pb.SetMembershipResponse(event_number=4),
        }

    def asked_for(self, method: str) -> list[Any]:
        return [request for name, request in self.asked if name == method]


def negotiation(
    state: str, *, waiting: bool = False, party: str = "consumer"
) -> pb.NegotiateResponse:
    return pb.NegotiateResponse(
        negotiation=pb.Negotiation(
            pid="urn:pid:1",
            party=party,
            peer="did:web:airport.example",
            dataset_id=DATASET,
            state=state,
            agreement_id=AGREEMENT if state == "FINALIZED" else "",
            waiting=waiting,
            offer=json.dumps(OFFER).encode(),
            updated="2026-11-23T12:00:00Z",
        )
    )


def transfer(state: str, **more: Any) -> pb.Transfer:
    return pb.Transfer(
        pid=TRANSFER,
        party="consumer",
        peer="did:web:airport.example",
        agreement_id=AGREEMENT,
        dataset_id=DATASET,
        format="HttpData-PULL",
        state=state,
        updated="2026-11-23T12:00:00Z",
        **more,
    )


def _answer(node: FakeNode, method: str, *, streams: bool) -> Callable[..., Any]:
    def find(request: Any, context: grpc.ServicerContext) -> Any:
        node.asked.append((method, request))
        answer = node.on[method]
        try:
            return answer(request) if callable(answer) else answer
        except Fault as fault:
            context.set_trailing_metadata(fault.metadata)
            context.abort(fault.status, fault.message)

    def one(_: Any, request: Any, context: grpc.ServicerContext) -> Any:
        return find(request, context)

    def many(_: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from find(request, context)
        except Fault as fault:
            context.set_trailing_metadata(fault.metadata)
            context.abort(fault.status, fault.message)

    return many if streams else one


STREAMS = (
    "ExportLog",
    "FollowEvents",
    "Negotiate",
    "PullTransfer",
    "Query",
    "SealSegments",
)


def _servicer(base: type, node: FakeNode) -> Any:
    methods = {
        name: _answer(node, name, streams=name in STREAMS)
        for name in vars(base)
        if not name.startswith("_")
    }
    return type("Fake", (base,), methods)()


@contextmanager
def running(*, directory: bool = False) -> Iterator[tuple[Path, FakeNode]]:
    """A data folder (with a short path: the kernel's limit) whose socket answers."""
    data = Path(tempfile.mkdtemp(prefix="tds-fake-", dir="/tmp"))
    data.chmod(0o700)
    kind = Directory if directory else Node
    values = {"did": "did:web:tourism.example", "name": "Tourism Bureau"}
    (data / "connector.toml").write_text(render(kind, values))
    (data / "run").mkdir()
    node = FakeNode()
    server = grpc.server(ThreadPoolExecutor(4))
    if directory:
        servicer = _servicer(rpc.DirectoryManagementServiceServicer, node)
        rpc.add_DirectoryManagementServiceServicer_to_server(servicer, server)
    else:
        servicer = _servicer(rpc.ManagementServiceServicer, node)
        rpc.add_ManagementServiceServicer_to_server(servicer, server)
    log = _servicer(rpc.LogServiceServicer, node)
    rpc.add_LogServiceServicer_to_server(log, server)
    server.add_insecure_port(f"unix:{data}/run/connector.sock")
    server.start()
    try:
        yield data, node
    finally:
        server.stop(None).wait()
        shutil.rmtree(data)
