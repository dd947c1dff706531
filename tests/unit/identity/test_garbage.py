"""Garbage is read, or refused with an error of our own; nothing else escapes a parser."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import ConnectorError, InvalidInput, Unauthenticated
from connector.identity import acts, certificates, credentials, invitations, membership, tokens
from connector.identity.statements import public_bytes, sign_statement, statement_kind

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
PUBLIC = public_bytes(KEY)
DID = "did:web:airport.example"
TLS_KEY = certificates.make_tls_key()
CA = certificates.make_authority(TLS_KEY, "space", NOW)
CSR = certificates.make_csr(TLS_KEY)
CHAIN = certificates.issue_member_certificate(
    CA, TLS_KEY, CSR, did=DID, name="airport", now=NOW, days=1
)
PEM = CHAIN[: CHAIN.index(b"-----END") + 26]
READERS = {
    "invitation": invitations.open_invitation,
    "enrolment": lambda s: invitations.read_proof(s, CSR),
    "membership": lambda s: membership.read_membership_event(s, PUBLIC),
    "heartbeat": lambda s: membership.read_heartbeat(s, PUBLIC),
    "act": lambda s: acts.read_act(s, [PUBLIC]),
    "credential": lambda s: credentials.read_credential(s, space=DID, space_key=PUBLIC, now=NOW),
    "call": lambda s: tokens.TokenVerifier(DID, started=NOW).verify(
        s, issuer=DID, keys=[PUBLIC], thumbprint="t", now=NOW
    ),
}
# Names that the readers look for, so that random objects get past the first check.
NAMES = st.sampled_from(
    sorted(
        invitations._INVITATION_KEYS
        | invitations._PROOF_KEYS
        | invitations._SPACE_KEYS
        | credentials._CLAIMS
        | tokens._CLAIMS
        | {"number", "time", "type", "reason", "participant", "scope", "actor"}
    )
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
VALUES = st.recursive(
    SCALARS | st.just(DID) | st.just("2026-11-23T12:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", READERS)
@given(payload=st.dictionaries(NAMES, VALUES, max_size=12))
@settings(max_examples=60, deadline=None)
def test_signed_nonsense(kind, payload):
    """The signature is good; the content is anything."""
    statement = sign_statement(KEY, kind, payload)
    with contextlib.suppress(ConnectorError):
        READERS[kind](statement)


@pytest.mark.parametrize("kind", READERS)
@given(garbage=st.text(max_size=200))
@settings(max_examples=30, deadline=None)
def test_nonsense(kind, garbage):
    with contextlib.suppress(ConnectorError):
        statement_kind(garbage)
    with pytest.raises(ConnectorError):
        READERS[kind](garbage)


@given(st.integers(0, len(PEM) - 1), st.binary(min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_damaged_certificate(place, damage):
    damaged = PEM[:place] + damage + PEM[place + len(damage) :]
    try:
        found = certificates.read_peer_certificate(damaged)
    except Unauthenticated:
        return
    assert found.did == DID  # what was damaged says nothing of who it is: TLS checks the signature


@given(st.integers(0, len(CSR) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_damaged_request(place, change):
    damaged = CSR[:place] + bytes([CSR[place] ^ change]) + CSR[place + 1 :]
    try:
        found = certificates.read_csr(damaged)
    except InvalidInput:
        return
    # The padding of a bit string is no part of what is signed: another spelling of the same.
    assert found == TLS_KEY.public_key()
