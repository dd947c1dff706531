"""A data space of real processes: what holds while it runs, and when its processes are killed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from connector.client import Refused, UseFailed
from connector.errors import ConnectorError
from connector.model.participant import unb64url
from connector.verifier.verify import verify_file
from tests.e2e.space import CONNECTOR, COUNT, SLOW, Contract, contract

pytestmark = pytest.mark.e2e


async def outcomes(tasks: list[asyncio.Task[object]]) -> tuple[int, list[Exception]]:
    """How many succeeded, and what the others raised."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    return len(results) - len(failed), failed


async def assert_books_verify(held: Contract, agreement: str, allowed: int) -> None:
    """Both parties' evidence is valid, and says that so many uses were allowed."""
    for name in ("provider", "consumer"):
        async with held.space.node(name) as node:
            evidence = await node.export_evidence(agreement, disclose_secret=True)
            key = (await node.status()).space_key
        verdict = verify_file(evidence, unb64url(key, 32))
        assert verdict.valid, verdict.as_json()
        assert verdict.totals["provider"]["allowed"] == allowed, verdict.totals


async def test_the_allowance_is_exact_and_small_groups_stay_in(tmp_path: Path) -> None:
    async with contract(tmp_path, uses=7) as held:
        first = await held.ask()
        assert first.table.to_pydict()["region"] == ["r0", "r1"]
        assert first.receipt.quantities["groups_withheld"] == 1
        storm = [asyncio.create_task(held.ask()) for _ in range(64)]
        succeeded, failed = await outcomes(storm)
        assert succeeded == 6
        assert len(failed) == 58
        assert {reason.term for error in failed for reason in error.reasons} == {"count"}
        await assert_books_verify(held, held.agreement, 7)


async def test_a_repeated_use_id_gives_the_same_receipt_and_result(tmp_path: Path) -> None:
    async with contract(tmp_path, uses=2) as held:
        first = await held.ask(use_id="once")
        again = await held.ask(use_id="once")
        assert (again.receipt, again.table) == (first.receipt, first.table)
        with pytest.raises(ConnectorError) as other:
            await held.ask("SELECT count(*) AS n FROM people", use_id="once")
        assert other.value.code == "conflict"
        assert (await held.ask()).receipt.number == first.receipt.number + 1


async def test_suspension_stops_a_running_query_within_a_second(tmp_path: Path) -> None:
    async with contract(tmp_path) as held:
        running = asyncio.create_task(held.ask(SLOW))
        await asyncio.sleep(1.0)
        assert not running.done()
        async with held.space.operator() as operator:
            await operator.set_membership("did:web:consumer.example", "suspended", reason="test")
            began = time.monotonic()
            with pytest.raises(ConnectorError):
                await running
            assert time.monotonic() - began < 1.0
            with pytest.raises(ConnectorError):
                await held.ask()
            await operator.set_membership("did:web:consumer.example", "active", reason="test")
        await held.space.until("consumer", lambda status: status.state == "ready")
        await _eventually(held)
        async with held.space.node("provider") as node:
            seen = [receipt.outcome for receipt in (await node.receipts(held.agreement)).receipts]
        assert seen[:2] == ["", "interrupted"]


async def _eventually(held: Contract) -> None:
    """Until a use succeeds again."""
    for _ in range(100):
        try:
            await held.ask()
            return
        except ConnectorError:
            await asyncio.sleep(0.1)
    raise AssertionError("no use succeeds any more")


async def test_the_end_of_an_agreement_stops_its_queries_and_reaches_both_logs(
    tmp_path: Path,
) -> None:
    async with contract(tmp_path) as held:
        running = asyncio.create_task(held.ask(SLOW))
        await asyncio.sleep(1.0)
        async with held.space.node("provider") as node:
            assert await node.end_agreement(held.agreement, reason="sold") == 1
        with pytest.raises(UseFailed) as stopped:
            await running
        assert "agreement" in str(stopped.value)
        with pytest.raises(Refused):
            await held.ask()
        for name in ("provider", "consumer"):
            async with held.space.node(name) as node:
                acts = [receipt.act for receipt in (await node.receipts(held.agreement)).receipts]
            assert "agreement.ended" in acts, (name, acts)
        await assert_books_verify(held, held.agreement, 0)


async def test_a_killed_provider_loses_no_use_and_counts_none_twice(tmp_path: Path) -> None:
    async with contract(tmp_path, uses=5) as held:
        provider = held.space.members["provider"]
        await held.ask()
        uses = [asyncio.create_task(held.ask(SLOW, use_id=f"slow{n}")) for n in range(3)]
        await asyncio.sleep(1.0)
        provider.kill()
        succeeded, failed = await outcomes(uses)
        assert succeeded == 0
        assert len(failed) == 3
        provider.start()
        await held.space.until("provider", lambda status: status.state == "ready")
        with pytest.raises(UseFailed):  # it was interrupted, and that is its receipt for good
            await held.ask(SLOW, use_id="slow0")
        for _ in range(4):
            await held.ask()
        with pytest.raises(Refused):
            await held.ask()
        await assert_books_verify(held, held.agreement, 5)


async def test_a_killed_consumer_goes_on_where_it_was(tmp_path: Path) -> None:
    async with contract(tmp_path) as held:
        consumer = held.space.members["consumer"]
        running = asyncio.create_task(held.ask(SLOW, use_id="cut"))
        await asyncio.sleep(1.0)
        consumer.kill()
        with pytest.raises(ConnectorError):
            await running
        consumer.start()
        await held.space.until("consumer", lambda status: status.state == "ready")
        await held.ask()
        with pytest.raises(UseFailed):
            await held.ask(SLOW, use_id="cut")
        await assert_books_verify(held, held.agreement, 1)


@pytest.mark.parametrize("victim", ["provider", "consumer"])
async def test_a_negotiation_survives_the_death_of_either_side(tmp_path: Path, victim: str) -> None:
    async with contract(tmp_path) as held:
        process = held.space.members[victim]
        for delay in (0.0, 0.01, 0.02, 0.04):
            started = asyncio.create_task(held.again())
            await asyncio.sleep(delay)
            process.kill()
            await asyncio.gather(started, return_exceptions=True)
            process.start()
            await held.space.until(victim, lambda status: status.state == "ready")
        await _agree_on_everything(held)
        await held.ask()


async def _agree_on_everything(held: Contract) -> None:
    """Both sides come to hold the same agreements, and nothing stays open."""
    for _ in range(100):
        views = []
        for name in ("provider", "consumer"):
            async with held.space.node(name) as node:
                states = {n.state for n in await node.negotiations()}
                agreements = {a.id for a in await node.agreements()}
            views.append((states - {"FINALIZED", "TERMINATED"}, agreements))
        if views[0] == views[1] and not views[0][0]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the two sides differ: {views}")


async def test_a_consumer_has_evidence_when_its_provider_is_gone(tmp_path: Path) -> None:
    async with contract(tmp_path) as held:
        await held.ask()
        with pytest.raises(Refused):
            await held.ask(purpose="insurance-pricing")
        held.space.members["provider"].kill()
        async with held.space.node("consumer") as node:
            evidence = await node.export_evidence(held.agreement)
            key = (await node.status()).space_key
        verdict = verify_file(evidence, unb64url(key, 32))
        assert verdict.valid, verdict.as_json()
        assert verdict.steps[13].detail.startswith("2 receipts")
        assert verdict.totals["consumer"]["allowed"] == 1


async def test_without_the_directory_nobody_is_served_for_long(tmp_path: Path) -> None:
    settings = {"settings": "view_max_age_s = 3", "directory": "heartbeat_s = 1"}
    async with contract(tmp_path, **settings) as held:
        held.space.directory.kill()
        await held.ask()  # the view is young enough
        await held.space.until("provider", lambda status: status.state != "ready", 10)
        with pytest.raises(ConnectorError) as refused:
            await held.ask()
        assert refused.value.code == "unavailable"
        held.space.directory.start()
        await held.space.until("provider", lambda status: status.state == "ready")
        await held.space.until("consumer", lambda status: status.state == "ready")
        await _eventually(held)


async def test_yesterdays_copy_of_a_data_folder_issues_nothing(tmp_path: Path) -> None:
    async with contract(tmp_path) as held:
        provider = held.space.members["provider"]
        assert provider.stop() == 0
        shutil.copytree(provider.data, tmp_path / "yesterday")
        provider.start()
        await held.space.until("provider", lambda status: status.state == "ready")
        for _ in range(3):
            await held.ask()
        await _until_witnessed(held)
        assert provider.stop() == 0
        shutil.rmtree(provider.data)
        shutil.copytree(tmp_path / "yesterday", provider.data)
        provider.start()
        await held.space.until("provider", lambda status: status.view_age_s >= 0)
        with pytest.raises(ConnectorError):
            await held.ask()
        async with held.space.node("provider") as node:
            assert (await node.status()).state != "ready"
            checks = {check.name: check for check in await node.diagnose()}
        assert not checks["witness"].ok
        assert "behind" in checks["witness"].detail


async def _until_witnessed(held: Contract) -> None:
    async with held.space.node("provider") as node:
        size = (await node.status()).log_size
    for _ in range(100):
        async with held.space.operator() as operator:
            members = {member.did: member for member in await operator.members()}
        if members["did:web:provider.example"].witnessed_size >= size:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the log is not witnessed")


async def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with contract(tmp_path) as held:
        data = held.space.members["provider"].data
        command = [*CONNECTOR, "serve", "--data", str(data)]
        second = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert second.returncode == 4
        assert b"another process serves" in second.stderr
        assert (await held.ask(COUNT)).receipt.outcome == "allowed"
