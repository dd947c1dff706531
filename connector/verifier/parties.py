"""Steps 1 to 3: who the parties are, what they agreed, and the secret that they share.

Only here do DIDs get keys: from membership events that the space's key signed. A participant's
keys are all that any of its events in the file names, so that what was signed before a key was
replaced still verifies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from connector.errors import ConnectorError, InvalidInput
from connector.identity.membership import Change, MembershipEvent, read_membership_event
from connector.identity.statements import verify_document
from connector.model import fields
from connector.model.terms import Agreement, parse_agreement
from connector.verifier.evidence import Evidence
from connector.verifier.verdict import Check, Step

AGREEMENT_KIND = "agreement"


@dataclass(frozen=True, slots=True)
class Member:
    """One participant by its events, oldest first; never empty."""

    events: tuple[MembershipEvent, ...]

    @property
    def did(self) -> str:
        return self.events[-1].participant.did

    @property
    def log_origin(self) -> str:
        return self.events[-1].participant.log_origin

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Public keys (32 bytes each), newest first."""
        newest_first = (
            key for event in reversed(self.events) for key in event.participant.signing_keys
        )
        return tuple(dict.fromkeys(newest_first))

    def barred_at(self, time: datetime) -> bool:
        """Whether the last event before ``time`` had suspended or revoked it."""
        barred = False
        for event in self.events:
            if event.time <= time:
                barred = event.type in (Change.SUSPENDED, Change.REVOKED)
        return barred


@dataclass(frozen=True, slots=True)
class Parties:
    """Members by DID. Nobody that the space did not sign is in here."""

    members: Mapping[str, Member]

    def keys(self, did: str) -> tuple[bytes, ...]:
        """Empty for who is not a member: then nothing verifies."""
        member = self.members.get(did)
        return member.keys if member else ()

    def name(self, did: str) -> str:
        member = self.members.get(did)
        return member.events[-1].participant.name if member else ""


def check_members(evidence: Evidence, space_key: bytes) -> tuple[Parties, Step]:
    """Step 1."""
    check = Check(1, "the space's key signed who the parties are")
    by_number: dict[int, MembershipEvent] = {}
    for place, statement in enumerate(evidence.members):
        try:
            event = read_membership_event(statement, space_key)
        except ConnectorError as error:
            check.fail(f"members[{place}]: {error.message}")
            continue
        if by_number.setdefault(event.number, event) != event:
            check.fail(f"the space signed two membership events with the number {event.number}")
    by_did: dict[str, list[MembershipEvent]] = {}
    for _, event in sorted(by_number.items()):
        by_did.setdefault(event.participant.did, []).append(event)
    members = {did: Member(tuple(events)) for did, events in by_did.items()}
    if 1 in by_number and by_number[1].participant.did != evidence.space:
        check.fail("the file names another space than the key's")
    for member in members.values():
        if member.events[-1].type in (Change.SUSPENDED, Change.REVOKED):
            check.warn(f"{member.did} is {member.events[-1].participant.state.value}")
    return Parties(members), check.done(
        f"{len(by_number)} membership events of {len(members)} participants"
    )


def unsigned(evidence: Evidence, agreement: Agreement, parties: Parties) -> str:
    """The party (its id) that no event here names and that signed nothing; empty if both did.

    Nobody can see from the file that it agreed, nor that it is no member: an exporter may leave out
    the events that name it. Whom the file names must sign, and so must the exporter.
    """
    signatures = {
        agreement.assigner: evidence.agreement.provider_signature,
        agreement.assignee: evidence.agreement.consumer_signature,
    }
    signatures.pop(evidence.exporter, None)
    for did, signature in signatures.items():
        if not signature and not parties.keys(did):
            return did
    return ""


def log_of(agreement: Agreement, did: str, parties: Parties) -> str:
    """The origin of a party's log: what the agreement names, or where it names none (its provider
    is from outside) what the space knows; empty if there is none."""
    named = agreement.provider_log if did == agreement.assigner else agreement.consumer_log
    member = parties.members.get(did)
    return named or (member.log_origin if member else "")


def check_agreement(evidence: Evidence, parties: Parties) -> tuple[Agreement | None, Step]:
    """Step 2. None if the agreement cannot be read: nothing else can be checked then."""
    check = Check(2, "both parties signed the agreement")
    try:
        agreement = parse_agreement(evidence.agreement.document)
    except InvalidInput as error:
        check.fail(f"the agreement cannot be read: {error.message}")
        return None, check.done("")
    document = evidence.agreement.document
    outsider = unsigned(evidence, agreement, parties)
    if outsider:
        check.title = "the party that exported this signed the agreement"
        check.warn(f"{outsider} is no member of the space by this file, and signed nothing")
    for side, did, signature in (
        ("provider", agreement.assigner, evidence.agreement.provider_signature),
        ("consumer", agreement.assignee, evidence.agreement.consumer_signature),
    ):
        keys = parties.keys(did)
        if outsider and did == outsider:
            continue
        if not keys:
            check.fail(f"no signed membership event names the {side}, {did}")
            continue
        try:
            verify_document(signature, AGREEMENT_KIND, document, keys)
        except ConnectorError as error:
            check.fail(f"the {side}'s signature: {error.message}")
    if agreement.assigner == agreement.assignee:
        check.fail("provider and consumer are the same")
    if agreement.space != evidence.space and outsider != agreement.assigner:
        check.fail("the agreement was made in another space")
    if evidence.exporter not in (agreement.assigner, agreement.assignee):
        check.fail("the exporter is not a party of the agreement")
    return agreement, check.done(
        f"{agreement.assigner} and {agreement.assignee}, {fields.format_time(agreement.timestamp)}"
    )


def check_secret(evidence: Evidence, agreement: Agreement) -> Step:
    """Step 3."""
    check = Check(3, "the disclosed secret is the one that the agreement commits to")
    if not evidence.secret:
        return check.done("not disclosed: the digests of requests cannot be checked")
    if hashlib.sha256(evidence.secret).hexdigest() != agreement.secret_commitment:
        check.fail("another secret than the agreement's")
    return check.done("disclosed")


def witnesses(parties: Parties, owner: str) -> Sequence[Member]:
    """Everybody in the file who may have cosigned the log of ``owner``."""
    return [member for did, member in sorted(parties.members.items()) if did != owner]
