"""The Dataspace Protocol's public conformance suite, DSP TCK 1.0.1: fetched once, run, read.

``jars()`` has it from Maven Central (``pom.xml``), once, into ``.cache/tck``; or ``DSP_TCK_JARS``
says where it is, as a Java class path, for those who have it from elsewhere. ``run()`` starts it
against the system that a configuration names. ``python -m tests.conformance.dsp.suite`` fetches
ahead of time. Where it cannot be had the tests that need it are skipped, loudly.

The suite ends with exit code 0 whatever it found, so only what it prints counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from tests.conformance.dsp.script import CASES

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".cache" / "tck"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
MAIN = "org.eclipse.dataspacetck.dsp.suite.DspTckSuite"
FETCH_TIMEOUT_S = 900
RUN_TIMEOUT_S = 900

_ENDED = re.compile(r"\b(SUCCESSFUL|FAILED|ABORTED): ([A-Z_]+:\d\d-\d\d)")
_COUNT = re.compile(r"\b(Passed|Failed) tests: (\d+)")


@dataclass(frozen=True, slots=True)
class Result:
    """``passed`` and ``failed`` as the suite counts; -1 if it did not come that far."""

    passed: int
    failed: int
    failures: tuple[str, ...]  # as "CN:01-01", in the order in which they ran
    output: str

    def __str__(self) -> str:
        failures = f" ({', '.join(self.failures)})" if self.failures else ""
        return f"{self.passed} passed, {self.failed} failed{failures}"


@dataclass(frozen=True, slots=True)
class System:
    """A connector under test, and the harness that starts its negotiations and transfers."""

    dsp_url: str  # where its protocol endpoints begin; no slash at the end
    base_url: str  # below which /.well-known/dspace-version is; no slash at the end
    participant: str  # its identifier
    negotiate_url: str
    transfer_url: str
    authorization: str = ""  # the header's value that the suite sends with every request
    offer: str = "CD123:{dataset}:456"  # what its offers are called; CN:01-02 insists on this
    agreements: Mapping[str, str] = field(default_factory=dict)  # the script's names, and their ids


def configuration(system: System, port: int, *, wait_s: int = 15) -> str:
    """A file for ``-config``; the suite listens on ``port`` of the loopback interface."""
    connector = "dataspacetck.dsp.connector"
    values = {
        **_listening(port),
        "dataspacetck.dsp.local.connector": "false",
        f"{connector}.agent.id": system.participant,
        f"{connector}.http.url": system.dsp_url,
        f"{connector}.http.base.url": system.base_url,
        f"{connector}.negotiation.initiate.url": system.negotiate_url,
        f"{connector}.transfer.initiate.url": system.transfer_url,
        "dataspacetck.dsp.default.wait": str(wait_s),  # seconds, whatever its manual says
    }
    if system.authorization:
        values[f"{connector}.http.headers.authorization"] = system.authorization
    for case in CASES:
        name = re.sub(r"\W", "_", case.id)
        if case.id.startswith("TP"):
            values[f"{name}_AGREEMENTID"] = system.agreements.get(case.subject, case.subject)
            values[f"{name}_FORMAT"] = "HttpData-PULL"
        elif case.subject:
            values[f"{name}_DATASETID"] = case.subject
        if case.id.startswith("CN:"):
            values[f"{name}_OFFERID"] = system.offer.format(dataset=case.subject)
    return _properties(values)


def self_test(port: int) -> str:
    """The suite against the connector that it brings along."""
    return _properties({**_listening(port), "dataspacetck.dsp.local.connector": "true"})


def _listening(port: int) -> dict[str, str]:
    return {
        "dataspacetck.ansi": "false",
        "dataspacetck.debug": "true",
        "dataspacetck.host": "127.0.0.1",
        "dataspacetck.port": str(port),
        "dataspacetck.callback.address": f"http://127.0.0.1:{port}",
    }


def _properties(values: Mapping[str, str]) -> str:
    """After java.util.Properties."""
    return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in values.items())


async def run(classpath: str, config: str, folder: Path) -> Result:
    """Run the suite once. Its configuration and what it prints stay in ``folder``."""
    (folder / "tck.properties").write_text(config)
    process = await asyncio.create_subprocess_exec(
        "java",
        "-cp",
        classpath,
        MAIN,
        "-config",
        "tck.properties",
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    (folder / "tck.log").write_bytes(output)
    return parse(output.decode(errors="replace"))


def parse(output: str) -> Result:
    counts = {word: int(number) for word, number in _COUNT.findall(output)}
    failures = tuple(test for status, test in _ENDED.findall(output) if status != "SUCCESSFUL")
    return Result(counts.get("Passed", -1), counts.get("Failed", -1), failures, output)


def require() -> str:
    """The suite's class path, or a skip that nobody overlooks."""
    found = jars()
    if found is None:
        message = (
            "NO DSP TCK: the Dataspace Protocol's conformance is NOT TESTED. "
            "Install a JDK (17 or newer) and Maven, where Maven Central has it; or name it in "
            "DSP_TCK_JARS."
        )
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return found


def jars() -> str | None:
    """The suite's class path; fetched if need be. None if it cannot be had."""
    if shutil.which("java") is None:
        return None
    if given := os.environ.get("DSP_TCK_JARS"):
        return given
    target = CACHE / _digest()
    if not (target / "complete").exists():
        if shutil.which("mvn") is None:
            return None
        target.mkdir(parents=True, exist_ok=True)
        with (target / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not (target / "complete").exists():
                if not _copy(HERE / "pom.xml", target):
                    return None
                (target / "complete").touch()
    return str(target / "lib" / "*")


def _digest() -> str:
    """Of what it is made from: another release lies in another folder."""
    return hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:16]


def _copy(pom: Path, target: Path) -> bool:
    """The jars that a ``pom.xml`` names, with all that they need, into ``target/lib``."""
    lib = target / "lib"
    shutil.rmtree(lib, ignore_errors=True)
    return _done(
        "mvn",
        "--batch-mode",
        "--quiet",
        f"--file={pom}",
        COPY,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={lib}",
    )


def _done(*command: str) -> bool:
    finished = subprocess.run(
        command, check=False, timeout=FETCH_TIMEOUT_S, capture_output=True, text=True
    )
    return finished.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if jars() else "the Dataspace Protocol's conformance suite cannot be had here")
