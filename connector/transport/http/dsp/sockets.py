"""httpcore's network on asyncio's own transports: three quarters of the processor's time for a
request that anyio's take, and half of it for a stream."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore

_BUFFER = 256 << 10  # bytes that wait to be read before the other side is slowed down


class Sockets(httpcore.AsyncNetworkBackend):
    """Connects to addresses; a name is never resolved."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(opened, (host, port))
        except TimeoutError as error:
            opened.close()
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            opened.close()
            raise httpcore.ConnectError from error
        except BaseException:
            opened.close()
            raise
        return _Stream(opened)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connected socket, which gets its transport when it is known whether it is TLS."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                self._pair = await asyncio.open_connection(
                    sock=self._socket,
                    ssl=ssl_context,
                    server_hostname=server_hostname,
                    limit=_BUFFER,
                )
        except TimeoutError as error:
            self._socket.close()
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            self._socket.close()
            raise httpcore.ConnectError from error
        return self

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes:
        reader, _ = await self._plain()
        try:
            async with asyncio.timeout(timeout):
                return await reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError from error

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        _, writer = await self._plain()
        try:
            writer.write(buffer)
            async with asyncio.timeout(timeout):
                await writer.drain()
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    async def aclose(self) -> None:
        if self._pair is None:
            self._socket.close()
            return
        _, writer = self._pair
        writer.transport.abort()  # nothing is left to be said: a peer's close is not waited for
        with suppress(OSError):
            await writer.wait_closed()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # asked of a connection that rests: whether its end has come
            return self._pair is None or self._pair[0].at_eof() or self._pair[1].is_closing()
        if self._pair is None:
            return None
        return self._pair[1].get_extra_info(info)

    async def _plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._pair is None:
            self._pair = await asyncio.open_connection(sock=self._socket, limit=_BUFFER)
        return self._pair
