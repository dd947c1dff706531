"""Which core runs, and that it is said."""

from __future__ import annotations

import runpy
import sys

import pytest

from connector.core import choose as module
from connector.core.choose import VARIABLE, choose, described
from connector.errors import ConfigError
from tests.cores import needs_native


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    module._core.cache_clear()


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it was not built."""
    monkeypatch.setitem(sys.modules, "connector.core.native", None)


@needs_native
def test_the_native_core_runs_where_it_was_built() -> None:
    assert choose() is choose("auto") is choose("native")
    assert described(choose()) in {
        "core: native (SHA instructions)",
        "core: native (portable)",
    }


def test_the_one_in_python_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("python").name == "python"
    monkeypatch.setenv(VARIABLE, "python")
    assert choose() is choose("python")


@pytest.mark.usefixtures("no_native")
def test_without_rust_python_runs_and_says_so() -> None:
    assert described(choose()) == "core: python (no native core: built without Rust)"
    with pytest.raises(ConfigError):
        choose("native")


def test_a_name_that_is_none_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        choose("fast")
    monkeypatch.setenv(VARIABLE, "Native")
    with pytest.raises(ConfigError):
        choose()
    assert choose("python").name == "python"


@pytest.mark.usefixtures("no_native")
def test_make_says_loudly_that_there_is_no_native_core(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("connector.core", run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith("*** core: python (no native core: built without Rust)")
