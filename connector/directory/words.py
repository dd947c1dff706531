"""Words of a catalogue, for full-text search over Chinese and English alike. Pure.

Chinese is written without spaces, so a run of CJK characters is indexed as its overlapping pairs,
and its last character alone: 旅游局 becomes 旅游, 游局, 局. A query of two characters or more is a
phrase of pairs; a query of one character is a prefix, and finds it wherever it stands. Other words
are found by their beginning.

Each term is written as the hexadecimal of its UTF-8: what reaches the search engine is made of
``0-9a-f`` and our own punctuation, so no query can say anything to the engine itself, and its
tokenizer has no say in what a word is.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from connector.errors import InvalidInput

MAX_QUERY = 256  # characters
MAX_WORDS = 16

# Unified ideographs with extensions and compatibility forms, kana, hangul syllables.
_CJK = (
    "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"(?P<cjk>[{_CJK}]+)|[^\W_{_CJK}]+")


def index_terms(text: str) -> str:
    """The terms of a text, in order, separated by spaces."""
    terms: list[str] = []
    for run, cjk in _runs(text):
        terms += [*_pairs(run), run[-1]] if cjk else [run]
    return " ".join(_hex(term) for term in terms)


def match_query(query: str) -> str:
    """An FTS5 expression that is true of texts with all the query's words; empty if it has none.

    Raises ``InvalidInput`` if the query is too long.
    """
    if len(query) > MAX_QUERY:
        raise InvalidInput(f"query: at most {MAX_QUERY} characters")
    runs = list(_runs(query))
    if len(runs) > MAX_WORDS:
        raise InvalidInput(f"query: at most {MAX_WORDS} words")
    return " AND ".join(
        '"' + " ".join(_hex(pair) for pair in _pairs(run)) + '"'
        if cjk and len(run) > 1
        else f'"{_hex(run)}"*'
        for run, cjk in runs
    )


def _runs(text: str) -> list[tuple[str, bool]]:
    """Words and CJK runs after NFKC and case folding, in order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [(found[0], found["cjk"] is not None) for found in _RUN.finditer(folded)]


def _pairs(run: str) -> list[str]:
    return [first + second for first, second in pairwise(run)]


def _hex(term: str) -> str:
    return term.encode().hex()
