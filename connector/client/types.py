"""What the client library returns: frozen dataclasses, no protobuf.

Times are aware datetimes in UTC where the node always gives one, RFC 3339 text is parsed here;
``None`` stands for "not yet". JSON documents are parsed to plain Python values, and kept as bytes
where both parties signed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connector.errors import InvalidInput, Reason

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Status:
    """``state`` is ``ready`` or why not; ``view_age_s`` is -1 before the directory was heard;
    ``space_key`` is what ``connector-verify --space-key`` takes, empty before enrolment."""

    did: str
    name: str
    space: str
    state: str
    endpoint: str
    http_endpoint: str
    log_size: int
    view_age_s: float  # seconds
    version: str
    certificate_expires: datetime | None
    space_key: str


@dataclass(frozen=True, slots=True)
class Enrolment:
    space: str
    certificate_expires: datetime | None


@dataclass(frozen=True, slots=True)
class Publication:
    dataset_id: str
    offer_id: str
    rows: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Datasets:
    """One page of the catalogue. ``datasets`` are DCAT JSON objects; ``next_page_token`` is empty
    on the last page."""

    datasets: tuple[Mapping[str, Any], ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class PeerOffer:
    """``offer``: the ODRL Offer; ``unenforced``: its terms that this connector cannot enforce."""

    id: str
    offer: Mapping[str, Any]
    unenforced: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PeerDataset:
    """A dataset as a peer describes it; ``formats``: in which it is transferred."""

    id: str
    title: str
    description: str
    keywords: tuple[str, ...]
    formats: tuple[str, ...]
    offers: tuple[PeerOffer, ...]


@dataclass(frozen=True, slots=True)
class PeerCatalog:
    """One page of what a peer offers. ``peer``: its id, empty if nobody is known at the URL that
    was asked; ``claimed``: whose it says it is; a ``stranger`` cannot be negotiated with;
    ``signed``: each dataset by its publisher. ``next_page_token`` is empty on the last page."""

    peer: str
    claimed: str
    stranger: bool
    signed: bool
    datasets: tuple[PeerDataset, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Negotiation:
    """``party``: which side this node is; ``waiting``: a person at this node must decide;
    ``offer``: the ODRL Offer on the table."""

    pid: str
    peer_pid: str
    party: str
    peer: str
    dataset_id: str
    state: str
    agreement_id: str
    waiting: bool
    code: str
    reason: str
    offer: Mapping[str, Any]
    updated: datetime | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """``document``: the exact bytes that both parties signed; ``terms``: the same, parsed."""

    id: str
    party: str
    peer: str
    dataset_id: str
    state: str
    document: bytes
    terms: Mapping[str, Any]
    uses: int
    reason: str
    concluded: datetime | None


@dataclass(frozen=True, slots=True)
class DataAddress:
    """Where data is. ``properties`` hold what else is needed, as ``authorization``: a secret."""

    endpoint_type: str
    endpoint: str
    properties: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transfer:
    """``party``: which side this node is; ``waiting``: a person at this node must decide;
    ``data_address``: at its consumer, while it is STARTED, where it was asked for by itself."""

    pid: str
    peer_pid: str
    party: str
    peer: str
    agreement_id: str
    dataset_id: str
    format: str
    state: str
    waiting: bool
    code: str
    reason: str
    updated: datetime | None
    data_address: DataAddress | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a negotiation or of a transfer (``kind``); ``party``: which side this node is;
    ``number`` counts the events since the node was started."""

    kind: str
    pid: str
    peer: str
    party: str
    state: str
    dataset_id: str
    agreement_id: str
    waiting: bool
    number: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The summary of one leaf of a node's log.

    ``scope``: the agreement's id, or the DID that it is filed under; ``number``: its place in the
    scope, without gaps; ``kind``: ``use``, ``record``, ``act`` or ``delivery``; ``outcome``:
    ``allowed``, ``refused``, ``failed`` or ``interrupted`` (empty for acts); ``quantities`` by
    name, as ``rows_returned``; ``index``: the leaf's place in the log; ``reporter``: of records.
    """

    scope: str
    number: int
    kind: str
    outcome: str
    use_id: str
    time: datetime | None
    reasons: tuple[Reason, ...]
    quantities: Mapping[str, int]
    index: int
    act: str
    leaf_hash: bytes
    purpose: str
    reporter: str = ""


@dataclass(frozen=True, slots=True)
class Receipts:
    """In log order; ``log_size`` counts the whole log."""

    receipts: tuple[Receipt, ...]
    log_size: int


@dataclass(frozen=True, slots=True)
class ReceiptProof:
    """A receipt's bytes, its place in the log, its inclusion proof (32 bytes each, from the leaf
    up), and the signed checkpoint that it is under."""

    leaf: bytes
    index: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class ReconcileLine:
    """``explained``: the two agree, or differ as they may, because a use that failed or was cut at
    the provider need not have reached the consumer, and what other programs of the consumer's
    pulled its node did not count."""

    name: str
    provider: int
    consumer: int
    explained: bool


@dataclass(frozen=True, slots=True)
class Reconciliation:
    lines: tuple[ReconcileLine, ...]
    agree: bool


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """``invitation`` is a compact JWS: hand it over by a channel that you trust."""

    invitation: str
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Reporter:
    """A program that may report uses. ``thumbprint``: base64url SHA-256 of its certificate."""

    name: str
    thumbprint: str
    added: datetime | None
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class ReportersDoor:
    """Where reporters go: host:port, and the certificate (PEM) that they pin."""

    endpoint: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Member:
    did: str
    name: str
    roles: tuple[str, ...]
    state: str
    endpoint: str
    revision: int
    witnessed_size: int


@dataclass(frozen=True, slots=True)
class Result:
    """An allowed use: its table and its receipt."""

    table: pa.Table
    receipt: Receipt

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``. Raises ``InvalidInput`` if pandas is not there."""
        if find_spec("pandas") is None:
            raise InvalidInput(
                "pandas is not installed", hint="install pandas, or use .table (Arrow)"
            )
        return self.table.to_pandas()


@dataclass(frozen=True, slots=True)
class PullStart:
    """What a transfer's pieces are: the first begins at ``offset``; ``size`` of the whole, -1 if
    unknown; ``etag`` is its version, empty if the provider names none."""

    offset: int
    size: int
    etag: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """A file with a transfer's data: ``size`` bytes, ``resumed_from`` of them by earlier calls."""

    path: Path
    size: int
    resumed_from: int
