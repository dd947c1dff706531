"""X.509 (RFC 5280) for TLS: the space's certificate authority and its members' certificates.

A member's certificate names its DID twice: as a URI, which peers read, and as a DNS name derived
from it (``model.participant.host_label``), which a TLS client checks. Nothing else in it carries
meaning; the subject (the organisation's name, never the authority's common name) is for people.

TLS keys are P-256, because gRPC's TLS refuses Ed25519. The authority has a P-256 key of its own
too: the space's signing key signs statements and nothing else, so that no signature made for one
purpose can ever be read as the other.

Revocation is not done here: a member that is suspended or revoked is refused by the directory's
record of it, at once, whatever its certificate says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connector.errors import ConnectorError, InvalidInput, Unauthenticated
from connector.model.participant import b64url, host_label, parse_did

MAX_REQUEST_BYTES = 8192
MAX_PEM_BYTES = 32_768
AUTHORITY_DAYS = 3650
_MAX_NAME = 64  # characters of a name in a subject (RFC 5280 appendix A.1)
_BACKDATED = timedelta(minutes=5)  # for peers whose clocks are behind
_REFUSED = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a peer's certificate says. ``thumbprint``: base64url SHA-256 of its DER."""

    did: str
    thumbprint: str
    not_before: datetime
    not_after: datetime

    @property
    def renew_at(self) -> datetime:
        """When two thirds of its life are over."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


def make_tls_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(
    key: ec.EllipticCurvePrivateKey, name: str, now: datetime, days: int
) -> x509.CertificateBuilder:
    """A certificate of ``key`` for itself: what it may do is the caller's to add, then ``sign``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def make_authority(key: ec.EllipticCurvePrivateKey, name: str, now: datetime) -> x509.Certificate:
    """The space's self-signed authority; it may sign end entities only (path length 0)."""
    usage = _usage(digital_signature=False, certificates=True)
    return (
        self_signed(key, f"{name[: _MAX_NAME - 3]} CA", now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS#10 request (RFC 2986) in DER that proves possession of ``key``, and no more."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def read_csr(request: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key whose possession the request proves.

    Names and extensions that it asks for are ignored. Raises ``InvalidInput``.
    """
    if len(request) > MAX_REQUEST_BYTES:
        raise InvalidInput(f"certificate request: larger than {MAX_REQUEST_BYTES} bytes")
    try:
        csr = x509.load_der_x509_csr(request)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise InvalidInput("certificate request: the key must be on the curve P-256")
        if not isinstance(csr.signature_hash_algorithm, hashes.SHA256):
            raise InvalidInput("certificate request: must be signed with ECDSA and SHA-256")
        if not csr.is_signature_valid:
            raise InvalidInput("certificate request: not signed with its own key")
    except _REFUSED as error:
        raise InvalidInput("certificate request: not PKCS#10 in DER") from error
    return key


def issue_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    did: str,
    name: str,
    now: datetime,
    days: int,
) -> x509.Certificate:
    """A certificate for both ends of TLS, for the participant ``did``.

    It ends before its authority does.
    """
    names = [x509.UniformResourceIdentifier(parse_did(did)), x509.DNSName(host_label(did))]
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:_MAX_NAME])
    usage = _usage(digital_signature=True, certificates=False)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([organisation]))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(min(now + timedelta(days=days), authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def issue_member_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    request: bytes,
    *,
    did: str,
    name: str,
    now: datetime,
    days: int,
) -> bytes:
    """The member's certificate chain in PEM (its own, then the authority's) for its request.

    Raises ``InvalidInput`` as ``read_csr`` does.
    """
    certificate = issue_certificate(
        authority, authority_key, read_csr(request), did=did, name=name, now=now, days=days
    )
    return chain_pem(certificate, authority)


def chain_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def read_authority(pem: bytes) -> x509.Certificate:
    """A certificate that may sign others, alone in its PEM. Raises ``InvalidInput``."""
    certificate = _single(pem)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (*_REFUSED, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise InvalidInput("CA certificate: not an authority's") from error
    if not constraints.ca:
        raise InvalidInput("CA certificate: not an authority's")
    return certificate


def read_peer_certificate(pem: bytes) -> PeerCertificate:
    """Whom a certificate names. TLS has verified its chain; its end is the caller's to check.

    Exactly one DID and the DNS name that belongs to it, or ``Unauthenticated``.
    """
    try:
        certificate = _single(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = names.get_values_for_type(x509.DNSName)
        if len(uris) != 1 or len(names) != 2 or hosts != [host_label(parse_did(uris[0]))]:
            raise InvalidInput("certificate: must name one participant")
        return PeerCertificate(
            did=uris[0],
            thumbprint=thumbprint(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )
    except (
        *_REFUSED,
        ConnectorError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise Unauthenticated("the certificate does not name one participant") from error


def read_chain(pem: bytes) -> PeerCertificate:
    """Our own certificate, the first of its chain in PEM. Raises ``Unauthenticated``."""
    end = b"-----END CERTIFICATE-----\n"
    return read_peer_certificate(pem.partition(end)[0] + end)


def thumbprint(certificate: x509.Certificate) -> str:
    """RFC 8705 section 3.1: base64url SHA-256 of the DER."""
    return b64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())


def _single(pem: bytes) -> x509.Certificate:
    if len(pem) > MAX_PEM_BYTES:
        raise InvalidInput(f"certificate: larger than {MAX_PEM_BYTES} bytes")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except _REFUSED as error:
        raise InvalidInput("certificate: not PEM") from error
    if len(certificates) != 1:
        raise InvalidInput("certificate: must be alone in its PEM")
    return certificates[0]


def _usage(*, digital_signature: bool, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
