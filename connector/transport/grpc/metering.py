"""``MeteringService`` for the counterparties of agreements, ``WitnessService`` at the directory."""

from __future__ import annotations

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.errors import NotFound
from connector.metering.meter import Meter
from connector.metering.types import Recorded
from connector.metering.witness import CheckpointRequest, Witness
from connector.ports.negotiation import NegotiationStore
from connector.tlog.checkpoint import parse_checkpoint
from connector.transport.grpc.guard import caller

PAGE = 100
MAX_PAGE = 1000


class MeteringServicer(rpc.MeteringServiceServicer):
    """Receipts of an agreement are shown to its other party alone."""

    def __init__(self, meter: Meter, agreements: NegotiationStore) -> None:
        self._meter = meter
        self._agreements = agreements

    async def ListReceipts(
        self, request: pb.ListReceiptsRequest, context: object
    ) -> pb.ListReceiptsResponse:
        agreement = await self._agreements.agreement(request.agreement_id)
        if agreement is None or agreement.peer != caller().did:
            raise NotFound("there is no such agreement with the caller")
        note, size = self._checkpoint(request.agreement_id)
        size = request.tree_size or size
        found = self._found(request)
        return pb.ListReceiptsResponse(
            receipts=[
                pb.ReceiptProof(
                    leaf=recorded.leaf,
                    index=recorded.index,
                    inclusion=self._meter.inclusion(recorded.index, size),
                )
                for recorded in found
                if recorded.index < size
            ],
            checkpoint=b"" if request.tree_size else note,
        )

    def _found(self, request: pb.ListReceiptsRequest) -> list[Recorded]:
        first = request.first or 1
        if request.use_id:
            one = self._meter.find(request.agreement_id, request.use_id)
            return [one] if one is not None and one.receipt.number >= first else []
        return self._meter.receipts(
            request.agreement_id, first, min(request.page_size or PAGE, MAX_PAGE)
        )

    def _checkpoint(self, scope: str) -> tuple[bytes, int]:
        """The checkpoint to show a scope's receipts under: a cosigned one, if it covers all."""
        tip = self._meter.checkpoint()
        note = self._meter.latest_cosigned()
        if note is not None:
            size = parse_checkpoint(note).size
            last, _ = self._meter.last(scope)
            newest = self._meter.receipts(scope, max(last, 1), 1)
            if all(recorded.index < size for recorded in newest):
                return note, size
        return tip.checkpoint, tip.size

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: object
    ) -> pb.GetCheckpointResponse:
        return pb.GetCheckpointResponse(checkpoint=self._meter.checkpoint().checkpoint)

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: object
    ) -> pb.GetConsistencyProofResponse:
        return pb.GetConsistencyProofResponse(
            hashes=self._meter.consistency(request.old_size, request.new_size)
        )

    async def AddCosignature(
        self, request: pb.AddCosignatureRequest, context: object
    ) -> pb.AddCosignatureResponse:
        witness = caller()
        await self._meter.add_cosignature(
            request.checkpoint, witness.log_origin, witness.signing_keys
        )
        return pb.AddCosignatureResponse()


class WitnessServicer(rpc.WitnessServiceServicer):
    """A member has its own log cosigned, and no other's."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def AddCheckpoint(
        self, request: pb.AddCheckpointRequest, context: object
    ) -> pb.AddCheckpointResponse:
        member = caller()
        line = await self._witness.add_checkpoint(
            CheckpointRequest(request.old_size, tuple(request.consistency), request.checkpoint),
            origin=member.log_origin,
            keys=member.signing_keys,
        )
        return pb.AddCheckpointResponse(cosignature=line.encode())

    async def GetWitnessed(
        self, request: pb.GetWitnessedRequest, context: object
    ) -> pb.GetWitnessedResponse:
        last = await self._witness.last(caller().log_origin)
        if last is None:
            return pb.GetWitnessedResponse()
        return pb.GetWitnessedResponse(size=last.size, checkpoint=last.checkpoint)
