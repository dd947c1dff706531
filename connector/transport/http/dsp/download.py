"""Getting the data of a transfer whose consumer we are: HTTP pull from its data address.

DSP 2025-1 leaves the data's protocol to the data address; what is understood here is the format
``HttpData-PULL`` as our own data plane, EDC and Tractus-X write it: an endpoint, a token
(``authorization``), and to refresh it ``refreshEndpoint`` and ``refreshToken`` (RFC 6749 section
6), whatever namespace the properties' names are in.

A pull that breaks off goes on where it stopped (RFC 9110 section 14, ``If-Range``), as long as it
makes progress; a token that is not taken any more is refreshed once, and kept. Memory holds one
piece. URLs are the provider's choice, so they go through ``outgoing`` like every other.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import stamina
import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InternalError,
    InvalidInput,
    NotFound,
    PeerFault,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.model import fields
from connector.model.negotiation import Party
from connector.model.transfer import MAX_VALUE, DataAddress, TransferProcess, TransferState
from connector.ports.peers import PullBegun
from connector.transport.http.dsp.outgoing import Opened, Outgoing, Trust

ATTEMPTS = 8  # without a byte between them
TOTAL_S = 120.0  # seconds of attempts without a byte
LONGEST_WAIT_S = 20.0
REFRESH_BYTES = 65_536
MAX_SIZE = 1 << 62
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_NO_RANGE = re.compile(r"bytes \*/([0-9]{1,19})")
_TAG = re.compile(r'"[!#-~]{0,200}"')  # a strong one: a weak one names no bytes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Access:
    """What a data address says, for HTTP. ``bearer``: the token is one after RFC 6750; if not, it
    is the header's whole value."""

    address: DataAddress
    endpoint: str
    token: str
    bearer: bool
    refresh_endpoint: str
    refresh_token: str

    @classmethod
    def read(cls, address: DataAddress) -> Access:
        """Raises ``PeerFault`` where there is no endpoint."""
        said = _properties(address)
        endpoint = address.endpoint or said.get("endpoint", "")
        if not endpoint:
            raise PeerFault("the data address names no endpoint")
        kind = said.get("authType", "bearer").lower()
        return cls(
            address,
            endpoint,
            said.get("authorization", ""),
            kind == "bearer",
            said.get("refreshEndpoint", ""),
            said.get("refreshToken", ""),
        )

    def headers(self) -> dict[str, str]:
        if not self.token:
            return {}
        whole = not self.bearer or self.token.lower().startswith("bearer ")
        return {"Authorization": self.token if whole else f"Bearer {self.token}"}

    def renewed(self, token: str, refresh_token: str) -> Access:
        """With other tokens, in the data address too."""
        new = {"authorization": token}
        if refresh_token:
            new["refreshToken"] = refresh_token
        properties = tuple(
            (name, new.get(_local(name), value)) for name, value in self.address.properties
        )
        return replace(
            Access.read(replace(self.address, properties=properties)), bearer=self.bearer
        )


def _properties(address: DataAddress) -> dict[str, str]:
    """By the last part of their names; the one without a namespace goes first."""
    found: dict[str, str] = {}
    for name, value in sorted(address.properties, key=lambda pair: pair[0] != _local(pair[0])):
        found.setdefault(_local(name), value)
    return found


def _local(name: str) -> str:
    return re.split(r"[/#:]", name)[-1]


class Downloads:
    """``transfer`` gives a process of ours; ``renewed`` keeps a data address whose token was
    refreshed; ``trust`` says by which certificates a peer (its id) is known."""

    def __init__(
        self,
        outgoing: Outgoing,
        *,
        transfer: Callable[[str], Awaitable[TransferProcess]],
        renewed: Callable[[str, DataAddress, DataAddress], Awaitable[None]],
        trust: Callable[[str], Trust],
    ) -> None:
        self._outgoing = outgoing
        self._transfer = transfer
        self._renewed = renewed
        self._trust = trust

    async def pull(
        self, pid: str, *, offset: int = 0, etag: str = ""
    ) -> AsyncIterator[PullBegun | bytes]:
        """As ``ports.peers.PullPeer.pull``."""
        pull = _Pull(self, await self.process(pid), offset, etag)
        async with aclosing(pull.run()) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    async def process(self, pid: str) -> TransferProcess:
        """Raises ``NotFound``, or ``Conflict`` where there is no data to be had now."""
        process = await self._transfer(pid)
        if process.party is not Party.CONSUMER:
            raise NotFound("no such transfer where this node is the consumer")
        if process.state is not TransferState.STARTED or process.data_address is None:
            raise Conflict(
                f"the transfer is {process.state}: its data can be had while it is STARTED",
                hint=f"connector transfer show {pid}",
            )
        return process

    async def keep(self, pid: str, known: Access, renewed: Access) -> None:
        await self._renewed(pid, known.address, renewed.address)

    def open(
        self, access: Access, peer: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Opened]:
        headers = {"Accept": "*/*", **access.headers(), **headers}
        trust = self._trust(peer)
        return self._outgoing.open("GET", access.endpoint, headers=headers, trust=trust, query=True)

    async def refresh(self, access: Access, peer: str) -> Access:
        """The same data under a new token. An answer that was lost is asked for again, with the
        same token. Raises ``Unauthenticated`` if the provider gives none."""
        form = {"grant_type": "refresh_token", "refresh_token": access.refresh_token}
        answer = await self._outgoing.ask(
            "POST",
            access.refresh_endpoint,
            body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            limit=REFRESH_BYTES,
            trust=self._trust(peer),
            query=True,
        )
        if answer.status >= 500 or answer.status in (408, 429):
            raise Unavailable(f"the provider answers a refresh with {answer.status}")
        if answer.status != 200:
            raise Unauthenticated(f"the provider answers a refresh with {answer.status}")
        value = fields.as_object(
            fields.parse_json(answer.body, limit=REFRESH_BYTES, what="refresh"), "refresh"
        )
        token = fields.text(value, "access_token", limit=MAX_VALUE)
        again = fields.text(value, "refresh_token", limit=MAX_VALUE, default="")
        if not (token + again).isascii() or not (token + again).isprintable():
            raise InvalidInput("refresh: tokens must be printable ASCII")
        return access.renewed(token, again)


class _Pull:
    """One pull: ``at`` is how far it got."""

    def __init__(
        self, downloads: Downloads, process: TransferProcess, offset: int, etag: str
    ) -> None:
        self._downloads = downloads
        self._pid, self._peer = process.pid, process.peer
        self._access = _access(process)
        self._at = offset
        self._etag = etag
        self._size = -1
        self._media_type = ""
        self._told = False
        self._refreshed = False  # since the last byte

    async def run(self) -> AsyncIterator[PullBegun | bytes]:
        while True:
            async with AsyncExitStack() as stack:
                pieces = await self._begin(stack)
                if not self._told:
                    self._told = True
                    yield PullBegun(self._at, self._size, self._etag, self._media_type)
                try:
                    async for piece in pieces:
                        self._at += len(piece)
                        self._refreshed = False
                        yield piece
                except Unavailable as error:
                    log.info("a pull goes on", pid=self._pid, at=self._at, reason=error.message)
                else:
                    return

    async def _begin(self, stack: AsyncExitStack) -> AsyncIterator[bytes]:
        """Until there is a byte, or the end; the answer is left when ``stack`` is."""
        async for attempt in stamina.retry_context(
            on=Unavailable,
            attempts=ATTEMPTS,
            timeout=TOTAL_S,
            wait_initial=0.2,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=0.3,
        ):
            with attempt:
                async with AsyncExitStack() as trial:
                    pieces = await self._open(trial)
                    first = await anext(pieces, b"")
                    stack.push_async_callback(trial.pop_all().aclose)
                    return _joined(first, pieces)
        raise InternalError("no attempt was made")

    async def _open(self, stack: AsyncExitStack) -> AsyncIterator[bytes]:
        while True:
            opened = await stack.enter_async_context(
                self._downloads.open(self._access, self._peer, self._range())
            )
            if opened.status in (200, 206):
                self._check(opened)
                return opened.chunks(MAX_SIZE)
            if opened.status == 416 and self._at:
                if self._is_whole(opened):
                    return _nothing()
                self._from_the_start()
                continue
            error = _refusal(opened)
            if opened.status not in (401, 403) or not await self._other_token():
                raise error

    def _range(self) -> dict[str, str]:
        if not self._at:
            return {}
        condition = {"If-Range": self._etag} if self._etag else {}
        return {"Range": f"bytes={self._at}-", **condition}

    def _check(self, opened: Opened) -> None:
        """That it is what was asked for, and the same data as before."""
        start, size = 0, _number(opened.headers.get("content-length", ""))
        if opened.status == 206:
            found = _RANGE.fullmatch(opened.headers.get("content-range", ""))
            if found is None or int(found[1]) != self._at:
                raise PeerFault("the provider answers with another range than was asked for")
            start, size = self._at, -1 if found[3] == "*" else int(found[3])
        etag = opened.headers.get("etag", "")
        etag = etag if _TAG.fullmatch(etag) else ""
        other = bool(self._etag) and etag != self._etag  # If-Range was not looked at
        changed = self._told and (start != self._at or etag != self._etag or size != self._size)
        if changed or (start and other):
            raise Conflict("the data changed on the way", hint="begin again, without the old part")
        self._at, self._size, self._etag = start, size, etag
        self._media_type = opened.headers.get("content-type", "")[:256]

    def _is_whole(self, opened: Opened) -> bool:
        found = _NO_RANGE.fullmatch(opened.headers.get("content-range", ""))
        if found is None or int(found[1]) != self._at:
            return False
        self._size = self._at
        return True

    def _from_the_start(self) -> None:
        if self._told:
            raise Conflict("the data changed on the way", hint="begin again, without the old part")
        self._at, self._etag = 0, ""

    async def _other_token(self) -> bool:
        """After a token was not taken: whether there is another to try.

        Raises ``Conflict`` where the transfer is not STARTED any more.
        """
        now = _access(await self._downloads.process(self._pid))
        if now.address != self._access.address:  # resumed, or refreshed by another pull
            self._access = now
            return True
        if self._access.refresh_endpoint and self._access.refresh_token and not self._refreshed:
            self._refreshed = True
            try:
                renewed = await self._downloads.refresh(self._access, self._peer)
            except (InvalidInput, Unauthenticated, PeerFault) as error:
                log.warning("a token was not refreshed", pid=self._pid, reason=error.message)
            except Unavailable:
                self._refreshed = False
                raise
            else:
                await self._downloads.keep(self._pid, self._access, renewed)
                self._access = renewed
                return True
        if self._access.bearer:  # EDC's data plane takes the token alone
            self._access = replace(self._access, bearer=False)
            return True
        return False


def _access(process: TransferProcess) -> Access:
    return Access.read(process.data_address or DataAddress(""))


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece


def _number(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else -1


def _refusal(opened: Opened) -> ConnectorError:
    status = opened.status
    if status in (401, 403):
        return Refused(
            [Reason("token", f"{status} from the provider", "a token that is in force")],
            hint="the provider may have suspended or ended the transfer",
        )
    if status in (404, 410):
        return NotFound("the provider has no such data")
    if status in (408, 425, 429) or status >= 500:
        return Unavailable(f"the provider answers with {status}")
    return PeerFault(f"the provider answers with {status}")
