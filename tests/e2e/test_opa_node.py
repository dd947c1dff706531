"""A space whose nodes ask a real OPA server: the same answers, the same receipts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from connector.client import Refused
from tests import opa_server
from tests.e2e.space import contract

OPA = '[policy]\nengine = "opa"\nopa_url = "{}"'

pytestmark = pytest.mark.e2e


async def test_nodes_decide_by_an_opa_server(tmp_path: Path) -> None:
    opa_server.require_binary()
    with opa_server.running() as url:
        settings = OPA.format(url)
        async with contract(tmp_path, uses=1, settings=settings, directory=settings) as held:
            assert (await held.ask()).receipt.outcome == "allowed"
            with pytest.raises(Refused) as refused:
                await held.ask(purpose="insurance-pricing")
            terms = {reason.term for reason in refused.value.reasons}
            assert terms == {"count", "purpose"}


async def test_without_an_answer_of_the_policy_nothing_is_released(tmp_path: Path) -> None:
    opa_server.require_binary()
    async with AsyncExitStack() as stack:
        with opa_server.running() as url:
            settings = OPA.format(url)
            held = await stack.enter_async_context(contract(tmp_path, settings=settings))
            assert (await held.ask()).receipt.outcome == "allowed"
        with pytest.raises(Refused) as refused:  # the server is gone
            await held.ask()
        assert [reason.term for reason in refused.value.reasons] == ["policy"]
        async with held.space.node("provider") as node:
            (agreement,) = await node.agreements()
        assert agreement.uses == 1
