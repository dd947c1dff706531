"""``connector log``: what is said when the node goes away meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connector.cli import log_export
from connector.cli.commands import run
from connector.errors import Unavailable


@pytest.mark.parametrize(
    ("hint", "told"),
    [("", log_export.GOES_ON), ("start it with connector serve", "start it with connector serve")],
)
def test_an_export_that_is_cut_off_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hint: str,
    told: str,
) -> None:
    def cut(*args: Any, **options: Any) -> Any:
        raise Unavailable("the node is shutting down", hint=hint)

    monkeypatch.setattr(log_export, "with_log", cut)
    words = ["log", "export", str(tmp_path / "out"), "--data", str(tmp_path)]
    assert run(words) == 1
    said = capsys.readouterr().err
    assert "the node is shutting down" in said
    assert f"what to do: {told}" in said
