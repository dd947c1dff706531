"""Joining: what an invitation is worth, and to whom."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from connector.adapters.bundle import load_bundle
from connector.adapters.rego import RegoEngine
from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.identity import certificates, invitations
from connector.identity.acts import read_act
from connector.identity.credentials import read_credential
from connector.identity.invitations import read_invitation, sign_invitation
from connector.identity.membership import Change, read_membership_event
from connector.identity.statements import public_bytes
from connector.model.participant import Membership

DID = "did:web:airport.example"
# The interpreter must end in the thread that made it, so it lives as long as this module.
ENGINE = RegoEngine(load_bundle())


@pytest.fixture
def airport(world):
    return world.Candidate(DID, "机场")


async def test_a_candidate_becomes_a_member(world, airport):
    enrolled = await world.enrol(airport)
    assert enrolled.event_number == 2  # 1 is the operator's own record
    credential = read_credential(
        enrolled.credential,
        space=world.ourselves.did,
        space_key=world.space_key,
        now=world.clock.now(),
    )
    assert (credential.did, credential.name, credential.roles) == (DID, "机场", ("provider",))
    assert credential.signing_key == public_bytes(airport.key)
    certificate = certificates.read_chain(enrolled.chain)
    assert certificate.did == DID
    assert certificate.not_after == world.clock.now() + timedelta(days=30)
    event = read_membership_event(world.services.members.resolve(DID).statement, world.space_key)
    assert (event.number, event.type) == (2, Change.ADMITTED)
    assert event.participant.endpoint == "airport.example:9443"
    assert world.services.members.active(DID) == event.participant


async def test_the_directory_is_a_participant_too(world):
    own = world.services.members.resolve(world.ourselves.did).participant
    assert (own.roles, own.signing_keys, own.revision) == (("operator",), (world.space_key,), 1)
    await world.restart()
    assert world.services.register.last == 1
    await world.restart(endpoint="new.example:9500")
    own = world.services.members.resolve(world.ourselves.did).participant
    assert (own.endpoint, own.revision) == ("new.example:9500", 2)


async def test_acts_are_signed_and_logged(world, airport):
    await world.enrol(airport)
    assert world.journal.names == ["member.admitted", "member.invited", "member.admitted"]
    for name, scope, actor, statement in world.journal.acts:
        act = read_act(statement, [world.space_key])
        assert (act.type, act.scope, act.actor) == (name, scope, actor)
    assert act.scope == DID and act.details["event"] == 2
    invited = read_act(world.journal.acts[1][3], [world.space_key])
    assert invited.details["organisation"] == "机场"


async def test_the_policy_is_asked_what_there_is_to_know(world, airport):
    text = await world.invite(airport, did=DID)
    await world.enrol(airport, text)
    ((entry, document),) = world.policy.asked
    assert entry == "dataspace/admission/decision"
    assert document["invitation"] == {
        "organisation": "机场",
        "did": DID,
        "roles": ["provider"],
        "expires_ms": document["now_ms"] + 86_400_000,
        "spent": False,
    }
    assert document["request"]["endpoint"] == "airport.example:9443"
    assert document["existing"] == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            {
                "allow": False,
                "reasons": [{"term": "role", "observed": "bank", "allowed": "provider"}],
                "obligations": {},
            },
            Refused,
        ),
        ({"allow": False, "reasons": [], "obligations": {}}, Refused),
        ({"allow": "true", "reasons": [], "obligations": {}}, Refused),
        ({"allow": 1, "reasons": [], "obligations": {}}, Refused),
        ({}, Refused),
        (None, Refused),
        (True, Refused),
        (Unavailable("no answer"), Unavailable),
    ],
)
async def test_without_the_policys_yes_nothing_happens(world, airport, answer, error):
    text = await world.invite(airport)
    world.policy.answer = answer
    with pytest.raises(error):
        await world.enrol(airport, text)
    assert world.services.register.last == 1
    world.policy.allow()
    await world.enrol(airport, text)  # the invitation is not spent


async def test_an_invitation_is_good_once(world, airport):
    text = await world.invite(airport)
    await world.enrol(airport, text)
    third = world.Candidate("did:web:third.example", "third")
    with pytest.raises(Unauthenticated, match="spent"):
        await world.enrol(third, text)
    await world.restart()
    with pytest.raises(Unauthenticated, match="spent"):
        await world.enrol(third, text)
    assert world.services.register.last == 2


async def test_two_race_for_one_invitation(world):
    text = await world.invite(world.Candidate("", "x"))
    racers = [world.Candidate(f"did:web:racer{n}.example", "x") for n in range(6)]
    ends = await asyncio.gather(
        *(world.enrol(racer, text) for racer in racers), return_exceptions=True
    )
    won = [end for end in ends if not isinstance(end, Exception)]
    assert len(won) == 1
    assert all(isinstance(end, Unauthenticated) for end in ends if isinstance(end, Exception))
    assert world.services.register.last == 2


async def test_two_race_for_one_name(world):
    racers = [world.Candidate(DID, "x", key=Ed25519PrivateKey.generate()) for _ in range(4)]
    texts = [await world.invite(racer) for racer in racers]
    ends = await asyncio.gather(
        *(world.enrol(*both) for both in zip(racers, texts, strict=True)), return_exceptions=True
    )
    assert sum(not isinstance(end, Exception) for end in ends) == 1
    assert all(isinstance(end, ConnectorError) for end in ends if isinstance(end, Exception))
    assert world.services.register.last == 2


async def test_an_answer_that_was_lost_is_given_again(world, airport):
    """The same keys get the same membership, and no more than the register says."""
    text = await world.invite(airport)
    first = await world.enrol(airport, text)
    again = await world.enrol(airport, text, roles=("provider", "auditor"), name="other")
    assert again.event_number == first.event_number == world.services.register.last
    credential = read_credential(
        again.credential,
        space=world.ourselves.did,
        space_key=world.space_key,
        now=world.clock.now(),
    )
    assert (credential.roles, credential.name) == (("provider",), "机场")
    await world.services.members.suspend(DID, "")
    with pytest.raises(Unauthenticated):
        await world.enrol(airport, text)


async def test_a_caller_that_goes_away_leaves_nothing_half_done(world, airport):
    text = await world.invite(airport)
    task = asyncio.ensure_future(world.enrol(airport, text))
    await world.policy.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await world.enrol(airport, text)
    assert again.event_number == world.services.register.last == 2
    await world.services.register.log_pending()
    assert world.journal.names.count("member.admitted") == 2


async def test_expired(world, airport):
    text = await world.invite(airport, validity=timedelta(minutes=1))
    world.clock.pass_(60)
    with pytest.raises(Unauthenticated, match="expired"):
        await world.enrol(airport, text)


async def test_a_member_that_comes_again_with_an_invitation_by_name_replaces_its_keys(
    world, airport
):
    await world.enrol(airport)
    newcomer = world.Candidate(DID, "机场")
    with pytest.raises(Refused, match="already"):
        await world.enrol(newcomer)  # an invitation for anybody
    await world.enrol(newcomer, await world.invite(newcomer, did=DID))
    record = world.services.members.resolve(DID).participant
    assert record.signing_keys == (public_bytes(newcomer.key),)
    assert world.policy.asked[-1][1]["existing"] == "active"


@pytest.mark.parametrize("state", [Membership.SUSPENDED, Membership.REVOKED])
async def test_no_invitation_brings_back_who_was_put_out(world, airport, state):
    await world.enrol(airport)
    await world.services.members.set_state(DID, state, "")
    with pytest.raises(Refused):
        await world.enrol(airport, await world.invite(airport, did=DID))
    assert world.services.members.resolve(DID).participant.state is state


async def forged(world, airport):
    text = await world.invite(airport)
    mallorys = Ed25519PrivateKey.generate()
    invitation = read_invitation(text, world.space_key)
    pinned = dataclasses.replace(
        invitation, space=dataclasses.replace(invitation.space, key=public_bytes(mallorys))
    )
    forged = sign_invitation(mallorys, pinned)
    return forged, airport.request, airport.proof(forged, world.clock)


async def never_made(world, airport):
    """Signed with our key, but by no act of ours: a copy of an older directory, say."""
    text = await world.invite(airport)
    other = dataclasses.replace(read_invitation(text, world.space_key), id="x" * 32)
    unknown = sign_invitation(world.ourselves.signing_key, other)
    return unknown, airport.request, airport.proof(unknown, world.clock)


async def of_another_space(world, airport):
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock, space="did:web:b.example")


async def for_another_invitation(world, airport):
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock, invitation="x" * 32)


async def over_another_request(world, airport):
    text = await world.invite(airport)
    return text, world.Candidate(DID, "x").request, airport.proof(text, world.clock)


async def with_an_ed25519_request(world, airport):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = Ed25519PrivateKey.generate()
    airport.request = builder.sign(key, None).public_bytes(Encoding.DER)
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock)


async def an_old_proof(world, airport):
    text = await world.invite(airport)
    proof = airport.proof(text, world.clock)
    world.clock.pass_(301)
    return text, airport.request, proof


async def a_proof_from_the_future(world, airport):
    text = await world.invite(airport)
    later = world.clock.now() + timedelta(seconds=301)
    return text, airport.request, airport.proof(text, world.clock, time=later)


async def the_did_of_another(world, airport):
    await world.join("bank")
    text = await world.invite(airport)
    proof = airport.proof(text, world.clock, did="did:web:bank.example")
    return text, airport.request, proof


async def the_did_of_the_space(world, airport):
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock, did="did:web:space.example")


async def an_invitation_for_another_did(world, airport):
    text = await world.invite(airport, did="did:web:bank.example")
    return text, airport.request, airport.proof(text, world.clock)


async def the_log_of_another(world, airport):
    await world.join("bank")
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock, log_origin="bank.example/log")


async def the_key_of_another(world, airport):
    """Whoever runs both must not be two participants with one key."""
    bank = await world.join("bank")
    airport.key = bank.key
    text = await world.invite(airport)
    return text, airport.request, airport.proof(text, world.clock)


async def the_invitation_as_proof(world, airport):
    text = await world.invite(airport)
    return text, airport.request, text


async def nothing(world, airport):
    return "", b"", ""


HOSTILE = {
    forged: Unauthenticated,
    never_made: Unauthenticated,
    of_another_space: Unauthenticated,
    for_another_invitation: Unauthenticated,
    over_another_request: InvalidInput,
    with_an_ed25519_request: InvalidInput,
    an_old_proof: Unauthenticated,
    a_proof_from_the_future: Unauthenticated,
    the_did_of_another: Refused,
    the_did_of_the_space: Refused,
    an_invitation_for_another_did: Refused,
    the_log_of_another: Conflict,
    the_key_of_another: Conflict,
    the_invitation_as_proof: InvalidInput,
    nothing: Unauthenticated,
}


@pytest.mark.parametrize(("make", "error"), HOSTILE.items(), ids=lambda x: x.__name__)
async def test_hostile_enrolments_are_refused(world, airport, make, error):
    attempt = await make(world, airport)
    last = world.services.register.last
    with pytest.raises(error):
        await world.services.enrolment.enrol(*attempt)
    assert world.services.register.last == last
    assert DID not in [r.participant.did for r in await world.store.records_after("", 10)]


@pytest.mark.parametrize(
    ("organisation", "roles", "options"),
    [
        ("", ["provider"], {}),
        ("x\n", ["provider"], {}),
        ("x", [], {}),
        ("x", ["operator"], {}),
        ("x", ["provider"], {"did": "airport"}),
        ("x", ["provider"], {"validity": timedelta(0)}),
        ("x", ["provider"], {"validity": timedelta(days=91)}),
    ],
)
async def test_invitations_that_make_no_sense_are_not_made(world, organisation, roles, options):
    with pytest.raises(InvalidInput):
        await world.services.enrolment.invite(organisation, roles, **options)
    assert world.journal.names == ["member.admitted"]


async def test_with_the_policy_that_ships(world, airport):
    world.services.enrolment._policy = ENGINE
    text = await world.invite(airport)
    other_name = dataclasses.replace(airport, name="银行")
    more_roles = dataclasses.replace(airport, roles=("provider", "consumer"))
    for candidate, term in ((other_name, "organisation"), (more_roles, "role")):
        with pytest.raises(Refused) as refusal:
            await world.enrol(candidate, text)
        assert refusal.value.reasons[0].term == term
    await world.enrol(airport, text)


def test_an_invitation_is_short_enough_to_paste(world):
    invitation = invitations.Invitation(
        "i" * 32, "机场", "", ("provider",), world.clock.now(), world.services.space
    )
    assert len(sign_invitation(world.ourselves.signing_key, invitation)) < 2500
