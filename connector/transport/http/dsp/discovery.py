"""From a DID to the base URL of a connector's HTTPS binding: the did:web method, and DSP 2025-1,
"Discovery of Service Endpoints" and "Exposure of Versions".

Pure: ``peers`` asks for what is read here. A DID document is believed as far as the certificate of
the host that served it; whom a message is from is not decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.errors import InvalidInput, PeerFault
from connector.model import fields
from connector.model.participant import parse_did
from connector.transport.http.dsp.did import path_of
from connector.transport.http.dsp.paths import VERSION, VERSIONS

MAX_DOCUMENT = 65_536
CATALOG = "/catalog"
_TYPES = ("DataService", "CatalogService")  # the first that is there is taken
_MAX_SERVICES = 64


def document_url(did: str) -> str:
    """Where did:web has the document of ``did``. Raises ``InvalidInput``."""
    host, *segments = parse_did(did).removeprefix("did:web:").split(":")
    if any(segment.strip(".") == "" for segment in segments):
        raise InvalidInput("DID: a path that is not one")
    return f"https://{host.replace('%3A', ':')}{path_of(did)}"


def service_of(document: bytes, did: str) -> str:
    """The endpoint of the data service or catalogue service in a DID document.

    It ends with ``VERSIONS`` or ``CATALOG``. Raises ``PeerFault`` where there is none.
    """
    try:
        value = fields.as_object(
            fields.parse_json(document, limit=MAX_DOCUMENT, what="DID document"), "DID document"
        )
        if value.get("id") != did:
            raise InvalidInput("DID document: of another subject")
        services = value.get("service", [])
        if not isinstance(services, list) or len(services) > _MAX_SERVICES:
            raise InvalidInput(f"service: must be a list of at most {_MAX_SERVICES}")
    except InvalidInput as error:
        raise PeerFault(error.message) from error
    for type_ in _TYPES:
        for service in services:
            endpoint = _endpoint(service, type_)
            if endpoint:
                return endpoint
    raise PeerFault("the DID document names no service of the Dataspace Protocol")


def _endpoint(service: Any, type_: str) -> str:
    """Empty if it is not of this type. Only these entries are the protocol's to judge."""
    if not isinstance(service, Mapping) or service.get("type") not in (type_, [type_]):
        return ""
    endpoint = service.get("serviceEndpoint")
    if not isinstance(endpoint, str) or not endpoint.endswith((VERSIONS, CATALOG)):
        return ""
    return endpoint


def base_of(versions: Mapping[str, Any], root: str) -> str:
    """The base URL of this version below ``root``, by a version response whose schema was checked.

    Raises ``PeerFault`` where the peer does not speak it.
    """
    for one in versions["protocolVersions"]:
        if one["version"] == VERSION and one["binding"] == "HTTPS":
            path: str = one["path"].rstrip("/")
            if path and not path.startswith("/"):
                break
            return root + path
    raise PeerFault(f"the peer does not speak version {VERSION} of the protocol over HTTPS")
