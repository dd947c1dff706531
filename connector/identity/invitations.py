"""Joining a space: the invitation that the space signs, the proof with which it is spent.

An invitation is one line of text that a person hands over by a channel the candidate trusts. It
pins everything that the first contact needs: the space's DID and key, its certificate authority
and its two addresses. It does not expire or get spent here: the directory decides that.

The proof is signed with the candidate's new signing key and carries the digest of the certificate
request, which is signed with the new TLS key: together they prove both and bind them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput
from connector.identity.certificates import MAX_PEM_BYTES, read_authority
from connector.identity.statements import (
    peek_statement,
    public_bytes,
    read_statement,
    sign_statement,
)
from connector.model import fields
from connector.model.participant import b64url, parse_did, parse_endpoint, unb64url

INVITATION = "invitation"
PROOF = "enrolment"
OPERATOR = "operator"  # the role of the directory itself; nobody is invited to it
MAX_NAME = 256
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
# C2SP signed-note: a key's name has no spaces and no plus; printable ASCII is all we need.
_LOG_ORIGIN = re.compile(r"[!-*,-~]{1,256}")

_SPACE_KEYS = frozenset({"did", "key", "enrol", "directory", "ca"})
_INVITATION_KEYS = frozenset({"id", "organisation", "did", "roles", "expires", "space"})
_PROOF_KEYS = frozenset(
    {"invitation", "space", "did", "name", "roles", "endpoint", "logOrigin", "csrSha256"}
    | {"signingKey", "time"}
)


@dataclass(frozen=True, slots=True)
class Space:
    """What a member pins of its space.

    ``key``: the Ed25519 key (32 bytes) that signs all that the directory says; ``enrol`` and
    ``directory``: host:port of the open door and of the members' door; ``ca``: the certificate
    authority in PEM.
    """

    did: str
    key: bytes
    enrol: str
    directory: str
    ca: bytes


@dataclass(frozen=True, slots=True)
class Invitation:
    """``did`` is empty where any that policy admits may come."""

    id: str
    organisation: str
    did: str
    roles: tuple[str, ...]
    expires: datetime
    space: Space


@dataclass(frozen=True, slots=True)
class Proof:
    """What a candidate asks for, by its new keys. ``csr_sha256``: of the request's DER."""

    invitation: str
    space: str
    did: str
    name: str
    roles: tuple[str, ...]
    endpoint: str
    log_origin: str
    csr_sha256: bytes
    signing_key: bytes
    time: datetime


def sign_invitation(space_key: Ed25519PrivateKey, invitation: Invitation) -> str:
    """The line of text. Raises ``InvalidInput`` for what could not be read again."""
    payload = {
        "id": invitation.id,
        "organisation": invitation.organisation,
        "roles": list(invitation.roles),
        "expires": fields.format_time(invitation.expires),
        "space": space_json(invitation.space),
    }
    if invitation.did:
        payload["did"] = invitation.did
    _parse_invitation(payload)
    return sign_statement(space_key, INVITATION, payload)


def open_invitation(statement: str) -> Invitation:
    """For the candidate: the invitation, signed with the very key that it pins.

    This proves that it is whole, not whose it is: that rests on the channel it came by. Raises
    ``InvalidInput`` or ``VerificationFailed``.
    """
    pinned = _parse_invitation(peek_statement(statement.strip(), INVITATION)).space.key
    return read_invitation(statement, pinned)


def read_invitation(statement: str, space_key: bytes) -> Invitation:
    """For the directory: an invitation by this key. Raises as ``open_invitation`` does."""
    return _parse_invitation(read_statement(statement.strip(), INVITATION, [space_key]))


def sign_proof(key: Ed25519PrivateKey, proof: Proof) -> str:
    """The proof, by the key that it names. Raises ``InvalidInput``."""
    if proof.signing_key != public_bytes(key):
        raise InvalidInput("signingKey: not the key that signs")
    payload = {
        "invitation": proof.invitation,
        "space": proof.space,
        "did": proof.did,
        "name": proof.name,
        "roles": list(proof.roles),
        "endpoint": proof.endpoint,
        "logOrigin": proof.log_origin,
        "csrSha256": b64url(proof.csr_sha256),
        "signingKey": b64url(proof.signing_key),
        "time": fields.format_time(proof.time),
    }
    _parse_proof(payload)
    return sign_statement(key, PROOF, payload)


def read_proof(statement: str, request: bytes) -> Proof:
    """The proof over this certificate request, verified by the key that it names.

    That the request proves its own key is ``certificates.read_csr``'s to check. Raises
    ``InvalidInput`` or ``VerificationFailed``.
    """
    named = _parse_proof(peek_statement(statement, PROOF)).signing_key
    proof = _parse_proof(read_statement(statement, PROOF, [named]))
    if proof.csr_sha256 != hashlib.sha256(request).digest():
        raise InvalidInput("enrolment: the proof is over another certificate request")
    return proof


def space_json(space: Space) -> dict[str, Any]:
    return {
        "did": space.did,
        "key": b64url(space.key),
        "enrol": space.enrol,
        "directory": space.directory,
        "ca": space.ca.decode(),
    }


def parse_space(value: Mapping[str, Any]) -> Space:
    """Raises ``InvalidInput``."""
    fields.only_keys(value, _SPACE_KEYS, "space")
    ca = fields.text(value, "ca", limit=MAX_PEM_BYTES).encode()
    read_authority(ca)
    return Space(
        did=parse_did(fields.text(value, "did")),
        key=unb64url(fields.text(value, "key", limit=64), 32),
        enrol=parse_endpoint(fields.text(value, "enrol")),
        directory=parse_endpoint(fields.text(value, "directory")),
        ca=ca,
    )


def _parse_invitation(value: Mapping[str, Any]) -> Invitation:
    fields.only_keys(value, _INVITATION_KEYS, INVITATION)
    did = fields.text(value, "did", default="")
    return Invitation(
        id=_identifier(value, "id"),
        organisation=_name(value, "organisation"),
        did=parse_did(did) if did else "",
        roles=_roles(value),
        expires=fields.parse_time(fields.text(value, "expires", limit=40), "expires"),
        space=parse_space(fields.as_object(value.get("space"), "space")),
    )


def _parse_proof(value: Mapping[str, Any]) -> Proof:
    fields.only_keys(value, _PROOF_KEYS, PROOF)
    endpoint = fields.text(value, "endpoint", default="")
    log_origin = fields.text(value, "logOrigin", limit=256)
    if not _LOG_ORIGIN.fullmatch(log_origin):
        raise InvalidInput("logOrigin: must be printable ASCII without spaces and plus signs")
    return Proof(
        invitation=_identifier(value, "invitation"),
        space=parse_did(fields.text(value, "space")),
        did=parse_did(fields.text(value, "did")),
        name=_name(value, "name"),
        roles=_roles(value),
        endpoint=parse_endpoint(endpoint) if endpoint else "",
        log_origin=log_origin,
        csr_sha256=unb64url(fields.text(value, "csrSha256", limit=64), 32),
        signing_key=unb64url(fields.text(value, "signingKey", limit=64), 32),
        time=fields.parse_time(fields.text(value, "time", limit=40)),
    )


def _identifier(value: Mapping[str, Any], key: str) -> str:
    found = fields.text(value, key, limit=64)
    if not _ID.fullmatch(found):
        raise InvalidInput(f"{key}: must be 16 to 64 letters, digits, _ or -")
    return found


def _name(value: Mapping[str, Any], key: str) -> str:
    """An organisation's name as people see it: printable, no blanks around it."""
    found = fields.text(value, key, limit=MAX_NAME)
    if not found.isprintable() or found != found.strip():
        raise InvalidInput(f"{key}: must be printable, without blanks around it")
    return found


def _roles(value: Mapping[str, Any]) -> tuple[str, ...]:
    found = fields.texts(value, "roles", limit=32, most=16)
    if not found or len(set(found)) != len(found):
        raise InvalidInput("roles: at least one, each once")
    if OPERATOR in found or not all(_ROLE.fullmatch(role) for role in found):
        raise InvalidInput("roles: each a lower-case word, and not operator")
    return found
