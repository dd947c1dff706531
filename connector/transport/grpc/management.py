"""``ManagementService``: what a node's own operator asks, over the management socket."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.errors import InvalidInput
from connector.metering.types import Recorded
from connector.model import fields
from connector.model.catalog import dataset_json
from connector.model.negotiation import Negotiation, State, StoredAgreement
from connector.model.receipt import (
    ActReceipt,
    DeliveryReceipt,
    Outcome,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from connector.model.terms import offer_json, parse_sections
from connector.operations.consuming import VerifiedUse
from connector.operations.peers import unenforced
from connector.operations.publishing import Publication
from connector.ports.peers import PeerDataset
from connector.tlog.merkle import leaf_hash
from connector.transport.grpc.directory_management import checks_message, status_message
from connector.transport.grpc.management_transfers import TransferCalls

FOLLOW_S = 30.0  # seconds that a negotiation is followed, unless asked otherwise
PAGE = 50


class ManagementServicer(TransferCalls):
    async def GetStatus(
        self, request: pb.GetStatusRequest, context: object
    ) -> pb.GetStatusResponse:
        return status_message(self._node.status())

    async def Diagnose(self, request: pb.DiagnoseRequest, context: object) -> pb.DiagnoseResponse:
        return checks_message(await self._node.diagnose())

    async def Enrol(self, request: pb.EnrolRequest, context: object) -> pb.EnrolResponse:
        await self._node.enrol(request.invitation)
        status = self._node.status()
        return pb.EnrolResponse(space=status.space, certificate_expires=status.certificate_expires)

    async def PublishDataset(
        self, request: pb.PublishDatasetRequest, context: object
    ) -> pb.PublishDatasetResponse:
        published = await self._node.services().publisher.publish(
            Publication(
                source=Path(request.source),
                title=request.title,
                description=request.description,
                keywords=tuple(request.keywords),
                classification=request.classification,
                table=request.table,
                hidden_columns=tuple(request.hidden_columns),
                privacy_unit=request.privacy_unit,
                dimensions=tuple(request.dimensions),
                terms=request.terms,
                accept_free_sql=request.accept_free_sql,
                manual_approval=request.manual_approval,
                csv_null=request.csv_null,
                dataset_id=request.dataset_id,
                own_id=request.own_id,
                offer_id=request.offer_id,
            )
        )
        return pb.PublishDatasetResponse(
            dataset_id=published.dataset_id,
            offer_id=published.offer_id,
            rows=published.rows,
            warnings=published.warnings,
        )

    async def SearchCatalog(
        self, request: pb.SearchCatalogRequest, context: object
    ) -> pb.SearchCatalogResponse:
        found = await self._node.services().catalogue.search(
            request.query, request.page_size or PAGE, request.page_token
        )
        return pb.SearchCatalogResponse(
            datasets=[fields.encode_json(dataset_json(dataset)) for dataset in found.datasets],
            next_page_token=found.next,
        )

    async def ListPeerCatalog(
        self, request: pb.ListPeerCatalogRequest, context: object
    ) -> pb.ListPeerCatalogResponse:
        catalogues = self._node.services().peers
        if request.dataset_id:
            found = await catalogues.dataset(request.peer, request.dataset_id)
        else:
            found = await catalogues.listed(
                request.peer, filter=request.filter, page=request.page_token
            )
        return pb.ListPeerCatalogResponse(
            peer=found.peer,
            claimed=found.claimed,
            stranger=found.stranger,
            signed=found.signed,
            datasets=[_peer_dataset(dataset) for dataset in found.datasets],
            next_page_token=found.next,
        )

    async def Negotiate(
        self, request: pb.NegotiateRequest, context: object
    ) -> AsyncIterator[pb.NegotiateResponse]:
        if not 0 <= request.follow_seconds < math.inf:
            raise InvalidInput("follow_seconds: must be 0 or more")
        services = self._node.services()
        negotiations = services.negotiations
        if request.pid and request.accept:
            negotiation = await negotiations.approve(
                request.pid, accept_unenforced=request.accept_unenforced
            )
        elif request.pid:
            negotiation = await negotiations.terminate(request.pid)
        else:
            terms = None
            if request.terms:  # a peer's own may have what the model does not know
                terms = parse_sections(request.terms, strict=not request.accept_unenforced)
            negotiation = await negotiations.request(
                request.provider,
                request.dataset_id,
                offer_id=request.offer_id,
                terms=terms,
                accept_offers=request.accept_counter_offer,
                accept_unenforced=request.accept_unenforced,
            )
            if not negotiation.address:
                services.reach(negotiation.peer)
        changes = negotiations.follow(negotiation.pid)
        try:
            async with asyncio.timeout(request.follow_seconds or FOLLOW_S):
                async for change in changes:
                    yield pb.NegotiateResponse(negotiation=_negotiation(change))
                    if _rests(change):
                        return
        except TimeoutError:
            return

    async def ProposeOffer(
        self, request: pb.ProposeOfferRequest, context: object
    ) -> pb.ProposeOfferResponse:
        negotiation = await self._node.services().negotiations.propose(
            request.consumer,
            request.dataset_id,
            parse_sections(request.terms) if request.terms else None,
        )
        return pb.ProposeOfferResponse(negotiation=_negotiation(negotiation))

    async def GetNegotiation(
        self, request: pb.GetNegotiationRequest, context: object
    ) -> pb.GetNegotiationResponse:
        negotiation = await self._node.services().negotiations.negotiation(request.pid)
        return pb.GetNegotiationResponse(negotiation=_negotiation(negotiation))

    async def TerminateNegotiation(
        self, request: pb.TerminateNegotiationRequest, context: object
    ) -> pb.TerminateNegotiationResponse:
        negotiation = await self._node.services().negotiations.terminate(
            request.pid, request.code, request.reason
        )
        return pb.TerminateNegotiationResponse(negotiation=_negotiation(negotiation))

    async def ListNegotiations(
        self, request: pb.ListNegotiationsRequest, context: object
    ) -> pb.ListNegotiationsResponse:
        found = await self._node.services().negotiations.negotiations(
            waiting_only=request.waiting_only
        )
        return pb.ListNegotiationsResponse(negotiations=[_negotiation(one) for one in found])

    async def DecideApproval(
        self, request: pb.DecideApprovalRequest, context: object
    ) -> pb.DecideApprovalResponse:
        negotiations = self._node.services().negotiations
        match request.decision:
            case "approve":
                negotiation = await negotiations.approve(request.pid)
            case "reject":
                negotiation = await negotiations.terminate(request.pid, "rejected", request.reason)
            case "counter":
                negotiation = await negotiations.counter(request.pid, parse_sections(request.terms))
            case _:
                raise InvalidInput("decision: must be approve, reject or counter")
        return pb.DecideApprovalResponse(negotiation=_negotiation(negotiation))

    async def ListAgreements(
        self, request: pb.ListAgreementsRequest, context: object
    ) -> pb.ListAgreementsResponse:
        services = self._node.services()
        return pb.ListAgreementsResponse(
            agreements=[
                _agreement(agreement, services.uses(agreement.terms.id))
                for agreement in await services.negotiations.agreements()
            ]
        )

    async def EndAgreement(
        self, request: pb.EndAgreementRequest, context: object
    ) -> pb.EndAgreementResponse:
        stopped = await self._node.services().negotiations.end_agreement(
            request.agreement_id, request.reason
        )
        return pb.EndAgreementResponse(stopped_uses=stopped)

    async def Query(
        self, request: pb.QueryRequest, context: object
    ) -> AsyncIterator[pb.QueryResponse]:
        use_id = request.use_id or secrets.token_hex(16)
        answer = self._node.services().consumer.use(
            request.agreement_id, request.purpose, request.query, use_id
        )
        async with aclosing(answer):  # type: ignore[type-var]
            async for part in answer:
                if isinstance(part, VerifiedUse):
                    summary = _summary(part.receipt, part.proof.index, part.leaf_hash)
                    yield pb.QueryResponse(summary=summary)
                else:
                    yield pb.QueryResponse(chunk=part)

    async def ListReceipts(
        self, request: pb.ListReceiptsRequest, context: object
    ) -> pb.ListReceiptsResponse:
        found = self._node.services().books.listed(request.scope, request.limit)
        return pb.ListReceiptsResponse(
            receipts=[_recorded(recorded) for recorded in found],
            log_size=self._node.status().log_size,
        )

    async def GetReceiptProof(
        self, request: pb.GetReceiptProofRequest, context: object
    ) -> pb.GetReceiptProofResponse:
        proof = await self._node.services().books.proof(request.agreement_id, request.number)
        return pb.GetReceiptProofResponse(
            leaf=proof.leaf,
            index=proof.index,
            inclusion=proof.inclusion,
            checkpoint=proof.checkpoint,
        )

    async def ExportEvidence(
        self, request: pb.ExportEvidenceRequest, context: object
    ) -> pb.ExportEvidenceResponse:
        evidence = await self._node.services().books.evidence(
            request.agreement_id, disclose_secret=request.disclose_secret
        )
        return pb.ExportEvidenceResponse(evidence=evidence)

    async def Reconcile(
        self, request: pb.ReconcileRequest, context: object
    ) -> pb.ReconcileResponse:
        lines = await self._node.services().books.reconcile(request.agreement_id)
        return pb.ReconcileResponse(
            lines=[
                pb.ReconcileLine(
                    name=line.name,
                    provider=line.provider,
                    consumer=line.consumer,
                    explained=line.explained,
                )
                for line in lines
            ],
            agree=all(line.explained for line in lines),
        )

    async def AddReporter(
        self, request: pb.AddReporterRequest, context: object
    ) -> pb.AddReporterResponse:
        reporters = self._node.services().reporters
        await reporters.add(request.name, request.certificate)
        return pb.AddReporterResponse(endpoint=reporters.endpoint, door=reporters.door)

    async def ListReporters(
        self, request: pb.ListReportersRequest, context: object
    ) -> pb.ListReportersResponse:
        return pb.ListReportersResponse(
            reporters=[
                pb.Reporter(
                    name=one.name,
                    thumbprint=one.thumbprint,
                    added=fields.format_time(one.added),
                    expires=fields.format_time(one.expires),
                )
                for one in self._node.services().reporters.listed()
            ]
        )

    async def RemoveReporter(
        self, request: pb.RemoveReporterRequest, context: object
    ) -> pb.RemoveReporterResponse:
        streams = await self._node.services().reporters.remove(request.name)
        return pb.RemoveReporterResponse(streams=streams)


def _peer_dataset(dataset: PeerDataset) -> pb.PeerDataset:
    return pb.PeerDataset(
        id=dataset.id,
        title=dataset.title,
        description=dataset.description,
        keywords=dataset.keywords,
        formats=dataset.formats,
        offers=[
            pb.PeerOffer(
                id=offer.id,
                offer=fields.encode_json(offer_json(offer)),
                unenforced=[
                    pb.Reason(term=reason.term, observed=reason.observed, allowed=reason.allowed)
                    for reason in unenforced(offer)
                ],
            )
            for offer in dataset.offers
        ],
    )


def _rests(negotiation: Negotiation) -> bool:
    """Nothing will happen until a person, here or at the peer, does something."""
    return negotiation.waiting or negotiation.state in (State.FINALIZED, State.TERMINATED)


def _negotiation(negotiation: Negotiation) -> pb.Negotiation:
    return pb.Negotiation(
        pid=negotiation.pid,
        peer_pid=negotiation.peer_pid,
        party=negotiation.party.value,
        peer=negotiation.peer,
        dataset_id=negotiation.dataset,
        state=negotiation.state.value,
        agreement_id=negotiation.agreement_id,
        waiting=negotiation.waiting,
        code=negotiation.code,
        reason=negotiation.reason,
        offer=negotiation.offer,
        updated=fields.format_millis(negotiation.updated_ms),
    )


def _agreement(agreement: StoredAgreement, uses: int) -> pb.Agreement:
    return pb.Agreement(
        id=agreement.terms.id,
        party=agreement.party.value,
        peer=agreement.peer,
        dataset_id=agreement.terms.target,
        state=agreement.state.value,
        document=agreement.terms.document,
        uses=uses,
        reason=agreement.ended_reason,
        concluded=fields.format_time(agreement.terms.timestamp),
    )


def _recorded(recorded: Recorded) -> pb.UseSummary:
    return _summary(recorded.receipt, recorded.index, leaf_hash(recorded.leaf))


def _summary(receipt: Receipt, index: int, hash: bytes) -> pb.UseSummary:
    summary = pb.UseSummary(
        scope=receipt.scope,
        number=receipt.number,
        time=fields.format_millis(receipt.time_ms),
        index=index,
        leaf_hash=hash,
    )
    if isinstance(receipt, ActReceipt):
        summary.kind, summary.act = "act", receipt.act
        return summary
    summary.use_id = receipt.use_id
    for quantity, amount in receipt.quantities.items():
        summary.quantities[quantity.name.lower()] = amount
    if isinstance(receipt, RecordReceipt):
        summary.kind, summary.outcome = "record", Outcome.ALLOWED.name.lower()
        summary.purpose, summary.reporter = receipt.purpose, receipt.reporter
        return summary
    summary.kind = "delivery" if isinstance(receipt, DeliveryReceipt) else "use"
    summary.outcome = receipt.outcome.name.lower()
    summary.reasons.extend(
        pb.Reason(term=reason.term, observed=reason.observed, allowed=reason.allowed)
        for reason in receipt.reasons
    )
    if isinstance(receipt, UseReceipt):
        summary.purpose = receipt.purpose
    return summary
