"""The space's certificate authority: what it signs, and what is read from a peer's certificate."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connector.adapters.clock import SystemClock
from connector.errors import InvalidInput, Unauthenticated
from connector.identity import certificates
from connector.model.participant import b64url, host_label

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
AIRPORT = "did:web:airport.example"
CA_KEY, TLS_KEY = certificates.make_tls_key(), certificates.make_tls_key()
CA = certificates.make_authority(CA_KEY, "空间运营者", NOW)


def issue(request, did=AIRPORT, days=30, name="机场"):
    return certificates.issue_member_certificate(
        CA, CA_KEY, request, did=did, name=name, now=NOW, days=days
    )


def test_a_member_certificate_says_who_it_is_and_nothing_more():
    chain = x509.load_pem_x509_certificates(issue(certificates.make_csr(TLS_KEY)))
    leaf, ca = chain
    assert ca == CA
    leaf.verify_directly_issued_by(ca)
    assert leaf.public_key() == TLS_KEY.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [AIRPORT]
    assert names.get_values_for_type(x509.DNSName) == [host_label(AIRPORT)]
    assert len(names) == 2
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc == NOW + timedelta(days=30)
    assert leaf.not_valid_before_utc < NOW


def test_serial_numbers_differ():
    request = certificates.make_csr(TLS_KEY)
    serials = {x509.load_pem_x509_certificates(issue(request))[0].serial_number for _ in range(4)}
    assert len(serials) == 4


def test_it_does_not_outlive_its_authority():
    leaf = x509.load_pem_x509_certificates(issue(certificates.make_csr(TLS_KEY), days=9999))[0]
    assert leaf.not_valid_after_utc == CA.not_valid_after_utc


def test_what_a_request_asks_for_is_ignored():
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bank.example")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("did:web:bank.example")]),
            critical=False,
        )
        .sign(TLS_KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert certificates.read_chain(issue(greedy)).did == AIRPORT
    leaf = x509.load_pem_x509_certificates(issue(greedy))[0]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert b"bank" not in leaf.public_bytes(serialization.Encoding.DER)


def csr(key, algorithm):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def forged():
    """A request with the signature of another one."""
    good, other = certificates.make_csr(TLS_KEY), certificates.make_csr(certificates.make_tls_key())
    mine, theirs = x509.load_der_x509_csr(good), x509.load_der_x509_csr(other)
    swapped = good.replace(mine.signature, theirs.signature)
    # the two signatures may differ by a byte in length, which breaks the DER: refused as well
    assert swapped != good
    return swapped


HOSTILE_REQUESTS = {
    "nothing": lambda: b"",
    "not DER": lambda: b"-----BEGIN CERTIFICATE REQUEST-----",
    "huge": lambda: b"0" * 9000,
    "something after it": lambda: certificates.make_csr(TLS_KEY) + b"x",
    "a certificate": lambda: CA.public_bytes(serialization.Encoding.DER),
    "Ed25519": lambda: csr(ed25519.Ed25519PrivateKey.generate(), None),
    "RSA": lambda: csr(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "P-384": lambda: csr(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
    "secp256k1": lambda: csr(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
    "another digest": lambda: csr(TLS_KEY, hashes.SHA512()),
    "another's signature": forged,
    "one bit changed": lambda: certificates.make_csr(TLS_KEY)[:-1] + b"\x00",
}


@pytest.mark.parametrize("hostile", HOSTILE_REQUESTS.values(), ids=HOSTILE_REQUESTS.keys())
def test_hostile_requests_are_refused(hostile):
    with pytest.raises(InvalidInput):
        issue(hostile())


def test_a_peers_certificate():
    chain = issue(certificates.make_csr(TLS_KEY))
    peer = certificates.read_chain(chain)
    leaf = x509.load_pem_x509_certificates(chain)[0]
    der = leaf.public_bytes(serialization.Encoding.DER)
    assert peer.did == AIRPORT
    assert peer.thumbprint == b64url(hashlib.sha256(der).digest())
    assert peer.not_after == NOW + timedelta(days=30)
    assert peer.not_before < NOW < peer.renew_at < peer.not_after
    assert certificates.read_peer_certificate(leaf.public_bytes(serialization.Encoding.PEM)) == peer


def signed_with(*names, critical=False):
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(CA.subject)
        .public_key(TLS_KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=critical)
    return builder.sign(CA_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
HOSTILE_PEERS = {
    "nothing": lambda: b"",
    "not PEM": lambda: b"\xff\x00",
    "huge": lambda: b"-" * 40_000,
    "two certificates": lambda: issue(certificates.make_csr(TLS_KEY)),
    "an authority": lambda: CA.public_bytes(serialization.Encoding.PEM),
    "no names": signed_with,
    "only the DNS name": lambda: signed_with(DNS(host_label(AIRPORT))),
    "only the DID": lambda: signed_with(URI(AIRPORT)),
    "two DIDs": lambda: signed_with(
        URI(AIRPORT), URI("did:web:bank.example"), DNS(host_label(AIRPORT))
    ),
    "the DNS name of another": lambda: signed_with(
        URI(AIRPORT), DNS(host_label("did:web:bank.example"))
    ),
    "two DNS names": lambda: signed_with(
        URI(AIRPORT), DNS(host_label(AIRPORT)), DNS(host_label("did:web:bank.example"))
    ),
    "a mail address beside": lambda: signed_with(
        URI(AIRPORT), DNS(host_label(AIRPORT)), x509.RFC822Name("root@airport.example")
    ),
    "not a did:web": lambda: signed_with(URI("did:key:z6Mk"), DNS(host_label("did:key:z6Mk"))),
    "a DID in capitals": lambda: signed_with(
        URI("did:web:AIRPORT.example"), DNS(host_label("did:web:AIRPORT.example"))
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE_PEERS.values(), ids=HOSTILE_PEERS.keys())
def test_hostile_certificates_name_nobody(hostile):
    with pytest.raises(Unauthenticated):
        certificates.read_peer_certificate(hostile())


def test_an_authority_is_one():
    pem = CA.public_bytes(serialization.Encoding.PEM)
    assert certificates.read_authority(pem) == CA
    for hostile in (b"", b"x", pem + pem, issue(certificates.make_csr(TLS_KEY)), signed_with()):
        with pytest.raises(InvalidInput):
            certificates.read_authority(hostile)


def test_tls_accepts_the_pinned_member_and_nobody_else(tmp_path):
    """With one CA for all, it is the DNS name that keeps one member from answering for another."""
    for name, did in (("airport", AIRPORT), ("mallory", "did:web:mallory.example")):
        key = certificates.make_tls_key()
        now = SystemClock().now()  # TLS reads the machine's clock
        ca = certificates.make_authority(CA_KEY, "space", now)
        chain = certificates.issue_member_certificate(
            ca, CA_KEY, certificates.make_csr(key), did=did, name=name, now=now, days=1
        )
        (tmp_path / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + chain
        )
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / f"{name}.pem")
        client = ssl.create_default_context(cadata=certificates.chain_pem(ca).decode())
        if did == AIRPORT:
            shake(client, server, host_label(AIRPORT))
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                shake(client, server, host_label(AIRPORT))


def shake(client, server, name):
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(6):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not ends
