"""Joining a space: prove both keys, spend the invitation, keep what came back."""

from __future__ import annotations

import hashlib

from connector.adapters.keys import KeyFolder
from connector.config import Node
from connector.errors import Conflict
from connector.identity.certificates import make_csr, read_chain
from connector.identity.credentials import read_credential
from connector.identity.invitations import Proof, Space, open_invitation, sign_proof
from connector.identity.ourselves import Ourselves
from connector.identity.statements import public_bytes
from connector.ports.clock import Clock
from connector.transport.grpc.enrolment import enrol


async def join(
    invitation: str, settings: Node, ourselves: Ourselves, keys: KeyFolder, clock: Clock
) -> Space:
    """Spend the invitation; certificate, credential and the space's pins are on disk on return.

    Raises ``Conflict`` if this node is a member already, ``InvalidInput`` or
    ``VerificationFailed`` for an invitation or an answer that is not whole, and what the
    directory answers with.
    """
    if keys.space() is not None:
        raise Conflict("this node has joined a space already")
    offered = open_invitation(invitation)
    request = make_csr(keys.tls_key())
    proof = sign_proof(
        ourselves.signing_key,
        Proof(
            invitation=offered.id,
            space=offered.space.did,
            did=ourselves.did,
            name=ourselves.name,
            roles=offered.roles,
            endpoint=settings.endpoint or settings.listen,
            log_origin=ourselves.log_origin,
            csr_sha256=hashlib.sha256(request).digest(),
            signing_key=public_bytes(ourselves.signing_key),
            time=clock.now(),
        ),
    )
    enrolled = await enrol(offered.space, invitation.strip(), request, proof)
    credential = read_credential(
        enrolled.credential,
        space=offered.space.did,
        space_key=offered.space.key,
        now=clock.now(),
    )
    certificate = read_chain(enrolled.chain)
    if (credential.did, certificate.did) != (ourselves.did, ourselves.did):
        raise Conflict("the space admitted another participant than this node")
    keys.save_chain(enrolled.chain)
    keys.save_credential(enrolled.credential)
    keys.save_space(offered.space)  # last: with it, this node is a member
    return offered.space
