"""``MeteringService``: whose receipts are shown to whom, in pages, under which checkpoint."""

import pytest

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector.adapters.memory_log import MemoryLog
from connector.errors import InvalidInput, NotFound, VerificationFailed
from connector.tlog import merkle
from connector.tlog.checkpoint import verify_checkpoint
from connector.tlog.cosignature import add_line, cosign
from connector.transport.grpc import guard
from connector.transport.grpc.metering import MeteringServicer
from tests.agreements import PROVIDERS
from tests.logs import CONSUMER, ORIGIN, PROVIDER, PUBLIC, SCOPE, open_meter, refusal
from tests.parties import CONSUMER_KEY, CONSUMER_ORIGIN, RECORDS, participant

STRANGER = participant("did:web:stranger.example", "stranger.example/log", bytes(32))


class Agreements:
    async def agreement(self, agreement_id):
        return PROVIDERS if agreement_id == SCOPE else None


@pytest.fixture
async def door():
    meter = await open_meter(MemoryLog())
    await meter.record([refusal(f"u{number}") for number in range(5)])
    await meter.record([refusal("x", scope="urn:uuid:another")])
    token = guard._caller.set(RECORDS[CONSUMER])
    yield MeteringServicer(meter, Agreements()), meter  # type: ignore[arg-type]
    guard._caller.reset(token)
    await meter.close()


def listing(**changes) -> pb.ListReceiptsRequest:
    return pb.ListReceiptsRequest(**{"agreement_id": SCOPE, "page_size": 2, **changes})


async def test_pages_stand_under_one_checkpoint(door) -> None:
    servicer, meter = door
    page = await servicer.ListReceipts(listing(), None)
    checkpoint = verify_checkpoint(page.checkpoint, ORIGIN, [PUBLIC])
    await meter.record([refusal("later")])
    leaves = []
    while page.receipts:
        for proof in page.receipts:
            leaves.append(proof.leaf)
            merkle.verify_inclusion(
                merkle.leaf_hash(proof.leaf),
                proof.index,
                checkpoint.size,
                proof.inclusion,
                checkpoint.root,
            )
        request = listing(first=len(leaves) + 1, tree_size=checkpoint.size)
        page = await servicer.ListReceipts(request, None)
    assert leaves == [meter.log.leaf(index) for index in range(5)], "and none of later ones"


async def test_the_receipt_of_one_use(door) -> None:
    servicer, meter = door
    page = await servicer.ListReceipts(listing(use_id="u3"), None)
    checkpoint = verify_checkpoint(page.checkpoint, ORIGIN, [PUBLIC])
    (proof,) = page.receipts
    assert proof.leaf == meter.log.leaf(3)
    merkle.verify_inclusion(
        merkle.leaf_hash(proof.leaf),
        proof.index,
        checkpoint.size,
        proof.inclusion,
        checkpoint.root,
    )
    for none in (listing(use_id="u9"), listing(use_id="x"), listing(use_id="u3", first=5)):
        assert not (await servicer.ListReceipts(none, None)).receipts


@pytest.mark.parametrize(
    ("who", "agreement"),
    [(STRANGER, SCOPE), (RECORDS[PROVIDER], SCOPE), (RECORDS[CONSUMER], "urn:uuid:another")],
)
async def test_receipts_are_for_the_other_party_alone(door, who, agreement: str) -> None:
    servicer, _ = door
    guard._caller.set(who)
    with pytest.raises(NotFound):
        await servicer.ListReceipts(listing(agreement_id=agreement), None)


async def test_a_tree_that_never_was(door) -> None:
    servicer, _ = door
    with pytest.raises(InvalidInput):
        await servicer.ListReceipts(listing(tree_size=2**50), None)
    with pytest.raises(InvalidInput):
        await servicer.GetConsistencyProof(
            pb.GetConsistencyProofRequest(old_size=1, new_size=2**50), None
        )


async def test_a_cosigned_checkpoint_is_shown_while_it_covers_all(door) -> None:
    servicer, meter = door
    note = meter.checkpoint().checkpoint
    line = cosign(note, CONSUMER_ORIGIN, CONSUMER_KEY, 1_700_000_000)
    cosigned = add_line(note, line)
    await servicer.AddCosignature(pb.AddCosignatureRequest(checkpoint=cosigned), None)
    await meter.record([refusal("y", scope="urn:uuid:another")])
    shown = (await servicer.ListReceipts(listing(), None)).checkpoint
    assert line.encode() in shown
    await meter.record([refusal("later")])
    shown = (await servicer.ListReceipts(listing(), None)).checkpoint
    assert shown == meter.checkpoint().checkpoint


async def test_a_cosignature_is_taken_from_its_witness_alone(door) -> None:
    servicer, meter = door
    note = meter.checkpoint().checkpoint
    cosigned = add_line(note, cosign(note, CONSUMER_ORIGIN, CONSUMER_KEY, 1_700_000_000))
    guard._caller.set(STRANGER)
    with pytest.raises((VerificationFailed, InvalidInput)):
        await servicer.AddCosignature(pb.AddCosignatureRequest(checkpoint=cosigned), None)
    assert meter.latest_cosigned() is None
