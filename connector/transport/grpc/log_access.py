"""``LogService``: the log as files, grants to read it, and its segments, over the management
socket."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector._pb.dataspace.management.v1 import management_pb2_grpc as rpc
from connector.errors import InvalidInput
from connector.identity.ourselves import Ourselves
from connector.identity.statements import public_bytes
from connector.identity.tokens import LOG_KIND, issue_bearer_token
from connector.metering.meter import Meter
from connector.model import fields
from connector.model.participant import parse_did
from connector.operations.exporting import choose_checkpoint, pieces
from connector.operations.grants import Grants
from connector.operations.retention import Retention
from connector.ports.clock import Clock
from connector.ports.segments import Segment
from connector.tlog.note import COSIGNATURE_V1, VerifierKey

_JTI_BYTES = 16


class LogServicer(rpc.LogServiceServicer):
    def __init__(
        self,
        meter: Meter,
        ourselves: Ourselves,
        clock: Clock,
        grants: Grants,
        retention: Retention,
    ) -> None:
        self._retention = retention
        self._meter = meter
        self._ourselves = ourselves
        self._clock = clock
        self._grants = grants

    async def ExportLog(
        self, request: pb.ExportLogRequest, context: object
    ) -> AsyncIterator[pb.ExportLogResponse]:
        log = self._meter.log
        note, size = choose_checkpoint(log, self._meter.latest_cosigned(), request.size)
        yield pb.ExportLogResponse(start=pb.ExportStart(checkpoint=note, size=size))
        held = {item.level: item.tiles for item in request.held}
        found = pieces(log, size, held, hashes_only=request.hashes_only)
        while (piece := await asyncio.to_thread(next, found, None)) is not None:
            files = [pb.ExportedFile(path=file.path, content=file.content) for file in piece]
            yield pb.ExportLogResponse(piece=pb.ExportPiece(files=files))

    async def GrantLog(self, request: pb.GrantLogRequest, context: object) -> pb.GrantLogResponse:
        grant, token = await self._grants.add(request.name, request.days)
        return pb.GrantLogResponse(token=token, expires=fields.format_time(grant.expires))

    async def ListLogGrants(
        self, request: pb.ListLogGrantsRequest, context: object
    ) -> pb.ListLogGrantsResponse:
        return pb.ListLogGrantsResponse(
            grants=[
                pb.LogGrant(
                    name=grant.name,
                    made=fields.format_time(grant.made),
                    expires=fields.format_time(grant.expires),
                )
                for grant in self._grants.listed()
            ]
        )

    async def RevokeLogGrant(
        self, request: pb.RevokeLogGrantRequest, context: object
    ) -> pb.RevokeLogGrantResponse:
        await self._grants.revoke(request.name)
        return pb.RevokeLogGrantResponse()

    async def IssueLogToken(
        self, request: pb.IssueLogTokenRequest, context: object
    ) -> pb.IssueLogTokenResponse:
        if parse_did(request.audience) == self._ourselves.did:
            raise InvalidInput("audience: another member's DID")
        token = issue_bearer_token(
            self._ourselves.signing_key,
            LOG_KIND,
            did=self._ourselves.did,
            audience=request.audience,
            now=self._clock.now(),
            jti=secrets.token_hex(_JTI_BYTES),
        )
        return pb.IssueLogTokenResponse(token=token)

    async def GetLogKeys(
        self, request: pb.GetLogKeysRequest, context: object
    ) -> pb.GetLogKeysResponse:
        name = self._ourselves.log_origin
        public = public_bytes(self._ourselves.signing_key)
        return pb.GetLogKeysResponse(
            log=VerifierKey(name, public).encode(),
            witness=VerifierKey(name, public, COSIGNATURE_V1).encode(),
        )

    async def ListSegments(
        self, request: pb.ListSegmentsRequest, context: object
    ) -> pb.ListSegmentsResponse:
        return pb.ListSegmentsResponse(segments=map(_segment, await self._retention.listed()))

    async def SealSegments(
        self, request: pb.SealSegmentsRequest, context: object
    ) -> AsyncIterator[pb.SealSegmentsResponse]:
        async for segment in self._retention.seal():
            yield pb.SealSegmentsResponse(segment=_segment(segment))

    async def DropSegments(
        self, request: pb.DropSegmentsRequest, context: object
    ) -> pb.DropSegmentsResponse:
        before = fields.parse_time(request.before, "before")
        if before > self._clock.now():
            raise InvalidInput("before: a time that has passed")
        if request.starts:
            found = await self._retention.drop(before, request.starts)
        else:
            found = await self._retention.droppable(before)
        return pb.DropSegmentsResponse(
            segments=map(_segment, found.segments), kept_by=found.kept_by
        )


def _segment(segment: Segment) -> pb.LogSegment:
    return pb.LogSegment(
        start=segment.start,
        first=segment.first,
        leaves=segment.leaves,
        stored=segment.stored,
        form=segment.form.value,
    )
