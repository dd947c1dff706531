"""Finding a node's management socket and calling it.

The socket's file mode (0600) is what protects it; the channel itself is plain. Every call has a
deadline in seconds. Failed calls raise the classes of ``connector.errors`` (see
``client.errors``).
"""

from __future__ import annotations

import socket as sockets
import stat
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from connector import config
from connector.client.errors import NodeNotRunning, from_rpc
from connector.errors import Unavailable

T = TypeVar("T")

DEADLINE_S = 30.0  # seconds for one ordinary call
MAX_MESSAGE_BYTES = 64 << 20  # evidence files arrive in one message
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A Unix socket has no host name; gRPC would send its path, percent-encoded.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
]


def find_socket(place: Path | str) -> Path:
    """The management socket for a data folder, or ``place`` itself if it is a socket.

    Raises ``ConfigError`` for a folder that is not a node's, ``NodeNotRunning`` if nothing is
    there.
    """
    path = Path(place)
    if _is_socket(path):
        return path
    if not path.is_dir() and path.suffix == ".sock":
        raise NodeNotRunning(f"there is no node's socket at {path}")
    role = config.role_of(path)
    if role == "directory":
        socket = config.socket_path(path, config.load_directory(path).socket)
    else:
        socket = config.socket_path(path, config.load_node(path).socket)
    if not _is_socket(socket):
        raise _not_running(path, role)
    return socket


def open_channel(socket: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)


class Calls:
    """Awaits calls on one socket and turns their errors into ours."""

    def __init__(self, place: Path | str) -> None:
        self.place = Path(place)
        self.socket = find_socket(place)
        self.channel = open_channel(self.socket)

    async def one(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.RpcError as error:
            raise self._ours(error) from error

    async def many(self, call: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise self._ours(error) from error

    async def close(self) -> None:
        await self.channel.close()

    def _ours(self, error: grpc.RpcError) -> Exception:
        found = from_rpc(error)
        status: Any = error
        if (
            type(found) is Unavailable
            and status.code() == grpc.StatusCode.UNAVAILABLE
            and not _answers(self.socket)
        ):
            return _not_running(self.place, "")
        return found


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _answers(socket: Path) -> bool:
    """Whether anybody listens: a killed node leaves its socket file behind."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(socket))
        except OSError:
            return False
        return True


def _not_running(place: Path, role: str) -> NodeNotRunning:
    command = "connector directory serve" if role == "directory" else "connector serve"
    return NodeNotRunning(
        f"no node is running in {place}", hint=f"start it with {command} --data {place}"
    )
