"""``connector-verify`` as an auditor meets it: output, exit status, and what it never touches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from connector.verifier import cli
from tests.vectors import generate

FOLDER = generate.FOLDER / "evidence"
KEY = generate.space_key()


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_valid(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, str(FOLDER / "consumer.json"), "--space-key", KEY)
    assert (status, err) == (0, "")
    assert out.endswith("\nVALID\n")
    assert " 8. ok      no receipt is missing" in out
    assert "bytes returned               3,072           3,072" in out


def test_the_key_may_be_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key = tmp_path / "space.key"
    key.write_text(f"{KEY}\n")
    assert run(capsys, str(FOLDER / "provider.json"), "--space-key", str(key))[0] == 0


def test_not_valid(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, str(FOLDER / "skips_a_number.json"), "--space-key", KEY)
    assert status == 1
    assert "! receipt 2 of the provider's log is missing: numbers go from 1 to 3" in out
    assert out.endswith("\nNOT VALID: step 8 failed\n")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(FOLDER / "skips_a_number.json")
    status, out, _ = run(capsys, file, "--space-key", KEY, "--json")
    verdict = json.loads(out)
    assert (status, verdict["valid"]) == (1, False)
    assert [step["number"] for step in verdict["steps"] if not step["ok"]] == [8]


BAD = {
    "no such file": ("missing.json", KEY, "cannot be read"),
    "a folder": (".", KEY, "cannot be read"),
    "not evidence": (str(generate.FOLDER / "receipts.json"), KEY, "format"),
    "a short key": (str(FOLDER / "provider.json"), KEY[:42], "cannot be read"),
    "a key of other characters": (str(FOLDER / "provider.json"), "!" * 43, "32 bytes"),
    "a key file without a key": (
        str(FOLDER / "provider.json"),
        str(generate.FOLDER / "receipts.json"),
        "32 bytes",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_unusable(capsys: pytest.CaptureFixture[str], case: tuple[str, str, str]) -> None:
    file, key, says = case
    status, out, err = run(capsys, file, "--space-key", key)
    assert (status, out) == (2, "")
    assert err.startswith("connector-verify: ")
    assert says in err


def test_a_file_does_not_drive_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = json.loads((FOLDER / "provider.json").read_text())
    data["exporter"] = "did:web:\x1b[2J\rVALID"
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(data))
    status, out, _ = run(capsys, str(file), "--space-key", KEY)
    assert status == 1
    assert not set(out) & {"\x1b", "\r"}


def test_many_failures_are_summed_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = json.loads((FOLDER / "provider.json").read_text())
    data["logs"][0]["entries"] *= 5
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(data))
    out = run(capsys, str(file), "--space-key", KEY)[1]
    assert "more (--json lists them)" in out
    assert len(out.splitlines()) < 120


def test_it_needs_neither_the_network_nor_the_rest() -> None:
    """A process that may open no socket and ends up with none of the node's packages loaded."""
    program = (
        "import sys\n"
        "def cut(event, _):\n"
        "    if event.startswith('socket.'): raise OSError('no network')\n"
        "sys.addaudithook(cut)\n"
        "from connector.verifier.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'grpc', 'google', 'duckdb', 'pyarrow', 'starlette', 'sqlite3',"
        " 'rich', 'typer', 'sqlglot', 'regorus'}, loaded\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(FOLDER / "consumer.json"), "--space-key", KEY],
        cwd=generate.FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
