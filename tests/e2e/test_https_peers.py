"""Two real nodes of a space that speak the Dataspace Protocol over HTTPS with each other, though
they could use gRPC: the catalogue, an agreement, and its data."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from connector.errors import ConnectorError
from tests.e2e.space import START_S, Space, agreed, connector, free_ports, space

pytestmark = pytest.mark.e2e

ROWS = 400_000
TERMS = {
    "permission": [
        {
            "action": "use",
            "constraint": [
                {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["planning"]},
                {"leftOperand": "count", "operator": "lteq", "rightOperand": 5},
            ],
        }
    ]
}


def settings(mine: int, other: str, port: int) -> str:
    return f"""
[dsp]
listen = "127.0.0.1:{mine}"
allow = ["127.0.0.0/8"]
[[peer]]
id = "did:web:{other}.example"
url = "https://127.0.0.1:{port}/2025-1"
"""


def flights(path: Path) -> Path:
    chance = random.Random(5)
    lines = (f"{n},{chance.choice('abc')},{chance.random():.6f}" for n in range(ROWS))
    path.write_text("number,region,delay\n" + "\n".join(lines) + "\n")
    return path


async def test_catalogue_agreement_and_data_over_https(tmp_path: Path) -> None:
    here, there = free_ports(2)
    async with space(tmp_path) as found:
        await found.admit("airport", ["provider", "consumer"], settings(here, "bureau", there))
        await found.admit("bureau", ["consumer"], settings(there, "airport", here))
        source = flights(tmp_path / "flights.csv")
        async with found.node("airport") as node:
            published = await node.publish(
                source,
                title="Flights",
                table="flights",
                classification="general",
                terms=TERMS,
                dimensions=["region"],
            )
        data = found.members["bureau"].data
        for name in ("did:web:airport.example", f"https://127.0.0.1:{here}/2025-1"):
            listed = connector("catalog", "list", name, "--data", data)["catalog"]
            (dataset,) = listed["datasets"]
            assert (listed["peer"], dataset["id"]) == (
                "did:web:airport.example",
                published.dataset_id,
            )
            assert "HttpData-PULL" in dataset["formats"]
        async with asyncio.timeout(START_S):
            agreement = await negotiated(found, published.dataset_id)
        assert "/negotiations/request" in found.members["bureau"].log  # what was delivered
        async with found.node("bureau") as node:
            transfer = await node.request_transfer(agreement)
            assert transfer.state == "STARTED", transfer
            target = tmp_path / "pulled.csv"
            pulling = asyncio.create_task(node.pull_to(transfer.pid, target))
            done = await asyncio.wait_for(pulling, START_S)
            assert done.size == source.stat().st_size
            assert target.read_bytes() == source.read_bytes()
            completed = await node.decide_transfer(transfer.pid, "complete")
            assert completed.state == "COMPLETED"
            with pytest.raises(ConnectorError):
                await node.pull_to(transfer.pid, tmp_path / "again.csv")
            await node.end_agreement(agreement, reason="done with it")
        await until_over(found, "airport")
        for name in ("airport", "bureau"):
            async with found.node(name) as node:
                lines = {line.name: line for line in (await agreed(node, agreement)).lines}
            counted = lines["bytes_returned"]
            assert counted.provider == counted.consumer == source.stat().st_size
            assert "bytes_not_counted" not in lines


async def test_messages_wait_for_a_node_that_is_away_and_outlive_their_sender(
    tmp_path: Path,
) -> None:
    here, there = free_ports(2)
    async with space(tmp_path) as found:
        airport = await found.admit(
            "airport", ["provider", "consumer"], settings(here, "bureau", there)
        )
        bureau = await found.admit("bureau", ["consumer"], settings(there, "airport", here))
        source = tmp_path / "flights.csv"
        source.write_text("number,region\n1,a\n2,b\n")
        async with found.node("airport") as node:
            published = await node.publish(
                source,
                title="Flights",
                table="flights",
                classification="general",
                terms=TERMS,
                manual_approval=True,
            )
        async with found.node("bureau") as node:
            asked = await node.negotiate(
                "did:web:airport.example", published.dataset_id, follow_s=0.5
            )
        assert asked.state == "REQUESTED"
        async with found.node("airport") as node:
            async with asyncio.timeout(START_S):
                while not (waiting := await node.negotiations(waiting_only=True)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            bureau.kill()
            assert (await node.decide(waiting[0].pid, "approve")).state == "AGREED"
        airport.kill()
        for one in (airport, bureau):
            one.start()
        async with asyncio.timeout(3 * START_S):
            for name in ("bureau", "airport"):
                await found.until(name, lambda status: status.state == "ready", 2 * START_S)
                async with found.node(name) as node:
                    while (await node.negotiations())[0].state != "FINALIZED":  # noqa: ASYNC110
                        await asyncio.sleep(0.1)


async def negotiated(found: Space, dataset_id: str) -> str:
    async with found.node("bureau") as node:
        done = await node.negotiate("did:web:airport.example", dataset_id)
        assert done.state == "FINALIZED", done
        return done.agreement_id


async def until_over(found: Space, name: str) -> None:
    async with asyncio.timeout(START_S), found.node(name) as node:
        while any(one.state != "COMPLETED" for one in await node.transfers()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while any(one.state != "ended" for one in await node.agreements()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
