"""How what the meter remembers is written: reservations as records of the log, and the whole
``State`` as bytes that the storage keeps beside it, so that a start replays only what came later.

The kept state is ours alone and carries a version; one that cannot be read is as good as none.
"""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any

from connector.core.interface import Keys
from connector.errors import InvalidInput
from connector.metering.state import Places, Scope, State
from connector.metering.types import Reservation
from connector.model import cbor
from connector.ports.receipts import CorruptLog

_RESERVED = 1  # the one kind of record so far
_FIELDS = range(9)
_VERSION = 1


def encode_reservation(reservation: Reservation) -> bytes:
    """A reservation as a record of the log. The limit is the contract's, not the log's."""
    return cbor.encode(
        {
            0: _RESERVED,
            1: reservation.scope,
            2: reservation.use_id,
            3: reservation.provider,
            4: reservation.consumer,
            5: reservation.purpose,
            6: reservation.agreement_digest,
            7: reservation.policy_digest,
            8: reservation.request_digest,
        }
    )


def decode_reservation(record: bytes) -> Reservation:
    """Raises ``CorruptLog``: only our own records are in our log."""
    try:
        value = cbor.decode(record)
    except InvalidInput as error:
        raise CorruptLog("the log has a record that cannot be read") from error
    if not isinstance(value, dict) or set(value) != set(_FIELDS) or value[0] != _RESERVED:
        raise CorruptLog(
            "the log has a record of a kind unknown here",
            hint="it may have been written by a newer version of this program",
        )
    texts = [item for item in map(value.get, _FIELDS[1:6]) if isinstance(item, str)]
    digests = [item for item in map(value.get, _FIELDS[6:]) if isinstance(item, bytes)]
    if len(texts) != 5 or len(digests) != 3:
        raise CorruptLog("the log has a record that cannot be read")
    return Reservation(
        scope=texts[0],
        use_id=texts[1],
        limit=None,
        provider=texts[2],
        consumer=texts[3],
        purpose=texts[4],
        agreement_digest=digests[0],
        policy_digest=digests[1],
        request_digest=digests[2],
    )


def encode_state(state: State) -> bytes:
    """A state that lies over no other."""
    document = {
        "version": _VERSION,
        "size": state.size,
        "time_ms": state.time_ms,
        "open": [_text(encode_reservation(item)) for item in state.open_reservations()],
        "scopes": [
            [name, scope.number, _text(scope.head), scope.uses, scope.reserved]
            for name, scope in state.scopes.items()
        ],
        "places": [
            [name, _text(places.numbers.tobytes()), _text(places.indices.tobytes())]
            for name, places in state.places.items()
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode_state(data: bytes, keys: Keys) -> State:
    """What ``encode_state`` wrote, over these keys. Raises ``InvalidInput``."""
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise InvalidInput("kept state: of another version")
        state = State(keys)
        for record in document["open"]:
            state.reserve(decode_reservation(_bytes(record)))
        state.scopes.clear()
        for name, number, head, uses, reserved in document["scopes"]:
            state.scopes[name] = Scope(number, _bytes(head), uses, reserved)
        for name, numbers, indices in document["places"]:
            state.places[name] = Places(_numbers(numbers), _numbers(indices))
        state.size, state.time_ms = document["size"], document["time_ms"]
    except (KeyError, TypeError, ValueError, CorruptLog) as error:
        raise InvalidInput("kept state: cannot be read") from error
    return state


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def _numbers(text: Any) -> array[int]:
    return array("Q", _bytes(text))
