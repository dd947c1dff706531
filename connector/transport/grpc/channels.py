"""Channels to peers: mutual TLS that pins who answers, and a fresh token on every call.

A TLS client checks a name, and a URI SAN does not satisfy it; so a member's certificate also
carries a DNS name derived from its DID, and the channel asks for exactly that name. With one CA
for all members, this is what keeps one of them from answering for another.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import Unavailable
from connector.identity.tokens import issue_token
from connector.model.participant import Participant, host_label
from connector.ports.clock import Clock
from connector.transport.calls import correlation_id
from connector.transport.grpc.errors import from_rpc
from connector.transport.grpc.guard import CORRELATION_KEY, TOKEN_KEY

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = tuple[tuple[str, str], ...]
CALL_S = 10.0  # seconds that a call which should be short may take
KEEPALIVE_MS = 10_000
RECONNECT_MS = 2_000  # most, between two attempts


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What a node shows: its certificate chain and key (PEM), and the CA it trusts (PEM).

    ``thumbprint`` is the base64url SHA-256 of the certificate (RFC 8705).
    """

    key: bytes
    chain: bytes
    authority: bytes
    thumbprint: str


def options(message_bytes: int) -> list[tuple[str, int]]:
    """What every channel and server of ours sets."""
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.max_metadata_size", 16_384),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


@dataclass(frozen=True, slots=True)
class PeerChannel:
    """A channel to one participant, and what each call on it must carry."""

    did: str
    channel: grpc.aio.Channel
    _token: Callable[[str], str]

    def metadata(self) -> Metadata:
        """For one call: a token is good once."""
        return (
            (TOKEN_KEY, f"Bearer {self._token(self.did)}"),
            (CORRELATION_KEY, correlation_id()),
        )

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        seconds: float = CALL_S,
    ) -> Response:
        """One answer. Raises what the peer answered with, or ``Unavailable``."""
        try:
            return await method(request, metadata=self.metadata(), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    async def follow(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        seconds: float | None = None,
    ) -> AsyncIterator[Response]:
        """Many answers. Raises as ``ask`` does; leaving the iteration cancels the call."""
        call = method(request, metadata=self.metadata(), timeout=seconds)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        finally:
            call.cancel()


class Channels:
    """One channel for each peer, made when it is first needed."""

    def __init__(
        self,
        did: str,
        signing_key: Ed25519PrivateKey,
        tls: TlsIdentity,
        clock: Clock,
        message_bytes: int,
    ) -> None:
        self._did = did
        self._signing_key = signing_key
        self._tls = tls
        self._clock = clock
        self._options = options(message_bytes)
        self._open: dict[str, tuple[str, PeerChannel]] = {}

    def to(self, peer: Participant) -> PeerChannel:
        """The channel to ``peer`` at the endpoint its record names. Raises ``Unavailable``."""
        if not peer.endpoint:
            raise Unavailable("the participant has no endpoint: it only consumes")
        endpoint, channel = self._open.get(peer.did, ("", None))
        if channel is None or endpoint != peer.endpoint:
            channel = self._dial(peer.did, peer.endpoint)
            self._open[peer.did] = (peer.endpoint, channel)
        return channel

    def renewed(self, tls: TlsIdentity) -> list[PeerChannel]:
        """Use a new certificate from now on; the old channels, for the caller to close."""
        old = [channel for _, channel in self._open.values()]
        self._tls = tls
        self._open.clear()
        return old

    async def close(self) -> None:
        for _, peer in self._open.values():
            await peer.channel.close()
        self._open.clear()

    def _dial(self, did: str, endpoint: str) -> PeerChannel:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._tls.authority,
            private_key=self._tls.key,
            certificate_chain=self._tls.chain,
        )
        channel = grpc.aio.secure_channel(
            endpoint,
            credentials,
            options=[
                *self._options,
                ("grpc.ssl_target_name_override", host_label(did)),
                ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        thumbprint = self._tls.thumbprint
        return PeerChannel(did, channel, lambda audience: self._issue(audience, thumbprint))

    def _issue(self, audience: str, thumbprint: str) -> str:
        return issue_token(
            self._signing_key,
            did=self._did,
            audience=audience,
            thumbprint=thumbprint,
            now=self._clock.now(),
            jti=secrets.token_urlsafe(16),
        )
