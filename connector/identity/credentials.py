"""The membership credential: the space's word that a key belongs to a member, as a JWT.

``iss`` is the space, ``sub`` the member, ``cnf`` (RFC 7800) the member's signing key as a JWK
(RFC 8037). A member shows it outside the space; inside, the directory's record decides, because a
credential says nothing of a later suspension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput, VerificationFailed
from connector.identity.statements import read_statement, sign_statement
from connector.model import fields
from connector.model.participant import b64url, parse_did, unb64url

KIND = "credential"
_CLAIMS = frozenset({"iss", "sub", "iat", "exp", "name", "roles", "cnf"})


@dataclass(frozen=True, slots=True)
class Credential:
    """``signing_key``: 32 bytes, Ed25519. Times have whole seconds."""

    space: str
    did: str
    name: str
    roles: tuple[str, ...]
    signing_key: bytes
    issued: datetime
    expires: datetime


def issue_credential(space_key: Ed25519PrivateKey, credential: Credential) -> str:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(credential.signing_key)}
    claims = {
        "iss": credential.space,
        "sub": credential.did,
        "iat": int(credential.issued.timestamp()),
        "exp": int(credential.expires.timestamp()),
        "name": credential.name,
        "roles": list(credential.roles),
        "cnf": {"jwk": jwk},
    }
    return sign_statement(space_key, KIND, claims)


def read_credential(
    credential: str, *, space: str, space_key: bytes, now: datetime, leeway_s: int = 60
) -> Credential:
    """What the space says, if it says so and still does.

    Raises ``InvalidInput``, or ``VerificationFailed`` if it is forged, of another space or out of
    its time.
    """
    claims = read_statement(credential, KIND, [space_key])
    fields.only_keys(claims, _CLAIMS, KIND)
    found = Credential(
        space=parse_did(fields.text(claims, "iss")),
        did=parse_did(fields.text(claims, "sub")),
        name=fields.text(claims, "name", limit=256),
        roles=fields.texts(claims, "roles", limit=64, most=16),
        signing_key=_confirmed_key(claims),
        issued=_time(claims, "iat"),
        expires=_time(claims, "exp"),
    )
    if found.space != space:
        raise VerificationFailed("credential: of another space")
    if not found.issued.timestamp() - leeway_s <= now.timestamp() < found.expires.timestamp():
        raise VerificationFailed("credential: not valid at this time")
    return found


def _confirmed_key(claims: Mapping[str, Any]) -> bytes:
    jwk = fields.as_object(fields.as_object(claims.get("cnf"), "cnf").get("jwk"), "jwk")
    fields.only_keys(jwk, frozenset({"kty", "crv", "x"}), "jwk")
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise InvalidInput("jwk: must be an Ed25519 key")
    return unb64url(fields.text(jwk, "x", limit=64), 32)


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    return datetime.fromtimestamp(fields.integer(claims, name, low=1, high=2**37), UTC)
