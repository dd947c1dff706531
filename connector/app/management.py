"""The doors for a node's operator that speak HTTP: a Unix socket, and a port if one is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from connector import config
from connector.adapters.keys import KeyFolder
from connector.app.base import Base
from connector.app.process import version
from connector.transport.calls import OpenCalls, Watch
from connector.transport.http.management import Entry, Services, application
from connector.transport.http.server import HttpDoor
from connector.transport.http.tls import ServerTls

TOKEN = "management.token"  # noqa: S105  a file's name

log = structlog.get_logger()


def entry_of(address: str, token: str) -> Entry:
    """Who may come in at the port ``address``."""
    if config.is_loopback(address):
        host = address.rpartition(":")[0]  # 127.0.0.2, for one
        return Entry(token, frozenset((*config.LOOPBACK, host)))
    return Entry(token)  # a name that the certificate does not have is refused by whoever calls


@asynccontextmanager
async def http_management(
    base: Base[config.Node] | Base[config.Directory], calls: OpenCalls, services: Services
) -> AsyncIterator[None]:
    """Serve until the end of the context, before which the streams of ``calls`` have to be cut:
    the doors wait a moment for what they still answer. Raises ``ConfigError`` or ``Unavailable``.
    """
    settings, management = base.settings, base.settings.management
    socket = config.http_socket_path(base.data, settings.socket)
    token = Path(management.token) if management.token else socket.parent / TOKEN
    watch = Watch(calls, base.clock, base.metrics.call)
    wanted: list[tuple[str | Path, Entry, ServerTls | None]] = [(socket, Entry(), None)]
    if management.http:
        secret = KeyFolder((base.data / token).parent).secret(token.name)
        tls = None if config.is_loopback(management.http) else base.tls()
        wanted.append((management.http, entry_of(management.http, secret), tls))
    async with AsyncExitStack() as stack:
        for address, entry, tls in wanted:
            app = application(services, watch, entry, version=version())
            door = HttpDoor(app, address, tls, setting="management.http")
            log.info("management over HTTP", address=await door.open())
            stack.push_async_callback(door.close)
        yield
