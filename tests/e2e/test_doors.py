"""The gRPC doors on real TLS: who gets in, who is cut off, and who answers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from connector._pb.dataspace.usage.v1 import usage_pb2, usage_pb2_grpc
from connector.errors import ConnectorError, Reason, Refused, Unauthenticated, Unavailable
from connector.identity import certificates
from connector.identity.statements import public_bytes
from connector.identity.tokens import TokenVerifier, issue_token
from connector.model.participant import Membership, Participant
from connector.transport.calls import OpenCalls
from connector.transport.grpc.channels import Channels, PeerChannel, TlsIdentity
from connector.transport.grpc.guard import Guard, MutualTls, caller
from connector.transport.grpc.server import Door

MESSAGE_BYTES = 1 << 20


class Clock:
    """The machine's time and an offset that a test may move."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Space:
    """A certificate authority and the records of its members."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.key = certificates.make_tls_key()
        self.authority = certificates.make_authority(self.key, "Space", clock.now())
        self.members: dict[str, Participant] = {}

    def admit(self, did: str, *, days: int = 30) -> Member:
        signing, tls = Ed25519PrivateKey.generate(), certificates.make_tls_key()
        chain = certificates.issue_member_certificate(
            self.authority,
            self.key,
            certificates.make_csr(tls),
            did=did,
            name=did,
            now=self.clock.now(),
            days=days,
        )
        pem = tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        identity = TlsIdentity(
            pem,
            chain,
            certificates.chain_pem(self.authority),
            certificates.read_chain(chain).thumbprint,
        )
        self.members[did] = Participant(
            did=did,
            name=did,
            roles=("provider", "consumer"),
            state=Membership.ACTIVE,
            signing_keys=(public_bytes(signing),),
            endpoint="",
            log_origin="log",
            revision=1,
        )
        return Member(did, signing, identity, self)

    def active(self, did: str) -> Participant:
        participant = self.members.get(did)
        if participant is None or participant.state is not Membership.ACTIVE:
            raise Unauthenticated("not an active member")
        return participant


@dataclass
class Member:
    did: str
    signing: Ed25519PrivateKey
    tls: TlsIdentity
    space: Space

    def channels(self) -> Channels:
        return Channels(self.did, self.signing, self.tls, self.space.clock, MESSAGE_BYTES)


class Provider(usage_pb2_grpc.UsageServiceServicer):
    """Answers with the caller's DID; ``hang`` streams for ever, ``refuse`` and ``break`` fail."""

    async def Execute(
        self, request: usage_pb2.ExecuteRequest, context: object
    ) -> AsyncIterator[usage_pb2.ExecuteResponse]:
        if request.query == "refuse":
            raise Refused(
                [Reason("count", "20 of 20 uses", "at most 20 uses")], hint="ask for more"
            )
        if request.query == "break":
            raise ZeroDivisionError("a secret: 42")
        yield usage_pb2.ExecuteResponse(chunk=caller().did.encode())
        if request.query == "hang":
            await asyncio.Event().wait()


@dataclass
class Running:
    space: Space
    door: Door
    calls: OpenCalls
    provider: Member
    consumer: Member

    def record(self, member: Member) -> Participant:
        return replace(self.space.members[member.did], endpoint=self.door.address)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Running]:
    clock = Clock()
    space = Space(clock)
    provider = space.admit("did:web:provider.example")
    consumer = space.admit("did:web:consumer.example")
    calls = OpenCalls()
    authenticate = MutualTls(
        provider.did, space.active, TokenVerifier(provider.did, started=clock.now()), clock
    )
    door = Door(Guard(authenticate, calls, clock, lambda *_: None), calls, MESSAGE_BYTES)
    usage_pb2_grpc.add_UsageServiceServicer_to_server(Provider(), door.server)
    await door.open_mutual_tls("127.0.0.1:0", lambda: provider.tls)
    try:
        yield Running(space, door, calls, provider, consumer)
    finally:
        await door.drain(0.1)


async def ask(channel: PeerChannel, query: str = "") -> list[bytes]:
    stub = usage_pb2_grpc.UsageServiceStub(channel.channel)
    request = usage_pb2.ExecuteRequest(query=query)
    return [response.chunk async for response in channel.follow(stub.Execute, request, 5)]


async def test_the_three_names_agree_and_the_call_is_answered() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        assert await ask(channels.to(it.record(it.provider))) == [b"did:web:consumer.example"]
        await channels.close()


async def test_somebody_elses_token_is_refused() -> None:
    async with running() as it:
        third = it.space.admit("did:web:third.example")
        for thief in (
            replace(third, did=it.consumer.did),  # says it is the consumer, signs with its own key
            replace(third, did=it.consumer.did, signing=it.consumer.signing),  # stole the key too
            replace(it.consumer, did=third.did, signing=third.signing),  # another's certificate
        ):
            channels = thief.channels()
            with pytest.raises(Unauthenticated):
                await ask(channels.to(it.record(it.provider)))
            await channels.close()


async def test_a_token_is_good_once() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        peer = channels.to(it.record(it.provider))
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        metadata = peer.metadata()
        assert [r async for r in stub.Execute(usage_pb2.ExecuteRequest(), metadata=metadata)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            assert [r async for r in stub.Execute(usage_pb2.ExecuteRequest(), metadata=metadata)]
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await channels.close()


async def test_a_token_for_another_audience_is_refused() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        peer = channels.to(it.record(it.provider))
        token = issue_token(
            it.consumer.signing,
            did=it.consumer.did,
            audience="did:web:other.example",
            thumbprint=it.consumer.tls.thumbprint,
            now=it.space.clock.now(),
            jti=secrets.token_urlsafe(16),
        )
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        metadata = (("authorization", f"Bearer {token}"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            assert [r async for r in stub.Execute(usage_pb2.ExecuteRequest(), metadata=metadata)]
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await channels.close()


async def test_a_certificate_that_expires_on_a_live_connection_is_refused() -> None:
    async with running() as it:
        member = it.space.admit("did:web:short.example", days=1)
        channels = member.channels()
        peer = channels.to(it.record(it.provider))
        assert await ask(peer)
        it.space.clock.offset = timedelta(days=2)
        with pytest.raises(Unauthenticated):
            await ask(peer)
        await channels.close()


async def test_a_member_cannot_answer_for_another() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        posing = replace(it.record(it.provider), did=it.space.admit("did:web:bank.example").did)
        with pytest.raises(Unavailable):  # the handshake fails: another name is in the certificate
            await ask(channels.to(posing))
        await channels.close()


async def test_a_suspended_member_is_cut_within_a_second() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        peer = channels.to(it.record(it.provider))
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        stream = peer.follow(stub.Execute, usage_pb2.ExecuteRequest(query="hang"))
        await anext(stream)
        did = it.consumer.did
        it.space.members[did] = replace(it.space.members[did], state=Membership.SUSPENDED)
        assert it.calls.cut_participant(did) == 1
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(anext(stream), 1)
        with pytest.raises(Unauthenticated):
            await ask(peer)
        await channels.close()


async def test_a_drain_ends_streams_itself() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        peer = channels.to(it.record(it.provider))
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        stream = peer.follow(stub.Execute, usage_pb2.ExecuteRequest(query="hang"))
        await anext(stream)
        await asyncio.wait_for(it.door.drain(30), 5)
        with pytest.raises(Unavailable):
            await anext(stream)
        await channels.close()


async def test_errors_cross_with_their_reasons_and_without_our_secrets() -> None:
    async with running() as it:
        channels = it.consumer.channels()
        peer = channels.to(it.record(it.provider))
        with pytest.raises(Refused) as refused:
            await ask(peer, "refuse")
        assert refused.value.reasons == (Reason("count", "20 of 20 uses", "at most 20 uses"),)
        assert refused.value.hint == "ask for more"
        with pytest.raises(ConnectorError) as broken:
            await ask(peer, "break")
        assert broken.value.code == "internal"
        assert "42" not in str(broken.value)
        await channels.close()


async def test_no_certificate_no_answer() -> None:
    async with running() as it:
        credentials = grpc.ssl_channel_credentials(it.consumer.tls.authority)
        target = ("grpc.ssl_target_name_override", "localhost")
        async with grpc.aio.secure_channel(it.door.address, credentials, options=[target]) as bare:
            stub = usage_pb2_grpc.UsageServiceStub(bare)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                call = stub.Execute(usage_pb2.ExecuteRequest(), timeout=3)
                assert [response async for response in call]
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
