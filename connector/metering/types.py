"""What goes into the meter and what comes out.

A *draft* is a receipt without what the meter alone may say: salt, number, time and the hash of
the receipt before it. A *reservation* holds a place in an agreement's allowance while its use
runs, and all that a receipt needs should the node die meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from connector.core.interface import Columns
from connector.errors import InvalidInput, Reason
from connector.metering.reader import LogReader
from connector.model.receipt import (
    MAX_REPORTER,
    MAX_TEXT,
    MAX_TIME_MS,
    Outcome,
    Quantity,
    Receipt,
)
from connector.model.use import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One use about to run. ``limit``: uses that the agreement allows in all; None: any number.

    The other fields are as in ``model.receipt.UseReceipt``.
    """

    scope: str
    use_id: str
    limit: int | None
    provider: str
    consumer: str
    purpose: str
    agreement_digest: bytes
    policy_digest: bytes
    request_digest: bytes

    def settle(
        self,
        outcome: Outcome,
        *,
        result_digest: bytes = b"",
        quantities: Mapping[Quantity, int] | None = None,
        reasons: tuple[Reason, ...] = (),
    ) -> UseDraft:
        """The draft that ends this reservation."""
        return UseDraft(
            scope=self.scope,
            use_id=self.use_id,
            provider=self.provider,
            consumer=self.consumer,
            outcome=outcome,
            purpose=self.purpose,
            agreement_digest=self.agreement_digest,
            policy_digest=self.policy_digest,
            request_digest=self.request_digest,
            result_digest=result_digest,
            quantities=quantities or {},
            reasons=reasons,
            settles=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UseDraft:
    """``settles``: it ends the open reservation with the same scope and use id. An ALLOWED use
    always does."""

    scope: str
    use_id: str
    provider: str
    consumer: str
    outcome: Outcome
    purpose: str
    agreement_digest: bytes
    policy_digest: bytes
    request_digest: bytes
    result_digest: bytes = b""
    quantities: Mapping[Quantity, int] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    settles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActDraft:
    """``statement``: the JWS, or what makes it from number and leaf hash of the receipt before it.

    It is called, in a thread of the meter, when all receipts before it are durable, and the log
    waits for it: it must be quick. What it raises, ``record`` raises.
    """

    scope: str
    actor: str
    act: str
    statement: bytes | Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDraft:
    scope: str
    use_id: str
    provider: str
    consumer: str
    outcome: Outcome
    origin: str
    leaf_hash: bytes
    leaf_index: int
    tree_size: int
    result_digest: bytes = b""
    quantities: Mapping[Quantity, int] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Uses of one agreement that a reporter served, and what they are held to.

    ``scope``: the agreement. ``limit``: calls that it allows in all; None: any number.
    ``first_ms`` to ``last_ms``: when a use may have been served. Raises ``InvalidInput`` for what
    no receipt could say.
    """

    scope: str
    reporter: str
    limit: int | None
    first_ms: int
    last_ms: int
    columns: Columns

    def __post_init__(self) -> None:
        for text, most in ((self.scope, MAX_TEXT), (self.reporter, MAX_REPORTER)):
            if not 1 <= len(text) <= most or not _is_encodable(text):
                raise InvalidInput(f"report: agreement and reporter are texts of at most {most}")
        if not _is_encodable(self.columns.purpose):
            raise InvalidInput("report: a purpose that has no encoding")
        if not 0 <= self.first_ms <= MAX_TIME_MS or not 0 <= self.last_ms <= MAX_TIME_MS:
            raise InvalidInput("report: a time that cannot be")


def _is_encodable(text: str) -> bool:
    """Half a surrogate pair has no UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


Draft: TypeAlias = UseDraft | ActDraft | DeliveryDraft


@dataclass(frozen=True, slots=True)
class Recorded:
    """A receipt in the log. ``checkpoint`` is a signed note over ``size`` leaves, ``index`` among
    them. ``fresh`` is False if the receipt was there before the call that returned it."""

    receipt: Receipt
    leaf: bytes
    index: int
    size: int
    checkpoint: bytes
    fresh: bool
    log: LogReader = field(repr=False, compare=False)

    def inclusion(self) -> list[bytes]:
        """The inclusion proof of the leaf under ``checkpoint``."""
        return self.log.inclusion(self.index, self.size)


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a report: ``count`` receipts for ``calls`` uses, leaves ``first``,
    ``first + 1`` ... under ``checkpoint``, a signed note over ``size`` leaves. ``refused``:
    ``(row, core.interface.Fault)`` of each row that left none, ascending."""

    first: int
    count: int
    calls: int
    refused: list[tuple[int, int]]
    size: int
    checkpoint: bytes


class Claim(Enum):
    """What became of a reservation."""

    GRANTED = "granted"
    EXHAUSTED = "exhausted"  # the allowance is used or reserved to the last
    RUNNING = "running"  # the same use is running now
    DONE = "done"  # the same use has its receipt already


@dataclass(frozen=True, slots=True)
class Claimed:
    """``counters``: the scope's, with this reservation in them if it was granted.
    ``recorded``: the receipt, if the claim is ``DONE``."""

    claim: Claim
    counters: Counters
    recorded: Recorded | None = None
