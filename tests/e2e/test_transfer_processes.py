"""Transfer messages between real nodes, over the stream that the consumer opens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from connector.errors import NotFound
from tests.e2e.space import START_S, connector, contract

pytestmark = pytest.mark.e2e


async def test_what_the_provider_does_not_offer_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with contract(tmp_path) as held, held.space.node("consumer") as node:
        async with asyncio.timeout(START_S), node.events() as events:
            found = await node.request_transfer(held.agreement, format="Carrier-Pigeon")
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
        data = held.space.folder / "consumer"
        (listed,) = connector("transfer", "list", "--data", data)["transfers"]
        assert listed["pid"] == found.pid
        connector("transfer", "resume", found.pid, "--data", data, ok=False)
        async with held.space.node("provider") as provider:
            assert await provider.transfers() == ()
