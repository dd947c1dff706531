"""An agreement in force between the airport and the bureau, as each of them keeps it."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime

from connector.model.negotiation import AgreementState, Party, StoredAgreement
from connector.model.terms import (
    Constraint,
    Offer,
    Rule,
    Terms,
    agreement_document,
    parse_agreement,
)
from tests.logs import CONSUMER, ORIGIN, PROVIDER
from tests.trips import DATASET

SECRET = b"k" * 32
USES = 3  # that the agreement allows
PURPOSE = "tourism"
TERMS = Terms(
    (Rule("use", (Constraint("purpose", "eq", PURPOSE), Constraint("count", "lteq", USES))),)
)
DOCUMENT = agreement_document(
    id="urn:uuid:agreement-1",
    offer=Offer("urn:uuid:offer-1", DATASET.id, PROVIDER, TERMS),
    assignee=CONSUMER,
    timestamp=datetime(2026, 11, 1, tzinfo=UTC),
    space="did:web:space.example",
    classification="important",
    secret_commitment=hashlib.sha256(SECRET).hexdigest(),
    provider_log=ORIGIN,
    consumer_log="tourism.example/log",
)
PROVIDERS = StoredAgreement(
    terms=parse_agreement(DOCUMENT),
    pid="urn:uuid:pid",
    party=Party.PROVIDER,
    peer=CONSUMER,
    state=AgreementState.ACTIVE,
    provider_signature="by the airport",
    secret=SECRET,
    dataset_record="",
    consumer_signature="by the bureau",
)
CONSUMERS = dataclasses.replace(PROVIDERS, party=Party.CONSUMER, peer=PROVIDER)
