"""The harness and its script, with a node that only notes what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.conformance.dsp.harness import Event, Harness, serving
from tests.conformance.dsp.script import CASES, DISABLED, NEGOTIATIONS, SCRIPT, TRANSFERS, Act
from tests.doors import Client


class FakeNode:
    """Notes every order; ``happen`` is the node's stream of events."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.refuses = ""
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def happen(self, pid: str, state: str, subject: str) -> None:
        self._events.put_nowait(Event(pid, state, subject))

    def end(self) -> None:
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    async def _note(self, *asked: str) -> None:
        if asked[0] == self.refuses:
            raise RuntimeError("the node says no")
        self.asked.append(asked)

    async def negotiate(self, peer_url: str, dataset: str, offer: str) -> str:
        await self._note("negotiate", peer_url, dataset, offer)
        return "n1"

    async def request_transfer(self, peer_url: str, agreement: str, format: str) -> str:
        await self._note("request_transfer", peer_url, agreement, format)
        return "t1"

    async def offer(self, pid: str) -> None:
        await self._note("offer", pid)

    async def agree(self, pid: str) -> None:
        await self._note("agree", pid)

    async def accept(self, pid: str) -> None:
        await self._note("accept", pid)

    async def counter(self, pid: str) -> None:
        await self._note("counter", pid)

    async def verify(self, pid: str) -> None:
        await self._note("verify", pid)

    async def finalize(self, pid: str) -> None:
        await self._note("finalize", pid)

    async def terminate(self, pid: str) -> None:
        await self._note("terminate", pid)

    async def start_transfer(self, pid: str) -> None:
        await self._note("start_transfer", pid)

    async def suspend_transfer(self, pid: str) -> None:
        await self._note("suspend_transfer", pid)

    async def complete_transfer(self, pid: str) -> None:
        await self._note("complete_transfer", pid)

    async def terminate_transfer(self, pid: str) -> None:
        await self._note("terminate_transfer", pid)


def acts(subject: str, *states: str) -> list[str]:
    """What the script does as one process goes through ``states``; a dot where it waits."""
    harness = Harness(FakeNode())
    found = [harness.next_act(Event("p", state, subject)) for state in states]
    return [act.value if act else "." for act in found]


@pytest.mark.parametrize(
    ("subject", "states", "expected"),
    [
        ("ACN0101", "REQUESTED OFFERED TERMINATED", "offer . ."),
        ("ACN0102", "REQUESTED OFFERED REQUESTED TERMINATED", "offer . terminate ."),
        (
            "ACN0103",
            "REQUESTED OFFERED ACCEPTED AGREED VERIFIED FINALIZED",
            "offer . agree . finalize .",
        ),
        ("ACN0104", "REQUESTED AGREED VERIFIED FINALIZED", "agree . finalize ."),
        ("ACN0201", "REQUESTED TERMINATED", "terminate ."),
        ("ACN0202", "REQUESTED TERMINATED", ". ."),
        ("ACN0205", "REQUESTED OFFERED TERMINATED", "offer terminate ."),
        ("ACN0206", "REQUESTED OFFERED ACCEPTED TERMINATED", "offer . terminate ."),
        ("ACN0207", "REQUESTED AGREED VERIFIED TERMINATED", "agree . terminate ."),
        ("ACN0303", "REQUESTED OFFERED ACCEPTED", "offer . ."),
        ("ACN0304", "REQUESTED OFFERED REQUESTED", "offer . ."),
        (
            "ACNC0101",
            "REQUESTED OFFERED ACCEPTED AGREED VERIFIED FINALIZED",
            ". accept . verify . .",
        ),
        ("ACNC0102", "REQUESTED OFFERED REQUESTED TERMINATED", ". counter . ."),
        ("ACNC0202", "REQUESTED TERMINATED", "terminate ."),
        ("ACNC0306", "REQUESTED OFFERED ACCEPTED AGREED", ". accept . ."),
        (
            "ATP0104",
            "REQUESTED STARTED SUSPENDED STARTED COMPLETED",
            "start_transfer suspend_transfer start_transfer complete_transfer .",
        ),
        ("ATP0105", "REQUESTED TERMINATED", "terminate_transfer ."),
        ("ATP0203", "REQUESTED STARTED SUSPENDED TERMINATED", "start_transfer . . ."),
        ("ATPC0104", "REQUESTED STARTED SUSPENDED STARTED COMPLETED", ". . . . ."),
        (
            "ATPC0203",
            "REQUESTED STARTED SUSPENDED TERMINATED",
            ". suspend_transfer terminate_transfer .",
        ),
        ("no test's", "REQUESTED OFFERED", ". ."),
    ],
)
def test_the_script(subject: str, states: str, expected: str) -> None:
    assert acts(subject, *states.split()) == expected.split()


def test_each_process_is_counted_by_itself() -> None:
    harness = Harness(FakeNode())
    assert harness.next_act(Event("p", "REQUESTED", "ACN0102")) == Act.OFFER
    assert harness.next_act(Event("q", "REQUESTED", "ACN0102")) == Act.OFFER
    assert harness.next_act(Event("p", "REQUESTED", "ACN0102")) == Act.TERMINATE


def test_every_test_of_the_suite_has_its_part() -> None:
    assert len(CASES) == len({case.id for case in CASES}) == 67
    assert {case.id for case in CASES} >= set(DISABLED)
    counted = dict.fromkeys(("MET", "CAT", "CN", "CN_C", "TP", "TP_C"), 0)
    for case in CASES:
        counted[case.id.partition(":")[0]] += 1
        assert case.subject in SCRIPT or case.id.startswith(("MET", "CAT"))
    assert list(counted.values()) == [1, 3, 15, 16, 16, 16]
    assert not set(NEGOTIATIONS) & set(TRANSFERS)


def test_an_act_is_asked_of_the_node_by_its_name() -> None:
    assert {act.value for act in Act} <= set(dir(FakeNode))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def test_a_trigger_is_answered_before_the_node_has_begun() -> None:
    node = FakeNode()
    async with serving(node) as (harness, url), Client() as client:
        for path, body in (
            ("negotiations", {"datasetId": "ACNC0101", "offerId": "offerACNC0101"}),
            ("transfers", {"agreementId": "ATPC0101", "format": "HttpData-PULL"}),
        ):
            answer = await client.post(
                f"{url}/{path}",
                json={"connectorAddress": "http://peer.example", "providerId": "TCK", **body},
            )
            assert answer.status_code == httpx.codes.ACCEPTED
        await until(lambda: len(node.asked) == 2)
    assert node.asked == [
        ("negotiate", "http://peer.example", "ACNC0101", "offerACNC0101"),
        ("request_transfer", "http://peer.example", "ATPC0101", "HttpData-PULL"),
    ]
    assert harness.problems == []


async def test_steps_follow_events_after_a_while_and_a_refused_one_is_reported() -> None:
    node = FakeNode()
    node.refuses = "terminate"
    async with serving(node, delay_s=0.1) as (harness, _):
        node.happen("p", "REQUESTED", "ACN0101")
        node.happen("q", "REQUESTED", "ACN0201")
        await asyncio.sleep(0.05)
        assert node.asked == []
        await until(lambda: node.asked and harness.problems)
        assert node.asked == [("offer", "p")]
        assert harness.problems == ["terminate for ACN0201: RuntimeError: the node says no"]


async def test_a_node_whose_events_fail_is_noticed() -> None:
    class Broken(FakeNode):
        async def events(self) -> AsyncIterator[Event]:
            raise ConnectionError("gone")
            yield

    with pytest.raises(ConnectionError):
        async with serving(Broken()):
            await asyncio.sleep(0.05)
