"""The part of ``ManagementService`` that is about transfers, and the stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.errors import InvalidInput
from connector.model import fields
from connector.model.negotiation import Party
from connector.model.transfer import PULL, DataAddress, TransferProcess
from connector.negotiation.events import Event
from connector.operations.services import Services
from connector.operations.status import Check, Status
from connector.ports.peers import PullBegun


class Node(Protocol):
    """The node as a whole: what there is before, and after, it has joined a space."""

    def status(self) -> Status: ...

    async def diagnose(self) -> Sequence[Check]: ...

    async def enrol(self, invitation: str) -> None:
        """Spend an invitation and begin to serve. Raises what stands against it."""
        ...

    def services(self) -> Services:
        """Raises ``Conflict`` before enrolment."""
        ...


class TransferCalls(rpc.ManagementServiceServicer):
    def __init__(self, node: Node) -> None:
        self._node = node

    async def RequestTransfer(
        self, request: pb.RequestTransferRequest, context: object
    ) -> pb.RequestTransferResponse:
        services = self._node.services()
        process = await services.transfers.request(request.agreement_id, request.format or PULL)
        if not process.address:
            services.reach(process.peer)
        return pb.RequestTransferResponse(transfer=_transfer(process))

    async def ListTransfers(
        self, request: pb.ListTransfersRequest, context: object
    ) -> pb.ListTransfersResponse:
        found = await self._node.services().transfers.transfers(
            agreement_id=request.agreement_id, open_only=request.open_only
        )
        return pb.ListTransfersResponse(transfers=[_transfer(one) for one in found])

    async def GetTransfer(
        self, request: pb.GetTransferRequest, context: object
    ) -> pb.GetTransferResponse:
        found = await self._node.services().transfers.transfer(request.pid)
        shown = found.data_address if found.party is Party.CONSUMER else None
        return pb.GetTransferResponse(
            transfer=_transfer(found), data_address=_address(shown) if shown else None
        )

    async def DecideTransfer(
        self, request: pb.DecideTransferRequest, context: object
    ) -> pb.DecideTransferResponse:
        transfers = self._node.services().transfers
        match request.action:
            case "start" | "resume":
                process = await transfers.start(request.pid)
            case "suspend":
                process = await transfers.suspend(request.pid, request.code, request.reason)
            case "complete":
                process = await transfers.complete(request.pid)
            case "terminate":
                process = await transfers.terminate(request.pid, request.code, request.reason)
            case _:
                raise InvalidInput("action: must be start, suspend, resume, complete or terminate")
        return pb.DecideTransferResponse(transfer=_transfer(process))

    async def PullTransfer(
        self, request: pb.PullTransferRequest, context: object
    ) -> AsyncIterator[pb.PullTransferResponse]:
        pulled = self._node.services().pulled
        answer = pulled.pull(request.pid, offset=request.offset, etag=request.etag)
        async with aclosing(answer):  # type: ignore[type-var]
            async for part in answer:
                if isinstance(part, PullBegun):
                    start = pb.PullStart(
                        offset=part.offset,
                        size=part.size,
                        etag=part.etag,
                        media_type=part.media_type,
                    )
                    yield pb.PullTransferResponse(start=start)
                else:
                    yield pb.PullTransferResponse(chunk=part)

    async def FollowEvents(
        self, request: pb.FollowEventsRequest, context: object
    ) -> AsyncIterator[pb.FollowEventsResponse]:
        follower = self._node.services().negotiations.events()
        try:
            yield pb.FollowEventsResponse()
            async for event in follower:
                yield pb.FollowEventsResponse(event=_event(event))
        finally:
            follower.close()


def _transfer(process: TransferProcess) -> pb.Transfer:
    return pb.Transfer(
        pid=process.pid,
        peer_pid=process.peer_pid,
        party=process.party.value,
        peer=process.peer,
        agreement_id=process.agreement_id,
        dataset_id=process.dataset,
        format=process.format,
        state=process.state.value,
        waiting=process.waiting,
        code=process.code,
        reason=process.reason,
        updated=fields.format_millis(process.updated_ms),
    )


def _address(address: DataAddress) -> pb.DataAddress:
    return pb.DataAddress(
        endpoint_type=address.endpoint_type,
        endpoint=address.endpoint,
        properties=dict(address.properties),
    )


def _event(event: Event) -> pb.Event:
    return pb.Event(
        kind=event.kind,
        pid=event.pid,
        peer=event.peer,
        party=event.party.value,
        state=event.state,
        dataset_id=event.dataset_id,
        agreement_id=event.agreement_id,
        waiting=event.waiting,
        number=event.number,
    )
