"""Signed statements: JSON Web Signatures (RFC 7515) with Ed25519 (RFC 8037).

Everything that a participant or the space signs, log checkpoints aside, is one of two:

* a *statement*: a compact JWS whose payload is a JSON object. The header's ``typ`` names what
  kind it is, so that one kind can never be passed off as another;
* a *detached signature* (appendix F) over the exact bytes of a document, an agreement.

``kid`` is the RFC 7638 thumbprint of the key. Nothing here decides whose key it is: the caller
passes the keys it trusts for this purpose, and MUST have them from the directory's records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from connector.errors import InvalidInput, VerificationFailed
from connector.model import fields
from connector.model.participant import key_id, unb64url

MAX_JWS = 1 << 18
_ALGORITHM = "EdDSA"  # PyJWT's name for it; RFC 9864's "Ed25519" is not known to it yet
_JWS = jwt.PyJWS(algorithms=[_ALGORITHM])


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public key."""
    return key.public_key().public_bytes_raw()


def sign_statement(key: Ed25519PrivateKey, kind: str, payload: Mapping[str, Any]) -> str:
    """A compact JWS of ``payload`` with ``typ`` = ``tds-<kind>+jws``."""
    return _sign(key, kind, fields.encode_json(payload), detached=False)


def read_statement(statement: str, kind: str, keys: Iterable[bytes]) -> Mapping[str, Any]:
    """The payload of a statement of this ``kind`` by one of ``keys`` (32 bytes each).

    Raises ``InvalidInput`` if it is no such JWS and ``VerificationFailed`` if the signature is
    not by one of the keys.
    """
    payload = _verify(statement, kind, keys, detached=None)
    return fields.as_object(fields.parse_json(payload, limit=MAX_JWS, what=kind), kind)


def statement_kind(statement: str) -> str:
    """What a statement says it is, NOT verified: only to choose how to read it."""
    typ = _segments(statement, "statement")[0].get("typ")
    if not isinstance(typ, str) or not typ.startswith("tds-") or not typ.endswith("+jws"):
        raise InvalidInput("statement: of no kind that is known here")
    return typ[len("tds-") : -len("+jws")]


def peek_statement(statement: str, kind: str) -> Mapping[str, Any]:
    """The payload, NOT verified: only to learn whose key to look up."""
    _header(statement, kind)
    payload = unb64url(_segments(statement, kind)[1])
    return fields.as_object(fields.parse_json(payload, limit=MAX_JWS, what=kind), kind)


def sign_document(key: Ed25519PrivateKey, kind: str, document: bytes) -> str:
    """A detached JWS over the exact bytes of ``document``."""
    return _sign(key, kind, document, detached=True)


def verify_document(signature: str, kind: str, document: bytes, keys: Iterable[bytes]) -> None:
    """Raises as ``read_statement`` does."""
    _verify(signature, kind, keys, detached=document)


def _sign(key: Ed25519PrivateKey, kind: str, payload: bytes, *, detached: bool) -> str:
    return _JWS.encode(
        payload,
        key,
        algorithm=_ALGORITHM,
        headers={"typ": f"tds-{kind}+jws", "kid": key_id(public_bytes(key))},
        is_payload_detached=detached,
    )


def _segments(jws: str, kind: str) -> tuple[Mapping[str, Any], str]:
    """The header of a compact JWS, and the segment of its payload; NOT verified."""
    if len(jws) > MAX_JWS:
        raise InvalidInput(f"{kind}: larger than {MAX_JWS} bytes")
    segments = jws.split(".")
    if len(segments) != 3:
        raise InvalidInput(f"{kind}: not a compact JWS")
    header = fields.parse_json(unb64url(segments[0]), what=kind)
    return fields.as_object(header, kind), segments[1]


def _header(jws: str, kind: str) -> Mapping[str, Any]:
    header, _ = _segments(jws, kind)
    if header.get("typ") != f"tds-{kind}+jws" or header.get("alg") != _ALGORITHM:
        raise InvalidInput(f"{kind}: the signature is over something else")
    return header


def _verify(jws: str, kind: str, keys: Iterable[bytes], *, detached: bytes | None) -> bytes:
    header = _header(jws, kind)
    if (header.get("b64") is False) is (detached is None):
        raise InvalidInput(
            f"{kind}: the payload must be {'in' if detached is None else 'beside'} it"
        )
    for key in keys:
        if key_id(key) == header.get("kid"):
            break
    else:
        raise VerificationFailed(f"{kind}: signed with a key that is not its signer's")
    try:
        payload: bytes = _JWS.decode(
            jws,
            Ed25519PublicKey.from_public_bytes(key),
            algorithms=[_ALGORITHM],
            detached_payload=detached,
        )
    except jwt.InvalidSignatureError as error:
        raise VerificationFailed(f"{kind}: the signature does not verify") from error
    except (jwt.PyJWTError, ValueError) as error:
        raise InvalidInput(f"{kind}: not a valid JWS") from error
    return payload
