"""A small data space with fixed keys, salts and times, for vectors and for tests.

Nothing here is random, so the files that ``generate.py`` writes are the same every time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Reason
from connector.identity.acts import Act, sign_act
from connector.identity.membership import (
    Change,
    MembershipEvent,
    read_membership_event,
    sign_membership_event,
)
from connector.identity.ourselves import log_origin
from connector.identity.statements import public_bytes, sign_document, sign_statement
from connector.model import receipt as receipts
from connector.model.participant import Membership, Participant
from connector.model.receipt import (
    NO_PREVIOUS,
    ActReceipt,
    DeliveryReceipt,
    Outcome,
    Quantity,
    Receipt,
    RecordReceipt,
    UseReceipt,
)
from connector.model.terms import Constraint, Offer, Rule, Terms, agreement_document
from connector.tlog import merkle
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.cosignature import add_line, cosign
from connector.verifier.evidence import Entry, Evidence, LogEvidence, Request, SignedAgreement
from connector.verifier.totals import (
    STATEMENT_ACT,
    STATEMENT_KIND,
    statement_payload,
    totals,
)

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SECRET = hashlib.sha256(b"shared secret").digest()
AGREEMENT_ID = "urn:uuid:6f3c1f0e-0000-4000-8000-000000000001"
DATASET = "urn:uuid:6f3c1f0e-0000-4000-8000-000000000002"
PURPOSE = "tourism-planning"
POLICY = hashlib.sha256(b"policy bundle").digest()


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Party:
    did: str
    name: str
    seed: str

    @property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(self.seed.encode()).digest())

    @property
    def origin(self) -> str:
        return log_origin(self.did)


SPACE = Party("did:web:space.example", "数据空间运营方", "space")
PROVIDER = Party("did:web:airport.example", "Airport Operator", "provider")
CONSUMER = Party("did:web:tourism.example", "Tourism Bureau", "consumer")
STRANGER = Party("did:web:stranger.example", "Stranger", "stranger")
SPACE_KEY = public_bytes(SPACE.key)


def membership(
    number: int,
    party: Party,
    type: Change = Change.ADMITTED,
    seconds: float = -3600,
    **changes: Any,
) -> str:
    states = {Change.SUSPENDED: Membership.SUSPENDED, Change.REVOKED: Membership.REVOKED}
    record = {
        "did": party.did,
        "name": party.name,
        "roles": ("member",),
        "state": states.get(type, Membership.ACTIVE),
        "signing_keys": (public_bytes(party.key),),
        "endpoint": "",
        "log_origin": party.origin,
        "revision": number,
    }
    event = MembershipEvent(number, at(seconds), type, "", Participant(**(record | changes)))
    return sign_membership_event(SPACE.key, event)


def membership_by(party: Party) -> str:
    """A membership event that the party signed itself."""
    return sign_membership_event(party.key, read_membership_event(membership(2, party), SPACE_KEY))


MEMBERS = (membership(1, SPACE), membership(2, PROVIDER), membership(3, CONSUMER))

TERMS = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "eq", PURPOSE),
                Constraint("count", "lteq", 3),
                Constraint("dateTime", "lteq", "2026-12-31T00:00:00Z"),
                Constraint("tds:minimumGroup", "gteq", 10, "tailnum"),
                Constraint("tds:rowCap", "lteq", 1000),
            ),
        ),
    )
)


# What a system that is not the gate can keep to, and show.
SERVED_ELSEWHERE = Terms(
    permissions=(
        Rule(
            "use",
            (
                Constraint("purpose", "eq", PURPOSE),
                Constraint("count", "lteq", 100),
                Constraint("dateTime", "lteq", "2026-12-31T00:00:00Z"),
                Constraint("tds:rowCap", "lteq", 1000),
            ),
        ),
    )
)


def agreement(terms: Terms = TERMS, **changes: str) -> bytes:
    values: dict[str, Any] = {
        "id": AGREEMENT_ID,
        "offer": Offer(f"{DATASET}/offer", DATASET, PROVIDER.did, terms),
        "assignee": CONSUMER.did,
        "timestamp": START,
        "space": SPACE.did,
        "classification": "important",
        "secret_commitment": hashlib.sha256(SECRET).hexdigest(),
        "provider_log": PROVIDER.origin,
        "consumer_log": CONSUMER.origin,
    }
    return agreement_document(**(values | changes))


def sign_agreement(document: bytes) -> SignedAgreement:
    return SignedAgreement(
        document,
        sign_document(PROVIDER.key, "agreement", document),
        sign_document(CONSUMER.key, "agreement", document),
    )


@dataclass
class Log:
    """One party's log. ``add`` numbers and chains; every leaf is 10 seconds after the last."""

    owner: Party
    document: bytes
    leaves: list[bytes] = field(default_factory=list)
    scopes: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: type, scope: str = AGREEMENT_ID, **values: Any) -> Receipt:
        numbers = self.scopes.setdefault(scope, [])
        previous, number = NO_PREVIOUS, 1
        if numbers:
            before = self.leaves[numbers[-1]]
            previous, number = merkle.leaf_hash(before), receipts.decode(before).number + 1
        place = len(self.leaves)
        receipt = kind(
            **{
                "salt": hashlib.sha256(f"{self.owner.seed} {place}".encode()).digest()[:16],
                "scope": scope,
                "number": number,
                "time_ms": int(at(10 * (place + 1)).timestamp() * 1000),
                "previous": previous,
            }
            | values
        )
        numbers.append(place)
        self.leaves.append(receipts.encode(receipt))
        return receipt

    def act(
        self, type: str, signer: Party | None = None, scope: str = AGREEMENT_ID, **details: Any
    ) -> str:
        signer = signer or self.owner
        time = at(10 * (len(self.leaves) + 1))
        statement = sign_act(signer.key, Act(type, scope, signer.did, time, details))
        self.hold(type, signer, statement, scope)
        return statement

    def hold(self, type: str, signer: Party, statement: str, scope: str = AGREEMENT_ID) -> None:
        """An act with a statement that exists already."""
        self.add(ActReceipt, scope, actor=signer.did, act=type, statement=statement.encode())

    def conclude(self, **changes: Any) -> None:
        details = {"agreementDigest": hashlib.sha256(self.document).hexdigest()} | changes
        self.act("agreement.concluded", **details)

    def use(
        self,
        use_id: str,
        outcome: Outcome = Outcome.ALLOWED,
        quantities: Mapping[Quantity, int] | None = None,
        **changes: Any,
    ) -> UseReceipt:
        allowed = outcome is Outcome.ALLOWED
        sent = {
            Quantity.CALLS: 1,
            Quantity.ROWS_SCANNED: 336_776,
            Quantity.ROWS_RETURNED: 16,
            Quantity.BYTES_RETURNED: 1_024,
            Quantity.DURATION_MS: 40,
            Quantity.GROUPS_WITHHELD: 3,
        }
        values = {
            "use_id": use_id,
            "provider": PROVIDER.did,
            "consumer": CONSUMER.did,
            "outcome": outcome,
            "purpose": PURPOSE,
            "agreement_digest": hashlib.sha256(self.document).digest(),
            "policy_digest": POLICY,
            "request_digest": hmac.digest(SECRET, query(use_id).encode(), "sha256"),
            "result_digest": hmac.digest(SECRET, use_id.encode(), "sha256") if allowed else b"",
            "quantities": quantities or (sent if allowed else {Quantity.CALLS: 1}),
            "reasons": (Reason("tds:output", "rows", "aggregates only"),)
            if outcome is Outcome.REFUSED
            else (),
        }
        receipt = self.add(UseReceipt, **(values | changes))
        assert isinstance(receipt, UseReceipt)
        return receipt

    def report(self, use_id: str, **changes: Any) -> RecordReceipt:
        """A record of 5 calls, served 4 seconds before it is written."""
        written = int(at(10 * (len(self.leaves) + 1)).timestamp() * 1000)
        values = {
            "use_id": use_id,
            "purpose": PURPOSE,
            "quantities": {
                Quantity.CALLS: 5,
                Quantity.ROWS_RETURNED: 3_200,
                Quantity.BYTES_RETURNED: 65_536,
                Quantity.DURATION_MS: 210,
            },
            "reporter": "api-gateway",
            "served_ms": changes.get("time_ms", written) - 4_000,
        }
        receipt = self.add(RecordReceipt, **(values | changes))
        assert isinstance(receipt, RecordReceipt)
        return receipt

    def deliver(self, provider: Log, number: int, **changes: Any) -> None:
        """The consumer's record of the provider's receipt with this number."""
        index = provider.scopes[AGREEMENT_ID][number - 1]
        use = receipts.decode(provider.leaves[index])
        assert isinstance(use, UseReceipt)
        values = {
            "use_id": use.use_id,
            "provider": use.provider,
            "consumer": use.consumer,
            "outcome": use.outcome,
            "origin": provider.owner.origin,
            "leaf_hash": merkle.leaf_hash(provider.leaves[index]),
            "leaf_index": index,
            "tree_size": index + 1,
            "result_digest": use.result_digest,
            "reasons": use.reasons,
            "quantities": {
                Quantity.CALLS: 1,
                Quantity.BYTES_RETURNED: use.quantities.get(Quantity.BYTES_RETURNED, 0),
            },
        }
        self.add(DeliveryReceipt, **(values | changes))

    def close(self, **changes: Any) -> None:
        """The statement that ends an export."""
        before = [receipts.decode(self.leaves[place]) for place in self.scopes[AGREEMENT_ID]]
        payload = statement_payload(
            scope=AGREEMENT_ID,
            actor=self.owner.did,
            time=at(10 * (len(self.leaves) + 1)),
            receipts=len(before),
            head=merkle.leaf_hash(self.leaves[self.scopes[AGREEMENT_ID][-1]]),
            totals=totals(before),
        )
        statement = sign_statement(self.owner.key, STATEMENT_KIND, payload | changes)
        self.hold(STATEMENT_ACT, self.owner, statement)

    def export(self, *cosigners: Party, size: int | None = None) -> LogEvidence:
        hashes = [merkle.leaf_hash(leaf) for leaf in self.leaves[:size]]
        read = merkle.reader_of(hashes)
        note = sign_checkpoint(
            self.owner.origin, len(hashes), merkle.root_of(hashes), self.owner.key
        )
        time = int(at(10 * len(hashes) + 5).timestamp())
        for cosigner in cosigners:
            note = add_line(note, cosign(note, cosigner.origin, cosigner.key, time))
        return LogEvidence(
            self.owner.origin,
            note,
            tuple(
                Entry(
                    place,
                    self.leaves[place],
                    tuple(merkle.inclusion_proof(place, len(hashes), read)),
                )
                for place in self.scopes[AGREEMENT_ID]
                if place < len(hashes)
            ),
        )


def query(use_id: str) -> str:
    return f"SELECT dest, count(*) FROM flights GROUP BY dest -- {use_id}"


def evidence(exporter: Party, document: bytes, *logs: LogEvidence, **changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "space": SPACE.did,
        "exporter": exporter.did,
        "members": MEMBERS,
        "agreement": sign_agreement(document),
        "logs": logs,
    }
    return Evidence(**(values | changes))


def story(document: bytes | None = None) -> tuple[Log, Log]:
    """Both parties' logs of one agreement, from its conclusion to a refusal after its end."""
    document = document or agreement()
    provider, consumer = Log(PROVIDER, document), Log(CONSUMER, document)
    provider.act("dataset.published", scope=DATASET)
    provider.conclude()
    consumer.conclude()
    outcomes = (
        Outcome.ALLOWED,
        Outcome.ALLOWED,
        Outcome.REFUSED,
        Outcome.FAILED,
        Outcome.INTERRUPTED,
        Outcome.ALLOWED,
    )
    for place, outcome in enumerate(outcomes, 1):
        receipt = provider.use(f"use-{place}", outcome)
        consumer.deliver(provider, receipt.number)
        if place == 2:  # leaves of other agreements stand between
            provider.act("dataset.published", scope=DATASET)
    ended = provider.act("agreement.ended", reason="the season is over")
    consumer.hold("agreement.ended", PROVIDER, ended)
    after = provider.use("use-7", Outcome.REFUSED)
    consumer.deliver(provider, after.number)
    return provider, consumer


def reported() -> tuple[Log, Log]:
    """Both parties' logs of an agreement whose uses are in part reported by other systems."""
    document = agreement(SERVED_ELSEWHERE)
    provider, consumer = Log(PROVIDER, document), Log(CONSUMER, document)
    provider.conclude()
    consumer.conclude()
    provider.report("gw-7:000001")
    use = provider.use("use-1")
    consumer.deliver(provider, use.number)
    provider.report("gw-7:000002", quantities={Quantity.CALLS: 1})
    provider.report("chunk-1", reporter="stream-processor", quantities={Quantity.CALLS: 40})
    refused = provider.use("use-2", Outcome.REFUSED)
    consumer.deliver(provider, refused.number)
    return provider, consumer


def provider_export() -> Evidence:
    provider, _ = story()
    provider.close()
    return evidence(PROVIDER, provider.document, provider.export(SPACE))


def consumer_export() -> Evidence:
    """Both sides, the secret and two of the requests disclosed."""
    provider, consumer = story()
    consumer.close()
    return evidence(
        CONSUMER,
        provider.document,
        consumer.export(SPACE, PROVIDER),
        provider.export(SPACE, CONSUMER),
        secret=SECRET,
        requests=(Request(2, query("use-1")), Request(4, query("use-3"))),
    )


def reported_export() -> Evidence:
    """Both sides of the agreement whose uses are in part reported."""
    provider, consumer = reported()
    consumer.close()
    return evidence(CONSUMER, provider.document, consumer.export(SPACE), provider.export(SPACE))
