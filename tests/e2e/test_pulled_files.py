"""A file that leaves one node for another's, whatever happens on the way: real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from connector.client.types import DataAddress, Transfer
from connector.model.participant import unb64url
from connector.verifier.verify import verify_file
from tests.e2e.space import START_S, Contract, agreed, free_ports, people, space

pytestmark = pytest.mark.e2e

TERMS = {
    "permission": [
        {
            "action": "use",
            "constraint": [
                {"leftOperand": "purpose", "operator": "eq", "rightOperand": "tourism-planning"},
                {"leftOperand": "count", "operator": "lteq", "rightOperand": 2},
            ],
        }
    ]
}


class Consumer:
    def __init__(self, held: Contract) -> None:
        self.held = held
        self.transfer: Transfer | None = None

    async def request(self, state: str = "STARTED") -> Transfer:
        async with self.held.space.node("consumer") as node:
            self.transfer = await node.request_transfer(self.held.agreement, format="HttpData-PULL")
            assert self.transfer.state == state, self.transfer
        return self.transfer

    async def get(self, **headers: str) -> httpx.Response:
        address = await self._address()
        token = dict(address.properties)["authorization"]
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient() as client:
            return await client.get(
                address.endpoint, headers={"Authorization": f"Bearer {token}", **headers}
            )

    async def _address(self) -> DataAddress:
        """The one in force; after a resumption the provider's answer brings it."""
        assert self.transfer is not None
        async with asyncio.timeout(START_S), self.held.space.node("consumer") as node:
            while True:
                if (address := (await node.transfer(self.transfer.pid)).data_address) is not None:
                    return address
                await asyncio.sleep(0.05)

    async def until(self, status: int) -> int:
        """Ask until the answer is this one, or time is over; the last answer."""
        for _ in range(200):
            if (got := await self.get(Range="bytes=0-0")).status_code == status:
                break
            await asyncio.sleep(0.05)
        return got.status_code

    async def decide(self, action: str, state: str) -> None:
        assert self.transfer is not None
        async with asyncio.timeout(START_S), self.held.space.node("consumer") as node:
            await node.decide_transfer(self.transfer.pid, action)
            while (now := await node.transfer(self.transfer.pid)).state != state:
                assert now.state not in ("TERMINATED", "COMPLETED"), now
                await asyncio.sleep(0.05)


async def test_a_file_is_pulled_through_a_crash_and_a_suspension(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = f'[dsp]\nlisten = "127.0.0.1:{port}"\nplain_http = true\nallow = ["127.0.0.0/8"]'
    async with space(tmp_path) as found:
        await found.admit("provider", ["provider", "consumer"], settings)
        await found.admit("consumer", ["consumer"])
        source = people(tmp_path / "people.csv")
        content = source.read_bytes()
        async with found.node("provider") as node:
            published = await node.publish(
                source,
                title="People of three regions",
                table="people",
                classification="general",
                terms=TERMS,
            )
        source.unlink()  # what was published is what is served
        held = Contract(found, published.dataset_id, "")
        held.agreement = await held.again()
        consumer = Consumer(held)
        await consumer.request()
        first = await consumer.get(Range="bytes=0-999")
        assert (first.status_code, first.content) == (206, content[:1000])

        provider = found.members["provider"]
        provider.kill()
        provider.start()
        await found.until("provider", lambda status: status.state == "ready")
        rest = await consumer.get(Range="bytes=1000-", If_Range=first.headers["etag"])
        assert (rest.status_code, first.content + rest.content) == (206, content)

        await consumer.decide("suspend", "SUSPENDED")
        await consumer.decide("resume", "STARTED")
        again = await consumer.get(Range="bytes=-7")
        assert again.content == content[-7:]
        async with found.operator() as operator:
            did = "did:web:consumer.example"
            await operator.set_membership(did, "suspended", reason="to see")
            assert await consumer.until(401) == 401
            await operator.set_membership(did, "active", reason="seen")
            assert await consumer.until(206) == 206
        await consumer.decide("complete", "COMPLETED")
        await consumer.request()
        await consumer.decide("terminate", "TERMINATED")  # nothing moved: it does not count
        await consumer.request()
        assert (await consumer.get()).content == content
        provider.kill()  # so that nobody hears of the end, and gives no receipt, before a restart
        await consumer.decide("complete", "COMPLETED")
        found.members["consumer"].kill()
        for name in ("provider", "consumer"):
            found.members[name].start()
            await found.until(name, lambda status: status.state == "ready")
        await consumer.request("TERMINATED")
        await check_the_log(held, len(content))
        assert provider.stop() == 0


async def check_the_log(held: Contract, size: int) -> None:
    async with held.space.node("provider") as node:
        receipts = (await node.receipts(held.agreement)).receipts
    uses = [receipt for receipt in receipts if receipt.kind == "use"]
    assert [use.outcome for use in uses] == ["allowed", "interrupted", "allowed", "refused"]
    moved = uses[0].quantities["bytes_returned"]
    assert size + 7 <= moved <= size + 7 + 300, "the rest is of the answers while it was suspended"
    assert uses[2].quantities["bytes_returned"] == size
    assert [reason.term for reason in uses[3].reasons] == ["count"]
    await check_both_sides(held, moved + size)
    for name in ("provider", "consumer"):
        async with held.space.node(name) as node:
            evidence = await node.export_evidence(held.agreement, disclose_secret=True)
            key = (await node.status()).space_key
        verdict = verify_file(evidence, unb64url(key, 32))
        assert verdict.valid, verdict.as_json()
        assert {side: sums["allowed"] for side, sums in verdict.totals.items()} == {
            "provider": 2,
            "consumer": 2,
        }
        (sides,) = [step for step in verdict.steps if step.number == 13]
        assert not sides.warnings, verdict.as_json()
        assert sides.detail.startswith("4 of 4 uses are in both logs; bytes of 2 transfers")


async def check_both_sides(held: Contract, moved: int) -> None:
    """The consumer's node recorded each transfer, and says nothing of bytes: others pulled them."""
    for name in ("consumer", "provider"):
        async with held.space.node(name) as node:
            found = await agreed(node, held.agreement)
        lines = {line.name: (line.provider, line.consumer) for line in found.lines}
        assert lines["allowed"] == lines["calls"] == (2, 2)
        assert lines["refused"] == lines["refused: count"] == lines["interrupted"] == (1, 1)
        assert lines["bytes_returned"] == (0, 0)
        assert lines["bytes_not_counted"] == (moved, 0)
