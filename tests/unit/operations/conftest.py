"""Two parties of an agreement for each test."""

import pytest

from tests.parties import two_parties


@pytest.fixture
async def place():
    async with two_parties() as place:
        yield place
