"""The directory's own doors: enrolment, membership, catalogue index."""

from __future__ import annotations

from collections.abc import AsyncIterator

from connector._pb.dataspace.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from connector._pb.dataspace.directory.v1 import directory_pb2 as pb
from connector._pb.dataspace.directory.v1 import directory_pb2_grpc as rpc
from connector.directory.catalog import CatalogIndex
from connector.directory.enrolment import EnrolmentService
from connector.directory.feed import Feed
from connector.directory.members import MemberService
from connector.transport.grpc.guard import caller


class EnrolmentServicer(rpc.EnrolmentServiceServicer):
    """On the open door: whoever calls has nothing but an invitation."""

    def __init__(self, enrolment: EnrolmentService) -> None:
        self._enrolment = enrolment

    async def Enrol(self, request: pb.EnrolRequest, context: object) -> pb.EnrolResponse:
        enrolled = await self._enrolment.enrol(
            request.invitation, request.certificate_request, request.proof
        )
        return pb.EnrolResponse(
            credential=enrolled.credential,
            certificate_chain=enrolled.chain,
            event_number=enrolled.event_number,
        )


class DirectoryServicer(rpc.DirectoryServiceServicer):
    def __init__(self, members: MemberService, feed: Feed) -> None:
        self._members = members
        self._feed = feed

    async def Resolve(self, request: pb.ResolveRequest, context: object) -> pb.ResolveResponse:
        return pb.ResolveResponse(event=self._members.resolve(request.did).statement)

    async def ListParticipants(
        self, request: pb.ListParticipantsRequest, context: object
    ) -> pb.ListParticipantsResponse:
        page = await self._members.list_participants(request.page_size, request.page_token)
        return pb.ListParticipantsResponse(
            events=[record.statement for record in page.records],
            next_page_token=page.next_token,
        )

    async def Watch(
        self, request: pb.WatchRequest, context: object
    ) -> AsyncIterator[pb.WatchResponse]:
        async for event in self._feed.watch(caller().did, request.after):
            yield pb.WatchResponse(event=event)

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: object
    ) -> pb.RenewCertificateResponse:
        chain = self._members.renew_certificate(caller().did, request.certificate_request)
        return pb.RenewCertificateResponse(certificate_chain=chain)


class CatalogIndexServicer(catalog_pb2_grpc.CatalogIndexServiceServicer):
    def __init__(self, index: CatalogIndex) -> None:
        self._index = index

    async def PublishDataset(
        self, request: catalog_pb2.PublishDatasetRequest, context: object
    ) -> catalog_pb2.PublishDatasetResponse:
        await self._index.publish(caller().did, request.record)
        return catalog_pb2.PublishDatasetResponse()

    async def WithdrawDataset(
        self, request: catalog_pb2.WithdrawDatasetRequest, context: object
    ) -> catalog_pb2.WithdrawDatasetResponse:
        await self._index.withdraw(caller().did, request.dataset_id)
        return catalog_pb2.WithdrawDatasetResponse()

    async def Search(
        self, request: catalog_pb2.SearchRequest, context: object
    ) -> catalog_pb2.SearchResponse:
        page = await self._index.search(request.query, request.page_size, request.page_token)
        return catalog_pb2.SearchResponse(records=page.records, next_page_token=page.next_token)
