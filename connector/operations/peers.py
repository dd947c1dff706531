"""What one other connector offers, whoever it is, with the terms that mean nothing here.

A member that is reached over gRPC lists its datasets with the directory, and gives a single one
itself; its signature is checked either way. Everybody else is asked for its catalogue over HTTPS,
and nobody signed that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connector.errors import PeerFault, Reason
from connector.identity.datasets import read_dataset
from connector.model.catalog import Dataset
from connector.model.participant import Participant
from connector.model.terms import Offer
from connector.model.transfer import PULL, QUERY
from connector.operations.catalogue import Catalogue
from connector.policy.constraints import check_terms, let_whole, may_leave_whole
from connector.ports.peers import CatalogPeer, FoundPeer, PeerDataset, ProviderPeer

PAGE = 100  # datasets asked of the directory at once


@dataclass(frozen=True, slots=True)
class Listed:
    """A peer's datasets. ``peer``: its id, as far as it is certain; ``claimed``: as its catalogue
    says; a ``stranger`` can be looked at alone; ``signed``: by their publisher, which was checked.
    ``next``: token of the next page, empty on the last."""

    peer: str
    claimed: str
    stranger: bool
    signed: bool
    datasets: tuple[PeerDataset, ...]
    next: str = ""


class PeerCatalogues:
    """``peers`` are asked over HTTPS, ``providers`` over gRPC. ``lookup`` gives the record of an
    active member or raises."""

    def __init__(
        self,
        peers: CatalogPeer,
        providers: ProviderPeer,
        catalogue: Catalogue,
        lookup: Callable[[str], Participant],
    ) -> None:
        self._peers = peers
        self._providers = providers
        self._catalogue = catalogue
        self._lookup = lookup

    async def listed(self, name: str, *, filter: str = "", page: str = "") -> Listed:
        """A page of the datasets of a peer, by its id (a DID, or as configured) or a URL.

        Raises what the peer answered with, ``NotFound``, ``Unavailable``, ``InvalidInput``.
        """
        peer = await self._peers.find(name)
        if not peer.address:
            return await self._of_member(peer, filter, page)
        found = await self._peers.catalog(peer, filter=filter, page=page)
        return Listed(peer.id, found.participant, peer.stranger, False, found.datasets, found.next)

    async def dataset(self, name: str, dataset_id: str) -> Listed:
        """As ``listed``, of one dataset. Raises ``NotFound``."""
        peer = await self._peers.find(name)
        if peer.address:
            found = await self._peers.dataset(peer, dataset_id)
            return Listed(peer.id, peer.id, peer.stranger, False, (found,))
        record = await self._providers.dataset(peer.id, dataset_id)
        dataset = read_dataset(record, self._lookup(peer.id).signing_keys)
        if (dataset.id, dataset.publisher) != (dataset_id, peer.id):
            raise PeerFault("the peer answers with another dataset")
        return Listed(peer.id, peer.id, False, True, (_described(dataset),))

    async def _of_member(self, peer: FoundPeer, words: str, page: str) -> Listed:
        """Pages are the directory's: of a page there may be none of this member."""
        found = await self._catalogue.search(words, PAGE, page)
        datasets = tuple(_described(one) for one in found.datasets if one.publisher == peer.id)
        return Listed(peer.id, peer.id, False, True, datasets, found.next)


def unenforced(offer: Offer) -> tuple[Reason, ...]:
    """Terms of an offer that this connector cannot enforce, and why; empty if there are none."""
    return check_terms(offer.terms)


def _described(dataset: Dataset) -> PeerDataset:
    return PeerDataset(
        id=dataset.id,
        title=dataset.title,
        description=dataset.description,
        keywords=dataset.keywords,
        offers=dataset.offers,
        formats=_formats(dataset),
    )


def _formats(dataset: Dataset) -> tuple[str, ...]:
    """In which it can be had, as far as its description says: whether its publisher has a door for
    whole datasets it does not."""
    whole = may_leave_whole(dataset.classification, (one.role for one in dataset.columns))
    terms = [offer.terms for offer in dataset.offers if not unenforced(offer)]
    return (PULL, QUERY) if whole and any(map(let_whole, terms)) else (QUERY,)
