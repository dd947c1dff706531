"""Invitations and the proofs with which they are spent."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import ConnectorError, InvalidInput, VerificationFailed
from connector.identity import certificates, invitations
from connector.identity.invitations import Invitation, Proof, Space
from connector.identity.statements import public_bytes, sign_statement
from connector.model.participant import b64url, key_id

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SPACE_KEY, MALLORYS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
CA_KEY = certificates.make_tls_key()
CA = certificates.make_authority(CA_KEY, "space", NOW)
SPACE = Space(
    did="did:web:space.example",
    key=public_bytes(SPACE_KEY),
    enrol="space.example:9501",
    directory="space.example:9500",
    ca=certificates.chain_pem(CA),
)
INVITATION = Invitation(
    id="i" * 32,
    organisation="某市机场 Airport",
    did="did:web:airport.example",
    roles=("provider",),
    expires=NOW + timedelta(days=1),
    space=SPACE,
)
CANDIDATE = Ed25519PrivateKey.generate()
REQUEST = certificates.make_csr(certificates.make_tls_key())
PROOF = Proof(
    invitation=INVITATION.id,
    space=SPACE.did,
    did="did:web:airport.example",
    name="某市机场 Airport",
    roles=("provider",),
    endpoint="airport.example:9443",
    log_origin="airport.example/log",
    csr_sha256=hashlib.sha256(REQUEST).digest(),
    signing_key=public_bytes(CANDIDATE),
    time=NOW,
)


@pytest.mark.parametrize("did", ["", "did:web:airport.example"])
def test_an_invitation_carries_all_that_the_first_contact_needs(did):
    invitation = dataclasses.replace(INVITATION, did=did)
    text = invitations.sign_invitation(SPACE_KEY, invitation)
    assert invitations.open_invitation(f"\n {text} \n") == invitation
    assert invitations.read_invitation(text, SPACE.key) == invitation


def payload(**changes):
    good = {
        "id": INVITATION.id,
        "organisation": INVITATION.organisation,
        "roles": ["provider"],
        "expires": "2026-12-31T00:00:00Z",
        "space": invitations.space_json(SPACE),
    }
    found = good | changes
    return {k: v for k, v in found.items() if v is not None}


def space(**changes):
    return invitations.space_json(SPACE) | changes


LEAF = certificates.issue_certificate(
    CA, CA_KEY, CA_KEY.public_key(), did="did:web:a.example", name="a", now=NOW, days=1
)
HOSTILE_INVITATIONS = {
    "no id": payload(id=None),
    "a short id": payload(id="short"),
    "an id with other characters": payload(id="i" * 31 + "/"),
    "no organisation": payload(organisation=""),
    "a name with a line break": payload(organisation="a\nb"),
    "a name that runs backwards": payload(organisation="a\u202eb"),
    "a name with blanks around it": payload(organisation=" a"),
    "no roles": payload(roles=[]),
    "a role twice": payload(roles=["provider", "provider"]),
    "the operator's role": payload(roles=["operator"]),
    "a role in capitals": payload(roles=["Provider"]),
    "a role that is no text": payload(roles=[1]),
    "no expiry": payload(expires=None),
    "an expiry without a zone": payload(expires="2026-12-31T00:00:00"),
    "an expiry before the calendar": payload(expires="0001-01-01T00:00:00+23:59"),
    "not a did:web": payload(did="did:key:z6Mk"),
    "an unknown field": payload(admin=True),
    "no space": payload(space=None),
    "a space that is a list": payload(space=[]),
    "a short key": payload(space=space(key="AAAA")),
    "an endpoint on this machine": payload(space=space(enrol="unix:8080")),
    "an endpoint with a path": payload(space=space(enrol="a.example:1/x")),
    "no port": payload(space=space(directory="a.example")),
    "port 0": payload(space=space(directory="a.example:0")),
    "a CA that is not one": payload(space=space(ca=certificates.chain_pem(LEAF).decode())),
    "a CA that is no certificate": payload(space=space(ca="x")),
}


@pytest.mark.parametrize("hostile", HOSTILE_INVITATIONS.values(), ids=HOSTILE_INVITATIONS.keys())
def test_hostile_invitations_are_refused(hostile):
    text = sign_statement(SPACE_KEY, invitations.INVITATION, hostile)
    for read in (invitations.open_invitation, lambda t: invitations.read_invitation(t, SPACE.key)):
        with pytest.raises(InvalidInput):
            read(text)


def test_half_a_character_is_refused():
    """A surrogate alone is JSON, but no text: it could not be stored or shown."""
    text = jwt.PyJWS(algorithms=["EdDSA"]).encode(
        b'{"organisation":"\\ud800"}',
        SPACE_KEY,
        algorithm="EdDSA",
        headers={"typ": "tds-invitation+jws", "kid": key_id(SPACE.key)},
    )
    with pytest.raises(InvalidInput):
        invitations.open_invitation(text)


def test_a_forged_invitation():
    """By another key: the directory refuses it, and so does a candidate that looks inside."""
    forged = sign_statement(MALLORYS, invitations.INVITATION, payload())
    with pytest.raises(VerificationFailed):
        invitations.open_invitation(forged)
    with pytest.raises(VerificationFailed):
        invitations.read_invitation(forged, SPACE.key)
    own = sign_statement(
        MALLORYS,
        invitations.INVITATION,
        payload(space=space(key=b64url(public_bytes(MALLORYS)))),
    )
    with pytest.raises(VerificationFailed):
        invitations.read_invitation(own, SPACE.key)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\ud800", "x" * 300_000])
def test_what_is_no_invitation_at_all(text):
    with pytest.raises(InvalidInput):
        invitations.open_invitation(text)


def test_a_proof_binds_both_keys():
    statement = invitations.sign_proof(CANDIDATE, PROOF)
    assert invitations.read_proof(statement, REQUEST) == PROOF
    other = certificates.make_csr(certificates.make_tls_key())
    with pytest.raises(InvalidInput, match="another certificate request"):
        invitations.read_proof(statement, other)


def test_a_proof_is_by_the_key_that_it_names():
    with pytest.raises(InvalidInput):
        invitations.sign_proof(MALLORYS, PROOF)
    value = {
        "invitation": PROOF.invitation,
        "space": PROOF.space,
        "did": PROOF.did,
        "name": PROOF.name,
        "roles": ["provider"],
        "logOrigin": PROOF.log_origin,
        "csrSha256": b64url(PROOF.csr_sha256),
        "signingKey": b64url(PROOF.signing_key),
        "time": "2026-11-23T12:00:00Z",
    }
    invitations.read_proof(sign_statement(CANDIDATE, invitations.PROOF, value), REQUEST)
    with pytest.raises(VerificationFailed):
        invitations.read_proof(sign_statement(MALLORYS, invitations.PROOF, value), REQUEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_origin": "a b"},
        {"log_origin": "a+b"},
        {"log_origin": "机场"},
        {"endpoint": "unix:1"},
        {"endpoint": "host"},
        {"roles": ("operator",)},
        {"did": "did:web:"},
        {"name": ""},
        {"csr_sha256": b"short"},
    ],
)
def test_a_proof_that_could_not_be_read_is_not_signed(changes):
    with pytest.raises(ConnectorError):
        invitations.sign_proof(CANDIDATE, dataclasses.replace(PROOF, **changes))


def test_a_proof_is_not_an_invitation():
    text = invitations.sign_invitation(SPACE_KEY, INVITATION)
    with pytest.raises(InvalidInput):
        invitations.read_proof(text, REQUEST)
