"""What a member of the space offers: signed by it, and in the formats that it can be had in."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from connector.errors import PeerFault, VerificationFailed
from connector.identity.datasets import sign_dataset
from connector.model.catalog import Classification, Dataset
from connector.model.terms import Constraint
from connector.model.transfer import PULL, QUERY
from connector.operations.catalogue import Catalogue
from connector.operations.peers import PeerCatalogues
from connector.ports.peers import FoundPeer, Page
from tests.negotiators import AIRPORT, DATASET, TOURISM, key_of, record_of, terms

OPEN = dataclasses.replace(
    DATASET, classification=Classification.GENERAL, columns=DATASET.columns[1:]
)
CAPPED = terms(20, Constraint("tds:rowCap", "lteq", 100))


class Space:
    """The directory, which lists what is given, and the provider that is asked for one."""

    def __init__(self, *datasets: Dataset, key: str = AIRPORT) -> None:
        self.records = tuple(sign_dataset(key_of(key), one) for one in datasets)
        self.asked: list[tuple[str, str]] = []

    async def search(self, query: str, size: int, token: str) -> Page:
        return Page(self.records, "")

    async def find(self, name: str) -> FoundPeer:
        return FoundPeer(name, "")

    async def dataset(self, provider: str, dataset_id: str) -> str:
        self.asked.append((provider, dataset_id))
        return self.records[0]

    @property
    def catalogues(self) -> PeerCatalogues:
        node: Any = self
        return PeerCatalogues(node, node, Catalogue(node, record_of), record_of)


@pytest.mark.parametrize(
    ("dataset", "formats"),
    [
        (OPEN, (PULL, QUERY)),
        (DATASET, (QUERY,)),
        (dataclasses.replace(OPEN, classification=Classification.IMPORTANT), (QUERY,)),
        (dataclasses.replace(OPEN, columns=DATASET.columns), (QUERY,)),
        (
            dataclasses.replace(OPEN, offers=(dataclasses.replace(OPEN.offers[0], terms=CAPPED),)),
            (QUERY,),
        ),
        (dataclasses.replace(OPEN, offers=()), (QUERY,)),
    ],
    ids=["open", "neither", "important", "a privacy unit", "a cap on rows", "no offer"],
)
async def test_the_formats_are_those_that_policy_may_allow(dataset, formats) -> None:
    space = Space(dataset)
    listed = await space.catalogues.listed(AIRPORT)
    assert [one.formats for one in listed.datasets] == [formats]
    assert await space.catalogues.dataset(AIRPORT, DATASET.id) == listed
    assert space.asked == [(AIRPORT, DATASET.id)]


async def test_a_member_s_dataset_is_as_it_signed_it() -> None:
    with pytest.raises(PeerFault, match="another dataset"):
        await Space(OPEN).catalogues.dataset(AIRPORT, "urn:uuid:other")
    with pytest.raises(VerificationFailed):
        await Space(OPEN, key=TOURISM).catalogues.dataset(AIRPORT, DATASET.id)
