"""How a participant joins: invitations, and what it takes to spend one.

An enrolment is judged in this order, and whatever fails ends it:

1. the invitation is ours, whole, and has not expired;
2. the proof is signed by the new signing key, over the certificate request, for this invitation
   and this space, now; the request is signed by its own P-256 key;
3. the invitation is not spent (the same keys that spent it may ask again, if the answer was lost);
4. the DID is free, or the invitation names it and it is active (then its keys are replaced);
5. the admission policy says yes;
6. event, record, act and the spending of the invitation are stored in one write.

That a did:web name belongs to the candidate's organisation is the inviter's to know: an invitation
that names the DID is the stricter way.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from connector.directory.authority import Authority
from connector.directory.register import Register
from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    Reason,
    Refused,
    Unauthenticated,
)
from connector.identity.certificates import read_csr
from connector.identity.credentials import Credential, issue_credential
from connector.identity.invitations import (
    Invitation,
    Proof,
    Space,
    read_invitation,
    read_proof,
    sign_invitation,
)
from connector.identity.membership import Change
from connector.identity.ourselves import Ourselves
from connector.model.participant import Membership, Participant
from connector.policy.decisions import ADMISSION, read_admission
from connector.policy.inputs import admission_input
from connector.ports.clock import Clock
from connector.ports.directory import DirectoryStore, InvitationRecord
from connector.ports.policy import PolicyEngine

DEFAULT_VALIDITY = timedelta(days=1)
LONGEST_VALIDITY = timedelta(days=90)
PROOF_AGE = timedelta(minutes=5)  # by which the candidate's clock may differ from ours


@dataclass(frozen=True, slots=True)
class Invited:
    """``text`` is the invitation to hand over."""

    text: str
    invitation: Invitation


@dataclass(frozen=True, slots=True)
class Enrolled:
    """``chain``: the member's certificate, then the authority's, in PEM."""

    credential: str
    chain: bytes
    event_number: int


class EnrolmentService:
    def __init__(
        self,
        *,
        ourselves: Ourselves,
        space: Space,
        register: Register,
        store: DirectoryStore,
        authority: Authority,
        policy: PolicyEngine,
        clock: Clock,
        credential_days: int,
    ) -> None:
        self._ourselves = ourselves
        self._space = space
        self._register = register
        self._store = store
        self._authority = authority
        self._policy = policy
        self._clock = clock
        self._credential_life = timedelta(days=credential_days)

    async def invite(
        self,
        organisation: str,
        roles: Sequence[str],
        *,
        did: str = "",
        validity: timedelta = DEFAULT_VALIDITY,
    ) -> Invited:
        """A one-time invitation. Raises ``InvalidInput``."""
        if not timedelta(0) < validity <= LONGEST_VALIDITY:
            raise InvalidInput(f"validity: at most {LONGEST_VALIDITY.days} days")
        invitation = Invitation(
            id=secrets.token_urlsafe(24),
            organisation=organisation,
            did=did,
            roles=tuple(roles),
            expires=self._clock.now() + validity,
            space=self._space,
        )
        text = sign_invitation(self._ourselves.signing_key, invitation)
        record = InvitationRecord(_digest(invitation), organisation, invitation.expires)
        await self._register.invite(record, invitation.roles, did)
        return Invited(text, invitation)

    async def enrol(self, invitation: str, request: bytes, proof: str) -> Enrolled:
        """Spend an invitation: ``request`` is PKCS#10 in DER, ``proof`` as ``read_proof`` reads it.

        Raises ``Unauthenticated`` (a forged, expired or spent invitation, keys not proved),
        ``Refused`` (policy), ``InvalidInput``, ``Conflict`` or ``Unavailable``.
        """
        offered = self._read_invitation(invitation)
        asked = self._read_proof(offered, request, proof)
        record = await self._store.invitation(_digest(offered))
        if record is None:
            raise Unauthenticated("the invitation is not one of ours")
        if record.spent_by:
            return self._answer_again(record, asked, request)
        existing = self._existing(offered, asked)
        await self._ask_policy(offered, asked, existing)
        participant = Participant(
            did=asked.did,
            name=asked.name,
            roles=asked.roles,
            state=Membership.ACTIVE,
            signing_keys=(asked.signing_key,),
            endpoint=asked.endpoint,
            log_origin=asked.log_origin,
            revision=0,
        )
        answer = self._certify(participant, request)
        change = Change.UPDATED if existing else Change.ADMITTED
        try:
            recorded = await self._register.change(
                participant, change, "enrolled with an invitation", spends=record.digest
            )
        except Conflict:
            record = await self._store.invitation(_digest(offered))
            if record is None or not record.spent_by:
                raise
            return self._answer_again(record, asked, request)  # somebody was quicker
        return Enrolled(*answer, recorded.participant.revision)

    def _read_invitation(self, text: str) -> Invitation:
        try:
            invitation = read_invitation(text, self._space.key)
        except ConnectorError as error:
            raise Unauthenticated("the invitation is not one of ours") from error
        if invitation.expires <= self._clock.now():
            raise Unauthenticated(
                "the invitation has expired", hint="ask the space's operator for another"
            )
        return invitation

    def _read_proof(self, invitation: Invitation, request: bytes, statement: str) -> Proof:
        read_csr(request)
        proof = read_proof(statement, request)
        if proof.invitation != invitation.id or proof.space != self._space.did:
            raise Unauthenticated("the proof is for another invitation")
        if abs(proof.time - self._clock.now()) > PROOF_AGE:
            raise Unauthenticated(
                "the proof was not made now", hint="compare this machine's clock with the real time"
            )
        return proof

    def _existing(self, invitation: Invitation, proof: Proof) -> Membership | None:
        """The state of the DID that is asked for, if this invitation may touch it at all."""
        if invitation.did and invitation.did != proof.did:
            raise Refused(
                (Reason("did", "another participant's invitation", "the DID that it names"),)
            )
        existing = self._register.state(proof.did)
        if proof.did == self._space.did or (
            existing is not None
            and (existing is not Membership.ACTIVE or invitation.did != proof.did)
        ):
            raise Refused((Reason("did", "already in the space's register", "a new DID"),))
        return existing

    async def _ask_policy(
        self, invitation: Invitation, proof: Proof, existing: Membership | None
    ) -> None:
        document = admission_input(
            now=self._clock.now(),
            invited_organisation=invitation.organisation,
            invited_did=invitation.did,
            invited_roles=invitation.roles,
            expires=invitation.expires,
            spent=False,
            did=proof.did,
            name=proof.name,
            roles=proof.roles,
            endpoint=proof.endpoint,
            existing=existing.value if existing else "",
        )
        verdict = read_admission(await self._policy.evaluate(ADMISSION, document))
        if not verdict.allow:
            raise Refused(verdict.reasons)

    def _answer_again(self, record: InvitationRecord, proof: Proof, request: bytes) -> Enrolled:
        """The answer to an enrolment that succeeded already, for the one whose it was."""
        state = self._register.state(record.spent_by)
        if (record.spent_by, record.spent_key) == (proof.did, proof.signing_key) and (
            state is Membership.ACTIVE
        ):
            participant = self._register.record(proof.did).participant
            if participant.signing_keys == (proof.signing_key,):
                return Enrolled(*self._certify(participant, request), participant.revision)
        raise Unauthenticated(
            "the invitation is spent", hint="ask the space's operator for another"
        )

    def _certify(self, participant: Participant, request: bytes) -> tuple[str, bytes]:
        """Credential and chain, for what the register says, not for what the proof asks."""
        now = self._clock.now()
        chain = self._authority.certify(
            request, did=participant.did, name=participant.name, now=now
        )
        credential = Credential(
            space=self._space.did,
            did=participant.did,
            name=participant.name,
            roles=participant.roles,
            signing_key=participant.signing_keys[0],
            issued=now,
            expires=now + self._credential_life,
        )
        return issue_credential(self._ourselves.signing_key, credential), chain


def _digest(invitation: Invitation) -> bytes:
    return hashlib.sha256(invitation.id.encode()).digest()
