"""Who calls the Dataspace Protocol's door, by the token in ``Authorization: Bearer`` (RFC 6750).

DSP 2025-1 ("Authorization") leaves open what a token means. Here it is one of:

1. a *static token* that the operator agreed on with a connector outside the space, for closed
   networks; the node keeps its digest alone;
2. a member's own *bearer token* (``identity.tokens``, kind ``dsp``): signed with a key that the
   directory has, for this node, good for one request.

Each is an ``Authority``, and they are asked in order. Presentations after the Decentralized Claims
Protocol would be a third. Who a token names must be somebody to be dealt with at this moment, so
a member that was suspended is refused with its next request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import ConfigError, InvalidInput, Unauthenticated
from connector.identity.statements import statement_kind
from connector.identity.tokens import (
    DSP_KIND,
    MAX_TOKEN,
    TokenVerifier,
    issue_bearer_token,
)
from connector.model.participant import Participant
from connector.ports.clock import Clock

LEAST_TOKEN = 16  # characters of a static token
_JTI_BYTES = 16

Authenticate = Callable[[str], Awaitable[Participant]]


class Authority(Protocol):
    async def authenticate(self, token: str) -> Participant | None:
        """Whose token it is; None if it is not of this authority's kind.

        Raises ``Unauthenticated``, ``RateLimited`` or ``Unavailable``.
        """
        ...


def by_bearer(authorities: Sequence[Authority]) -> Authenticate:
    """Who an ``Authorization`` header (empty if there is none) names.

    What it returns raises as ``Authority.authenticate``.
    """

    async def authenticate(header: str) -> Participant:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN:
            raise Unauthenticated("a bearer token is required")
        for authority in authorities:
            found = await authority.authenticate(token)
            if found is not None:
                return found
        raise Unauthenticated("the token is not known here")

    return authenticate


class StaticTokens:
    """``tokens``: participant ids with the token by which each is known. ``lookup`` gives the
    record of a participant that may be dealt with now, or raises.

    Raises ``ConfigError`` for a token that is too short, or of two participants.
    """

    def __init__(self, tokens: Mapping[str, str], lookup: Callable[[str], Participant]) -> None:
        self._lookup = lookup
        self._ids = {_digest(token): name for name, token in tokens.items()}
        for name, token in tokens.items():
            if not LEAST_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or " " in token:
                raise ConfigError(f"the token of {name} must have {LEAST_TOKEN} characters or more")
        if len(self._ids) != len(tokens):
            raise ConfigError("two participants with one token")

    async def authenticate(self, token: str) -> Participant | None:
        """All digests are compared, whichever fits: time tells nothing."""
        presented = _digest(token)
        fitting = [name for kept, name in self._ids.items() if hmac.compare_digest(kept, presented)]
        return self._lookup(fitting[0]) if fitting else None


class MemberTokens:
    """Bearer tokens of members for the node ``did``; ``lookup`` gives the record of an active
    member, or raises ``Unauthenticated`` or ``Unavailable``."""

    def __init__(self, did: str, lookup: Callable[[str], Participant], clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock
        self._tokens = TokenVerifier.of_bearers(did, DSP_KIND, started=clock.now())

    async def authenticate(self, token: str) -> Participant | None:
        try:
            if statement_kind(token) != DSP_KIND:
                return None
        except InvalidInput:
            return None
        return self._tokens.bearer(token, self._lookup, self._clock.now())


def issue_dsp_token(key: Ed25519PrivateKey, *, did: str, audience: str, clock: Clock) -> str:
    """A token for one request by ``did`` to the member ``audience``."""
    return issue_bearer_token(
        key,
        DSP_KIND,
        did=did,
        audience=audience,
        now=clock.now(),
        jti=secrets.token_hex(_JTI_BYTES),
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
