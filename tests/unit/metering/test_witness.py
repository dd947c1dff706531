"""The witness protocol, both sides, and a log that does not match what was seen of it."""

import asyncio
from dataclasses import replace

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.errors import Conflict, ConnectorError, InvalidInput, Unavailable, VerificationFailed
from connector.metering.meter import Meter
from connector.metering.witness import (
    CheckpointRequest,
    StaleSize,
    Witness,
    cosigned_note,
    request_for,
)
from connector.ports.witnesses import Witnessed
from connector.tlog.checkpoint import parse_checkpoint, sign_checkpoint
from connector.tlog.cosignature import add_line, cosign, verify_cosignature
from tests.logs import KEY, ORIGIN, PUBLIC, SCOPE, ManualClock, open_meter, refusal, test_key, use

WITNESS = "space.example/witness"
WITNESS_KEY = test_key("the witness")
WITNESS_PUBLIC = WITNESS_KEY.public_key().public_bytes_raw()


class MemoryStore:
    """Checks nothing but the swap. ``fails`` makes it say that somebody came first."""

    def __init__(self) -> None:
        self.logs: dict[str, Witnessed] = {}
        self.writes = 0
        self.down = False

    async def last(self, origin: str) -> Witnessed | None:
        await asyncio.sleep(0)
        return self.logs.get(origin)

    async def replace(self, origin: str, old: Witnessed | None, new: Witnessed) -> bool:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("down")
        if self.logs.get(origin) != old:
            return False
        self.logs[origin] = new
        self.writes += 1
        return True


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def witness(store: MemoryStore) -> Witness:
    return Witness(store, name=WITNESS, key=WITNESS_KEY, clock=ManualClock())


async def show(witness: Witness, request: CheckpointRequest) -> str:
    return await witness.add_checkpoint(request, origin=ORIGIN, keys=[PUBLIC])


async def grow(meter: Meter, prefix: str, count: int) -> None:
    await meter.record([refusal(f"{prefix}{n}") for n in range(count)])


async def witnessed_meter(storage: MemoryLog, witness: Witness) -> Meter:
    """A meter with five receipts that the witness has seen."""
    meter = await open_meter(storage)
    await grow(meter, "a", 5)
    request = request_for(meter.log, 0)
    line = await show(witness, request)
    await meter.add_cosignature(cosigned_note(request, line), WITNESS, [WITNESS_PUBLIC])
    return meter


async def test_it_follows_a_log_that_grows(witness: Witness, store: MemoryStore) -> None:
    meter = await open_meter(MemoryLog())
    size = 0
    for count in (0, 1, 3, 300, 0, 5):
        if count:
            await grow(meter, f"{size}-", count)
        request = request_for(meter.log, size)
        line = await show(witness, request)
        note = cosigned_note(request, line)
        verify_cosignature(note, WITNESS, [WITNESS_PUBLIC])
        await meter.add_cosignature(note, WITNESS, [WITNESS_PUBLIC])
        size = meter.checkpoint().size
        last = await witness.last(ORIGIN)
        assert last is not None
        assert (last.size, last.checkpoint) == (size, note)
        assert meter.latest_cosigned() == meter.latest_cosigned(WITNESS) == note
    await meter.close()


async def test_it_answers_only_what_it_has_stored(witness: Witness, store: MemoryStore) -> None:
    meter = await open_meter(MemoryLog())
    store.down = True
    with pytest.raises(Unavailable):
        await show(witness, request_for(meter.log, 0))
    assert store.logs == {}
    await meter.close()


async def test_requests_that_are_refused(witness: Witness, store: MemoryStore) -> None:
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 5)
    await show(witness, request_for(meter.log, 0))
    old = meter.checkpoint().checkpoint
    await grow(meter, "b", 4)
    good = request_for(meter.log, 5)
    other = await open_meter(MemoryLog())
    await grow(other, "x", 9)
    fork = request_for(other.log, 5)
    same = await open_meter(MemoryLog())
    await grow(same, "y", 5)
    foreign = sign_checkpoint(ORIGIN, 9, parse_checkpoint(good.checkpoint).root, test_key("thief"))
    named = sign_checkpoint("other.example/log", 9, bytes(32), KEY)
    refused: list[tuple[CheckpointRequest, type[ConnectorError]]] = [
        (replace(good, old_size=0, consistency=()), StaleSize),
        (replace(good, old_size=4), StaleSize),
        (replace(good, old_size=10), InvalidInput),
        (replace(good, old_size=-1), InvalidInput),
        (replace(good, consistency=()), VerificationFailed),
        (replace(good, consistency=good.consistency[:-1]), VerificationFailed),
        (replace(good, consistency=(*good.consistency, bytes(32))), VerificationFailed),
        (replace(good, consistency=(b"short",)), InvalidInput),
        (replace(good, consistency=(bytes(32),) * 64), InvalidInput),
        (replace(good, checkpoint=b"nonsense"), InvalidInput),
        (replace(good, checkpoint=foreign), VerificationFailed),
        (replace(good, checkpoint=named), VerificationFailed),
        (fork, VerificationFailed),
        (CheckpointRequest(5, (), same.checkpoint().checkpoint), VerificationFailed),
        (CheckpointRequest(5, (bytes(32),), old), VerificationFailed),
    ]
    before = dict(store.logs)
    for request, error in refused:
        with pytest.raises(error):
            await show(witness, request)
        assert store.logs == before
    with pytest.raises(StaleSize) as stale:
        await show(witness, replace(good, old_size=3))
    assert stale.value.size == 5
    await show(witness, good)
    for each in (meter, other, same):
        await each.close()


async def test_two_requests_at_once_never_roll_back(witness: Witness, store: MemoryStore) -> None:
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 2)
    first = request_for(meter.log, 0)
    await grow(meter, "b", 3)
    second = request_for(meter.log, 0)
    answers = await asyncio.gather(
        show(witness, first), show(witness, second), return_exceptions=True
    )
    assert sum(isinstance(answer, str) for answer in answers) == 1
    assert sum(isinstance(answer, StaleSize) for answer in answers) == 1
    assert store.writes == 1
    await meter.close()


async def test_others_signatures_are_not_stored(witness: Witness, store: MemoryStore) -> None:
    meter = await open_meter(MemoryLog())
    request = request_for(meter.log, 0)
    graffiti = add_line(request.checkpoint, cosign(request.checkpoint, "x", test_key("x"), 0))
    line = await show(witness, replace(request, checkpoint=graffiti))
    assert store.logs[ORIGIN].checkpoint == cosigned_note(request, line)
    await meter.close()


async def test_a_log_as_it_was_seen_goes_on(witness: Witness) -> None:
    storage = MemoryLog()
    meter = await witnessed_meter(storage, witness)
    await grow(meter, "b", 3)
    await meter.close()
    seen = await witness.last(ORIGIN)
    assert seen is not None
    meter = await open_meter(storage, await_witness=True)
    with pytest.raises(Unavailable):
        await use(meter, "u1")
    with pytest.raises(Unavailable):
        await meter.record([refusal("c")])
    meter.require_not_behind(seen.size, seen.checkpoint)
    assert await use(meter, "u1")
    await meter.close()


async def test_nothing_seen_yet(witness: Witness) -> None:
    meter = await open_meter(MemoryLog(), await_witness=True)
    meter.require_not_behind(0, b"")
    assert await use(meter, "u1")
    await meter.close()


@pytest.mark.parametrize("size", [0, 3, 5])
async def test_a_log_behind_what_was_seen_issues_nothing(witness: Witness, size: int) -> None:
    meter = await witnessed_meter(MemoryLog(), witness)
    await meter.close()
    seen = await witness.last(ORIGIN)
    assert seen is not None
    restored = MemoryLog()
    other = await open_meter(restored)
    if size:
        await grow(other, "different", size)
    with pytest.raises(Conflict) as error:
        other.require_not_behind(seen.size, seen.checkpoint)
    assert error.value.hint
    with pytest.raises(Conflict):
        await other.record([refusal("c")])
    with pytest.raises(Conflict):
        other.require_not_behind(0, b"")  # the witness cannot take it back
    with pytest.raises(Conflict):
        await use(other, "u1")
    assert other.receipts(SCOPE) if size else other.checkpoint().size == 0
    await other.close()


async def test_its_own_memory_of_witnesses_is_enough(witness: Witness) -> None:
    storage = MemoryLog()
    meter = await witnessed_meter(storage, witness)
    await meter.close()
    restored = MemoryLog()
    restored._cosigned = storage._cosigned
    meter = await open_meter(restored)
    with pytest.raises(Conflict):
        await meter.record([refusal("c")])
    await meter.close()


async def test_a_witness_that_talks_nonsense_changes_nothing(witness: Witness) -> None:
    meter = await witnessed_meter(MemoryLog(), witness)
    note = meter.checkpoint().checkpoint
    for size, said, error in (
        (5, b"nonsense", InvalidInput),
        (4, note, InvalidInput),
        (0, note, InvalidInput),
        (5, b"", InvalidInput),
        (9, sign_checkpoint(ORIGIN, 9, bytes(32), test_key("thief")), VerificationFailed),
    ):
        with pytest.raises(error):
            meter.require_not_behind(size, said)
    await grow(meter, "still", 1)
    await meter.close()


async def test_cosignatures_that_are_not_kept(witness: Witness) -> None:
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 5)
    note = meter.checkpoint().checkpoint
    thief = cosign(note, WITNESS, test_key("thief"), 0)
    stranger = cosign(note, "stranger", WITNESS_KEY, 0)
    for bad in (note, add_line(note, thief), add_line(note, stranger), b"nonsense"):
        with pytest.raises((VerificationFailed, InvalidInput)):
            await meter.add_cosignature(bad, WITNESS, [WITNESS_PUBLIC])
    ours = add_line(note, cosign(note, ORIGIN, KEY, 0))
    with pytest.raises(VerificationFailed):
        await meter.add_cosignature(ours, ORIGIN, [PUBLIC])
    assert meter.latest_cosigned() is None
    await meter.close()


async def test_cosignatures_of_one_checkpoint_are_merged() -> None:
    storage = MemoryLog()
    meter = await open_meter(storage)
    await grow(meter, "a", 5)
    first = meter.checkpoint().checkpoint
    await grow(meter, "b", 5)
    second = meter.checkpoint().checkpoint
    for name, note in (("old", first), ("one", second), ("two", second), ("one", first)):
        key = test_key(name)
        line = cosign(note, name, key, 17)
        await meter.add_cosignature(
            add_line(note, line), name, [key.public_key().public_bytes_raw()]
        )
    for each in (meter, await open_meter(storage)):
        merged = each.latest_cosigned()
        assert merged is not None
        assert parse_checkpoint(merged).size == 10
        for name in ("one", "two"):
            public = test_key(name).public_key().public_bytes_raw()
            assert verify_cosignature(merged, name, [public]) == 17
        old = each.latest_cosigned("old")
        assert old is not None
        assert parse_checkpoint(old).size == 5
        assert each.latest_cosigned("nobody") is None
        await each.close()


async def test_our_own_signature_on_another_tree_bars_the_meter() -> None:
    """Somebody shows a checkpoint that we signed and that is not in our past: a copy of this node
    wrote it."""
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 5)
    twin = await open_meter(MemoryLog())
    await grow(twin, "b", 5)
    note = twin.checkpoint().checkpoint
    line = cosign(note, WITNESS, WITNESS_KEY, 0)
    with pytest.raises(Conflict):
        await meter.add_cosignature(add_line(note, line), WITNESS, [WITNESS_PUBLIC])
    with pytest.raises(Conflict):
        await grow(meter, "c", 1)
    await meter.close()
    await twin.close()
