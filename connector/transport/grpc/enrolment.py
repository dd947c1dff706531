"""Joining a space: the one call to a door that knows nothing of us yet.

The invitation pins the space's authority and name, so the first contact cannot be with anybody
else.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from connector._pb.dataspace.directory.v1 import directory_pb2 as pb
from connector._pb.dataspace.directory.v1 import directory_pb2_grpc as rpc
from connector.identity.invitations import Space
from connector.model.participant import host_label
from connector.transport.grpc.channels import CALL_S
from connector.transport.grpc.errors import from_rpc


@dataclass(frozen=True, slots=True)
class Enrolled:
    """``chain``: our certificate, then the authority's, in PEM."""

    credential: str
    chain: bytes


async def enrol(space: Space, invitation: str, request: bytes, proof: str) -> Enrolled:
    """Raises what the directory answered with, or ``Unavailable``."""
    credentials = grpc.ssl_channel_credentials(root_certificates=space.ca)
    options = [
        ("grpc.ssl_target_name_override", host_label(space.did)),
        ("grpc.enable_http_proxy", 0),
    ]
    async with grpc.aio.secure_channel(space.enrol, credentials, options=options) as channel:
        message = pb.EnrolRequest(invitation=invitation, certificate_request=request, proof=proof)
        try:
            answer = await rpc.EnrolmentServiceStub(channel).Enrol(message, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
    return Enrolled(answer.credential, answer.certificate_chain)
