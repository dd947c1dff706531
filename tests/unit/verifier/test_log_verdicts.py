"""``connector-verify proof`` and ``connector-verify log`` as an auditor meets them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from connector.tlog import merkle
from connector.tlog.proof import Proof, write_proof
from connector.verifier import cli
from tests.exported import VKEY, records, witness_key, write_folder
from tests.vectors import generate
from tests.vectors.scenario import CONSUMER, SPACE

KEY = VKEY.encode()
WITNESS = witness_key(SPACE).encode()
LEAVES = records(300)
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = cli.main([str(item) for item in argv])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``log``, ``receipt`` and ``receipt.tlog-proof``, of leaf 7."""
    folder = tmp_path_factory.mktemp("place")
    log = write_folder(folder / "log", LEAVES, cosigners=[SPACE])
    path = merkle.inclusion_proof(7, len(LEAVES), merkle.reader_of(HASHES))
    proof = Proof(7, tuple(path), (log / "checkpoint").read_bytes())
    (folder / "receipt.tlog-proof").write_bytes(write_proof(proof))
    (folder / "receipt").write_bytes(LEAVES[7])
    (folder / "other").write_bytes(LEAVES[8])
    (folder / "key").write_text(f"{KEY}\n")
    return folder


def test_a_proof(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ("proof", place / "receipt.tlog-proof", "--leaf", place / "receipt")
    status, out, err = run(capsys, *given, "--key", KEY, "--witness", WITNESS)
    assert (status, err) == (0, "")
    assert out.endswith("\nVALID\n")
    for line in (
        "kind          record",
        "use_id        use-7",
        "quantities    {'calls': 2}",
        "reporter      api-gateway",
        "served        2026-11-23T08:00:00.000Z",
        "log           airport.example/log at 300 leaves",
        f"leaf          7, hash {HASHES[7].hex()}",
        "cosigned      space.example/log at 2026-11-23T08:01:40.000Z",
    ):
        assert f"{line}\n" in out
    assert run(capsys, *given, "--key", place / "key")[0] == 0


def test_a_proof_as_json(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ("proof", place / "receipt.tlog-proof", "--leaf", place / "receipt", "--json")
    status, out, _ = run(capsys, *given, "--key", KEY)
    found = json.loads(out)
    assert (status, found["valid"], found["index"], found["size"]) == (0, True, 7, 300)
    assert found["receipt"]["quantities"] == {"calls": 2}
    status, out, _ = run(capsys, *given, "--key", KEY, "--witness", witness_key(CONSUMER).encode())
    found = json.loads(out)
    assert (status, found["valid"]) == (1, False)
    assert "none by the expected witness" in found["failure"]


def test_a_proof_of_another_receipt(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ("proof", place / "receipt.tlog-proof", "--leaf", place / "other", "--key", KEY)
    status, out, _ = run(capsys, *given)
    assert status == 1
    assert "\nNOT VALID: " in out


BAD_PROOFS = {
    "no such proof": ("missing", "receipt", KEY, "cannot be read"),
    "no such receipt": ("receipt.tlog-proof", "missing", KEY, "cannot be read"),
    "a folder": ("log", "receipt", KEY, "cannot be read"),
    "not a proof": ("receipt", "receipt", KEY, "not a C2SP tlog-proof"),
    "not a receipt": ("receipt.tlog-proof", "receipt.tlog-proof", KEY, "receipt: "),
    "not a key": ("receipt.tlog-proof", "receipt", KEY[:-1], "verifier key"),
    "a key file of something else": ("receipt.tlog-proof", "receipt", "receipt", "verifier key"),
    "a witness's key": ("receipt.tlog-proof", "receipt", WITNESS, "verifier key"),
}


@pytest.mark.parametrize("case", BAD_PROOFS.values(), ids=BAD_PROOFS.keys())
def test_unusable_proofs(
    case: tuple[str, str, str, str],
    capsys: pytest.CaptureFixture[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    proof, leaf, key, says = case
    status, out, err = run(capsys, "proof", proof, "--leaf", leaf, "--key", key)
    assert (status, out) == (2, "")
    assert err.startswith("connector-verify: ")
    assert says in err


def test_a_log(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    status, out, err = run(capsys, "log", place / "log", "--vkey", KEY, "--witness", WITNESS)
    assert (status, err) == (0, "")
    assert out.endswith("\nVALID\n")
    assert "leaves     300\n" in out
    assert " 3. ok      every entry bundle is there" in out
    assert "cosigned by space.example/log at 2026-11-23T08:01:40.000Z\n" in out
    assert "urn:uuid:1: 100 receipts, 200 allowed, 100 records, 200 reported\n" in out


def test_a_log_as_json(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    status, out, _ = run(
        capsys, "log", place / "log", "--vkey", KEY, "--json", "--core", "python", "--threads", "1"
    )
    found = json.loads(out)
    assert (status, found["valid"], found["size"], found["core"]) == (0, True, 300, "python")
    assert found["scopes"]["urn:uuid:2"]["records"] == 100
    assert [step["number"] for step in found["steps"]] == [1, 2, 3, 4, 5, 6, 7]


def test_a_damaged_log(capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path) -> None:
    log = shutil.copytree(place / "log", tmp_path / "log")
    (log / "tile/entries/000").unlink()
    status, out, _ = run(capsys, "log", log, "--vkey", KEY)
    assert status == 1
    assert "! tile/entries/000: there is no such file" in out
    assert out.endswith("\nNOT VALID: step 3 failed\n")
    status, out, _ = run(capsys, "log", log, "--vkey", KEY, "--allow-dropped")
    assert status == 0
    assert "256 leaves were dropped" in out


BAD_LOGS = {
    "no such folder": ("missing", KEY, "2", "no such file"),
    "a file": ("receipt", KEY, "2", "no such file"),
    "not a key": ("log", "key+00+AA", "2", "verifier key"),
    "no threads": ("log", KEY, "0", "threads"),
}


@pytest.mark.parametrize("case", BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_unusable_logs(
    case: tuple[str, str, str, str], capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    folder, key, threads, says = case
    status, out, err = run(capsys, "log", place / folder, "--vkey", key, "--threads", threads)
    assert (status, out) == (2, "")
    assert says in err


def test_an_evidence_file_may_be_called_log(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(generate.FOLDER / "evidence/provider.json", "log")
    assert run(capsys, "log", "--space-key", generate.space_key())[0] == 0
    assert run(capsys, "log", f"--space-key={generate.space_key()}")[0] == 0


def test_a_log_does_not_drive_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    leaves = type(LEAVES)()
    leaves.record("\x1b[2J\rVALID", "use-1")
    log = write_folder(tmp_path / "log", leaves)
    out = run(capsys, "log", log, "--vkey", KEY)[1]
    assert not set(out) & {"\x1b", "\r"}


def test_another_implementation_s_proofs(
    capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path
) -> None:
    """``tlog-scales`` reads the folder and writes proofs in the same format."""
    for index in (0, 255, 256, 299):
        done = subprocess.run(
            [sys.executable, "-m", "tlog_scales.cli", "gen-proof", str(place / "log"), str(index)],
            capture_output=True,
            check=True,
        )
        proof, leaf = tmp_path / "proof", tmp_path / "leaf"
        proof.write_bytes(done.stdout)
        leaf.write_bytes(LEAVES[index])
        path = merkle.inclusion_proof(index, len(LEAVES), merkle.reader_of(HASHES))
        ours = Proof(index, tuple(path), (place / "log/checkpoint").read_bytes())
        assert done.stdout == write_proof(ours)
        given = ("proof", proof, "--leaf", leaf, "--key", KEY, "--witness", WITNESS)
        assert run(capsys, *given)[0] == 0


def test_they_need_neither_the_network_nor_the_rest(place: Path) -> None:
    """Processes that may open no socket and end up with none of the node's packages loaded."""
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
    for argv in (
        ["log", str(place / "log"), "--vkey", KEY],
        [
            "proof",
            str(place / "receipt.tlog-proof"),
            "--leaf",
            str(place / "receipt"),
            "--key",
            KEY,
        ],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *argv],
            cwd=generate.FOLDER.parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
