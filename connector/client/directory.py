"""The space operator's node, from Python: every call of ``DirectoryManagementService``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.client import convert, types
from connector.client.channel import DEADLINE_S, Calls


class DirectoryNode:
    """A connection to a directory's management API. Get one from ``connect_directory``."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = rpc.DirectoryManagementServiceStub(calls.channel)

    async def status(self) -> types.Status:
        call = self._stub.GetStatus(pb.GetStatusRequest(), timeout=DEADLINE_S)
        return convert.status(await self._calls.one(call))

    async def invite(
        self, organisation: str, *, roles: Sequence[str], did: str = "", valid_s: int = 0
    ) -> types.Invitation:
        """A one-time invitation; ``valid_s`` seconds, 0 for a day."""
        request = pb.InviteRequest(
            organisation=organisation, did=did, roles=roles, valid_seconds=valid_s
        )
        reply = await self._calls.one(self._stub.Invite(request, timeout=DEADLINE_S))
        return types.Invitation(reply.invitation, convert.time(reply.expires))

    async def members(self) -> tuple[types.Member, ...]:
        """By DID."""
        call = self._stub.ListMembers(pb.ListMembersRequest(), timeout=DEADLINE_S)
        reply = await self._calls.one(call)
        return tuple(convert.member(each) for each in reply.members)

    async def set_membership(self, did: str, state: str, *, reason: str) -> int:
        """``active``, ``suspended`` or ``revoked``; gives the membership event's number."""
        request = pb.SetMembershipRequest(did=did, state=state, reason=reason)
        reply = await self._calls.one(self._stub.SetMembership(request, timeout=DEADLINE_S))
        return reply.event_number

    async def diagnose(self) -> tuple[types.Check, ...]:
        call = self._stub.Diagnose(pb.DiagnoseRequest(), timeout=DEADLINE_S)
        return convert.checks(await self._calls.one(call))


@asynccontextmanager
async def connect_directory(
    place: Path | str = "connector-data",
) -> AsyncIterator[DirectoryNode]:
    """A directory by its data folder (or the path of its management socket).

    Raises as ``connect`` does.
    """
    calls = Calls(place)
    try:
        yield DirectoryNode(calls)
    finally:
        await calls.close()
