"""Exported logs and proofs with anything at all done to their bytes: found, and nothing worse."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.core.choose import choose
from connector.errors import ConnectorError, InvalidInput
from connector.tlog import merkle
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.proof import Proof, parse_proof, verify_proof, write_proof
from connector.verifier.folder import LogFolder
from connector.verifier.wholelog import LogVerdict, verify_log
from tests.exported import VKEY, records, write_folder
from tests.vectors.scenario import PROVIDER

LEAVES = records(290)
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]
FILES = (
    "checkpoint",
    "tile/0/000",
    "tile/0/001.p/34",
    "tile/1/000.p/1",
    "tile/entries/000",
    "tile/entries/001.p/34",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_folder(tmp_path_factory.mktemp("property") / "log", LEAVES)
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert found == sorted(FILES)
    yield path


def verdict(folder: Path, scratch: Path, *, allow_dropped: bool) -> LogVerdict:
    core = choose("python")
    uses = core.open_keys(scratch)
    try:
        return verify_log(
            LogFolder(folder),
            [VKEY],
            [],
            core=core,
            uses=uses,
            allow_dropped=allow_dropped,
            threads=1,
        )
    finally:
        uses.close()
        shutil.rmtree(scratch)


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Other bytes than ``data``: some flipped, some cut out, some put in, or all new."""
    at = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["flip", "cut", "insert", "move", "new"]))
    if how == "flip":
        return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    if how == "cut":
        return data[:at] + data[draw(st.integers(at + 1, len(data))) :]
    if how == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=70)) + data[at:]
    if how == "move":
        return data[at:] + data[:at]
    return draw(st.binary(max_size=200))


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_is_changed_is_found(folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    file = folder / name
    good = file.read_bytes()
    bad = data.draw(changed(good))
    file.write_bytes(bad)
    try:
        found = verdict(folder, tmp_path / "uses", allow_dropped=data.draw(st.booleans()))
    except InvalidInput:
        assert name == "checkpoint"
        return
    finally:
        file.write_bytes(good)
    assert found.valid is (bad == good)
    if not found.valid:
        said = [line for step in found.steps for line in step.failures]
        assert any(line.startswith((f"{name}: ", "checkpoint: ")) for line in said), said


def _proof(index: int) -> bytes:
    path = merkle.inclusion_proof(index, len(LEAVES), merkle.reader_of(HASHES))
    root = merkle.root_of(HASHES)
    note = sign_checkpoint(PROVIDER.origin, len(LEAVES), root, PROVIDER.key)
    return write_proof(Proof(index, tuple(path), note))


PROOF = _proof(7)


@given(changed(PROOF))
def test_a_changed_proof_proves_nothing(data: bytes) -> None:
    try:
        proof = parse_proof(data)
    except InvalidInput:
        return
    assert write_proof(proof) == data
    if data == PROOF or proof == parse_proof(PROOF):
        return
    try:
        verify_proof(proof, HASHES[7], [VKEY])
    except ConnectorError:
        return
    assert (proof.index, proof.hashes) == (7, parse_proof(PROOF).hashes)
    assert proof.checkpoint.startswith(parse_proof(PROOF).checkpoint.split(b"\n\n")[0])
