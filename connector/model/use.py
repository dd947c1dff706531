"""One use of an agreement: what was asked, how it is described, what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from connector.errors import Reason

MAX_REQUEST_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Use:
    """A request at the gate, from an authenticated member.

    ``use_id`` is the consumer's idempotency key (1 to 64 characters): the same key under the same
    agreement is the same use. ``query`` is SQL text, untrusted.
    """

    use_id: str
    agreement_id: str
    consumer: str
    purpose: str
    query: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class ColumnUse:
    """A column of the dataset that a query touches, and how.

    ``places`` is a sorted subset of: ``aggregate`` (inside an aggregate function), ``filter``
    (WHERE, HAVING, FILTER), ``group`` (a group key), ``join``, ``order``, ``select`` (shown as
    it is). ``role`` is the column's role in the dataset. ``aggregates`` are the aggregate
    functions that the column stands inside of; empty means any of the query's.
    """

    name: str
    role: str
    places: tuple[str, ...]
    aggregates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What a query does, in the words that policy decides on.

    ``output`` is ``aggregate`` (every output row comes from a group) or ``rows``.
    ``aggregates`` are lower-case function names, as ``count``, ``count_distinct``, ``avg``.
    ``whole``: it is no query, the dataset's file leaves with all rows of all columns.
    """

    output: str
    tables: tuple[str, ...]
    columns: tuple[ColumnUse, ...]
    aggregates: tuple[str, ...]
    functions: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """What an agreement has used so far; ``reserved`` uses are running and count as used."""

    uses: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Obligations:
    """What the gate must do to a result that is released."""

    minimum_group: int = 0  # distinct privacy units that each group must have; 0: none asked
    privacy_unit: str = ""
    row_cap: int = 0  # most rows released; 0: the gate's own limit alone
    hidden_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow or deny, once, with reasons (for a denial) and obligations (for an allowance).

    ``policy_digest``: SHA-256 (32 bytes) of the policy bundle that decided.
    """

    allow: bool
    reasons: tuple[Reason, ...]
    obligations: Obligations
    policy_digest: bytes
