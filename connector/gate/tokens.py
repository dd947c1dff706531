"""The tokens of one pull: a short-lived one for the data, and one to refresh both.

Pure. Tokens are 256 random bits; only digests are kept, so that whoever reads the store cannot
pull. A refresh survives a lost answer:

* The new pair is *proposed*: it is derived from the old refresh token and a salt that is kept.
  Who asks again with the same old token gets the same pair, though nobody stored it.
* The old refresh token is good until either token of the new pair is used for the first time.
  That *settles* the new pair; the salt goes, and with it the way to derive the pair.
* The access token before is good until its own end, so that requests that are under way with it
  are not lost.

Left out: who may refresh, which is decided anew each time by the caller (``gate.pulls``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from connector.errors import Unauthenticated
from connector.model import fields

TOKEN_BYTES = 32
LIFE_MS = 300_000  # of an access token, from when it is handed out
MAX_TOKEN = 512  # characters of what a caller may show

_NONE = b""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a consumer is given."""

    access: str
    refresh: str
    life_s: int = LIFE_MS // 1000


@dataclass(frozen=True, slots=True)
class Digests:
    """Of a pair; ``until_ms`` is the end of its access token."""

    access: bytes
    refresh: bytes
    until_ms: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """``former``: the access token before, and its end."""

    current: Digests
    proposed: Digests | None = None
    salt: bytes = _NONE
    former: bytes = _NONE
    former_until_ms: int = 0

    def digests(self) -> set[bytes]:
        """Of all tokens that may still mean something."""
        known = {self.current.access, self.current.refresh, self.former}
        if self.proposed is not None:
            known |= {self.proposed.access, self.proposed.refresh}
        return known - {_NONE}

    def used(self, access: bytes, now_ms: int) -> Tokens:
        """The tokens after this access token (its digest) was shown. Raises ``Unauthenticated``
        if it is none of them, or is past its end."""
        if self.proposed is not None and access == self.proposed.access:
            settled = self._settled()
            return settled.used(access, now_ms)
        ends = {self.former: self.former_until_ms, self.current.access: self.current.until_ms}
        if access == _NONE or now_ms >= ends.get(access, 0):
            raise Unauthenticated("not a token for this")
        return self

    def refreshed(self, refresh: str, now_ms: int, salt: bytes) -> tuple[Tokens, Pair]:
        """The tokens after this refresh token was shown, and the pair to give for it; ``salt``:
        32 random bytes, in case that they are needed. Raises ``Unauthenticated``."""
        shown = digest(refresh)
        if self.proposed is not None and shown == self.proposed.refresh:
            return self._settled().refreshed(refresh, now_ms, salt)
        if shown != self.current.refresh:
            raise Unauthenticated("not a token for this")
        salt = self.salt or salt
        pair = Pair(_derived(refresh, salt, b"access"), _derived(refresh, salt, b"refresh"))
        return replace(self, proposed=_digests(pair, now_ms), salt=salt), pair

    def _settled(self) -> Tokens:
        assert self.proposed is not None  # noqa: S101  who calls has looked
        return Tokens(
            current=self.proposed,
            former=self.current.access,
            former_until_ms=self.current.until_ms,
        )


def first(random: bytes, now_ms: int) -> tuple[Tokens, Pair]:
    """A pair that has nothing to do with any other, from 64 random bytes."""
    pair = Pair(_text(random[:TOKEN_BYTES]), _text(random[TOKEN_BYTES : 2 * TOKEN_BYTES]))
    return Tokens(_digests(pair, now_ms)), pair


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def encode(tokens: Tokens) -> bytes:
    value: dict[str, Any] = {
        "current": _pair_json(tokens.current),
        "salt": tokens.salt.hex(),
        "former": tokens.former.hex(),
        "formerUntil": tokens.former_until_ms,
    }
    if tokens.proposed is not None:
        value["proposed"] = _pair_json(tokens.proposed)
    return fields.encode_json(value)


def decode(data: bytes) -> Tokens:
    """Raises ``InvalidInput``."""
    value = fields.as_object(fields.parse_json(data, what="tokens"), "tokens")
    proposed = value.get("proposed")
    return Tokens(
        current=_read_pair(fields.as_object(value.get("current"), "current")),
        proposed=None if proposed is None else _read_pair(fields.as_object(proposed, "proposed")),
        salt=_octets(value, "salt"),
        former=_octets(value, "former"),
        former_until_ms=fields.integer(value, "formerUntil"),
    )


def _digests(pair: Pair, now_ms: int) -> Digests:
    return Digests(digest(pair.access), digest(pair.refresh), now_ms + LIFE_MS)


def _derived(refresh: str, salt: bytes, use: bytes) -> str:
    return _text(hmac.digest(refresh.encode(), salt + use, "sha256"))


def _text(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _pair_json(digests: Digests) -> dict[str, Any]:
    return {
        "access": digests.access.hex(),
        "refresh": digests.refresh.hex(),
        "until": digests.until_ms,
    }


def _read_pair(value: Mapping[str, Any]) -> Digests:
    return Digests(
        _octets(value, "access"), _octets(value, "refresh"), fields.integer(value, "until")
    )


def _octets(value: Mapping[str, Any], key: str) -> bytes:
    return bytes.fromhex(fields.text(value, key, limit=128, default=""))
