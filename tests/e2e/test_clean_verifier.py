"""The auditor's environment, made by ``make setup``: the wheel and two libraries, no more.

Nothing of this working copy may be seen there, or the test would prove nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv-auditor" / "bin"
HEAVY = ("grpc", "google.protobuf", "duckdb", "pyarrow", "sqlglot", "starlette", "uvicorn", "typer")


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
    )


@pytest.fixture(autouse=True)
def _there_is_one() -> None:
    if not (BIN / "connector-verify").exists():
        pytest.fail("there is no .venv-auditor: run make setup")


def test_only_the_base_package_is_installed(tmp_path: Path) -> None:
    listed = run("python", "-m", "pip", "list", "--format=json", cwd=tmp_path)
    names = {each["name"].lower() for each in json.loads(listed.stdout)}
    assert names - {"pip", "setuptools", "wheel"} == {
        "cffi",
        "cryptography",
        "pycparser",
        "pyjwt",
        "tds-connector",
    }


def test_the_verifier_loads_nothing_heavy_and_nothing_of_this_folder(tmp_path: Path) -> None:
    script = (
        "import sys, connector.verifier.cli as cli\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), cli.__file__)"
    )
    told = run("python", "-c", script, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    found, _, path = told.stdout.strip().partition(" ")
    assert found == "[]"
    assert Path(path).is_relative_to(ROOT / ".venv-auditor")


def test_the_verifier_explains_itself(tmp_path: Path) -> None:
    told = run("connector-verify", "--help", cwd=tmp_path)
    assert told.returncode == 0
    assert "--space-key" in told.stdout


def test_a_file_that_is_no_evidence_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("[]")
    told = run("connector-verify", "e.json", "--space-key", "A" * 43, cwd=tmp_path)
    assert told.returncode != 0
    assert "Traceback" not in told.stderr


def test_the_node_says_what_is_missing_there(tmp_path: Path) -> None:
    told = run("connector", "status", cwd=tmp_path)
    assert told.returncode == 1
    assert "tds-connector[node]" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_wheel_carries_policies_and_licence(tmp_path: Path) -> None:
    script = (
        "from importlib.resources import files\n"
        "from importlib.metadata import files as installed\n"
        "print(len([f for f in files('connector').joinpath('_policies').iterdir()\n"
        "           if f.name.endswith('.rego')]),\n"
        "      any(f.name == 'LICENSE' for f in installed('tds-connector')))"
    )
    told = run("python", "-c", script, cwd=tmp_path)
    rego = len(list((ROOT / "policies").glob("*.rego")))
    assert told.stdout.split() == [str(rego), "True"], told.stderr
