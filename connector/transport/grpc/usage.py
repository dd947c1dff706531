"""``UsageService``: a use of an agreement, from the wire to the gate and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from connector._pb.dataspace.usage.v1 import usage_pb2, usage_pb2_grpc
from connector.gate.gate import Gate
from connector.model.use import Use
from connector.ports.clock import Clock
from connector.transport.grpc.guard import caller
from connector.transport.grpc.peers import proof_message

CHUNK_BYTES = 1 << 18


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock

    async def Execute(
        self, request: usage_pb2.ExecuteRequest, context: object
    ) -> AsyncIterator[usage_pb2.ExecuteResponse]:
        use = Use(
            use_id=request.use_id,
            agreement_id=request.agreement_id,
            consumer=caller().did,
            purpose=request.purpose,
            query=request.query,
            received_at=self._clock.now(),
        )
        released = await self._gate.use(use)
        yield usage_pb2.ExecuteResponse(receipt=proof_message(released.proof))
        for start in range(0, len(released.result), CHUNK_BYTES):
            yield usage_pb2.ExecuteResponse(chunk=released.result[start : start + CHUNK_BYTES])
