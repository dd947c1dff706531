"""Membership events, heartbeats, credentials and acts: read back, and refused when hostile."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Conflict, InvalidInput, VerificationFailed
from connector.identity import acts, credentials, membership
from connector.identity.acts import Act
from connector.identity.credentials import Credential
from connector.identity.membership import Change, Heartbeat, MembershipEvent
from connector.identity.ourselves import Ourselves
from connector.identity.statements import public_bytes, sign_statement
from connector.model.participant import Membership, Participant, participant_json

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY, MALLORYS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SPACE_KEY = public_bytes(KEY)
SPACE, AIRPORT = "did:web:space.example", "did:web:airport.example"
PARTICIPANT = Participant(
    did=AIRPORT,
    name="机场",
    roles=("provider",),
    state=Membership.ACTIVE,
    signing_keys=(b"k" * 32,),
    endpoint="airport.example:9443",
    log_origin="airport.example/log",
    revision=7,
)
EVENT = MembershipEvent(7, NOW, Change.ADMITTED, "", PARTICIPANT)


def test_an_event_is_read_back():
    assert (
        membership.read_membership_event(membership.sign_membership_event(KEY, EVENT), SPACE_KEY)
        == EVENT
    )


def event(**changes):
    good = {
        "number": 7,
        "time": "2026-11-23T12:00:00.000Z",
        "type": "admitted",
        "reason": "",
        "participant": participant_json(PARTICIPANT),
    }
    return {k: v for k, v in (good | changes).items() if v is not None}


def participant(**changes):
    return participant_json(PARTICIPANT) | changes


HOSTILE_EVENTS = {
    "number 0": event(number=0, participant=participant(revision=0)),
    "a number that is no integer": event(number=7.0),
    "true as a number": event(number=True, participant=participant(revision=1)),
    "another revision": event(number=8),
    "no time": event(time=None),
    "a time without a zone": event(time="2026-11-23T12:00:00"),
    "an unknown type": event(type="promoted"),
    "a state that does not follow": event(type="suspended"),
    "an admission that is suspended": event(participant=participant(state="suspended")),
    "a long reason": event(reason="x" * 257),
    "no participant": event(participant=None),
    "a participant without keys": event(participant=participant(signingKeys=[])),
    "a key of another size": event(participant=participant(signingKeys=["AAAA"])),
    "an endpoint on the peer's own machine": event(participant=participant(endpoint="unix:80")),
    "an unknown field": event(previous=""),
}


@pytest.mark.parametrize("hostile", HOSTILE_EVENTS.values(), ids=HOSTILE_EVENTS.keys())
def test_hostile_events_are_refused(hostile):
    with pytest.raises(InvalidInput):
        membership.read_membership_event(sign_statement(KEY, "membership", hostile), SPACE_KEY)


def test_nobody_else_speaks_for_the_space():
    for read, statement in (
        (membership.read_membership_event, membership.sign_membership_event(MALLORYS, EVENT)),
        (membership.read_heartbeat, membership.sign_heartbeat(MALLORYS, Heartbeat(7, NOW))),
    ):
        with pytest.raises(VerificationFailed):
            read(statement, SPACE_KEY)


def test_one_kind_is_never_taken_for_another():
    heartbeat = membership.sign_heartbeat(KEY, Heartbeat(7, NOW))
    assert membership.read_heartbeat(heartbeat, SPACE_KEY) == Heartbeat(7, NOW)
    with pytest.raises(InvalidInput):
        membership.read_membership_event(heartbeat, SPACE_KEY)


EVERY_STEP = [(state, change) for state in (None, *Membership) for change in Change]


@pytest.mark.parametrize(("state", "change"), EVERY_STEP)
def test_every_step_of_membership(state, change):
    """Revoked is final, and nobody comes in but by admission."""
    allowed = membership.TRANSITIONS.get((state, change))
    if state is Membership.REVOKED:
        assert allowed is None
    if state is None:
        assert (allowed is not None) is (change is Change.ADMITTED)
    if allowed is None:
        with pytest.raises(Conflict):
            membership.next_state(state, change)
    else:
        assert membership.next_state(state, change) is allowed


CREDENTIAL = Credential(
    space=SPACE,
    did=AIRPORT,
    name="机场",
    roles=("provider",),
    signing_key=b"k" * 32,
    issued=NOW,
    expires=NOW + timedelta(days=365),
)


def read_credential(text, now=NOW, space=SPACE):
    return credentials.read_credential(text, space=space, space_key=SPACE_KEY, now=now)


def test_a_credential_is_the_spaces_word_for_a_time():
    text = credentials.issue_credential(KEY, CREDENTIAL)
    assert read_credential(text) == CREDENTIAL
    assert read_credential(text, NOW + timedelta(days=364)) == CREDENTIAL
    for bad in (NOW - timedelta(minutes=2), NOW + timedelta(days=365)):
        with pytest.raises(VerificationFailed):
            read_credential(text, bad)
    with pytest.raises(VerificationFailed):
        read_credential(text, space="did:web:other.example")
    with pytest.raises(VerificationFailed):
        read_credential(credentials.issue_credential(MALLORYS, CREDENTIAL))


def claims(**changes):
    good = {
        "iss": SPACE,
        "sub": AIRPORT,
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 60,
        "name": "机场",
        "roles": ["provider"],
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": credentials.b64url(b"k" * 32)}},
    }
    return good | changes


HOSTILE_CREDENTIALS = {
    "no key": claims(cnf={}),
    "another curve": claims(cnf={"jwk": {"kty": "OKP", "crv": "X25519", "x": "A" * 43}}),
    "a private key": claims(cnf={"jwk": claims()["cnf"]["jwk"] | {"d": "A" * 43}}),
    "a key in the wrong size": claims(cnf={"jwk": claims()["cnf"]["jwk"] | {"x": "AAAA"}}),
    "not a DID": claims(sub="airport"),
    "a time far away": claims(exp=2**60),
    "a time as text": claims(iat="0"),
    "an unknown claim": claims(admin=True),
}


@pytest.mark.parametrize("hostile", HOSTILE_CREDENTIALS.values(), ids=HOSTILE_CREDENTIALS.keys())
def test_hostile_credentials_are_refused(hostile):
    with pytest.raises(InvalidInput):
        read_credential(sign_statement(KEY, credentials.KIND, hostile))


ACT = Act("member.suspended", AIRPORT, SPACE, NOW, {"reason": "审计", "event": 8})


def test_an_act_is_signed_by_who_did_it():
    statement = acts.sign_act(KEY, ACT)
    assert acts.read_act(statement, [SPACE_KEY]) == ACT
    with pytest.raises(VerificationFailed):
        acts.read_act(statement, [public_bytes(MALLORYS)])


def test_ourselves_acts_in_the_same_words():
    ourselves = Ourselves(SPACE, "space", "space.example/log", KEY)
    statement = ourselves.act(ACT.type, ACT.scope, NOW, **ACT.details)
    assert acts.read_act(statement, [SPACE_KEY]) == ACT


@pytest.mark.parametrize(
    "changes",
    [
        {"type": ""},
        {"type": "Member suspended"},
        {"scope": ""},
        {"scope": "x" * 513},
        {"actor": ""},
        {"details": {"actor": "somebody else"}},
        {"details": {"text": "x" * 40_000}},
    ],
)
def test_an_act_that_no_log_could_keep_is_not_signed(changes):
    with pytest.raises(InvalidInput):
        acts.sign_act(KEY, dataclasses.replace(ACT, **changes))
