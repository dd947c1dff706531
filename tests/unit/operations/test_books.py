"""The books of an agreement: both sides' counts, evidence, and a counterparty that leaves out."""

import base64
import dataclasses

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.errors import Conflict, Gone, NotFound, PeerFault, Unavailable, VerificationFailed
from connector.model import receipt as receipts
from connector.model.negotiation import StoredAgreement
from connector.model.receipt import ActReceipt, Outcome
from connector.operations.books import Books
from connector.ports.peers import ReceiptProof
from connector.tlog.checkpoint import parse_checkpoint, sign_checkpoint
from connector.tlog.cosignature import add_line, cosign
from connector.tlog.merkle import leaf_hash
from connector.tlog.note import COSIGNATURE_V1, VerifierKey
from connector.tlog.proof import Proof, verify_proof
from connector.verifier.evidence import parse_evidence
from tests.agreements import CONSUMERS, DOCUMENT, PROVIDERS, SECRET
from tests.logs import CONSUMER, KEY, ORIGIN, PROVIDER, act, test_key
from tests.parties import (
    AGREEMENT,
    CONSUMER_KEY,
    CONSUMER_ORIGIN,
    CONSUMER_SELF,
    RECORDS,
    RESULT,
    Agreements,
    participant,
)

SPACE = "did:web:space.example"


class Witness:
    """``operations.witnessing.Witnessing``, as far as books ask."""

    def __init__(self) -> None:
        self.down = True

    async def catch_up(self) -> None:
        if self.down:
            raise Unavailable("the directory cannot be reached")


def lookup(did: str):
    space = participant(
        SPACE, "space.example/log", test_key("space").public_key().public_bytes_raw()
    )
    return {**RECORDS, SPACE: space}[did]


async def history(did: str) -> tuple[str, ...]:
    return (f"event.of.{did}",)


def books(place, agreement: StoredAgreement = CONSUMERS, lookup=lookup) -> Books:
    return Books(
        ourselves=CONSUMER_SELF,
        space=SPACE,
        meter=place.meter,
        negotiations=Agreements(agreement),  # type: ignore[arg-type]
        peers=place.provider,
        deliveries=place.deliveries,
        witnessing=Witness(),  # type: ignore[arg-type]
        lookup=lookup,
        history=history,
    )


@pytest.fixture
async def used(place):
    """Five uses that both sides know of, the last one refused."""
    for number in range(5):
        refused = {"outcome": Outcome.REFUSED, "result": b""} if number == 4 else {}
        proof = await place.provider.use(f"u{number}", **refused)
        place.provider.answer = [proof] if refused else [proof, RESULT]
        await place.use(f"u{number}")
    return place


async def test_both_sides_agree(used) -> None:
    lines = {line.name: line for line in await books(used).reconcile(AGREEMENT)}
    assert (lines["allowed"].provider, lines["allowed"].consumer) == (4, 4)
    assert (lines["refused"].provider, lines["refused"].consumer) == (1, 1)
    assert lines["bytes_returned"].provider == 4 * len(RESULT)
    assert lines["bytes_returned"].consumer == 4 * len(RESULT)
    assert "rows_scanned" not in lines, "the consumer cannot know it"
    reasons = [line for line in lines.values() if line.name.startswith("refused: ")]
    assert [(line.provider, line.consumer) for line in reasons] == [(1, 1)]
    assert all(line.explained for line in lines.values())


async def test_a_use_that_never_reached_the_consumer_shows(used) -> None:
    await used.provider.use("u9")
    lines = {line.name: line for line in await books(used).reconcile(AGREEMENT)}
    assert (lines["allowed"].provider, lines["allowed"].consumer) == (5, 4)
    assert not lines["allowed"].explained


async def test_a_use_that_was_cut_need_not_have_reached_the_consumer(used) -> None:
    await used.provider.use("u9", outcome=Outcome.INTERRUPTED, result=b"")
    lines = {line.name: line for line in await books(used).reconcile(AGREEMENT)}
    assert (lines["interrupted"].provider, lines["interrupted"].consumer) == (1, 0)
    assert all(line.explained for line in lines.values())


async def test_the_sides_are_told_apart(used) -> None:
    """The same logs, with us as the provider: our counts stand in the provider's column."""
    await used.meter.record([act()])
    swapped = dataclasses.replace(PROVIDERS, peer=PROVIDER)
    await used.provider.use("u9")
    lines = {line.name: line for line in await books(used, swapped).reconcile(AGREEMENT)}
    assert (lines["allowed"].provider, lines["allowed"].consumer) == (4, 5)


@pytest.mark.parametrize("number", [1, 3])
async def test_a_counterparty_that_leaves_out_a_receipt(used, number: int) -> None:
    used.provider.left_out = {number}
    with pytest.raises(VerificationFailed, match="left out"):
        await books(used).reconcile(AGREEMENT)


async def test_a_counterparty_that_shows_nothing(used) -> None:
    used.provider.left_out = set(range(1, 6))
    with pytest.raises(PeerFault, match="no receipts"):
        await books(used).reconcile(AGREEMENT)


async def _other_key(provider, page, note):
    size = provider.meter.checkpoint().size
    return page, sign_checkpoint(ORIGIN, size, provider.meter.log.root(size), test_key("no log"))


async def _other_log(provider, page, note):
    size = provider.meter.checkpoint().size
    return page, sign_checkpoint("other.example/log", size, provider.meter.log.root(size), KEY)


async def _other_root(provider, page, note):
    return page, sign_checkpoint(ORIGIN, provider.meter.checkpoint().size, bytes(32), KEY)


async def _other_leaf(provider, page, note):
    changed = dataclasses.replace(page[0], leaf=page[0].leaf[:-1] + b"\x01")
    return (changed, *page[1:]), note


async def _of_another_scope(provider, page, note):
    (recorded,) = provider.meter.receipts("urn:uuid:other", 1, 1)
    size = provider.meter.checkpoint().size
    path = tuple(provider.meter.inclusion(recorded.index, size))
    return (
        dataclasses.replace(page[0], leaf=recorded.leaf, index=recorded.index, inclusion=path),
    ), note


@pytest.mark.parametrize(
    "lie", [_other_key, _other_log, _other_root, _other_leaf, _of_another_scope]
)
async def test_a_counterparty_that_lies(used, lie) -> None:
    await used.provider.use("x", scope="urn:uuid:other")
    honest = used.provider.receipts

    async def told(peer, agreement_id, first, tree_size):
        page, note = await honest(peer, agreement_id, first, tree_size)
        return await lie(used.provider, page, note)

    used.provider.receipts = told
    with pytest.raises(VerificationFailed):
        await books(used).reconcile(AGREEMENT)


async def test_evidence_has_both_logs_and_closes_our_book(used) -> None:
    evidence = parse_evidence(await books(used).evidence(AGREEMENT, disclose_secret=False))
    assert evidence.exporter == CONSUMER
    assert evidence.agreement.document == DOCUMENT
    assert [log.origin for log in evidence.logs] == [CONSUMER_ORIGIN, ORIGIN]
    assert [len(log.entries) for log in evidence.logs] == [6, 5]
    last = receipts.decode(evidence.logs[0].entries[-1].leaf)
    assert isinstance(last, ActReceipt)
    assert (last.act, last.number) == ("statement.issued", 6)
    assert evidence.given == ()
    assert list(evidence.members) == [f"event.of.{did}" for did in (SPACE, PROVIDER, CONSUMER)]


@pytest.mark.parametrize("disclose", [True, False])
async def test_the_secret_leaves_only_when_it_is_asked_for(used, disclose: bool) -> None:
    data = await books(used).evidence(AGREEMENT, disclose_secret=disclose)
    assert (parse_evidence(data).secret == SECRET) is disclose
    assert (base64.b64encode(SECRET) in data) is disclose


async def test_without_the_provider_evidence_has_the_receipts_it_gave(used) -> None:
    used.provider.down = True
    evidence = parse_evidence(await books(used).evidence(AGREEMENT, disclose_secret=False))
    assert [log.origin for log in evidence.logs] == [CONSUMER_ORIGIN]
    numbers = [receipts.decode(given.entry.leaf).number for given in evidence.given]
    assert numbers == [1, 2, 3, 4, 5]


async def test_an_agreement_that_one_party_signed_is_no_evidence(used) -> None:
    half = dataclasses.replace(CONSUMERS, consumer_signature="")
    size = used.meter.checkpoint().size
    with pytest.raises(Conflict, match="both"):
        await books(used, half).evidence(AGREEMENT, disclose_secret=False)
    assert used.meter.checkpoint().size == size, "no statement closes a book that goes nowhere"


async def test_an_agreement_that_is_not_ours(place) -> None:
    with pytest.raises(NotFound):
        await books(place).evidence("urn:uuid:other", disclose_secret=False)
    assert place.meter.checkpoint().size == 0


async def test_receipts_are_listed_oldest_first_and_the_last_ones(used) -> None:
    await used.meter.record([act("urn:uuid:other")])
    mine = books(used)
    assert [found.receipt.number for found in mine.listed(AGREEMENT, 2)] == [4, 5]
    assert [found.index for found in mine.listed("", 3)] == [3, 4, 5]
    assert [found.index for found in mine.listed("", 0)] == list(range(6))
    assert mine.listed("urn:uuid:unknown", 5) == []


def proved(found: ReceiptProof, witnesses=()) -> int:
    """The size of the tree that the receipt is proven in, as an auditor finds it."""
    key = VerifierKey(CONSUMER_ORIGIN, CONSUMER_KEY.public_key().public_bytes_raw())
    proof = Proof(found.index, found.inclusion, found.checkpoint)
    return verify_proof(proof, leaf_hash(found.leaf), [key], witnesses).checkpoint.size


async def test_one_receipt_is_proven_under_the_newest_cosigned_checkpoint(used) -> None:
    mine = books(used)
    found = await mine.proof(AGREEMENT, 2)
    assert receipts.decode(found.leaf).number == 2
    assert found.checkpoint == used.meter.checkpoint().checkpoint
    assert proved(found) == 5
    key = test_key("witness")
    witness = VerifierKey("w.example/log", key.public_key().public_bytes_raw(), COSIGNATURE_V1)
    note = used.meter.checkpoint().checkpoint
    note = add_line(note, cosign(note, witness.name, key, 17))
    await used.meter.add_cosignature(note, witness.name, [witness.public_key])
    await used.meter.record([act(AGREEMENT)])
    assert proved(await mine.proof(AGREEMENT, 2), [witness]) == 5
    newest = await mine.proof(AGREEMENT, 6)
    assert proved(newest) == parse_checkpoint(newest.checkpoint).size == 6, "nobody cosigned it yet"


@pytest.mark.parametrize(
    ("scope", "number"),
    [("urn:uuid:unknown", 1), ("", 1), (AGREEMENT, 0), (AGREEMENT, 6), (AGREEMENT, 2**64 - 1)],
)
async def test_a_receipt_that_is_not_there_has_no_proof(used, scope: str, number: int) -> None:
    with pytest.raises(NotFound) as caught:
        await books(used).proof(scope, number)
    assert not isinstance(caught.value, Gone)


async def test_a_receipt_that_was_dropped_is_gone(used, monkeypatch) -> None:
    def dropped(storage, first, count):
        raise Gone("dropped")

    monkeypatch.setattr(MemoryLog, "leaves", dropped)
    with pytest.raises(Gone):
        await books(used).proof(AGREEMENT, 2)


async def test_evidence_needs_nobody_but_ourselves(used) -> None:
    """No directory for long, so no record is looked up; and the provider is not there either."""

    def stale(did: str):
        raise Unavailable("the view of the directory is too old to serve by")

    found = parse_evidence(
        await books(used, lookup=stale).evidence(AGREEMENT, disclose_secret=False)
    )
    assert [log.origin for log in found.logs] == [CONSUMER_SELF.log_origin]
    assert len(found.given) == 5
