"""Who may read bundles of this node's log over HTTP: the receipts themselves, 256 at a time.

1. a holder of a grant (``operations.grants``): every bundle;
2. a member of the space, by a bearer token of its own (``identity.tokens``), one for each request:
   every bundle if there is a grant under its DID; else the bundles in which each leaf is of an
   agreement between that member and this node.

A bundle with one leaf of somebody else's is refused whole: without all its leaves it could not be
compared with its tile. A member gets its own receipts, with proofs, over gRPC in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from connector.errors import NotFound, Reason, Refused, Unauthenticated
from connector.identity.tokens import LOG_KIND, TokenVerifier
from connector.metering.reader import LogReader
from connector.model.participant import Participant
from connector.model.receipt import decode
from connector.operations.grants import PREFIX, Grants
from connector.ports.clock import Clock
from connector.tlog import tiles

_OTHERS = Reason("log.bundle", "receipts of others", "agreements with the caller alone")


class Bundles:
    """``member`` gives the record of an active member, or raises ``Unauthenticated`` or
    ``Unavailable``; ``counterparty`` the DID of an agreement's other party, or ``NotFound``."""

    def __init__(
        self,
        log: LogReader,
        grants: Grants,
        *,
        did: str,
        member: Callable[[str], Participant],
        counterparty: Callable[[str], Awaitable[str]],
        clock: Clock,
    ) -> None:
        self._log = log
        self._grants = grants
        self._member = member
        self._counterparty = counterparty
        self._clock = clock
        self._tokens = TokenVerifier.of_bearers(did, LOG_KIND, started=clock.now())

    async def bundle(self, path: str, authorization: str) -> bytes:
        """The bundle at ``tile/entries/...`` for whoever shows this ``Authorization`` header.

        Raises ``Unauthenticated`` or ``RateLimited`` for the token, ``Refused`` for the bundle,
        ``InvalidInput``, ``NotFound``, ``Gone`` for the path; ``Unavailable``.
        """
        caller = self._caller(authorization)
        body = await asyncio.to_thread(self._log.bundle, path)
        if caller:
            width = tiles.parse_path(path).width
            for scope in await asyncio.to_thread(_scopes, body, width):
                await self._require_party(scope, caller)
        return body

    def _caller(self, authorization: str) -> str:
        """The DID of a member that may see its own alone; empty for who may see everything."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("a token is required")
        if token.startswith(PREFIX):
            self._grants.holder(token)
            return ""
        member = self._tokens.bearer(token, self._member, self._clock.now())
        return "" if self._grants.covers(member.did) else member.did

    async def _require_party(self, scope: str, caller: str) -> None:
        try:
            counterparty = await self._counterparty(scope)
        except NotFound:
            counterparty = ""
        if counterparty != caller:
            raise Refused([_OTHERS])


def _scopes(bundle: bytes, width: int) -> set[str]:
    return {decode(leaf).scope for leaf in tiles.parse_bundle(bundle, width)}
