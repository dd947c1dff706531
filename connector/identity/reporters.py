"""Who may report uses to a node, and how it is known: self-signed certificates that are pinned.

A reporter is a program of the node's own organisation, no participant of the space: it has no DID
and no membership. The operator makes it a key and a self-signed X.509 certificate (RFC 5280) and
registers the certificate with the node. The reporters' door has a self-signed certificate too,
which the reporter's file carries. So nobody vouches for either but the operator, and what one of
them is worth ends when it is taken off the list.

Keys are P-256, because gRPC's TLS refuses Ed25519. Left out: the list (``operations.reporters``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from connector.errors import InvalidInput
from connector.identity.certificates import MAX_PEM_BYTES, chain_pem, self_signed, thumbprint
from connector.model import fields
from connector.model.participant import parse_endpoint

OPERATOR = "operator"  # the reporter's name in reports that come over the management socket
DOOR_NAME = "reporting.dataspace.invalid"  # what the door's certificate is asked for
DOOR_DAYS = 3650
MAX_NAME = 64
FORMAT = "tds-reporter/1"
_NAME = re.compile(rf"[\x21-\x7e]{{1,{MAX_NAME}}}")
_FILE_KEYS = frozenset({"format", "endpoint", "name", "key", "certificate", "door"})


@dataclass(frozen=True, slots=True)
class Reporter:
    """A program that may report. ``certificate``: in PEM; ``thumbprint``: as in RFC 8705."""

    name: str
    certificate: bytes
    thumbprint: str
    added: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class ReporterFile:
    """All that a reporter needs. ``endpoint``: host:port of the door; ``key``: its private key;
    ``certificate``: its own; ``door``: the door's. All three in PEM."""

    endpoint: str
    name: str
    key: bytes
    certificate: bytes
    door: bytes


def require_name(name: str) -> str:
    """The name, if a reporter may have it. Raises ``InvalidInput``."""
    if not _NAME.fullmatch(name) or name == OPERATOR:
        raise InvalidInput(
            f"reporter: a name has 1 to {MAX_NAME} visible ASCII characters, and is not {OPERATOR}"
        )
    return name


def make_certificate(key: ec.EllipticCurvePrivateKey, name: str, now: datetime, days: int) -> bytes:
    """A reporter's certificate in PEM, for TLS clients."""
    return _self_signed(key, require_name(name), now, days, ExtendedKeyUsageOID.CLIENT_AUTH)


def make_door_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    """The door's certificate in PEM, for a TLS server."""
    return _self_signed(key, DOOR_NAME, now, DOOR_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)


def read_certificate(name: str, pem: bytes, added: datetime) -> Reporter:
    """The reporter ``name`` with this certificate: one in its PEM, signed with its own P-256 key,
    for TLS clients, no authority's. Raises ``InvalidInput``."""
    require_name(name)
    if len(pem) > MAX_PEM_BYTES:
        raise InvalidInput(f"certificate: larger than {MAX_PEM_BYTES} bytes")
    try:
        found = x509.load_pem_x509_certificates(pem)
        (certificate,) = found
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise InvalidInput("certificate: the key must be on the curve P-256")
        certificate.verify_directly_issued_by(certificate)
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (
        ValueError,
        TypeError,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise InvalidInput("certificate: must be one, self-signed, in PEM") from error
    if authority or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise InvalidInput("certificate: must be for TLS clients, and no authority's")
    return Reporter(
        name=name,
        certificate=chain_pem(certificate),
        thumbprint=thumbprint(certificate),
        added=added,
        expires=certificate.not_valid_after_utc,
    )


def pem_thumbprint(pem: bytes) -> str:
    """RFC 8705 thumbprint of a certificate that TLS has read already; empty for none at all."""
    try:
        return thumbprint(x509.load_pem_x509_certificate(pem))
    except ValueError:
        return ""


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_file(file: ReporterFile) -> bytes:
    """The file's content: JSON. It holds a private key: mode 0600."""
    return fields.encode_json(
        {
            "format": FORMAT,
            "endpoint": file.endpoint,
            "name": file.name,
            "key": file.key.decode("ascii"),
            "certificate": file.certificate.decode("ascii"),
            "door": file.door.decode("ascii"),
        }
    )


def read_file(data: bytes) -> ReporterFile:
    """Raises ``InvalidInput``; what is in the PEM texts is TLS's to refuse."""
    value = fields.as_object(fields.parse_json(data, what="reporter's file"), "reporter's file")
    fields.only_keys(value, _FILE_KEYS, "reporter's file")
    if value.get("format") != FORMAT:
        raise InvalidInput("reporter's file: not one that connector reporters add wrote")
    key, certificate, door = (
        fields.text(value, name, limit=MAX_PEM_BYTES).encode()
        for name in ("key", "certificate", "door")
    )
    return ReporterFile(
        endpoint=parse_endpoint(fields.text(value, "endpoint", limit=256)),
        name=require_name(fields.text(value, "name", limit=MAX_NAME)),
        key=key,
        certificate=certificate,
        door=door,
    )


def _self_signed(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    now: datetime,
    days: int,
    purpose: x509.ObjectIdentifier,
) -> bytes:
    builder = (
        self_signed(key, name, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if purpose == ExtendedKeyUsageOID.SERVER_AUTH:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return chain_pem(builder.sign(key, hashes.SHA256()))
