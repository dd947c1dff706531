"""Documents that are found, records with a number each, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
DOCUMENTS = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def test_the_index_names_every_document() -> None:
    index = (DOCS / "README.md").read_text()
    documents = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert {name for name in documents if f"({name})" not in index} == set()


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in DECISIONS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_short_and_headed_by_its_number(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {int(path.name[:4])}. ")
    assert len(text.split("\n")) < 60


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    missing = [to for to in _LINK.findall(path.read_text()) if not (path.parent / to).exists()]
    assert missing == []


def test_records_that_are_named_are_there() -> None:
    """By file name anywhere, and by number (``(decision 52)``) in documents and docstrings."""
    numbers = {int(path.name[:4]) for path in DECISIONS}
    names = {path.name for path in DECISIONS}
    for path in [*DOCUMENTS, *(ROOT / "connector").rglob("*.py")]:
        text = path.read_text()
        assert set(re.findall(r"decisions/(\d{4}-[\w-]+\.md)", text)) <= names, path
        assert {int(n) for n in re.findall(r"\(decision (\d+)\)", text)} <= numbers, path
