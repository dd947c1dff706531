"""Page tokens and page sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.directory import paging
from connector.directory.words import MAX_QUERY, index_terms, match_query
from connector.errors import InvalidInput


@given(st.text(max_size=50), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_token_is_read_back_for_its_question_alone(question, position):
    question = question.encode(errors="replace").decode()
    token = paging.page_token(question, position[:200])
    assert paging.read_page_token(question, token) == position[:200]
    with pytest.raises(InvalidInput):
        paging.read_page_token(question + "x", token)


@given(st.text())
def test_garbage_is_one_error(token):
    if token:
        with pytest.raises(InvalidInput):
            paging.read_page_token("q", token)


def test_sizes():
    assert paging.page_size(0, usual=50, most=200) == 50
    assert paging.page_size(1000, usual=50, most=200) == 200
    with pytest.raises(InvalidInput):
        paging.page_size(-1, usual=50, most=200)
    assert paging.fitting([]) == 0
    assert paging.fitting(["x" * 10], budget=5) == 1
    assert paging.fitting(["x" * 4] * 5, budget=8) == 2


@given(st.text(max_size=MAX_QUERY))
def test_what_reaches_the_engine_is_ours(query):
    try:
        match = match_query(query)
    except InvalidInput:
        return
    assert set(match) <= set('0123456789abcdef "*AND')
    assert set(index_terms(query)) <= set("0123456789abcdef ")
