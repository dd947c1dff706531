"""``DirectoryManagementService``: what the space's operator asks, over the management socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.directory.enrolment import DEFAULT_VALIDITY, LONGEST_VALIDITY
from connector.directory.service import DirectoryServices
from connector.errors import InvalidInput
from connector.model import fields
from connector.model.participant import Membership
from connector.operations.status import Check, Status
from connector.ports.directory import Recorded


class DirectoryManagementServicer(rpc.DirectoryManagementServiceServicer):
    """``witnessed`` gives the size at which a log was last cosigned, by its origin."""

    def __init__(
        self,
        services: DirectoryServices,
        *,
        status: Callable[[], Status],
        diagnose: Callable[[], Awaitable[Sequence[Check]]],
        witnessed: Callable[[str], Awaitable[int]],
    ) -> None:
        self._services = services
        self._status = status
        self._diagnose = diagnose
        self._witnessed = witnessed

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: object
    ) -> pb.GetStatusResponse:
        return status_message(self._status())

    async def Invite(self, request: pb.InviteRequest, context: object) -> pb.InviteResponse:
        longest = int(LONGEST_VALIDITY.total_seconds())
        if request.valid_seconds > longest:  # before it is a timedelta, which cannot hold them all
            raise InvalidInput(f"valid_seconds: at most {longest}")
        validity = timedelta(seconds=request.valid_seconds) or DEFAULT_VALIDITY
        invited = await self._services.enrolment.invite(
            request.organisation, request.roles, did=request.did, validity=validity
        )
        return pb.InviteResponse(
            invitation=invited.text, expires=fields.format_time(invited.invitation.expires)
        )

    async def ListMembers(
        self, request: pb.ListMembersRequest, context: object
    ) -> pb.ListMembersResponse:
        members: list[pb.Member] = []
        token = ""
        while True:
            page = await self._services.members.list_participants(0, token)
            members += [await self._member(recorded) for recorded in page.records]
            token = page.next_token
            if not token:
                return pb.ListMembersResponse(members=members)

    async def SetMembership(
        self, request: pb.SetMembershipRequest, context: object
    ) -> pb.SetMembershipResponse:
        try:
            state = Membership(request.state)
        except ValueError as error:
            raise InvalidInput(f"state: must be one of {', '.join(Membership)}") from error
        recorded = await self._services.members.set_state(request.did, state, request.reason)
        return pb.SetMembershipResponse(event_number=recorded.participant.revision)

    async def Diagnose(self, request: pb.DiagnoseRequest, context: object) -> pb.DiagnoseResponse:
        return checks_message(await self._diagnose())

    async def _member(self, recorded: Recorded) -> pb.Member:
        member = recorded.participant
        return pb.Member(
            did=member.did,
            name=member.name,
            roles=member.roles,
            state=member.state.value,
            endpoint=member.endpoint,
            revision=member.revision,
            witnessed_size=await self._witnessed(member.log_origin),
        )


def status_message(status: Status) -> pb.GetStatusResponse:
    return pb.GetStatusResponse(
        did=status.did,
        name=status.name,
        space=status.space,
        state=status.state,
        endpoint=status.endpoint,
        http_endpoint=status.http_endpoint,
        log_size=status.log_size,
        view_age_seconds=status.view_age_seconds,
        version=status.version,
        certificate_expires=status.certificate_expires,
        space_key=status.space_key,
    )


def checks_message(checks: Sequence[Check]) -> pb.DiagnoseResponse:
    return pb.DiagnoseResponse(
        checks=[
            pb.Check(name=check.name, ok=check.ok, detail=check.detail, hint=check.hint)
            for check in checks
        ]
    )
