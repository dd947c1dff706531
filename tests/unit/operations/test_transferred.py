"""Transfers that are over get the consumer's own record: once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing, asynccontextmanager

import pytest

from connector.errors import Conflict, Gone, NotFound, PeerFault, Reason, Unavailable
from connector.model.negotiation import Party
from connector.model.receipt import DeliveryReceipt, Kind, Outcome, Quantity
from connector.model.transfer import TransferProcess, TransferState
from connector.negotiation.events import Events
from connector.operations import transferred
from connector.operations.transferred import Transferred
from connector.ports.deliveries import Pulled
from connector.ports.peers import PullBegun
from tests.agreements import CONSUMERS
from tests.logs import PROVIDER, until
from tests.parties import AGREEMENT, Agreements, keyed
from tests.unit.operations.test_books import books

FORMAT = "HttpData-PULL"
DONE = TransferState.COMPLETED
SIZE = 4_000


def over(pid: str = "t1", **changes) -> TransferProcess:
    known = {
        "pid": pid,
        "peer_pid": f"peer-{pid}",
        "party": Party.CONSUMER,
        "peer": PROVIDER,
        "agreement_id": AGREEMENT,
        "format": FORMAT,
        "state": DONE,
        "revision": 3,
    }
    return TransferProcess(**{**known, **changes})


class Processes:
    """``Negotiations`` and its ``Transfers``, as far as they are asked."""

    def __init__(self, agreement=CONSUMERS) -> None:
        self.agreements = Agreements(agreement)
        self.agreement = self.agreements.agreement
        self.all: dict[str, TransferProcess] = {}
        self.done: list[str] = []
        self.feed = Events()

    def events(self):
        return self.feed.follow()

    async def transfer(self, pid):
        if pid not in self.all:
            raise NotFound("no such transfer")
        return self.all[pid]

    async def unrecorded(self):
        return tuple(
            one
            for one in self.all.values()
            if one.party is Party.CONSUMER
            and one.state in (DONE, TransferState.TERMINATED)
            and one.pid not in self.done
        )

    async def recorded(self, pid):
        self.done.append(pid)

    def change(self, process: TransferProcess) -> None:
        self.all[process.pid] = process
        self.feed.tell(process)


class Data:
    """``PullPeer`` that gives pieces, and then raises if it is told to."""

    def __init__(self) -> None:
        self.pieces = [b"a" * 1_000] * 4
        self.error: Exception | None = None

    async def pull(self, pid, *, offset=0, etag=""):
        if not self.pieces and self.error:
            raise self.error
        yield PullBegun(offset, SIZE, etag, "text/csv")
        for piece in self.pieces:
            yield piece
        if self.error:
            raise self.error


class Node:
    """A consumer's node, which can be started again."""

    def __init__(self, place, processes: Processes) -> None:
        self.place = place
        self.processes = processes
        self.data = Data()
        self.start()

    def start(self) -> None:
        self.work = Transferred(
            negotiations=self.processes,  # type: ignore[arg-type]
            transfers=self.processes,  # type: ignore[arg-type]
            consumer=self.place.consumer,
            pulls=self.data,
            deliveries=self.place.deliveries,
            meter=self.place.meter,
            clock=self.place.meter.clock,
        )

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.work.run())
        await asyncio.sleep(0)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pull(self, pid: str = "t1") -> None:
        async with aclosing(self.work.pull(pid)) as pieces:
            async for _ in pieces:
                pass

    def record(self, pid: str = "t1") -> DeliveryReceipt | None:
        found = self.place.meter.find(AGREEMENT, f"peer-{pid}", Kind.DELIVERY)
        return found.receipt if found else None

    async def recorded(self, pid: str = "t1") -> DeliveryReceipt:
        await until(lambda: pid in self.processes.done)
        found = self.record(pid)
        assert found is not None
        return found


async def provided(place, pid: str = "t1", **changes):
    """The provider's receipt of a transfer, as ``gate.pulls`` writes it."""
    allowed = changes.get("outcome", Outcome.ALLOWED) is Outcome.ALLOWED
    return await place.provider.use(
        f"peer-{pid}",
        result=b"x" * SIZE if allowed else b"",
        result_digest=b"",
        request_digest=keyed(FORMAT.encode()),
        **changes,
    )


@pytest.fixture
def node(place, monkeypatch):
    monkeypatch.setattr(transferred, "FIRST_S", 0.005)
    monkeypatch.setattr(transferred, "MOST_S", 0.01)
    return Node(place, Processes())


async def test_what_other_programs_pulled_is_not_counted(node, place) -> None:
    proof = await provided(place)
    async with node.running():
        node.processes.change(over())
        receipt = await node.recorded()
    assert (receipt.outcome, receipt.leaf_index) == (Outcome.ALLOWED, proof.index)
    assert receipt.quantities == {Quantity.CALLS: 1}
    assert [kept.leaf for kept in await place.deliveries.of(AGREEMENT)] == [proof.leaf]
    lines = {line.name: line for line in await books(place).reconcile(AGREEMENT)}
    assert all(line.explained for line in lines.values())
    silent = lines["bytes_not_counted"]
    assert (silent.provider, silent.consumer) == (SIZE, 0)
    assert lines["bytes_returned"].provider == lines["bytes_returned"].consumer == 0


async def test_what_this_node_pulled_is_counted_in_all_pulls(node, place) -> None:
    await provided(place)
    node.data.pieces = [b"a" * 1_500]
    node.data.error = Unavailable("the connection broke")
    with pytest.raises(Unavailable):
        await node.pull()
    node.data.pieces, node.data.error = [b"a" * 2_500], None
    await node.pull()
    async with node.running():
        node.processes.change(over())
        receipt = await node.recorded()
    assert receipt.quantities == {Quantity.CALLS: 1, Quantity.BYTES_RETURNED: SIZE}
    assert place.deliveries.pulls == {}
    lines = {line.name: line for line in await books(place).reconcile(AGREEMENT)}
    assert lines["bytes_returned"].provider == lines["bytes_returned"].consumer == SIZE
    assert "bytes_not_counted" not in lines


@pytest.mark.parametrize(("arrived", "sent"), [(3_999, SIZE), (SIZE + 1, SIZE)])
async def test_counts_that_differ_are_shown(node, place, arrived: int, sent: int) -> None:
    await provided(place)
    node.data.pieces = [b"a" * arrived]
    await node.pull()
    async with node.running():
        node.processes.change(over())
        await node.recorded()
    lines = {line.name: line for line in await books(place).reconcile(AGREEMENT)}
    assert (lines["bytes_returned"].provider, lines["bytes_returned"].consumer) == (sent, arrived)
    assert not lines["bytes_returned"].explained


async def test_a_count_that_a_crash_cut_off_is_no_count(node, place) -> None:
    await provided(place)
    place.deliveries.pulls["t1"] = Pulled(1_000, 1)
    node.data.pieces = [b"a" * 3_000]
    await node.pull()
    async with node.running():
        node.processes.change(over())
        receipt = await node.recorded()
    assert receipt.quantities == {Quantity.CALLS: 1}


async def test_a_pull_that_never_began_is_not_noted(node, place) -> None:
    node.data.pieces, node.data.error = [], Conflict("not STARTED")
    with pytest.raises(Conflict):
        await node.pull()
    assert place.deliveries.pulls == {}


async def test_pulls_under_way_are_waited_for(node, place) -> None:
    await provided(place)
    async with node.running(), aclosing(node.work.pull("t1")) as pieces:
        assert isinstance(await anext(pieces), PullBegun)
        await anext(pieces)
        node.processes.change(over())
        await asyncio.sleep(0.05)
        assert node.record() is None
        async for _ in pieces:
            pass
        receipt = await node.recorded()
    assert receipt.quantities[Quantity.BYTES_RETURNED] == SIZE


REASON = (Reason("count", "20 of 20 uses", "at most 20 uses"),)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.INTERRUPTED])
async def test_one_that_moved_nothing_is_recorded_too(node, place, outcome: Outcome) -> None:
    await provided(place, outcome=outcome)
    async with node.running():
        node.processes.change(over(state=TransferState.TERMINATED))
        receipt = await node.recorded()
    assert (receipt.outcome, receipt.quantities, receipt.reasons) == (outcome, {}, REASON)


async def test_bytes_that_the_provider_denies_are_recorded(node, place) -> None:
    await provided(place, outcome=Outcome.INTERRUPTED)
    await node.pull()
    async with node.running():
        node.processes.change(over())
        receipt = await node.recorded()
    assert receipt.quantities == {Quantity.BYTES_RETURNED: SIZE}


async def test_a_provider_that_has_not_heard_yet_is_asked_again(node, place) -> None:
    async with node.running():
        node.processes.change(over(left=TransferState.STARTED))
        await asyncio.sleep(0.05)
        assert node.processes.done == []
        await provided(place)
        await node.recorded()


async def test_a_provider_that_is_away_is_asked_again_and_holds_up_nobody(node, place) -> None:
    await provided(place)
    place.provider.down = True
    async with node.running() as task:
        node.processes.change(over())
        await asyncio.sleep(0.05)
        assert (node.processes.done, task.done()) == ([], False)
        place.provider.down = False
        await node.recorded()


async def test_one_that_is_given_up_is_taken_up_by_the_next(node, place, monkeypatch) -> None:
    monkeypatch.setattr(transferred, "GIVE_UP_S", -1.0)
    await provided(place)
    await provided(place, "t2")
    async with node.running():
        node.processes.change(over())
        await asyncio.sleep(0.05)
        assert node.processes.done == []
        monkeypatch.setattr(transferred, "GIVE_UP_S", 60.0)
        node.processes.change(over("t2"))
        await node.recorded("t2")
        await node.recorded("t1")


async def test_a_restart_finds_what_is_not_recorded(node, place) -> None:
    await provided(place)
    await provided(place, "t2")
    place.provider.down = True
    async with node.running():
        node.processes.change(over())
        node.processes.change(over("t2"))
        await asyncio.sleep(0.03)
    place.provider.down = False
    node.start()
    async with node.running():
        await node.recorded("t1")
        await node.recorded("t2")


async def test_a_crash_after_the_record_makes_no_second_one(node, place) -> None:
    await provided(place)
    async with node.running():
        node.processes.change(over())
        await node.recorded()
    node.processes.done.clear()
    place.provider.down = True  # it is not asked again either
    size = place.meter.checkpoint().size
    node.start()
    async with node.running():
        await node.recorded()
    assert place.meter.checkpoint().size == size


# The end of a process without a receipt, and whether it is settled that there is none.
NONE = {
    "the provider ended it": (over(left=None), True),
    "it was withdrawn before it started": (over(left=TransferState.REQUESTED), True),
    "it was withdrawn before the provider answered": (over(peer_pid="", left=None), True),
    "it ran, and ended here": (over(left=TransferState.STARTED), False),
}


@pytest.mark.parametrize("case", NONE)
async def test_no_receipt(node, place, case: str) -> None:
    process, settled = NONE[case]
    async with node.running():
        node.processes.change(process)
        await asyncio.sleep(0.3)
    assert node.processes.done == (["t1"] if settled else [])
    assert place.meter.checkpoint().size == 0


async def test_a_peer_that_signs_nothing_is_asked_nothing(place) -> None:
    outside = dataclasses.replace(CONSUMERS, provider_signature="")
    node = Node(place, Processes(outside))
    place.provider.down = True
    async with node.running():
        node.processes.change(over())
        await until(lambda: node.processes.done == ["t1"])
    assert place.meter.checkpoint().size == 0


@pytest.mark.parametrize(
    "process",
    [
        over(state=TransferState.STARTED),
        over(state=TransferState.SUSPENDED),
        over(party=Party.PROVIDER),
    ],
)
async def test_what_is_not_over_or_not_ours_is_left_alone(node, place, process) -> None:
    await provided(place)
    async with node.running():
        node.processes.change(process)
        await asyncio.sleep(0.03)
    assert node.record() is None


LIES = {
    "another purpose": {"purpose": "ads"},
    "another consumer": {"consumer": "did:web:x.example"},
    "other terms": {"agreement_digest": b"t" * 32},
    "another request": {"request_digest": keyed(b"SELECT 1")},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_receipt_that_is_a_lie_is_not_believed(node, place, lie: str) -> None:
    told = {"result_digest": b"", "request_digest": keyed(FORMAT.encode()), **LIES[lie]}
    await place.provider.use("peer-t1", **told)
    async with node.running():
        node.processes.change(over())
        await asyncio.sleep(0.05)
    assert (node.record(), node.processes.done) == (None, [])


async def test_a_receipt_of_another_use_is_not_believed(node, place) -> None:
    await provided(place, "t2")
    honest = place.provider.receipts

    async def told(peer, agreement_id, first, tree_size, *, use_id=""):
        return await honest(peer, agreement_id, first, tree_size)

    place.provider.receipts = told
    async with node.running():
        node.processes.change(over())
        await asyncio.sleep(0.05)
    assert (node.record(), node.processes.done) == (None, [])


async def test_who_was_too_slow_begins_again(node, place) -> None:
    await provided(place)
    async with node.running() as task:
        for follower in tuple(node.processes.feed._followers):
            follower._missed = True
            follower.close()
        with pytest.raises(Gone):
            await task
    node.processes.all["t1"] = over()  # nobody heard of it
    async with node.running():
        await node.recorded()


async def test_a_fault_of_ours_is_tried_again(node, place, monkeypatch) -> None:
    await provided(place)
    honest, calls = place.consumer.record, []

    async def record(*asked):
        calls.append(asked)
        if len(calls) < 3:
            raise PeerFault("odd") if len(calls) == 1 else RuntimeError("odder")
        return await honest(*asked)

    monkeypatch.setattr(place.consumer, "record", record)
    async with node.running():
        node.processes.change(over())
        await node.recorded()
    assert len(calls) == 3
