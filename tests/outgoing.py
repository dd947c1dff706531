"""A network that is made up: names, addresses, and what answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpcore

from connector.transport.http.dsp.outgoing import Outgoing

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Stream(httpcore.AsyncMockStream):
    """Keeps what was written, and the name that TLS asked for."""

    def __init__(self, answer: Sequence[bytes]) -> None:
        super().__init__(list(answer))
        self.written = b""
        self.tls: list[str | None] = []

    async def write(self, buffer: bytes, *_: object, **__: object) -> None:
        self.written += buffer

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, *_: object, **__: object
    ) -> httpcore.AsyncNetworkStream:
        self.tls.append(server_hostname)
        return self


class Network(httpcore.AsyncNetworkBackend):
    """``answers``: by address, pieces of bytes, or an error that connecting raises."""

    def __init__(self, names: dict[str, list[Sequence[str]]] | None = None) -> None:
        self.names = names or {}
        self.answers: dict[str, Sequence[bytes] | Exception] = {}
        self.connected: list[tuple[str, int]] = []
        self.resolved: list[str] = []
        self.streams: list[Stream] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The next answer of this name; the last one stays."""
        self.resolved.append(host)
        answers = self.names.get(host)
        if not answers:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect_tcp(
        self, host: str, port: int, *_: object, **__: object
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        answer = self.answers.get(host, [OK])
        if isinstance(answer, Exception):
            raise answer
        self.streams.append(Stream(answer))
        return self.streams[-1]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def outgoing(self, *allow: str, plain_http: bool = False) -> Outgoing:
        return Outgoing(allow, plain_http=plain_http, resolve=self.resolve, backend=self)


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} As Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
