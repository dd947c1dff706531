"""What ``connector init`` writes: every key is explained in words."""

from __future__ import annotations

from typing import Any

import pytest

from connector import config
from connector.cli.configuration import render


@pytest.mark.parametrize("kind", [config.Node, config.Directory])
def test_no_key_is_explained_by_its_own_name(kind: type[Any]) -> None:
    lines = render(kind, {"did": "did:web:h.example", "name": "H"}).splitlines()
    settings = [
        at for at, line in enumerate(lines) if " = " in line and not line.startswith("role")
    ]
    assert len(settings) > 20
    for at in settings:
        name = lines[at].removeprefix("# ").partition(" = ")[0]
        assert lines[at - 1].startswith("# "), name
        assert lines[at - 1] not in (f"# {name}", ""), name


def test_the_core_is_explained() -> None:
    text = render(config.Node, {"did": "did:web:h.example", "name": "H"})
    assert '# the metering core: auto, python or native\n# core = "auto"\n' in text
