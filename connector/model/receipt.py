"""Receipts: the leaves of every log, and their only encoding (docs/evidence.md, section 2).

A leaf is one deterministic CBOR map (``model.cbor``). Its bytes are what the log hashes, what
evidence carries and what a verifier checks; nothing is re-serialised. Four kinds:

* ``UseReceipt``: one use of an agreement, allowed or not (the provider's log);
* ``RecordReceipt``: a use that another system of the provider served and reported (likewise);
* ``ActReceipt``: a signed statement, such as an agreement concluded or ended (any log);
* ``DeliveryReceipt``: what a consumer saw of a provider's receipt (the consumer's log).

Leaves of one *scope* (an agreement, or a participant's DID where there is no agreement) are
numbered 1, 2, 3 ... without gaps, and each carries the leaf hash of the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from connector.errors import InvalidInput, Reason
from connector.model import cbor

VERSION = 1
SALT_BYTES = 16
HASH_BYTES = 32
NO_PREVIOUS = bytes(HASH_BYTES)

MAX_TEXT = 512  # characters of an identifier or of one part of a reason
MAX_USE_ID = 64  # characters; of a reported use visible ASCII ones
MAX_REPORTER = 64  # characters
MAX_REASONS = 16
MAX_STATEMENT_BYTES = 32_768
MAX_QUANTITY = 2**53
MAX_TIME_MS = 253_402_300_799_999  # the last millisecond of the year 9999


class Kind(IntEnum):
    USE = 1
    RECORD = 2
    ACT = 3
    DELIVERY = 4


class Outcome(IntEnum):
    """How a use ended. Only ``ALLOWED`` consumes the allowance for good."""

    ALLOWED = 1
    REFUSED = 2  # a policy or the contract said no; nothing ran, or nothing was released
    FAILED = 3  # the provider's failure: the allowance was given back
    INTERRUPTED = 4  # the use was cut: by its caller, by an end of the contract, by a restart


class Quantity(IntEnum):
    """What is counted, each a whole number of its unit."""

    CALLS = 1
    ROWS_SCANNED = 2
    ROWS_RETURNED = 3
    BYTES_RETURNED = 4
    DURATION_MS = 5
    GROUPS_WITHHELD = 6
    CELLS_WITHHELD = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    """What every leaf has.

    ``salt``: 16 random bytes, so that a leaf hash in a public tile says nothing.
    ``time_ms``: milliseconds since the Unix epoch, by the clock of the log's owner.
    ``previous``: leaf hash of number - 1 in this scope; 32 zero bytes for number 1.
    """

    salt: bytes
    scope: str
    number: int
    time_ms: int
    previous: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UseReceipt(_Numbered):
    """One use. Digests are HMAC-SHA256 under the agreement's shared secret.

    ``request_digest`` is over the request's bytes; ``result_digest`` over the Arrow IPC bytes
    that were released, empty where none were. ``agreement_digest`` (SHA-256 of the agreement's
    bytes) is empty where the use named no agreement of its caller.
    ``policy_digest`` is the SHA-256 of the policy bundle that decided.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReceipt(_Numbered):
    """Use that did not pass the gate: ``reporter``, a system of the provider, says it served it.

    ``use_id``: 1 to 64 visible ASCII characters, of the same space as those of ``UseReceipt``:
    a use has one receipt, whichever way it came. ``quantities`` always have CALLS, at least 1:
    that many calls were allowed. ``served_ms``: when, by the reporter's clock; ``time_ms``: when
    the record was written.
    """

    use_id: str
    purpose: str
    quantities: Mapping[Quantity, int]
    reporter: str
    served_ms: int

    @property
    def calls(self) -> int:
        return self.quantities[Quantity.CALLS]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActReceipt(_Numbered):
    """A signed statement: ``statement`` is a compact JWS (RFC 7515) by ``actor``.

    ``act`` repeats the statement's type (``agreement.ended``) for those who only count.
    """

    actor: str
    act: str
    statement: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReceipt(_Numbered):
    """What a consumer saw of a use: the provider's leaf and where it verified it.

    ``leaf_hash`` was at ``leaf_index`` of the log ``origin`` under a checkpoint of ``tree_size``.
    ``quantities`` are the consumer's own count of what reached it, ``reasons`` what it was told.
    """

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


Receipt: TypeAlias = UseReceipt | RecordReceipt | ActReceipt | DeliveryReceipt

# Keys of the CBOR map. 0 to 6 are common, 10 and up belong to the kinds.
_VERSION, _KIND, _SALT, _SCOPE, _NUMBER, _TIME, _PREVIOUS = range(7)
_USE_ID, _PROVIDER, _CONSUMER, _OUTCOME, _PURPOSE = range(10, 15)
_AGREEMENT_DIGEST, _POLICY_DIGEST, _REQUEST_DIGEST, _RESULT_DIGEST = range(15, 19)
_QUANTITIES, _REASONS, _REPORTER, _SERVED = range(19, 23)
_ACTOR, _ACT, _STATEMENT = 30, 31, 32
_ORIGIN, _LEAF_HASH, _LEAF_INDEX, _TREE_SIZE = 40, 41, 42, 43

_COMMON = frozenset(range(7))
_KEYS = {
    Kind.USE: _COMMON | frozenset(range(10, 21)),
    Kind.RECORD: _COMMON | {_USE_ID, _PURPOSE, _QUANTITIES, _REPORTER, _SERVED},
    Kind.ACT: _COMMON | {_ACTOR, _ACT, _STATEMENT},
    Kind.DELIVERY: _COMMON
    | {_USE_ID, _PROVIDER, _CONSUMER, _OUTCOME, _RESULT_DIGEST, _QUANTITIES, _REASONS}
    | {_ORIGIN, _LEAF_HASH, _LEAF_INDEX, _TREE_SIZE},
}


def encode(receipt: Receipt) -> bytes:
    """The leaf's bytes. Raises ``InvalidInput`` for whatever ``decode`` would refuse.

    The map is read back by the rules of ``decode`` before it is written: ``cbor`` then has only
    one encoding for it, so that ``decode(encode(receipt)) == receipt``.
    """
    leaf = _map(receipt)
    if _read(leaf) != receipt:
        raise InvalidInput("receipt: does not survive its own encoding")
    try:
        data = cbor.encode(leaf)
    except ValueError as error:  # a value of a type outside the subset, half a surrogate pair
        raise InvalidInput("receipt: a value that has no encoding") from error
    if len(data) > cbor.MAX_BYTES:
        raise InvalidInput(f"receipt: larger than {cbor.MAX_BYTES} bytes")
    return data


def decode(data: bytes) -> Receipt:
    """Strict parser: every key of the kind and no other, every bound. Raises ``InvalidInput``."""
    return _read(cbor.decode(data))


def _map(receipt: Receipt) -> dict[int, cbor.Value]:
    leaf: dict[int, cbor.Value] = {
        _VERSION: VERSION,
        _SALT: receipt.salt,
        _SCOPE: receipt.scope,
        _NUMBER: receipt.number,
        _TIME: receipt.time_ms,
        _PREVIOUS: receipt.previous,
    }
    if isinstance(receipt, ActReceipt):
        leaf |= {_KIND: Kind.ACT.value, _ACTOR: receipt.actor, _ACT: receipt.act}
        leaf[_STATEMENT] = receipt.statement
    elif isinstance(receipt, RecordReceipt):
        leaf |= {
            _KIND: Kind.RECORD.value,
            _USE_ID: receipt.use_id,
            _PURPOSE: receipt.purpose,
            _QUANTITIES: _amounts(receipt.quantities),
            _REPORTER: receipt.reporter,
            _SERVED: receipt.served_ms,
        }
    else:
        leaf |= {
            _USE_ID: receipt.use_id,
            _PROVIDER: receipt.provider,
            _CONSUMER: receipt.consumer,
            _OUTCOME: receipt.outcome.value,
            _RESULT_DIGEST: receipt.result_digest,
            _QUANTITIES: _amounts(receipt.quantities),
            _REASONS: [[r.term, r.observed, r.allowed] for r in receipt.reasons],
        }
        if isinstance(receipt, UseReceipt):
            leaf |= {
                _KIND: Kind.USE.value,
                _PURPOSE: receipt.purpose,
                _AGREEMENT_DIGEST: receipt.agreement_digest,
                _POLICY_DIGEST: receipt.policy_digest,
                _REQUEST_DIGEST: receipt.request_digest,
            }
        else:
            leaf |= {
                _KIND: Kind.DELIVERY.value,
                _ORIGIN: receipt.origin,
                _LEAF_HASH: receipt.leaf_hash,
                _LEAF_INDEX: receipt.leaf_index,
                _TREE_SIZE: receipt.tree_size,
            }
    return leaf


def _amounts(quantities: Mapping[Quantity, int]) -> dict[int, cbor.Value]:
    return {key.value: amount for key, amount in quantities.items()}


def _read(value: cbor.Value) -> Receipt:
    """A leaf's map to what it says; every rule of a receipt that is not one of ``cbor``."""
    if not isinstance(value, dict):
        raise InvalidInput("receipt: must be a map")
    leaf = _Leaf(value)
    if leaf.integer(_VERSION) != VERSION:
        raise InvalidInput("receipt: a version this program does not know")
    try:
        kind = Kind(leaf.integer(_KIND))
    except ValueError as error:
        raise InvalidInput("receipt: a kind this program does not know") from error
    if set(value) != _KEYS[kind]:
        raise InvalidInput("receipt: a field too many or too few for its kind")
    common = {
        "salt": leaf.octets(_SALT, SALT_BYTES),
        "scope": leaf.text(_SCOPE),
        "number": leaf.integer(_NUMBER, low=1),
        "time_ms": leaf.integer(_TIME, high=MAX_TIME_MS),
        "previous": leaf.octets(_PREVIOUS, HASH_BYTES),
    }
    if (common["number"] == 1) != (common["previous"] == NO_PREVIOUS):
        raise InvalidInput("receipt: number 1, and only it, follows none")
    if kind is Kind.ACT:
        return ActReceipt(
            **common,  # type: ignore[arg-type]
            actor=leaf.text(_ACTOR),
            act=leaf.text(_ACT),
            statement=leaf.octets(_STATEMENT, range(1, MAX_STATEMENT_BYTES + 1)),
        )
    if kind is Kind.RECORD:
        return RecordReceipt(
            **common,  # type: ignore[arg-type]
            use_id=leaf.visible(_USE_ID),
            purpose=leaf.text(_PURPOSE, empty=True),
            quantities=leaf.counted(),
            reporter=leaf.text(_REPORTER, most=MAX_REPORTER),
            served_ms=leaf.integer(_SERVED, high=MAX_TIME_MS),
        )
    common |= {
        "use_id": leaf.text(_USE_ID),
        "provider": leaf.text(_PROVIDER),
        "consumer": leaf.text(_CONSUMER),
        "outcome": leaf.outcome(),
        "result_digest": leaf.octets(_RESULT_DIGEST, (0, HASH_BYTES)),
        "quantities": leaf.quantities(),
        "reasons": leaf.reasons(),
    }
    if kind is Kind.USE:
        return UseReceipt(
            **common,  # type: ignore[arg-type]
            purpose=leaf.text(_PURPOSE, empty=True),
            agreement_digest=leaf.octets(_AGREEMENT_DIGEST, (0, HASH_BYTES)),
            policy_digest=leaf.octets(_POLICY_DIGEST, HASH_BYTES),
            request_digest=leaf.octets(_REQUEST_DIGEST, HASH_BYTES),
        )
    if leaf.integer(_LEAF_INDEX) >= leaf.integer(_TREE_SIZE):
        raise InvalidInput("receipt: a leaf outside its tree")
    return DeliveryReceipt(
        **common,  # type: ignore[arg-type]
        origin=leaf.text(_ORIGIN),
        leaf_hash=leaf.octets(_LEAF_HASH, HASH_BYTES),
        leaf_index=leaf.integer(_LEAF_INDEX),
        tree_size=leaf.integer(_TREE_SIZE, low=1),
    )


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Typed access to a decoded map."""

    fields: Mapping[int, cbor.Value]

    def integer(self, key: int, *, low: int = 0, high: int = MAX_QUANTITY) -> int:
        value = self.fields.get(key)
        if not isinstance(value, int) or not low <= value <= high:
            raise InvalidInput(f"receipt: field {key} must be an integer from {low} to {high}")
        return value

    def text(self, key: int, *, empty: bool = False, most: int = MAX_TEXT) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str) or len(value) > most or not (value or empty):
            raise InvalidInput(f"receipt: field {key} must be text of at most {most}")
        return value

    def visible(self, key: int) -> str:
        value = self.text(key, most=MAX_USE_ID)
        if not all("!" <= character <= "~" for character in value):
            raise InvalidInput(f"receipt: field {key} must be visible ASCII characters")
        return value

    def octets(self, key: int, size: int | tuple[int, ...] | range) -> bytes:
        value = self.fields.get(key)
        sizes = (size,) if isinstance(size, int) else size
        if not isinstance(value, bytes) or len(value) not in sizes:
            raise InvalidInput(f"receipt: field {key} has a wrong length")
        return value

    def outcome(self) -> Outcome:
        try:
            return Outcome(self.integer(_OUTCOME))
        except ValueError as error:
            raise InvalidInput("receipt: an outcome this program does not know") from error

    def quantities(self) -> dict[Quantity, int]:
        value = self.fields.get(_QUANTITIES)
        if not isinstance(value, dict):
            raise InvalidInput("receipt: quantities must be a map")
        amounts = _Leaf(value)
        try:
            return {Quantity(key): amounts.integer(key) for key in value}
        except ValueError as error:
            raise InvalidInput("receipt: a quantity this program does not know") from error

    def counted(self) -> dict[Quantity, int]:
        quantities = self.quantities()
        if not quantities.get(Quantity.CALLS):
            raise InvalidInput("receipt: a record is of one call at least")
        return quantities

    def reasons(self) -> tuple[Reason, ...]:
        value = self.fields.get(_REASONS)
        if not isinstance(value, list) or len(value) > MAX_REASONS:
            raise InvalidInput(f"receipt: reasons must be a list of at most {MAX_REASONS}")
        reasons = []
        for item in value:
            if not isinstance(item, list) or len(item) != 3:
                raise InvalidInput("receipt: a reason is (term, observed, allowed)")
            parts = _Leaf(dict(enumerate(item)))
            reasons.append(
                Reason(parts.text(0), parts.text(1, empty=True), parts.text(2, empty=True))
            )
        return tuple(reasons)
