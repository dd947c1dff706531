"""The calls of ``ManagementService`` that are about transfers, and the stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.client import convert, types
from connector.client.channel import DEADLINE_S, Calls
from connector.errors import Unavailable

OnTransfer = Callable[[types.Transfer], None]


class TransferCalls:
    """A part of ``Node``."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = rpc.ManagementServiceStub(calls.channel)

    async def request_transfer(
        self,
        agreement_id: str,
        *,
        format: str = "",
        follow_s: float = DEADLINE_S,
        on_change: OnTransfer | None = None,
    ) -> types.Transfer:
        """Asks for the data of an agreement (as ``HttpData-PULL``, unless another format is
        named), and follows it until the provider has answered, or ``follow_s`` seconds passed.
        ``on_change`` is called with each state."""
        request = pb.RequestTransferRequest(agreement_id=agreement_id, format=format)
        async with self.events() as events:
            reply = await self._calls.one(self._stub.RequestTransfer(request, timeout=DEADLINE_S))
            last = convert.transfer(reply.transfer)
            if on_change is not None:
                on_change(last)
            try:
                async with asyncio.timeout(follow_s):
                    async for event in events:
                        if event.pid == last.pid and event.state != last.state:
                            break
            except TimeoutError:
                return last
        found = await self.transfer(last.pid)
        if on_change is not None:
            on_change(found)
        return found

    async def transfers(
        self, *, agreement_id: str = "", open_only: bool = False
    ) -> tuple[types.Transfer, ...]:
        """Newest first."""
        request = pb.ListTransfersRequest(agreement_id=agreement_id, open_only=open_only)
        reply = await self._calls.one(self._stub.ListTransfers(request, timeout=DEADLINE_S))
        return tuple(convert.transfer(each) for each in reply.transfers)

    async def transfer(self, pid: str) -> types.Transfer:
        """One transfer; at its consumer with the data address, while it is STARTED."""
        request = pb.GetTransferRequest(pid=pid)
        reply = await self._calls.one(self._stub.GetTransfer(request, timeout=DEADLINE_S))
        address = reply.data_address if reply.HasField("data_address") else None
        return convert.transfer(reply.transfer, address)

    async def decide_transfer(
        self, pid: str, action: str, *, code: str = "", reason: str = ""
    ) -> types.Transfer:
        """``start``, ``suspend``, ``resume``, ``complete`` or ``terminate``; ``code`` and
        ``reason`` are for the peer, with ``suspend`` and ``terminate``."""
        request = pb.DecideTransferRequest(pid=pid, action=action, code=code, reason=reason)
        reply = await self._calls.one(self._stub.DecideTransfer(request, timeout=DEADLINE_S))
        return convert.transfer(reply.transfer)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[types.Event]]:
        """Every change of a negotiation or a transfer from now on: what happens inside the
        ``async with`` is told. The iterator raises ``Gone`` if it is read too slowly."""
        call = self._stub.FollowEvents(pb.FollowEventsRequest())
        async with aclosing(self._calls.many(call)) as replies:
            try:
                if await anext(replies, None) is None:
                    raise Unavailable("the node tells no events")
                yield (convert.event(reply.event) async for reply in replies)
            finally:
                call.cancel()
