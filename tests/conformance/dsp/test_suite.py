"""The public conformance suite of the Dataspace Protocol against a running connector.

``CONFORMANCE_ROUNDS=10`` (``make conformance-10``) runs it ten times, each time against a new one,
and prints a line for each.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.dsp import suite
from tests.conformance.dsp.connector_node import under_test
from tests.conformance.dsp.harness import serving
from tests.conformance.dsp.script import CASES, DISABLED
from tests.e2e.space import free_ports

ROUNDS = int(os.environ.get("CONFORMANCE_ROUNDS", "1"))
ALL = len(CASES) - len(DISABLED)


@pytest.fixture(scope="module")
def tck() -> str:
    """The suite's class path."""
    return suite.require()


async def test_the_suite_passes_against_itself(tck: str, tmp_path: Path) -> None:
    """That it is whole: every test that it has runs, and against the right connector passes.

    In three runs: its own connector sends some messages 0.1 s after an event, when the suite, on a
    busy machine, may not listen for them yet (CN_C:02-02, for one). ``harness`` waits longer.
    """
    failing = {case.id for case in CASES}
    for _ in range(3):
        result = await suite.run(tck, suite.self_test(*free_ports(1)), tmp_path)
        assert result.passed + result.failed == ALL, result.output
        failing &= set(result.failures)
        if not failing:
            break
    assert not failing, result.output


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
async def test_the_connector_conforms(
    number: int, tck: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        under_test(tmp_path) as (node, system, port),
        serving(node) as (harness, url),
    ):
        start = time.monotonic()
        wanted = replace(
            system, negotiate_url=f"{url}/negotiations", transfer_url=f"{url}/transfers"
        )
        result = await suite.run(tck, suite.configuration(wanted, port), tmp_path)
        took = time.monotonic() - start
    with capsys.disabled():
        print(f"\nDSP TCK, round {number}: {result}, {took:.0f} s")  # noqa: T201 -- what it is for
    assert (result.passed, result.failed, result.failures) == (ALL, 0, ()), result.output
    assert harness.problems == []


def test_what_the_suite_prints_is_read() -> None:
    said = (
        "[2026-01-01T00:00:00] Started: CN:01-01: Verify\n"
        "[2026-01-01T00:00:01] FAILED: CN:01-01\n\n"
        "[2026-01-01T00:00:02] SUCCESSFUL: TP_C:01-05\n"
        "[2026-01-01T00:00:03] ABORTED: MET:01-01\n"
        "[2026-01-01T00:00:04] Passed tests: 63\n[2026-01-01T00:00:04] Failed tests: 2\n"
    )
    result = suite.parse(said)
    assert (result.passed, result.failed) == (63, 2)
    assert result.failures == ("CN:01-01", "MET:01-01")
    assert str(result) == "63 passed, 2 failed (CN:01-01, MET:01-01)"
    assert suite.parse("Exception in thread main").passed == -1


def test_a_configuration_names_every_dataset_and_agreement() -> None:
    system = suite.System(
        dsp_url="http://127.0.0.1:8282/dsp/2025-1",
        base_url="http://127.0.0.1:8282/dsp",
        participant="did:web:connector.example",
        negotiate_url="http://127.0.0.1:8687/negotiations",
        transfer_url="http://127.0.0.1:8687/transfers",
        authorization="Bearer static",
    )
    lines = suite.configuration(system, 8083).splitlines()
    assert "dataspacetck.callback.address=http://127.0.0.1:8083" in lines
    assert "dataspacetck.dsp.connector.http.headers.authorization=Bearer static" in lines
    for line in (
        "CN_01_02_DATASETID=ACN0102",
        "CN_01_02_OFFERID=CD123:ACN0102:456",
        "CN_C_03_06_DATASETID=ACNC0306",
        "TP_03_06_AGREEMENTID=ATP0306",
        "TP_C_01_05_AGREEMENTID=ATPC0104",
        "TP_C_02_04_FORMAT=HttpData-PULL",
        "CAT_01_03_DATASETID=CAT0103",
    ):
        assert line in lines
    assert sum(line.startswith(("CN_", "TP_", "CAT_")) for line in lines) == 15 * 2 + 16 + 64 + 3
