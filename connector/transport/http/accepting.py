"""Taking connections at a door: no more than there is room for, and none for long without a word.

asyncio's own servers take whatever comes. Each connection is a file descriptor, and a process that
has none left can neither write its log nor answer its operator, so a flood at one door would stop
the whole node. Here a connection beyond the limit is closed at once, and one that does not get
through its TLS handshake in time as well.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

import structlog

HANDSHAKE_S = 10.0  # seconds from the connection to the end of TLS's handshake
AGAIN_S = 1.0  # seconds until the next attempt, where the system has no room for a connection

log = structlog.get_logger()


async def accept(
    listener: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    tls: ssl.SSLContext | None,
    is_full: Callable[[int], bool],
) -> None:
    """Hand connections to ``protocol`` until cancelled.

    ``is_full`` is given the number of those that are still in their handshake.
    """
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    opening: set[asyncio.Task[None]] = set()

    async def begin(connection: socket.socket) -> None:
        timeout = None if tls is None else HANDSHAKE_S
        try:
            await loop.connect_accepted_socket(
                protocol, connection, ssl=tls, ssl_handshake_timeout=timeout
            )
        except OSError as error:  # it went away, or spoke no TLS: ssl.SSLError is one
            # asyncio's frames hold the error, and it them and the handshake's buffers: some
            # 100 kB each, that would wait for the collector of cycles, which has no hurry.
            error.__traceback__ = None

    try:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:  # gone before it was taken
                continue
            except OSError as error:
                log.warning("connections have to wait", reason=error.strerror)
                await asyncio.sleep(AGAIN_S)
                continue
            if is_full(len(opening)):
                connection.close()
            else:
                task = loop.create_task(begin(connection))
                opening.add(task)
                task.add_done_callback(opening.discard)
            await asyncio.sleep(0)  # a flood leaves turns to others
    finally:
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
