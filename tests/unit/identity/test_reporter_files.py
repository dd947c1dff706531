"""Reporters' certificates and files: what is taken, and what is refused."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connector.errors import InvalidInput
from connector.identity import reporters
from connector.identity.certificates import make_authority, make_tls_key
from connector.identity.reporters import (
    ReporterFile,
    key_pem,
    make_certificate,
    make_door_certificate,
    pem_thumbprint,
    read_certificate,
    read_file,
    require_name,
    write_file,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KEY = make_tls_key()
PEM = make_certificate(KEY, "gateway", NOW, 30)


def test_a_certificate_is_read_as_it_was_made() -> None:
    reporter = read_certificate("gateway", PEM, NOW)
    assert (reporter.name, reporter.certificate, reporter.added) == ("gateway", PEM, NOW)
    assert reporter.expires == NOW + timedelta(days=30)
    assert reporter.thumbprint == pem_thumbprint(PEM)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "é", "a\n", "operator"])
def test_names_that_nobody_may_have(name: str) -> None:
    with pytest.raises(InvalidInput):
        require_name(name)
    with pytest.raises(InvalidInput):
        read_certificate(name, PEM, NOW)


def certificate(key: Any, signer: Any = None, *, usage: Any = None, ca: bool = False) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    signer = signer or key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm).public_bytes(serialization.Encoding.PEM)


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
BAD = {
    "empty": b"",
    "not PEM": b"certificate",
    "two": PEM + make_certificate(make_tls_key(), "other", NOW, 1),
    "huge": PEM + b"#" * 40_000,
    "a private key": key_pem(KEY),
    "by another": certificate(KEY, make_tls_key(), usage=CLIENT),
    "an authority": make_authority(KEY, "x", NOW).public_bytes(serialization.Encoding.PEM),
    "an authority for clients": certificate(KEY, usage=CLIENT, ca=True),
    "for servers": make_door_certificate(KEY, NOW),
    "for nothing": certificate(KEY),
    "on another curve": certificate(ec.generate_private_key(ec.SECP384R1()), usage=CLIENT),
    "Ed25519": certificate(ed25519.Ed25519PrivateKey.generate(), usage=CLIENT),
}


@pytest.mark.parametrize("pem", BAD.values(), ids=BAD)
def test_certificates_that_are_refused(pem: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_certificate("gateway", pem, NOW)


def test_a_thumbprint_of_nothing() -> None:
    assert pem_thumbprint(b"") == pem_thumbprint(b"x") == ""


FILE = ReporterFile("h.example:1", "gateway", key_pem(KEY), PEM, make_door_certificate(KEY, NOW))


def test_a_file_is_read_as_it_was_written() -> None:
    assert read_file(write_file(FILE)) == FILE


SPOILT = {
    "nothing": b"",
    "a list": b"[]",
    "another format": write_file(FILE).replace(b"reporter/1", b"reporter/2"),
    "a key more": write_file(FILE)[:-1] + b',"more":1}',
    "no endpoint": write_file(dataclasses.replace(FILE, endpoint="")),
    "an endpoint with a path": write_file(dataclasses.replace(FILE, endpoint="unix:/x")),
    "the operator's name": write_file(dataclasses.replace(FILE, name=reporters.OPERATOR)),
    "no key": write_file(dataclasses.replace(FILE, key=b"")),
}


@pytest.mark.parametrize("data", SPOILT.values(), ids=SPOILT)
def test_files_that_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_file(data)
