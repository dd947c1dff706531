"""The token that every call carries: a JWT (RFC 7519) that its caller issues itself.

It says who calls (``iss`` = ``sub``), whom (``aud``), when (``iat``, ``exp``), and over which TLS
certificate (``cnf`` with ``x5t#S256``, RFC 8705 section 3.1). It is good for one call within
``LIFETIME_S`` seconds. As a statement (``identity.statements``) it is typed, so no other signed
document can stand in for it (RFC 8725 section 3.11).

``TokenVerifier.verify`` does not decide who is a member: the caller passes the keys of the
directory's record of the participant that the TLS certificate names, and MUST check that the
certificate has not expired.

A *bearer token* is for HTTPS, where the caller shows no certificate: it has no ``cnf``, lives at
most ``BEARER_LIFETIME_S`` and is good for one request too. Its kind says for which door: a bundle
of another's log (``LOG_KIND``), or the Dataspace Protocol (``DSP_KIND``).

What is left over: a token by a clock that runs ahead of ours can be used again after a restart
that is quicker than the clock is ahead (at most ``leeway_s``), over the same certificate.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import ConnectorError, InvalidInput, RateLimited, Unauthenticated
from connector.identity.statements import peek_statement, read_statement, sign_statement
from connector.model import fields
from connector.model.participant import Participant

KIND = "call"
LOG_KIND = "log"
DSP_KIND = "dsp"
LIFETIME_S = 60.0  # seconds; the longest that a token may say it lives
BEARER_LIFETIME_S = 300.0  # seconds, of a bearer token
LEEWAY_S = 5.0  # seconds that two clocks may differ
REMEMBERED = 50_000  # live tokens of one caller: about 750 calls a second
MAX_TOKEN = 4096  # characters
_JTI = range(16, 65)  # characters

_CLAIMS = frozenset({"iss", "sub", "aud", "iat", "exp", "jti"})


def issue_token(
    key: Ed25519PrivateKey,
    *,
    did: str,
    audience: str,
    thumbprint: str,
    now: datetime,
    jti: str,
) -> str:
    """A token for one call by ``did`` to ``audience``.

    ``thumbprint`` is the base64url SHA-256 of the caller's TLS certificate in DER; ``jti`` must
    never have been used before (16 to 64 characters).
    """
    issued = now.timestamp()
    return sign_statement(
        key,
        KIND,
        {
            "iss": did,
            "sub": did,
            "aud": audience,
            "iat": issued,
            "exp": issued + LIFETIME_S,
            "jti": jti,
            "cnf": {"x5t#S256": thumbprint},
        },
    )


def issue_bearer_token(
    key: Ed25519PrivateKey, kind: str, *, did: str, audience: str, now: datetime, jti: str
) -> str:
    """A token of this ``kind`` for one request by ``did`` to ``audience`` (a DID); ``jti`` as in
    ``issue_token``."""
    issued = now.timestamp()
    claims = {"iss": did, "sub": did, "aud": audience, "iat": issued, "jti": jti}
    return sign_statement(key, kind, claims | {"exp": issued + BEARER_LIFETIME_S})


def claimed_issuer(token: str, kind: str) -> str:
    """Who a bearer token of this ``kind`` says it is by, NOT verified: only to look up the keys.

    Raises ``Unauthenticated``.
    """
    try:
        if len(token) > MAX_TOKEN:
            raise InvalidInput("the token is too large")
        return fields.text(peek_statement(token, kind), "iss", limit=MAX_TOKEN)
    except ConnectorError as error:
        raise Unauthenticated(f"not a token of the kind {kind}") from error


@dataclass(slots=True)
class _Remembered:
    """The tokens of one caller that could still be replayed: jti to the second it dies.

    ``forgotten`` is the latest death among those already dropped: nothing that dies earlier is
    accepted any more, so that a wall clock set back revives no token.
    """

    tokens: dict[str, float] = field(default_factory=dict)
    forgotten: float = 0.0

    def drop_dead(self, now: float) -> None:
        """In the order in which they came, which is nearly that in which they die."""
        while self.tokens:
            jti, death = next(iter(self.tokens.items()))
            if death >= now:
                return
            del self.tokens[jti]
            self.forgotten = max(self.forgotten, death)


class TokenVerifier:
    """Verifies tokens for one audience and remembers them. For one event loop (no lock)."""

    @classmethod
    def of_bearers(cls, did: str, kind: str, *, started: datetime) -> TokenVerifier:
        """Of bearer tokens of this ``kind``."""
        return cls(did, started=started, kind=kind, lifetime_s=BEARER_LIFETIME_S)

    def __init__(
        self,
        did: str,
        *,
        started: datetime,
        leeway_s: float = LEEWAY_S,
        remembered: int = REMEMBERED,
        kind: str = KIND,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """``did`` is our own; ``started`` is when this process began to remember tokens."""
        self._kind = kind
        self._lifetime = lifetime_s
        self._did = did
        self._started = started.timestamp()
        self._leeway = leeway_s
        self._most = remembered
        self._callers: dict[str, _Remembered] = {}

    def bearer(
        self, token: str, member: Callable[[str], Participant], now: datetime
    ) -> Participant:
        """Whose bearer token it is. ``member`` gives the record of who may make such a call now,
        or raises. Raises as it does, and as ``verify``."""
        found = member(claimed_issuer(token, self._kind))
        self.verify(token, issuer=found.did, keys=found.signing_keys, thumbprint=None, now=now)
        return found

    def verify(
        self,
        token: str,
        *,
        issuer: str,
        keys: Iterable[bytes],
        thumbprint: str | None,
        now: datetime,
    ) -> None:
        """That ``issuer`` (whose ``keys`` the directory knows) makes this call, for the first time.

        ``thumbprint`` is that of the certificate which the caller presented; None for a token
        that is bound to none. Raises
        ``Unauthenticated``, or ``RateLimited`` if too many of this caller's tokens are live; other
        callers' calls are not affected by either.
        """
        if len(token) > MAX_TOKEN:
            raise Unauthenticated("the token is too large")
        try:
            claims = read_statement(token, self._kind, keys)
            bound = frozenset() if thumbprint is None else frozenset({"cnf"})
            fields.only_keys(claims, _CLAIMS | bound, "token")
            jti = fields.text(claims, "jti", limit=_JTI[-1])
            issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
            bound_to = _bound_to(claims) if thumbprint is not None else ""
        except ConnectorError as error:
            raise Unauthenticated("the token is not a valid one by this caller") from error
        if claims.get("iss") != issuer or claims.get("sub") != issuer:
            raise Unauthenticated("the token is another participant's")
        if claims.get("aud") != self._did:
            raise Unauthenticated("the token is for another audience")
        if not hmac.compare_digest(bound_to.encode(), (thumbprint or "").encode()):
            raise Unauthenticated("the token is bound to another certificate")
        if len(jti) not in _JTI:
            raise Unauthenticated("the token's identifier is too short")
        self._check_time(issued, expires, now.timestamp())
        self._remember(issuer, jti, expires + self._leeway, now.timestamp())

    def _check_time(self, issued: float, expires: float, now: float) -> None:
        if not 0 < expires - issued <= self._lifetime:
            raise Unauthenticated(f"the token lives longer than {self._lifetime:.0f} seconds")
        if issued > now + self._leeway:
            raise Unauthenticated("the token is from the future: compare the clocks")
        if expires + self._leeway < now:
            raise Unauthenticated("the token has expired")
        if issued < self._started:
            raise Unauthenticated("the token is older than this process; call again")

    def _remember(self, issuer: str, jti: str, death: float, now: float) -> None:
        known = self._callers.setdefault(issuer, _Remembered())
        known.drop_dead(now)
        if jti in known.tokens or death <= known.forgotten:
            raise Unauthenticated("the token was used before")
        if len(known.tokens) >= self._most:
            raise RateLimited("too many calls within the lifetime of a token")
        known.tokens[jti] = death


def _bound_to(claims: Mapping[str, Any]) -> str:
    return fields.text(fields.as_object(claims.get("cnf"), "cnf"), "x5t#S256", limit=64)


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 section 2), which may have a fraction."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**40:
        raise InvalidInput(f"{name}: must be seconds since 1970")
    return float(value)
