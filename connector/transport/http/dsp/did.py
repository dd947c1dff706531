"""This node's DID document (W3C DID Core 1.0, method did:web): its key, and where its doors are.

DSP 2025-1, "Discovery of Service Endpoints": a ``CatalogService`` names the catalogue, a
``DataService`` the version endpoint. A service of our own type names the gRPC door, which peers of
the same space prefer. The key is the one that signs agreements and checkpoints (RFC 8037).

What a DID document says is worth as much as the TLS certificate of the host that served it; of a
member of the space the directory's record is believed instead.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.model.participant import b64url, key_id
from connector.transport.http.dsp.odrl import NAMESPACE
from connector.transport.http.dsp.paths import BASE, VERSIONS
from connector.transport.http.dsp.schemas import CONTEXT

DID_CONTEXT = "https://www.w3.org/ns/did/v1"
KEY_CONTEXT = "https://w3id.org/security/suites/jws-2020/v1"
CATALOG_SERVICE, DATA_SERVICE = "CatalogService", "DataService"
GRPC_SERVICE = f"{NAMESPACE}GrpcConnector"
GRPC_SCHEME = "grpcs://"


def did_document(did: str, public_key: bytes, *, root: str, endpoint: str) -> dict[str, Any]:
    """``root``: the URL below which the version endpoint and ``/2025-1`` are; ``endpoint``:
    ``host:port`` of the gRPC door, or empty."""
    method = f"{did}#{key_id(public_key)}"
    services = [
        _service(f"{did}#catalog", CATALOG_SERVICE, f"{root}{BASE}/catalog"),
        _service(f"{did}#connector", DATA_SERVICE, f"{root}{VERSIONS}"),
    ]
    if endpoint:
        grpc = {"id": f"{did}#grpc", "type": GRPC_SERVICE}
        services.append({**grpc, "serviceEndpoint": f"{GRPC_SCHEME}{endpoint}"})
    return {
        "@context": [DID_CONTEXT, KEY_CONTEXT],
        "id": did,
        "verificationMethod": [
            {
                "id": method,
                "type": "JsonWebKey2020",
                "controller": did,
                "publicKeyJwk": {"kty": "OKP", "crv": "Ed25519", "x": b64url(public_key)},
            }
        ],
        "authentication": [method],
        "assertionMethod": [method],
        "service": services,
    }


def _service(id: str, type: str, endpoint: str) -> dict[str, Any]:
    return {"@context": [CONTEXT, DID_CONTEXT], "id": id, "type": type, "serviceEndpoint": endpoint}


def path_of(did: str) -> str:
    """Where did:web has the document: below ``/.well-known``, or at the path that the DID names."""
    _, *path = did.removeprefix("did:web:").split(":")
    return f"/{'/'.join(path)}/did.json" if path else "/.well-known/did.json"


def route(document: dict[str, Any]) -> Route:
    """Open to everybody."""

    async def show(_: Request) -> Response:
        return JSONResponse(
            document,
            media_type="application/did+ld+json",
            headers={"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"},
        )

    return Route(path_of(document["id"]), show)
