"""The bundle: what is loaded, what its digest is over, and what is refused; and the tests in
Rego that it brings, run by the embedded engine."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import re
import shutil
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import regorus

from connector.adapters.bundle import (
    MAX_FILE_BYTES,
    default_folder,
    export_bundle,
    load_bundle,
)
from connector.adapters.opa import OpaEngine
from connector.adapters.rego import RegoEngine
from connector.errors import ConfigError, Unavailable
from connector.gate.functions import AGGREGATE_NAMES
from connector.policy.decisions import ENTRIES, NEGOTIATION, USAGE
from tests.policy_cases import negotiation, usage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(default_folder(), tmp_path / "bundle"))


def test_the_digest_is_what_sha256sum_prints(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "data.json").write_text("{}")
    (folder / "a.rego").write_text("package a\n")
    (folder / "a_test.rego").write_text("package a_test\n")
    lines = (
        f"{hashlib.sha256(b'package a' + bytes([10])).hexdigest()}  a.rego\n"
        f"{hashlib.sha256(b'{}').hexdigest()}  data.json\n"
    )
    bundle = load_bundle(folder)
    assert bundle.digest == hashlib.sha256(lines.encode()).digest()
    assert bundle.data["dataspace"]["bundle"]["digest"] == bundle.digest.hex()
    assert list(bundle.modules) == ["a.rego"]


def test_every_byte_counts_and_tests_do_not(folder: Path) -> None:
    before = load_bundle(folder).digest
    (folder / "usage_test.rego").unlink()
    assert load_bundle(folder).digest == before
    with (folder / "usage.rego").open("a") as module:
        module.write("\n")
    assert load_bundle(folder).digest != before


def _link(folder: Path) -> None:
    (folder / "more.rego").symlink_to(folder / "usage.rego")


BAD: dict[str, Callable[[Path], object]] = {
    "an unknown file": lambda folder: (folder / "rules.yaml").write_text(""),
    "a module with a slip of the pen": lambda folder: (folder / "more.regp").write_text(""),
    "another data file": lambda folder: (folder / "more.json").write_text("{}"),
    "a hidden file": lambda folder: (folder / ".usage.rego.swp").write_text(""),
    "a folder": lambda folder: (folder / "more").mkdir(),
    "a link": _link,
    "no data": lambda folder: (folder / "data.json").unlink(),
    "data that is a list": lambda folder: (folder / "data.json").write_text("[]"),
    "data that is not JSON": lambda folder: (folder / "data.json").write_text("{"),
    "data twice": lambda folder: (folder / "data.json").write_text('{"a": {}, "a": {}}'),
    "data that is no object": lambda folder: (folder / "data.json").write_text('{"a": 1}'),
    "data in our packages": lambda folder: (folder / "data.json").write_text('{"dataspace": {}}'),
    "a module that is not text": lambda folder: (folder / "usage.rego").write_bytes(b"\xff"),
    "a large module": lambda folder: (folder / "x.rego").write_text(" " * (MAX_FILE_BYTES + 1)),
    "many modules": lambda folder: [(folder / f"x{n}.rego").write_text("") for n in range(64)],
    "no folder": shutil.rmtree,
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD.keys())
def test_refused(folder: Path, spoil: Callable[[Path], object]) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match="policy bundle"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["package x\nallow if {", "allow := true", "package x\nx = "])
def test_a_module_that_does_not_load(folder: Path, text: str) -> None:
    (folder / "more.rego").write_text(text)
    with pytest.raises(ConfigError, match="does not load"):
        RegoEngine(load_bundle(folder))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_bundle_without_one_of_the_decisions(folder: Path, entry: str) -> None:
    (folder / f"{entry.split('/')[1]}.rego").unlink()
    with pytest.raises(ConfigError, match="decision"):
        RegoEngine(load_bundle(folder))


def test_export_is_the_same_each_time() -> None:
    bundle = load_bundle()
    packed = export_bundle(bundle)
    assert packed == export_bundle(bundle)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
    assert names == [".manifest", *sorted([*bundle.modules, "data.json"])]


def test_each_thread_has_its_own_engine() -> None:
    engine = RegoEngine(load_bundle())
    answers: list[bool] = []

    def ask() -> None:
        answers.append(asyncio.run(engine.evaluate(USAGE, usage()))["allow"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask()
    assert answers == [True] * 4


def test_a_panic_is_no_answer_and_the_next_question_has_one() -> None:
    """The library panics when an engine made by another thread is asked."""
    engine = RegoEngine(load_bundle())
    made: list[object] = []
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: made.append(regorus.Engine())).result()
        engine._threads.engine = made[0]
        with pytest.raises(Unavailable):
            asyncio.run(engine.evaluate(USAGE, usage()))
        gc.collect()
        thread.submit(made.clear).result()  # only the thread that made it may free it
    assert asyncio.run(engine.evaluate(USAGE, usage()))["allow"] is True


def test_an_error_in_a_policy_is_no_answer(folder: Path) -> None:
    with (folder / "usage.rego").open("a") as module:
        module.write('\nrefusals contains ["x", "y", "z"] if 1 / input.counters.reserved > 0\n')
    engine = RegoEngine(load_bundle(folder))
    document = usage()
    document["counters"]["reserved"] = 0
    with pytest.raises(Unavailable):
        asyncio.run(engine.evaluate(USAGE, document))


URLS = "opa:8181 ftp://h:1 http:// http://h:x http://h:99999 http://u@h:1 http://h:1/path http://h:1?x=y"


@pytest.mark.parametrize("url", ["", *URLS.split()])
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        OpaEngine(load_bundle(), url, 1.0)


SPACE_RULE = """
package dataspace.space

refusals contains ["purpose", input.use.purpose, "anything but tourism"] if {
	input.use.purpose == "tourism-planning"
}
"""


def test_a_rule_that_a_space_adds(folder: Path) -> None:
    (folder / "tourism.rego").write_text(SPACE_RULE)
    engine = RegoEngine(load_bundle(folder))
    answer = asyncio.run(engine.evaluate(USAGE, usage()))
    assert [reason["allowed"] for reason in answer["reasons"]] == ["anything but tourism"]
    assert asyncio.run(engine.evaluate(NEGOTIATION, negotiation()))["allow"] is True


def test_the_gate_runs_no_aggregate_that_the_space_forbids() -> None:
    assert set(AGGREGATE_NAMES) <= set(load_bundle().data["space"]["aggregates"])


# The bundle's own tests.


def _tests() -> list[str]:
    found = []
    for path in sorted(default_folder().glob("*_test.rego")):
        text = path.read_text()
        package = re.findall(r"^package (\S+)$", text, re.MULTILINE)[0]
        found += [f"{package}.{name}" for name in re.findall(r"^(test_\w+)", text, re.MULTILINE)]
    return found


@pytest.fixture(scope="module")
def tested() -> regorus.Engine:
    engine = regorus.Engine()
    for path in sorted(default_folder().glob("*.rego")):
        engine.add_policy(path.name, path.read_text())
    engine.add_data_json((default_folder() / "data.json").read_text())
    return engine


@pytest.mark.parametrize("rule", _tests())
def test_rego(tested: regorus.Engine, rule: str) -> None:
    assert tested.eval_rule_as_json(f"data.{rule}") == "true"


def test_every_decision_has_tests_in_rego() -> None:
    packages = {rule.split(".")[1] for rule in _tests()}
    assert packages >= {f"{entry.split('/')[1]}_test" for entry in ENTRIES} | {"space_test"}
