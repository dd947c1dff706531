"""Participants: DIDs, membership states, and the directory's record of a member."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from connector.errors import InvalidInput
from connector.model import fields

MAX_DID = 255
MAX_ENDPOINT = 256
# did:web method specification: a domain name, an optional %3A port, and path segments after ":".
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DID_WEB = re.compile(
    rf"did:web:{_LABEL}(?:\.{_LABEL})*(?:%3A[0-9]{{1,5}})?(?::[A-Za-z0-9._-]{{1,64}}){{0,8}}"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
# gRPC reads these before a colon as a way to resolve the rest (a Unix socket, say), not a host.
_SCHEMES = frozenset(
    {"dns", "unix", "unix-abstract", "ipv4", "ipv6", "vsock", "xds", "google-c2p", "passthrough"}
)
# ".invalid" (RFC 2606) can never be somebody's real name.
MEMBER_SUFFIX = "member.dataspace.invalid"


class Membership(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"  # final


@dataclass(frozen=True, slots=True)
class Participant:
    """The directory's record of one member.

    ``signing_keys``: Ed25519 public keys (32 bytes each), newest first; a key id is
    ``key_id(key)``. ``endpoint``: ``host:port`` of its gRPC door, or empty for a member that
    only consumes. ``revision``: the number of the membership event that wrote this record.
    """

    did: str
    name: str
    roles: tuple[str, ...]
    state: Membership
    signing_keys: tuple[bytes, ...]
    endpoint: str
    log_origin: str
    revision: int

    @property
    def signs(self) -> bool:
        """Whether it signs agreements. One from outside the space has no keys that we know."""
        return bool(self.signing_keys)


def parse_did(value: str) -> str:
    """A ``did:web`` DID in its one spelling. Raises ``InvalidInput``."""
    if len(value) > MAX_DID or not _DID_WEB.fullmatch(value):
        raise InvalidInput("DID: must be a did:web, as did:web:airport.example")
    return value


def parse_endpoint(value: str) -> str:
    """``host:port``, the host a DNS name, an IPv4 address or an IPv6 address in brackets.

    Raises ``InvalidInput``.
    """
    host, _, port = value.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if (
        len(value) > MAX_ENDPOINT
        or not digits
        or not 0 < int(port) < 65_536
        or not _HOST.fullmatch(host)
        or host.lower() in _SCHEMES
    ):
        raise InvalidInput("endpoint: must be host:port, as airport.example:9443")
    return value


def host_label(did: str) -> str:
    """The DNS name that a member's TLS certificate carries and its peers ask for.

    A URI SAN does not satisfy a TLS client's host check, so the space's CA adds this name; it is
    the lower-case base32 SHA-256 of the DID (52 characters) below a reserved suffix.
    """
    digest = base64.b32encode(hashlib.sha256(did.encode()).digest()).decode().rstrip("=").lower()
    return f"{digest}.{MEMBER_SUFFIX}"


@lru_cache(1024)
def key_id(public_key: bytes) -> str:
    """RFC 7638 thumbprint of the Ed25519 public key as a JWK (RFC 8037), base64url."""
    jwk = fields.encode_json({"crv": "Ed25519", "kty": "OKP", "x": b64url(public_key)})
    return b64url(hashlib.sha256(jwk).digest())


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(value: str, size: int | None = None) -> bytes:
    """Strict base64url without padding. Raises ``InvalidInput``."""
    try:
        data = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise InvalidInput("not base64url") from error
    if b64url(data) != value or (size is not None and len(data) != size):
        raise InvalidInput("not base64url of the right length")
    return data


_KEYS = frozenset(
    {"did", "name", "roles", "state", "signingKeys", "endpoint", "logOrigin", "revision"}
)


def participant_json(participant: Participant) -> dict[str, Any]:
    return {
        "did": participant.did,
        "name": participant.name,
        "roles": list(participant.roles),
        "state": participant.state.value,
        "signingKeys": [b64url(key) for key in participant.signing_keys],
        "endpoint": participant.endpoint,
        "logOrigin": participant.log_origin,
        "revision": participant.revision,
    }


def parse_participant(value: Mapping[str, Any]) -> Participant:
    """A record from its JSON. Raises ``InvalidInput``."""
    fields.only_keys(value, _KEYS, "participant")
    keys = fields.texts(value, "signingKeys", limit=64, most=8)
    if not keys:
        raise InvalidInput("signingKeys: at least one")
    try:
        state = Membership(fields.text(value, "state", limit=16))
    except ValueError as error:
        raise InvalidInput("state: must be active, suspended or revoked") from error
    endpoint = fields.text(value, "endpoint", limit=MAX_ENDPOINT, default="")
    return Participant(
        did=parse_did(fields.text(value, "did")),
        name=fields.text(value, "name", limit=256),
        roles=fields.texts(value, "roles", limit=64, most=16),
        state=state,
        signing_keys=tuple(unb64url(key, 32) for key in keys),
        endpoint=parse_endpoint(endpoint) if endpoint else "",
        log_origin=fields.text(value, "logOrigin", limit=256),
        revision=fields.integer(value, "revision"),
    )
