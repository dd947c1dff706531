"""Decisions a second: the embedded engine, an OPA server over loopback, and two baselines.

The baselines are what a decision costs without any policy: reading and checking its input, and
reading its answer. Run with ``pytest bench/test_policy.py``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from connector.adapters.bundle import load_bundle
from connector.adapters.opa import OpaEngine
from connector.adapters.rego import RegoEngine
from connector.policy import decisions, inputs
from connector.ports.policy import PolicyEngine
from tests import opa_server
from tests.policy_cases import negotiation, usage

REFUSED = {**usage(), "use": {"purpose": "marketing", "action": "use"}}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module", params=["embedded", "opa"])
def engine(
    request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop
) -> Iterator[PolicyEngine]:
    if request.param == "embedded":
        yield RegoEngine(load_bundle())
        return
    with opa_server.running() as url:
        server = OpaEngine(load_bundle(), url, 10.0)
        loop.run_until_complete(server.open())
        yield server
        loop.run_until_complete(server.close())


def _decide(
    loop: asyncio.AbstractEventLoop, engine: PolicyEngine, entry: str, document: dict[str, Any]
) -> Any:
    return loop.run_until_complete(engine.evaluate(entry, document))


def test_baseline_input(benchmark: BenchmarkFixture) -> None:
    document = usage()
    assert benchmark(inputs.encode, document)


def test_baseline_answer(benchmark: BenchmarkFixture) -> None:
    answer = json.dumps(
        {
            "allow": True,
            "reasons": [],
            "obligations": {
                "minimum_group": 10,
                "privacy_unit": "tailnum",
                "row_cap": 0,
                "hidden_columns": ["hour"],
            },
        }
    )
    assert benchmark(lambda: decisions.read_usage(json.loads(answer), bytes(32))).allow


def test_use_allowed(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, engine: PolicyEngine
) -> None:
    benchmark.extra_info["baseline"] = "test_baseline_input"
    document = usage()
    answer = benchmark(_decide, loop, engine, decisions.USAGE, document)
    assert answer["allow"] is True


def test_use_refused(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, engine: PolicyEngine
) -> None:
    benchmark.extra_info["baseline"] = "test_baseline_input"
    answer = benchmark(_decide, loop, engine, decisions.USAGE, REFUSED)
    assert answer["allow"] is False


def test_negotiation(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, engine: PolicyEngine
) -> None:
    benchmark.extra_info["baseline"] = "test_baseline_input"
    document = negotiation()
    answer = benchmark(_decide, loop, engine, decisions.NEGOTIATION, document)
    assert answer["outcome"] == "approve"


def test_load(benchmark: BenchmarkFixture) -> None:
    assert benchmark(lambda: RegoEngine(load_bundle())).digest
