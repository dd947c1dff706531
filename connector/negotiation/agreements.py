"""Agreements: made, verified, concluded, ended. Functions on values, without storage.

The provider writes the document and signs its bytes; the consumer verifies it and signs the same
bytes (DSP 2025-1, "Contract Agreement Message" and "Contract Agreement Verification Message").
What DSP does not have is ours: the signatures, the secret that keys digests in receipts, and the
signed end.

``verify`` checks, in this order:

1. the document is an agreement in every field, and small enough;
2. it is between these two parties, in this space, on the dataset and the offer negotiated;
3. its terms are those that were accepted, in whatever order they are written;
4. its classification is the dataset's, and the logs it names are the parties' own;
5. it is not dated ahead of our clock;
6. the secret is the one that the document commits to;
7. the provider signed these bytes.

Of a provider that signs nothing (from outside the space, as its own protocol has it) only steps 1
to 3 and 5 can be asked: its agreement names no space, no offer and no log, and commits to nothing.

It does not check that the agreement's id is new: the caller's store does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from datetime import datetime, timedelta

from connector.errors import InvalidInput, PeerFault, VerificationFailed
from connector.identity.acts import Act as SignedAct
from connector.identity.acts import read_act, sign_act
from connector.identity.ourselves import Ourselves
from connector.identity.statements import sign_document, verify_document
from connector.model import fields
from connector.model.catalog import Dataset
from connector.model.negotiation import (
    AgreementNotice,
    AgreementState,
    Message,
    Negotiation,
    Party,
    StoredAgreement,
)
from connector.model.participant import Participant
from connector.model.terms import (
    Agreement,
    Offer,
    Operand,
    Rule,
    Terms,
    agreement_document,
    parse_agreement,
)
from connector.negotiation.messages import MAX_REASON, SECRET_BYTES
from connector.ports.negotiation import Act

CONCLUDED = "agreement.concluded"
ENDED = "agreement.ended"
SIGNATURE_KIND = "agreement"
MAX_AHEAD = timedelta(minutes=5)  # how far two honest clocks may differ
# An id is a log's scope too: it must not look like a participant's.
_ID = re.compile(r"(?!did:)[\x21-\x7e]{1,256}")


def new_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def make(
    ourselves: Ourselves,
    consumer: Participant,
    negotiation: Negotiation,
    offer: Offer,
    *,
    dataset: Dataset,
    dataset_record: str,
    space: str,
    now: datetime,
) -> StoredAgreement:
    """The provider's side: the document, its signature and a fresh secret."""
    secret = secrets.token_bytes(SECRET_BYTES)
    document = agreement_document(
        id=new_id(),
        offer=offer,
        assignee=consumer.did,
        timestamp=now,
        space=space,
        classification=dataset.classification.value,
        secret_commitment=hashlib.sha256(secret).hexdigest(),
        provider_log=ourselves.log_origin,
        consumer_log=consumer.log_origin,
    )
    return StoredAgreement(
        terms=parse_agreement(document),
        pid=negotiation.pid,
        party=Party.PROVIDER,
        peer=consumer.did,
        state=AgreementState.PROPOSED,
        provider_signature=sign_document(ourselves.signing_key, SIGNATURE_KIND, document),
        secret=secret,
        dataset_record=dataset_record,
        address=negotiation.address,
    )


def verify(
    message: Message,
    negotiation: Negotiation,
    accepted: Offer,
    *,
    ourselves: Ourselves,
    provider: Participant,
    dataset: Dataset | None,
    space: str,
    now: datetime,
) -> StoredAgreement:
    """The consumer's side: what was received, if all seven steps pass. ``dataset``: as its
    provider signed it, None if the provider signs nothing.

    Raises ``InvalidInput``, ``PeerFault`` or ``VerificationFailed``.
    """
    agreement = parse_agreement(message.agreement)
    if not _ID.fullmatch(agreement.id):
        raise InvalidInput("agreement: an id that cannot name a log's scope")
    negotiated: list[tuple[str, object, object]] = [
        ("assigner", agreement.assigner, provider.did),
        ("assignee", agreement.assignee, ourselves.did),
        ("target", agreement.target, negotiation.dataset),
        ("terms", canonical(agreement.terms), canonical(accepted.terms)),
    ]
    if dataset is not None:
        negotiated += [
            ("space", agreement.space, space),
            ("offer", agreement.offer, accepted.id),
            ("classification", agreement.classification, dataset.classification.value),
            ("providerLog", agreement.provider_log, provider.log_origin),
            ("consumerLog", agreement.consumer_log, ourselves.log_origin),
        ]
    for name, found, expected in negotiated:
        if found != expected:
            raise PeerFault(f"agreement: {name} is not what was negotiated")
    if agreement.timestamp > now + MAX_AHEAD:
        raise PeerFault("agreement: dated ahead of our clock")
    if dataset is None:
        if message.signature or message.secret or agreement.secret_commitment:
            raise PeerFault("agreement: with a signature or a secret of one that signs nothing")
    else:
        commitment = hashlib.sha256(message.secret).hexdigest()
        if len(message.secret) != SECRET_BYTES or not hmac.compare_digest(
            commitment.encode(), agreement.secret_commitment.encode()
        ):
            raise VerificationFailed("agreement: the secret is not the one it commits to")
        verify_document(message.signature, SIGNATURE_KIND, message.agreement, provider.signing_keys)
    return StoredAgreement(
        terms=agreement,
        pid=negotiation.pid,
        party=Party.CONSUMER,
        peer=provider.did,
        state=AgreementState.PROPOSED,
        provider_signature=message.signature,
        secret=message.secret,
        dataset_record=negotiation.dataset_record,
        address=negotiation.address,
    )


def countersign(ourselves: Ourselves, agreement: Agreement) -> str:
    """The consumer's signature over the exact bytes."""
    return sign_document(ourselves.signing_key, SIGNATURE_KIND, agreement.document)


def canonical(terms: Terms) -> tuple[object, ...]:
    """Equal for terms that differ in nothing but the order in which rules, constraints and
    listed values are written. What the model does not know must be the same to the letter."""
    known = (terms.permissions, terms.prohibitions, terms.obligations)
    return (*(_rules(rules) for rules in known), *sorted(terms.others))


def restates(offer: Offer, ours: Offer) -> bool:
    """Whether ``offer`` is ``ours`` as a connector from outside repeats it.

    Connectors that keep policies as JSON-LD write a number as text and a list of one as its item,
    and drop what their vocabulary does not have (the unit). So what they ask for by our offer's
    id, and in all else the same, is our offer as it stands, and it is agreed to as we wrote it.
    How they write longer lists is a matter of the wire.
    """
    return (offer.id, offer.target) == (ours.id, ours.target) and _loose(offer.terms) == _loose(
        ours.terms
    )


def _loose(terms: Terms) -> tuple[object, ...]:
    known = (terms.permissions, terms.prohibitions, terms.obligations)
    rules = [
        sorted(
            (
                rule.action,
                sorted((c.left, c.operator, _restated(c.right)) for c in rule.constraints),
            )
            for rule in rules
        )
        for rules in known
    ]
    return (*rules, sorted(terms.others))


def _restated(right: Operand) -> list[str]:
    return sorted(right) if isinstance(right, tuple) else [str(right)]


def _rules(rules: tuple[Rule, ...]) -> tuple[object, ...]:
    return tuple(
        sorted(
            (
                rule.action,
                tuple(
                    sorted(
                        (c.left, c.operator, c.unit, _operand(c.right)) for c in rule.constraints
                    )
                ),
            )
            for rule in rules
        )
    )


def _operand(right: str | int | tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(right, tuple):
        return ("list", *sorted(right))
    return (type(right).__name__, str(right))


def concluded(ourselves: Ourselves, agreement: StoredAgreement, now: datetime) -> Act:
    """Our act for our own log: this agreement, with both signatures, is in force."""
    document = agreement.terms.document
    return _act(
        ourselves,
        CONCLUDED,
        agreement.terms.id,
        now,
        agreementDigest=hashlib.sha256(document).hexdigest(),
        providerSignature=agreement.provider_signature,
        consumerSignature=agreement.consumer_signature,
    )


def ended(ourselves: Ourselves, agreement: StoredAgreement, reason: str, now: datetime) -> Act:
    """Our act for both logs, and the notice to the peer: this agreement is over."""
    if len(reason) > MAX_REASON:
        raise InvalidInput(f"reason: must have at most {MAX_REASON} characters")
    return _act(ourselves, ENDED, agreement.terms.id, now, reason=reason)


def read_notice(notice: AgreementNotice, peer: Participant) -> tuple[Act, str]:
    """The peer's act and its reason. Raises ``InvalidInput`` or ``VerificationFailed``."""
    act = read_act(notice.statement, peer.signing_keys)
    fields.only_keys(act.details, frozenset({"reason"}), "notice")
    if (act.type, act.scope, act.actor) != (ENDED, notice.agreement_id, peer.did):
        raise VerificationFailed("notice: it does not end this agreement on its sender's word")
    reason = fields.text(act.details, "reason", limit=MAX_REASON, default="")
    return Act(ENDED, act.scope, act.actor, notice.statement), reason


def _act(ourselves: Ourselves, type: str, scope: str, now: datetime, **details: str) -> Act:
    act = SignedAct(type, scope, ourselves.did, now, details)
    return Act(type, scope, ourselves.did, sign_act(ourselves.signing_key, act))
