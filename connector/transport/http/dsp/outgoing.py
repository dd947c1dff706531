"""The one HTTP client for URLs that others chose: callbackAddress, DID documents, dataAddress
endpoints and their refreshes (DSP 2025-1, HTTPS binding).

Each connection resolves the name once, drops the addresses that ``addresses`` does not admit, and
connects to one of the rest: nothing resolves between the check and the use. The name stays the
server name in TLS and the Host in HTTP. No redirect is followed, no proxy of the environment used,
no cookie kept, nothing decompressed; names, connections, answers and headers have limits in time
and size.

Leaves out who is authorised by which token (``peers``) and trying again (``courier``).
``adapters.http_witness`` has a client of its own, as its URLs are the operator's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from connector.errors import InvalidInput, PeerFault, Unavailable
from connector.transport.http.dsp.addresses import Address, Allowed, NotAllowed, Target, parse_url
from connector.transport.http.dsp.sockets import Sockets

TIMEOUT_S = 10.0  # seconds for one request, answer included
CONNECT_S = 5.0  # seconds to be connected, over all addresses of a name
RESOLVE_S = 5.0  # seconds for a name
IDLE_S = 20.0  # seconds between two pieces of a stream
MAX_BODY = 1 << 20  # bytes of an answer, unless asked otherwise
MAX_HEADERS = 32_768  # bytes of an answer's headers
MAX_ADDRESSES = 8  # of one name that are tried
_CONNECTIONS = 512
_KEPT_S = 4.0  # seconds that a connection is kept; most servers keep it for 5
_TIMEOUTS = {"connect": CONNECT_S, "read": IDLE_S, "write": IDLE_S, "pool": CONNECT_S}
_NOT_ALLOWED = "leads to an address that this node does not send to"
_HINT = "an operator who means it says so in [dsp] allow"

_WHOSE = (
    "call a member of the space by its DID, not by a URL; whose certificates of another peer are "
    "believed, ca of its [[peer]] says"
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotSent(Unavailable):
    """No connection was made: the request has certainly not arrived."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificate is believed, and for which name.

    ``authority``: the CA's PEM; empty for the system's roots. ``name``: what the certificate must
    name; empty for the URL's host (for a member of the space: ``participant.host_label``).
    ``or_web``: one of the web's PKI for the URL's host is believed as well.
    """

    authority: str = ""
    name: str = ""
    or_web: bool = False


WEB = Trust()


@dataclass(frozen=True, slots=True)
class Way:
    """How one request goes to a peer: whose certificate is believed, the ``Authorization`` that it
    carries (empty for none), and whether the peer signs agreements."""

    trust: Trust = WEB
    authorization: str = field(default="", repr=False)
    signs: bool = False

    def headers(self) -> dict[str, str]:
        return {"Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


class Opened:
    """An answer whose body is yet to come."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.status = response.status
        self.headers = httpx.Headers(response.headers)
        if sum(len(name) + len(value) + 4 for name, value in response.headers) > MAX_HEADERS:
            raise PeerFault("the answer's headers are too large")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise PeerFault("the answer is compressed, which was not asked for")

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """Raises ``PeerFault`` once there are more than ``limit`` bytes."""
        size = 0
        async for piece in self._response.aiter_stream():
            size += len(piece)
            if size > limit:
                raise PeerFault(f"the answer is larger than {limit} bytes")
            yield piece

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self.chunks(limit)])


class Outgoing:
    """``allow``: networks and names that may be reached although they are not public.
    ``plain_http``: also URLs without TLS to this machine's loopback, where ``allow`` has that too.

    Raises ``InvalidInput`` for what ``allow`` says wrongly.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        plain_http: bool = False,
        resolve: Resolve | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = Allowed.parse(allow)
        self._plain_http = plain_http
        self._names = ThreadPoolExecutor(max_workers=8, thread_name_prefix="names")
        self._resolve = resolve or self._system
        self._backend = backend or Sockets()
        self._pools: dict[tuple[Trust, bool], httpcore.AsyncConnectionPool] = {}
        self._authorities: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()
        self._names.shutdown(wait=False, cancel_futures=True)

    def target(self, url: str, what: str = "URL", *, query: bool = False) -> Target:
        """The parsed URL, unless this node certainly never sends there.

        Raises ``InvalidInput``, ``NotAllowed`` among it for an address that is not admitted.
        """
        target = parse_url(url, what, query=query)
        plain = target.scheme == "http"
        if plain and not self._plain_http:
            raise InvalidInput(f"{what}: must begin with https://")
        with suppress(ValueError):  # a name: admitted by what it resolves to
            if not self._allowed.admits(ip_address(target.host), target.host, plain=plain):
                raise NotAllowed(f"{what}: {_NOT_ALLOWED}", hint=_HINT)
        return target

    async def ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_BODY,
        timeout_s: float = TIMEOUT_S,
        trust: Trust = WEB,
        query: bool = False,
    ) -> Answer:
        """One request and its whole answer, whatever its status.

        Raises ``InvalidInput`` and ``NotAllowed`` for the URL, ``NotSent`` when no connection was
        made, ``Unavailable`` when no answer came in time, ``PeerFault`` for an answer that is too
        large.
        """
        opening = self.open(
            method,
            url,
            body=body,
            headers=headers,
            timeout_s=timeout_s,
            trust=trust,
            query=query,
        )
        async with opening as opened:
            return Answer(opened.status, opened.headers, await opened.read(limit))

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        trust: Trust = WEB,
        query: bool = False,
    ) -> AsyncIterator[Opened]:
        """As ``ask``; the body is read inside. Without ``timeout_s`` only a silence ends it."""
        target = self.target(url, query=query)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(target, trust, method, body, headers or {})
                try:
                    yield Opened(response)
                finally:
                    await response.aclose()
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Unavailable("the other side broke off") from error
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise Unavailable("the other side did not answer in time") from error

    async def _send(
        self, target: Target, trust: Trust, method: str, body: bytes, headers: Mapping[str, str]
    ) -> httpcore.Response:
        """The answer, as far as its body. Raises ``NotSent`` if no connection was made."""
        extensions: dict[str, Any] = {"timeout": _TIMEOUTS}
        if trust.name:
            extensions["sni_hostname"] = trust.name
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=target.scheme.encode(),
                host=target.host.encode(),
                port=target.port,
                target=target.path.encode(),
            ),
            headers=_headers(target, body, headers),
            content=body or None,
            extensions=extensions,
        )
        try:
            pool = self._pool(trust, plain=target.scheme == "http")
            return await pool.handle_async_request(request)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            if not isinstance(error.__context__, ssl.SSLError):
                raise NotSent("the other side cannot be reached") from error
            if not trust.or_web:
                raise NotSent(
                    "the other side's certificate does not verify", hint=_WHOSE
                ) from error
        except httpcore.LocalProtocolError as error:
            raise InvalidInput("the request cannot be written") from error
        return await self._send(target, WEB, method, body, headers)

    async def addresses(self, host: str, port: int, *, plain: bool = False) -> tuple[str, ...]:
        """Where ``host`` may be reached now; never empty. ``plain``: without TLS.

        Raises ``NotAllowed``, or ``NotSent`` for a name that does not resolve.
        """
        try:
            found: list[Address] = [ip_address(host)]
        except ValueError:
            found = await self._resolved(host, port)
        admitted = [str(each) for each in found if self._allowed.admits(each, host, plain=plain)]
        if not admitted:
            raise NotAllowed(f"the URL {_NOT_ALLOWED}", hint=_HINT)
        return tuple(dict.fromkeys(admitted))[:MAX_ADDRESSES]

    async def _resolved(self, host: str, port: int) -> list[Address]:
        try:
            async with asyncio.timeout(RESOLVE_S):
                return [ip_address(each) for each in await self._resolve(host, port)]
        except (OSError, TimeoutError, UnicodeError) as error:
            raise NotSent("the other side's name does not resolve") from error

    async def _system(self, host: str, port: int) -> Sequence[str]:
        """The system's resolver, in threads of its own: slow names hold nothing else up."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._names,
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
        )
        return [str(each[4][0]) for each in found]

    def _pool(self, trust: Trust, *, plain: bool) -> httpcore.AsyncConnectionPool:
        """One for each trust: a connection that was opened to one name serves no other."""
        pool = self._pools.get((trust, plain))
        if pool is None:
            pool = self._pools[trust, plain] = httpcore.AsyncConnectionPool(
                ssl_context=self._context(trust.authority),
                max_connections=_CONNECTIONS,
                max_keepalive_connections=64,
                keepalive_expiry=_KEPT_S,
                network_backend=_Checked(self, self._backend, plain=plain),
            )
        return pool

    def _context(self, authority: str) -> ssl.SSLContext:
        context = self._authorities.get(authority)
        if context is None:
            try:
                context = ssl.create_default_context(cadata=authority or None)
            except ssl.SSLError as error:
                raise InvalidInput("the CA's file holds no certificate in PEM") from error
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._authorities[authority] = context
        return context


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to admitted addresses alone, without resolving anything again."""

    def __init__(
        self, outgoing: Outgoing, backend: httpcore.AsyncNetworkBackend, *, plain: bool
    ) -> None:
        self._outgoing = outgoing
        self._backend = backend
        self._plain = plain

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._outgoing.addresses(host, port, plain=self._plain)
        each = (timeout or CONNECT_S) / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout=each)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(addresses[-1], port, timeout=each)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise NotAllowed("not a URL of this binding")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _headers(target: Target, body: bytes, more: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Raises ``InvalidInput`` for a value that no header can have."""
    found: dict[str, str] = {
        "Host": target.authority,
        "User-Agent": "tds-connector",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    if body:
        found["Content-Length"] = str(len(body))
    found.update(more)
    try:
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in found.items()]
    except UnicodeEncodeError as error:
        raise InvalidInput("a header that is not ASCII") from error
