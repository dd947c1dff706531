"""An enterprise's node, from Python: every call of ``ManagementService``.

    async with connect("connector-data") as node:
        result = await node.query(agreement_id, "SELECT ...", purpose="tourism-planning")

All methods raise the classes of ``connector.errors``. Nothing here decides or verifies anything:
the node behind the socket does, and says so in the receipts it returns.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import stamina

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.client import convert, types
from connector.client.channel import DEADLINE_S, Calls
from connector.client.errors import NodeNotRunning, Refused, UseFailed
from connector.client.pulling import PullCalls
from connector.errors import PeerFault, Unavailable

PEER_DEADLINE_S = 60.0  # seconds; another connector is asked meanwhile
QUERY_DEADLINE_S = 120.0  # seconds; the provider's own limit for a query is usually lower
_WENT = {"failed": "the use failed", "interrupted": "the use was interrupted"}

OnChange = Callable[[types.Negotiation], None]


def _worth_retrying(error: Exception) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, NodeNotRunning)


# A use keeps its use_id, so trying again cannot count it twice; nothing else is retried here.
_RETRY = stamina.AsyncRetryingCaller(
    attempts=6, timeout=20.0, wait_initial=0.05, wait_jitter=0.05
).on(_worth_retrying)


class Node(PullCalls):
    """A connection to the node's management API. Get one from ``connect``."""

    async def status(self) -> types.Status:
        call = self._stub.GetStatus(pb.GetStatusRequest(), timeout=DEADLINE_S)
        return convert.status(await self._calls.one(call))

    async def enrol(self, invitation: str) -> types.Enrolment:
        """Spends an invitation and joins its space."""
        request = pb.EnrolRequest(invitation=invitation)
        reply = await self._calls.one(self._stub.Enrol(request, timeout=DEADLINE_S))
        return types.Enrolment(reply.space, convert.time(reply.certificate_expires))

    async def publish(
        self,
        source: Path | str,
        *,
        title: str,
        table: str,
        classification: str,
        terms: Mapping[str, Any],
        description: str = "",
        keywords: Sequence[str] = (),
        hidden_columns: Sequence[str] = (),
        privacy_unit: str = "",
        dimensions: Sequence[str] = (),
        accept_free_sql: bool = False,
        csv_null: str = "",
        dataset_id: str = "",
        own_id: str = "",
        offer_id: str = "",
        manual_approval: bool = False,
    ) -> types.Publication:
        """Publishes a Parquet or CSV file, or a folder of them, with one offer.

        ``terms`` is an ODRL policy's ``permission``, ``prohibition`` and ``obligation``.
        """
        request = pb.PublishDatasetRequest(
            source=str(source),
            title=title,
            description=description,
            keywords=keywords,
            classification=classification,
            table=table,
            hidden_columns=hidden_columns,
            privacy_unit=privacy_unit,
            dimensions=dimensions,
            terms=_json(terms),
            accept_free_sql=accept_free_sql,
            csv_null=csv_null,
            dataset_id=dataset_id,
            own_id=own_id,
            offer_id=offer_id,
            manual_approval=manual_approval,
        )
        reply = await self._calls.one(self._stub.PublishDataset(request, timeout=QUERY_DEADLINE_S))
        return types.Publication(
            reply.dataset_id, reply.offer_id, reply.rows, tuple(reply.warnings)
        )

    async def search(
        self, query: str = "", *, page_size: int = 0, page_token: str = ""
    ) -> types.Datasets:
        """One page of the space's catalogue; no words list everything."""
        request = pb.SearchCatalogRequest(query=query, page_size=page_size, page_token=page_token)
        reply = await self._calls.one(self._stub.SearchCatalog(request, timeout=DEADLINE_S))
        return types.Datasets(
            tuple(convert.document(each) for each in reply.datasets), reply.next_page_token
        )

    async def peer_catalog(
        self, peer: str, *, filter: str = "", page_token: str = "", dataset_id: str = ""
    ) -> types.PeerCatalog:
        """One page of what a peer offers, by a DID, an id of ``connector.toml`` or a URL; or one
        dataset of it. ``filter``: words, or JSON in whichever language the peer speaks."""
        request = pb.ListPeerCatalogRequest(
            peer=peer, filter=filter, page_token=page_token, dataset_id=dataset_id
        )
        call = self._stub.ListPeerCatalog(request, timeout=PEER_DEADLINE_S)
        return convert.peer_catalog(await self._calls.one(call))

    async def negotiate(
        self,
        provider: str,
        dataset_id: str,
        *,
        offer_id: str = "",
        terms: Mapping[str, Any] | None = None,
        accept_counter_offer: bool = False,
        accept_unenforced: bool = False,
        follow_s: float = DEADLINE_S,
        on_change: OnChange | None = None,
    ) -> types.Negotiation:
        """Asks for the offer as it stands, or for other ``terms``, and follows the negotiation
        until it rests: ``FINALIZED``, ``TERMINATED``, waiting for a person on either side, or
        ``follow_s`` seconds passed. ``on_change`` is called with each state.

        ``accept_unenforced``: take terms that this connector cannot enforce; to keep them is then
        up to people."""
        request = pb.NegotiateRequest(
            provider=provider,
            dataset_id=dataset_id,
            offer_id=offer_id,
            terms=_json(terms) if terms is not None else b"",
            accept_counter_offer=accept_counter_offer,
            accept_unenforced=accept_unenforced,
            follow_seconds=follow_s,
        )
        return await self._follow(request, on_change)

    async def answer(
        self,
        pid: str,
        *,
        accept: bool,
        accept_unenforced: bool = False,
        follow_s: float = DEADLINE_S,
        on_change: OnChange | None = None,
    ) -> types.Negotiation:
        """Accepts the counter-offer that waits under ``pid``, or terminates the negotiation."""
        request = pb.NegotiateRequest(
            pid=pid, accept=accept, accept_unenforced=accept_unenforced, follow_seconds=follow_s
        )
        return await self._follow(request, on_change)

    async def propose(
        self, consumer: str, dataset_id: str, *, terms: Mapping[str, Any] | None = None
    ) -> types.Negotiation:
        """As a provider, begins a negotiation with an offer: the dataset's own, or other terms."""
        request = pb.ProposeOfferRequest(
            consumer=consumer, dataset_id=dataset_id, terms=_json(terms) if terms else b""
        )
        reply = await self._calls.one(self._stub.ProposeOffer(request, timeout=DEADLINE_S))
        return convert.negotiation(reply.negotiation)

    async def negotiation(self, pid: str) -> types.Negotiation:
        call = self._stub.GetNegotiation(pb.GetNegotiationRequest(pid=pid), timeout=DEADLINE_S)
        return convert.negotiation((await self._calls.one(call)).negotiation)

    async def terminate(self, pid: str, *, code: str = "", reason: str = "") -> types.Negotiation:
        """Ends a negotiation that is not final."""
        request = pb.TerminateNegotiationRequest(pid=pid, code=code, reason=reason)
        reply = await self._calls.one(self._stub.TerminateNegotiation(request, timeout=DEADLINE_S))
        return convert.negotiation(reply.negotiation)

    async def negotiations(self, *, waiting_only: bool = False) -> tuple[types.Negotiation, ...]:
        """Newest first."""
        request = pb.ListNegotiationsRequest(waiting_only=waiting_only)
        reply = await self._calls.one(self._stub.ListNegotiations(request, timeout=DEADLINE_S))
        return tuple(convert.negotiation(each) for each in reply.negotiations)

    async def decide(
        self,
        pid: str,
        decision: str,
        *,
        terms: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> types.Negotiation:
        """``approve``, ``reject`` or ``counter`` (with ``terms``) what waits for a person here."""
        request = pb.DecideApprovalRequest(
            pid=pid,
            decision=decision,
            terms=_json(terms) if terms is not None else b"",
            reason=reason,
        )
        reply = await self._calls.one(self._stub.DecideApproval(request, timeout=DEADLINE_S))
        return convert.negotiation(reply.negotiation)

    async def agreements(self) -> tuple[types.Agreement, ...]:
        """Newest first."""
        call = self._stub.ListAgreements(pb.ListAgreementsRequest(), timeout=DEADLINE_S)
        reply = await self._calls.one(call)
        return tuple(convert.agreement(each) for each in reply.agreements)

    async def end_agreement(self, agreement_id: str, *, reason: str) -> int:
        """Ends it for both sides; gives the number of running uses that were stopped."""
        request = pb.EndAgreementRequest(agreement_id=agreement_id, reason=reason)
        reply = await self._calls.one(self._stub.EndAgreement(request, timeout=DEADLINE_S))
        return reply.stopped_uses

    async def query(
        self,
        agreement_id: str,
        sql: str,
        *,
        purpose: str,
        use_id: str = "",
        deadline_s: float = QUERY_DEADLINE_S,
    ) -> types.Result:
        """One use of an agreement at its provider.

        ``use_id`` is the idempotency key (1 to 64 characters; a fresh one by default). It stays
        the same when the call is tried again because something was unavailable, so that a use is
        never counted twice. Raises ``Refused`` (with reasons and receipt) and ``UseFailed``.
        """
        request = pb.QueryRequest(
            agreement_id=agreement_id, query=sql, purpose=purpose, use_id=use_id or uuid.uuid4().hex
        )
        return await _RETRY(self._query, request, deadline_s)

    async def receipts(self, scope: str = "", *, limit: int = 0) -> types.Receipts:
        """This node's own log: of one agreement (or DID), or of all. Newest last."""
        request = pb.ListReceiptsRequest(scope=scope, limit=limit)
        reply = await self._calls.one(self._stub.ListReceipts(request, timeout=DEADLINE_S))
        return types.Receipts(
            tuple(convert.receipt(each) for each in reply.receipts), reply.log_size
        )

    async def receipt_proof(self, agreement_id: str, number: int) -> types.ReceiptProof:
        """One receipt of this node's own log, to be shown to others. Raises ``NotFound``."""
        request = pb.GetReceiptProofRequest(agreement_id=agreement_id, number=number)
        reply = await self._calls.one(self._stub.GetReceiptProof(request, timeout=DEADLINE_S))
        return types.ReceiptProof(reply.leaf, reply.index, tuple(reply.inclusion), reply.checkpoint)

    async def export_evidence(self, agreement_id: str, *, disclose_secret: bool = False) -> bytes:
        """The bytes of an evidence file (docs/evidence.md)."""
        request = pb.ExportEvidenceRequest(
            agreement_id=agreement_id, disclose_secret=disclose_secret
        )
        reply = await self._calls.one(self._stub.ExportEvidence(request, timeout=DEADLINE_S))
        return reply.evidence

    async def reconcile(self, agreement_id: str) -> types.Reconciliation:
        """Compares this node's count of an agreement with its peer's."""
        request = pb.ReconcileRequest(agreement_id=agreement_id)
        reply = await self._calls.one(self._stub.Reconcile(request, timeout=DEADLINE_S))
        return types.Reconciliation(
            tuple(
                types.ReconcileLine(e.name, e.provider, e.consumer, e.explained)
                for e in reply.lines
            ),
            reply.agree,
        )

    async def add_reporter(self, name: str, certificate: bytes) -> types.ReportersDoor:
        """Lets the holder of this self-signed certificate (PEM) report uses under ``name``."""
        request = pb.AddReporterRequest(name=name, certificate=certificate)
        reply = await self._calls.one(self._stub.AddReporter(request, timeout=DEADLINE_S))
        return types.ReportersDoor(reply.endpoint, reply.door)

    async def reporters(self) -> tuple[types.Reporter, ...]:
        """By name."""
        call = self._stub.ListReporters(pb.ListReportersRequest(), timeout=DEADLINE_S)
        reply = await self._calls.one(call)
        return tuple(convert.reporter(each) for each in reply.reporters)

    async def remove_reporter(self, name: str) -> int:
        """It reports no more, from now on; gives the number of its streams that were cut."""
        request = pb.RemoveReporterRequest(name=name)
        reply = await self._calls.one(self._stub.RemoveReporter(request, timeout=DEADLINE_S))
        return reply.streams

    async def diagnose(self) -> tuple[types.Check, ...]:
        call = self._stub.Diagnose(pb.DiagnoseRequest(), timeout=DEADLINE_S)
        return convert.checks(await self._calls.one(call))

    async def _follow(
        self, request: pb.NegotiateRequest, on_change: OnChange | None
    ) -> types.Negotiation:
        deadline = (request.follow_seconds or DEADLINE_S) + DEADLINE_S
        last: types.Negotiation | None = None
        async for reply in self._calls.many(self._stub.Negotiate(request, timeout=deadline)):
            last = convert.negotiation(reply.negotiation)
            if on_change is not None:
                on_change(last)
        if last is None:
            raise Unavailable("the node answered nothing", hint="see connector negotiate --list")
        return last

    async def _query(self, request: pb.QueryRequest, deadline_s: float) -> types.Result:
        receipt: types.Receipt | None = None
        chunks: list[bytes] = []
        async for reply in self._calls.many(self._stub.Query(request, timeout=deadline_s)):
            if reply.WhichOneof("body") == "summary":
                receipt = convert.receipt(reply.summary)
            else:
                chunks.append(reply.chunk)
        if receipt is None:
            raise PeerFault("the provider sent no receipt")
        if receipt.outcome == "refused":
            raise Refused(receipt.reasons, receipt=receipt)
        if receipt.outcome != "allowed":
            told = "; ".join(str(reason) for reason in receipt.reasons)
            raise UseFailed(
                _WENT.get(receipt.outcome, "the use gave no result")
                + (f": {told}" if told else ""),
                hint="it does not count against the allowance",
                receipt=receipt,
            )
        return types.Result(_table(chunks), receipt)


@asynccontextmanager
async def connect(place: Path | str = "connector-data") -> AsyncIterator[Node]:
    """A node by its data folder (or the path of its management socket).

    Raises ``NodeNotRunning`` if nothing listens there, ``ConfigError`` if the folder is not a
    node's.
    """
    calls = Calls(place)
    try:
        yield Node(calls)
    finally:
        await calls.close()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _table(chunks: Sequence[bytes]) -> pa.Table:
    try:
        with pa.ipc.open_stream(pa.py_buffer(b"".join(chunks))) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise PeerFault("the result is not an Arrow IPC stream") from error
