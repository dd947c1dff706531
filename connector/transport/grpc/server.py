"""The doors: servers with limits, keepalive, health, TLS that can change, and a drain.

``Server.stop`` waits out its whole grace while a stream is idle, so a drain first cuts the
streams itself and then gives the rest its time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from connector.errors import Unavailable
from connector.transport.calls import OpenCalls
from connector.transport.grpc.channels import TlsIdentity, options
from connector.transport.grpc.guard import Guard

MAX_CONCURRENT_STREAMS = 1024  # of one connection


class Door:
    """One listening server. ``add`` the servicers, then ``open``, and ``drain`` at the end."""

    def __init__(self, guard: Guard, calls: OpenCalls, message_bytes: int) -> None:
        self._calls = calls
        self.server = grpc.aio.server(
            interceptors=[guard],
            options=[
                *options(message_bytes),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self.address = ""

    async def open_mutual_tls(self, address: str, identity: Callable[[], TlsIdentity]) -> None:
        """Listen with certificates on both sides. ``identity`` is asked at every handshake, so a
        renewed certificate needs no restart."""
        await self._open_tls(address, identity, mutual=True)

    async def open_tls(self, address: str, identity: Callable[[], TlsIdentity]) -> None:
        """Listen with a server certificate alone: the enrolment door."""
        await self._open_tls(address, identity, mutual=False)

    async def _open_tls(
        self, address: str, identity: Callable[[], TlsIdentity], *, mutual: bool
    ) -> None:
        def configuration() -> grpc.ServerCertificateConfiguration:
            tls = identity()
            return grpc.ssl_server_certificate_configuration(
                [(tls.key, tls.chain)], root_certificates=tls.authority if mutual else None
            )

        credentials = grpc.dynamic_ssl_server_credentials(
            configuration(), configuration, require_client_authentication=mutual
        )
        await self._open(address, lambda: self.server.add_secure_port(address, credentials))

    async def open_socket(self, path: Path) -> None:
        """Listen on a Unix socket that its owner alone can reach."""
        await self._open(str(path), lambda: self._bind_socket(path))

    def _bind_socket(self, path: Path) -> int:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # the data folder's lock says that nobody listens there
        before = os.umask(0o177)  # the socket is never there with other rights
        try:
            return self.server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)

    async def _open(self, address: str, bind: Callable[[], int]) -> None:
        try:
            port = bind()
        except RuntimeError as error:
            raise Unavailable(
                f"cannot listen on {address}", hint="is the port taken? change it in connector.toml"
            ) from error
        host, colon, _ = address.rpartition(":")
        self.address = f"{host}{colon}{port}" if not address.startswith("/") else address
        await self.server.start()

    async def set_serving(self, serving: bool, services: Sequence[str] = ("",)) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for service in services:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, cut the streams, give the rest its time. Idempotent."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self.server.stop(grace_s))
        await asyncio.sleep(0)  # new calls are refused from here on
        self._calls.cut_streams()
        await stopping
