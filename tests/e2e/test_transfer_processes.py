"""Transfers between real nodes: messages over the consumer's stream, data over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from connector.client import Node, Transfer
from connector.errors import Conflict, NotFound
from tests.e2e.space import START_S, Contract, connector, free_ports, space

pytestmark = pytest.mark.e2e

CONSTRAINTS = [
    {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["tourism-planning"]},
    {"leftOperand": "count", "operator": "lteq", "rightOperand": 2},
]
TERMS = {"permission": [{"action": "use", "constraint": CONSTRAINTS}]}
DATA = "name,dest\n" + "".join(f"n{number},d{number % 7}\n" for number in range(1000))


@asynccontextmanager
async def held(folder: Path) -> AsyncIterator[Contract]:
    """A space whose provider serves whole datasets, and an agreement on one."""
    (folder / "flights.csv").write_text(DATA)
    (port,) = free_ports(1)
    settings = f'[dsp]\nlisten = "127.0.0.1:{port}"\nplain_http = true'
    async with space(folder) as found:
        await found.admit("provider", ["provider"], settings)
        await found.admit("consumer", ["consumer"])
        async with found.node("provider") as node:
            published = await node.publish(
                folder / "flights.csv",
                title="Flights",
                table="flights",
                classification="general",
                terms=TERMS,
            )
        contract = Contract(found, published.dataset_id, "")
        contract.agreement = await contract.again()
        yield contract


async def pulled(transfer: Transfer) -> httpx.Response:
    address = transfer.data_address
    assert address is not None, transfer
    token = address.properties["authorization"]
    async with httpx.AsyncClient() as client:
        return await client.get(address.endpoint, headers={"authorization": f"Bearer {token}"})


async def until(node: Node, pid: str, state: str) -> Transfer:
    """The transfer in this state; at its consumer with the data address that belongs to it."""
    async with asyncio.timeout(START_S), node.events() as events:
        while True:
            found = await node.transfer(pid)
            addressed = found.data_address is not None or found.party == "provider"
            if found.state == state and (state != "STARTED" or addressed):
                return found
            await anext(events)


async def test_a_transfer_flows_rests_goes_on_and_ends(tmp_path: Path) -> None:
    async with held(tmp_path) as contract, contract.space.node("consumer") as node:
        first = await node.request_transfer(contract.agreement)
        assert first.state == "STARTED", first
        whole = await pulled(first)
        assert whole.status_code == 200, whole.text
        assert len(whole.content) > 0
        async with contract.space.node("provider") as provider:
            (theirs,) = await provider.transfers()
            assert theirs.data_address is None
            await provider.decide_transfer(theirs.pid, "suspend", code="night", reason="at 8")
            assert (await pulled(first)).status_code == 401
            assert (await until(node, first.pid, "SUSPENDED")).reason == "at 8"
            await node.decide_transfer(first.pid, "resume")
            second = await until(node, first.pid, "STARTED")
            assert (await pulled(first)).status_code == 401
            assert (await pulled(second)).content == whole.content
        killed = contract.space.members["provider"]
        killed.kill()
        killed.start()
        await contract.space.until("provider", lambda status: status.state == "ready")
        assert (await pulled(second)).content == whole.content
        await node.decide_transfer(first.pid, "complete")
        async with contract.space.node("provider") as provider:
            await until(provider, theirs.pid, "COMPLETED")
            assert (await pulled(second)).status_code == 401
            receipts = (await provider.receipts(contract.agreement)).receipts
            uses = [receipt for receipt in receipts if receipt.kind == "use"]
            assert [(use.use_id, use.outcome) for use in uses] == [(theirs.pid, "allowed")]
            assert uses[0].quantities["bytes_returned"] == 3 * len(whole.content)
        with pytest.raises(Conflict):
            await node.decide_transfer(first.pid, "resume")


async def test_the_terms_and_the_end_of_the_agreement_hold_for_transfers(tmp_path: Path) -> None:
    async with held(tmp_path) as contract, contract.space.node("consumer") as node:
        two = [await node.request_transfer(contract.agreement) for _ in range(2)]
        assert [each.state for each in two] == ["STARTED", "STARTED"]
        refused = await node.request_transfer(contract.agreement)
        assert (refused.state, refused.code) == ("TERMINATED", "policy")
        assert "count" in refused.reason
        async with contract.space.node("provider") as provider:
            await provider.end_agreement(contract.agreement, reason="sold")
            assert await provider.transfers(open_only=True) == ()
        for each in two:
            assert (await pulled(each)).status_code == 401
            ended = await until(node, each.pid, "TERMINATED")
            assert (ended.code, ended.reason) == ("agreement", "sold")
        with pytest.raises(Conflict):
            await node.request_transfer(contract.agreement)


async def test_what_the_provider_does_not_offer_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with held(tmp_path) as contract, contract.space.node("consumer") as node:
        async with asyncio.timeout(START_S), node.events() as events:
            found = await node.request_transfer(contract.agreement, format="Carrier-Pigeon")
            assert (found.state, found.code) == ("TERMINATED", "peer:invalid_input"), found
            assert found.reason.startswith("format: ")
            told = [(await anext(events)) for _ in range(2)]
        assert [(event.kind, event.pid, event.state) for event in told] == [
            ("transfer", found.pid, "REQUESTED"),
            ("transfer", found.pid, "TERMINATED"),
        ]
        assert await node.transfers(open_only=True) == ()
        with pytest.raises(NotFound):
            await node.request_transfer("urn:uuid:nothing")
        data = contract.space.folder / "consumer"
        (listed,) = connector("transfer", "list", "--data", data)["transfers"]
        assert listed["pid"] == found.pid
        connector("transfer", "resume", found.pid, "--data", data, ok=False)
        async with contract.space.node("provider") as provider:
            assert await provider.transfers() == ()
