"""A consumer believes nothing: a provider that lies in every step, and a log that forks."""

import asyncio
import dataclasses
import random

import pyarrow as pa
import pytest

from connector.adapters.memory_log import MemoryLog
from connector.core.choose import choose
from connector.errors import ConnectorError, InvalidInput, NotFound, PeerFault, VerificationFailed
from connector.metering.meter import Meter
from connector.metering.types import ActDraft
from connector.model.receipt import DeliveryReceipt, Kind, Outcome, Quantity
from connector.operations import consuming
from connector.operations.consuming import VerifiedUse
from connector.tlog.checkpoint import sign_checkpoint
from tests.logs import CONSUMER, KEY, ORIGIN, PROVIDER, ManualClock, MemoryKeys, test_key, until
from tests.parties import (
    AGREEMENT,
    CONSUMER_KEY,
    CONSUMER_ORIGIN,
    PURPOSE,
    RESULT,
    SQL,
    keyed,
    proof_of,
)


def stream(rows: int) -> bytes:
    table = pa.table({"n": list(range(rows))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


async def test_an_honest_provider(place) -> None:
    result = stream(7)
    proof = await place.provider.use(result=result)
    place.provider.answer = [proof, result[:10], result[10:]]
    first, *pieces = await place.use()
    assert isinstance(first, VerifiedUse)
    assert first.receipt.outcome is Outcome.ALLOWED
    assert b"".join(pieces) == result
    assert place.provider.asked == [(PROVIDER, AGREEMENT, PURPOSE, SQL, "u1")]
    receipt = place.meter.find(AGREEMENT, "u1", Kind.DELIVERY).receipt
    assert isinstance(receipt, DeliveryReceipt)
    assert (receipt.leaf_hash, receipt.leaf_index) == (first.leaf_hash, proof.index)
    assert receipt.result_digest == keyed(result)
    assert receipt.quantities == {
        Quantity.CALLS: 1,
        Quantity.ROWS_RETURNED: 7,
        Quantity.BYTES_RETURNED: len(result),
    }
    assert await place.deliveries.of(AGREEMENT) == (proof,)


@pytest.mark.parametrize("scope", [AGREEMENT, CONSUMER])
async def test_a_refusal_is_passed_on_and_recorded(place, scope: str) -> None:
    proof = await place.provider.use(result=b"", outcome=Outcome.REFUSED, scope=scope)
    place.provider.answer = [proof]
    (first,) = await place.use()
    assert first.receipt.outcome is Outcome.REFUSED
    assert place.meter.find(scope, "u1", Kind.DELIVERY).receipt.quantities == {}


async def _another_key(place):
    proof = await place.provider.use()
    tip = place.provider.meter.checkpoint()
    forged = sign_checkpoint(
        ORIGIN, tip.size, place.provider.meter.log.root(tip.size), test_key("no log")
    )
    return [dataclasses.replace(proof, checkpoint=forged), RESULT]


async def _another_log(place):
    proof = await place.provider.use()
    tip = place.provider.meter.checkpoint()
    root = place.provider.meter.log.root(tip.size)
    other = sign_checkpoint("other.example/log", tip.size, root, KEY)
    return [dataclasses.replace(proof, checkpoint=other), RESULT]


async def _no_checkpoint(place):
    return [dataclasses.replace(await place.provider.use(), checkpoint=b"all is well"), RESULT]


async def _another_leaf(place):
    proof = await place.provider.use()
    return [dataclasses.replace(proof, leaf=proof.leaf[:-1] + b"\x01"), RESULT]


async def _another_index(place):
    await place.provider.use("u0")
    proof = await place.provider.use()
    return [dataclasses.replace(proof, index=0), RESULT]


async def _index_outside(place):
    return [dataclasses.replace(await place.provider.use(), index=2**40), RESULT]


async def _another_path(place):
    await place.provider.use("u0")
    proof = await place.provider.use()
    return [dataclasses.replace(proof, inclusion=(bytes(32),)), RESULT]


async def _an_act(place):
    act = ActDraft(scope=AGREEMENT, actor=PROVIDER, act="agreement.ended", statement=b"e30")
    (recorded,) = await place.provider.meter.record([act])
    return [proof_of(recorded), RESULT]


def _told(**changes):
    async def lie(place):
        return [await place.provider.use(**changes), RESULT]

    return lie


def _answered(*parts):
    async def lie(place):
        proof = await place.provider.use()
        return [proof if part is ... else part for part in parts]

    return lie


# What the provider does, and what it is refused for.
LIES = {
    "1 a checkpoint with another key": (_another_key, VerificationFailed),
    "1 a checkpoint of another log": (_another_log, VerificationFailed),
    "1 no checkpoint": (_no_checkpoint, InvalidInput),
    "2 another leaf": (_another_leaf, VerificationFailed),
    "2 another place": (_another_index, VerificationFailed),
    "2 a place outside the tree": (_index_outside, ConnectorError),
    "2 another path": (_another_path, VerificationFailed),
    "3 no receipt of a use": (_an_act, VerificationFailed),
    "3 another agreement": (_told(scope="urn:uuid:other"), VerificationFailed),
    "3 another provider": (_told(provider="did:web:x.example"), VerificationFailed),
    "3 another consumer": (_told(consumer="did:web:x.example"), VerificationFailed),
    "3 another use": (_told(use_id="u2"), VerificationFailed),
    "3 another purpose": (_told(purpose="ads"), VerificationFailed),
    "3 another request": (_told(request_digest=bytes(32)), VerificationFailed),
    "3 other terms": (_told(agreement_digest=b"t" * 32), VerificationFailed),
    "3 allowed outside the agreement": (_told(scope=CONSUMER), VerificationFailed),
    "4 another result": (_answered(..., RESULT + b"!"), VerificationFailed),
    "4 a part of the result": (_answered(..., RESULT[:-1]), VerificationFailed),
    "4 no result": (_answered(...), VerificationFailed),
    "4 a result of a refusal": (
        _told(outcome=Outcome.REFUSED, result_digest=b""),
        VerificationFailed,
    ),
    "4 a digest without the secret": (_told(result_digest=bytes(32)), VerificationFailed),
    "a result before the receipt": (_answered(RESULT, ...), PeerFault),
    "two receipts": (_answered(..., ...), PeerFault),
    "nothing at all": (_answered(), PeerFault),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_found(place, name: str) -> None:
    lie, error = LIES[name]
    place.provider.answer = await lie(place)
    with pytest.raises(error):
        await place.use()
    recorded = place.meter.find(AGREEMENT, "u1", Kind.DELIVERY)
    if name.startswith("4"):
        digest = recorded.receipt.result_digest
        assert digest != place.provider.meter.find(AGREEMENT, "u1").receipt.result_digest, (
            "our own record says what came"
        )
    elif name[0] in "123":
        assert recorded is None, "what is no receipt of this use is not recorded as one"
        assert await place.deliveries.of(AGREEMENT) == ()


async def test_a_result_without_end_is_cut(place, monkeypatch) -> None:
    monkeypatch.setattr(consuming, "MAX_RESULT_BYTES", 1000)
    place.provider.answer = [await place.provider.use(), *[b"x" * 300] * 100]
    with pytest.raises(PeerFault, match="larger"):
        await place.use()
    assert place.meter.find(AGREEMENT, "u1", Kind.DELIVERY) is not None


async def test_who_stops_reading_has_recorded_what_came(place) -> None:
    place.provider.answer = [await place.provider.use(), RESULT[:3], RESULT[3:]]
    answer = place.consumer.use(AGREEMENT, PURPOSE, SQL, "u1")
    await anext(answer)
    assert await anext(answer) == RESULT[:3]
    await answer.aclose()
    receipt = place.meter.find(AGREEMENT, "u1", Kind.DELIVERY).receipt
    assert receipt.quantities[Quantity.BYTES_RETURNED] == 3


async def test_an_agreement_that_this_node_does_not_hold(place) -> None:
    with pytest.raises(NotFound):
        async for _ in place.consumer.use("urn:uuid:other", PURPOSE, SQL, "u1"):
            pass
    assert place.provider.asked == []


async def test_a_log_that_grows_is_cosigned(place) -> None:
    for number in range(3):
        proof = await place.provider.use(f"u{number}")
        place.provider.answer = [proof, RESULT]
        await place.use(f"u{number}")
        await until(lambda wanted=number + 1: len(place.provider.cosigned) == wanted)
    await place.provider.meter.add_cosignature(
        place.provider.cosigned[-1],
        CONSUMER_ORIGIN,
        [CONSUMER_KEY.public_key().public_bytes_raw()],
    )
    assert place.provider.meter.latest_cosigned(CONSUMER_ORIGIN) is not None


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_provider_whose_log_changes_its_past_is_not_used_again(
    place, restarted: bool
) -> None:
    for number in range(2):
        place.provider.answer = [await place.provider.use(f"u{number}"), RESULT]
        await place.use(f"u{number}")
        await until(lambda wanted=number + 1: len(place.provider.cosigned) == wanted)
    if restarted:  # what the consumer trusts is kept, not remembered
        place.consumer = place.another_consumer()
    honest, place.provider.meter = place.provider.meter, await _another_history()
    for number in range(2, 5):
        proof = await place.provider.use(f"u{number}")
    place.provider.answer = [proof, RESULT]
    await place.use("u4")

    async def refused() -> bool:
        try:
            await place.use("u4")
        except VerificationFailed as error:
            return "change its past" in error.message
        return False

    async with asyncio.timeout(10):
        while not await refused():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(place.provider.cosigned) == 2, "the other history has no cosignature"
    await honest.close()


async def test_a_provider_that_does_not_prove_its_growth_is_asked_again_later(place) -> None:
    place.provider.answer = [await place.provider.use("u0"), RESULT]
    await place.use("u0")
    await until(lambda: len(place.provider.cosigned) == 1)
    place.provider.down = True
    place.provider.answer = [await place.provider.use("u1"), RESULT]
    await place.use("u1")
    place.provider.down = False
    place.provider.answer = [await place.provider.use("u2"), RESULT]
    await place.use("u2")
    await until(lambda: len(place.provider.cosigned) >= 2)


async def _another_history() -> Meter:
    return await Meter.open(
        MemoryLog(),
        core=choose("python"),
        keys=MemoryKeys(),
        origin=ORIGIN,
        key=KEY,
        clock=ManualClock(),
        random=random.Random(99).randbytes,
    )
