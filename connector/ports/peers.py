"""Calls to other nodes. ``connector.transport.grpc.peers`` makes them.

Every method raises what the other side answered with (``Refused``, ``NotFound`` ...), and
``Unavailable`` when there is no answer. What comes back is a peer's word: the caller verifies it.
Coroutines may overlap. A cancelled call is cancelled at the peer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from connector.model.terms import Offer


@dataclass(frozen=True, slots=True)
class ReceiptProof:
    """A leaf, its index, its inclusion proof, and the checkpoint (signed note) it is under.

    ``checkpoint`` is empty in lists, where one checkpoint serves all.
    """

    leaf: bytes
    index: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Records of one page, and the token of the next (empty on the last)."""

    records: tuple[str, ...]
    next: str


class DirectoryPeer(Protocol):
    """The directory of the space, as a member calls it."""

    async def search(self, query: str, size: int, token: str) -> Page: ...

    async def publish(self, record: str) -> None:
        """List a dataset: the publisher's JWS."""
        ...

    async def witnessed(self) -> tuple[int, bytes]:
        """Size and note of the last checkpoint of ours that the directory cosigned; (0, b"")."""
        ...

    async def cosign(self, old_size: int, consistency: Sequence[bytes], note: bytes) -> bytes:
        """The cosignature line over our checkpoint."""
        ...


class ProviderPeer(Protocol):
    """A provider, as a consumer calls it."""

    async def dataset(self, provider: str, dataset_id: str) -> str:
        """The publisher's JWS of the dataset."""
        ...

    def execute(
        self, provider: str, agreement_id: str, purpose: str, query: str, use_id: str
    ) -> AsyncIterator[ReceiptProof | bytes]:
        """One use: first the receipt, then pieces of an Arrow IPC stream."""
        ...

    async def receipts(
        self, peer: str, agreement_id: str, first: int, tree_size: int, *, use_id: str = ""
    ) -> tuple[tuple[ReceiptProof, ...], bytes]:
        """A page of the receipts of our agreement, from number ``first``, and the checkpoint that
        they are under: the newest if ``tree_size`` is 0; else none, as the caller has it.
        ``use_id``: only the receipt of that use, if there is one."""
        ...

    async def consistency(self, peer: str, old_size: int, new_size: int) -> tuple[bytes, ...]: ...

    async def add_cosignature(self, provider: str, note: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class FoundPeer:
    """A peer that was named. ``address``: base URL of its HTTPS binding, empty for gRPC.

    A ``stranger`` is neither a member of the space nor configured: it can be looked at, and not
    be dealt with. ``id`` is empty where only a URL was given.
    """

    id: str
    address: str
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class PeerDataset:
    """A dataset as a peer's catalogue describes it. Nobody signed it, and terms may be ones that
    mean nothing here (``Terms.others``)."""

    id: str
    title: str
    description: str
    keywords: tuple[str, ...]
    offers: tuple[Offer, ...]
    formats: tuple[str, ...]  # in which it is transferred
    record: bytes = b""  # its JSON (``model.catalog.parse_offers``)


@dataclass(frozen=True, slots=True)
class PeerPage:
    """``participant``: whose catalogue it says it is. ``next``: token of the next page, empty on
    the last."""

    participant: str
    datasets: tuple[PeerDataset, ...]
    next: str


class CatalogPeer(Protocol):
    """Connectors that are asked for what they offer, whoever they are."""

    async def find(self, name: str) -> FoundPeer:
        """By an id (a DID, or as configured) or a URL. Raises ``InvalidInput``, ``NotFound``,
        ``Unavailable``, ``PeerFault``."""
        ...

    async def catalog(self, peer: FoundPeer, *, filter: str = "", page: str = "") -> PeerPage: ...

    async def dataset(self, peer: FoundPeer, dataset_id: str) -> PeerDataset: ...


@dataclass(frozen=True, slots=True)
class PullBegun:
    """What follows are the bytes from ``offset`` on. ``size``: of the whole, -1 if unknown;
    ``etag`` is empty where the provider names no version of it."""

    offset: int
    size: int
    etag: str
    media_type: str


class PullPeer(Protocol):
    """A provider's data plane, as the consumer of a transfer calls it."""

    def pull(
        self, pid: str, *, offset: int = 0, etag: str = ""
    ) -> AsyncIterator[PullBegun | bytes]:
        """The data of a transfer that is STARTED, from ``offset`` on if that is of the version
        ``etag``, otherwise from its beginning. First a ``PullBegun``, then the bytes.

        Raises ``Conflict`` (not started, suspended, or the data changed on the way), ``Refused``,
        ``NotFound``, ``PeerFault``, ``Unavailable``: ask again from where it stopped.
        """
        ...
