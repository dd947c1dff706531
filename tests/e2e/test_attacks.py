"""One running space, and members who do not keep to the rules.

The attackers use the real keys and certificates of members that the space admitted; what they
say is made by hand, so that nothing of ours stops it before it leaves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from connector._pb.dataspace.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from connector._pb.dataspace.directory.v1 import directory_pb2, directory_pb2_grpc
from connector._pb.dataspace.metering.v1 import metering_pb2, metering_pb2_grpc
from connector._pb.dataspace.negotiation.v1 import negotiation_pb2, negotiation_pb2_grpc
from connector._pb.dataspace.usage.v1 import usage_pb2, usage_pb2_grpc
from connector.adapters.clock import SystemClock
from connector.adapters.keys import KeyFolder
from connector.client import Refused, UseFailed
from connector.config import load_directory, load_node
from connector.errors import ConnectorError
from connector.identity.certificates import read_chain
from connector.model import receipt as receipts
from connector.model.participant import Membership, Participant
from connector.transport.grpc.channels import Channels, PeerChannel, TlsIdentity
from connector.verifier.evidence import parse_evidence
from tests.e2e.space import COUNT, PURPOSE, SLOW, Contract, contract

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

PROVIDER, CONSUMER = "did:web:provider.example", "did:web:consumer.example"
MALLORY = "did:web:mallory.example"
DIRECTORY = "did:web:space.example"
SETTINGS = "refusals_per_minute = 6000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Contract]:
    """An agreement between two members; ``mallory`` is a third, and only provides."""
    folder = tmp_path_factory.mktemp("attacked")
    async with contract(folder, uses=500, settings=f"[limits]\n{SETTINGS}\n") as found:
        await found.space.admit("mallory", ["provider"])
        yield found


@dataclass
class Attacker:
    """A member's keys in hands that may do anything with them."""

    held: Contract
    did: str
    keys: KeyFolder
    channels: Channels

    def to(self, did: str) -> PeerChannel:
        space = self.held.space
        if did == DIRECTORY:
            listen = load_directory(space.directory.data).listen
        else:
            name = did.removeprefix("did:web:").removesuffix(".example")
            listen = load_node(space.members[name].data).listen
        record = Participant(did, did, ("provider",), Membership.ACTIVE, (), listen, "log", 1)
        return self.channels.to(record)

    async def execute(self, **fields: Any) -> list[usage_pb2.ExecuteResponse]:
        peer = self.to(PROVIDER)
        asked = {"agreement_id": self.held.agreement, "purpose": PURPOSE, "query": COUNT}
        request = usage_pb2.ExecuteRequest(**(asked | fields))
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        return [answer async for answer in peer.follow(stub.Execute, request, 20)]


@asynccontextmanager
async def attacker(held: Contract, name: str, *, signs_as: str = "") -> AsyncIterator[Attacker]:
    """``signs_as``: with another member's signing key and name in the tokens."""
    keys = KeyFolder(held.space.members[name].data / "keys")
    signing = KeyFolder(held.space.members[signs_as or name].data / "keys").signing_key()
    space, chain = keys.space(), keys.chain()
    assert space is not None
    assert chain is not None
    tls = TlsIdentity(keys.tls_key_pem(), chain, space.ca, read_chain(chain).thumbprint)
    did = f"did:web:{signs_as or name}.example"
    channels = Channels(did, signing, tls, SystemClock(), 64 << 20)
    try:
        yield Attacker(held, did, keys, channels)
    finally:
        await channels.close()


def receipt_of(answers: list[usage_pb2.ExecuteResponse]) -> receipts.UseReceipt:
    found = receipts.decode(answers[0].receipt.leaf)
    assert isinstance(found, receipts.UseReceipt)
    return found


async def test_a_valid_certificate_with_somebody_elses_token(held: Contract) -> None:
    async with attacker(held, "mallory", signs_as="consumer") as posing:
        with pytest.raises(ConnectorError) as caught:
            await posing.execute(use_id="posing")
        assert caught.value.code == "unauthenticated"


async def test_a_token_is_good_once_whatever_it_is_for(held: Contract) -> None:
    async with attacker(held, "consumer") as consumer:
        peer = consumer.to(PROVIDER)
        seen = peer.metadata()
        stub = catalog_pb2_grpc.CatalogServiceStub(peer.channel)
        request = catalog_pb2.GetDatasetRequest(dataset_id=held.dataset_id)
        await stub.GetDataset(request, metadata=seen, timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetDataset(request, metadata=seen, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        other = consumer.to(DIRECTORY)
        index = catalog_pb2_grpc.CatalogIndexServiceStub(other.channel)
        with pytest.raises(grpc.aio.AioRpcError) as elsewhere:  # it names its audience
            await index.Search(catalog_pb2.SearchRequest(), metadata=peer.metadata(), timeout=5)
        assert elsewhere.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_anothers_agreement_looks_like_none_at_all(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory:
        theirs = receipt_of(await mallory.execute(use_id="a"))
        nobodys = receipt_of(await mallory.execute(use_id="b", agreement_id="urn:uuid:none"))
        for found in (theirs, nobodys):
            assert found.outcome is receipts.Outcome.REFUSED
            assert (found.scope, found.consumer) == (MALLORY, MALLORY)
            assert found.request_digest == bytes(32)
        assert theirs.reasons == nobodys.reasons
        peer = mallory.to(PROVIDER)
        stub = metering_pb2_grpc.MeteringServiceStub(peer.channel)
        texts = set()
        for agreement in (held.agreement, "urn:uuid:none", MALLORY, CONSUMER, ""):
            with pytest.raises(ConnectorError) as caught:
                await peer.ask(
                    stub.ListReceipts, metering_pb2.ListReceiptsRequest(agreement_id=agreement)
                )
            texts.add((caught.value.code, caught.value.message))
        assert len(texts) == 1, texts


async def test_a_member_speaks_for_its_own_log_and_datasets_alone(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory:
        provider = mallory.to(PROVIDER)
        metering = metering_pb2_grpc.MeteringServiceStub(provider.channel)
        shown = await provider.ask(metering.GetCheckpoint, metering_pb2.GetCheckpointRequest())
        directory = mallory.to(DIRECTORY)
        witness = metering_pb2_grpc.WitnessServiceStub(directory.channel)
        index = catalog_pb2_grpc.CatalogIndexServiceStub(directory.channel)
        catalogue = catalog_pb2_grpc.CatalogServiceStub(provider.channel)
        record = await provider.ask(
            catalogue.GetDataset, catalog_pb2.GetDatasetRequest(dataset_id=held.dataset_id)
        )
        attacks = [
            (
                witness.AddCheckpoint,
                metering_pb2.AddCheckpointRequest(old_size=0, checkpoint=shown.checkpoint),
            ),
            (
                index.PublishDataset,
                catalog_pb2.PublishDatasetRequest(record=record.record),
            ),
            (
                index.WithdrawDataset,
                catalog_pb2.WithdrawDatasetRequest(dataset_id=held.dataset_id),
            ),
        ]
        for method, request in attacks:
            with pytest.raises(ConnectorError):
                await directory.ask(method, request)
        with pytest.raises(ConnectorError):
            await provider.ask(
                metering.AddCosignature,
                metering_pb2.AddCosignatureRequest(checkpoint=shown.checkpoint),
            )
    async with held.space.node("consumer") as node:
        assert len((await node.search("people")).datasets) == 1
    assert (await held.ask()).receipt.outcome == "allowed"


ODD = {
    "empty": {"use_id": ""},
    "NUL": {"use_id": "a\0b"},
    "a line break": {"use_id": "a\nb"},
    "a text that turns round": {"use_id": "a\u202eb"},
    "a huge id": {"use_id": "x" * 100_000},
    "a huge agreement": {"use_id": "h1", "agreement_id": "x" * 1_000_000},
    "a huge purpose": {"use_id": "h2", "purpose": "x" * 1_000_000},
    "a huge query": {"use_id": "h3", "query": "x" * 1_000_000},
    "no query": {"use_id": "h4", "query": ""},
    "a message over the limit": {"use_id": "h5", "query": "x" * (5 << 20)},
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_fields_are_refused_without_a_receipt(held: Contract, name: str) -> None:
    async with attacker(held, "consumer") as consumer:
        with pytest.raises(ConnectorError) as caught:
            await consumer.execute(**ODD[name])
        assert caught.value.code in ("invalid_input", "rate_limited"), caught.value
        assert len(str(caught.value)) < 300


async def test_bytes_that_are_no_message(held: Contract) -> None:
    async with attacker(held, "consumer") as consumer:
        peer = consumer.to(PROVIDER)
        for body in (b"\xff" * 64, b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x08" * 10_000):
            call = peer.channel.unary_stream("/dataspace.usage.v1.UsageService/Execute")
            with pytest.raises(grpc.aio.AioRpcError):
                [answer async for answer in call(body, metadata=peer.metadata(), timeout=5)]
    assert (await held.ask()).receipt.outcome == "allowed"


async def test_the_same_use_64_times_at_once_counts_once(held: Contract) -> None:
    async with attacker(held, "consumer") as consumer:
        before = await _uses(held)
        answers = await asyncio.gather(
            *(consumer.execute(use_id="the same") for _ in range(64)), return_exceptions=True
        )
        done = [answer for answer in answers if isinstance(answer, list)]
        others = {
            answer.code if isinstance(answer, ConnectorError) else repr(answer)
            for answer in answers
            if not isinstance(answer, list)
        }
        assert done
        assert others <= {"conflict"}
        assert len({answer[0].receipt.leaf for answer in done}) == 1
        assert len({b"".join(part.chunk for part in answer[1:]) for answer in done}) == 1
        assert await _uses(held) == before + 1


async def _uses(held: Contract) -> int:
    async with held.space.node("provider") as node:
        return {one.id: one.uses for one in await node.agreements()}[held.agreement]


def _frame(**body: Any) -> negotiation_pb2.ExchangeRequest:
    return negotiation_pb2.ExchangeRequest(frame=negotiation_pb2.Frame(**body))


def _envelope(sequence: int, **message: Any) -> negotiation_pb2.ExchangeRequest:
    return _frame(envelope=negotiation_pb2.Envelope(sequence=sequence, **message))


HELLO = _frame(hello=negotiation_pb2.Hello(received=0))
ACCEPTED = negotiation_pb2.ContractNegotiationEventMessage(
    consumer_pid="c", provider_pid="p", event_type="ACCEPTED"
)
NO_STREAM = {
    "no hello": [_envelope(1, contract_negotiation_event=ACCEPTED)],
    "two hellos": [HELLO, HELLO],
    "an empty frame": [negotiation_pb2.ExchangeRequest()],
    "an empty envelope": [HELLO, _envelope(1)],
    "a gap": [HELLO, _envelope(2**63, contract_negotiation_event=ACCEPTED)],
    "an acknowledgement of nothing": [
        HELLO,
        _frame(acknowledgement=negotiation_pb2.Acknowledgement(received=7)),
    ],
    "a hello from the future": [_frame(hello=negotiation_pb2.Hello(received=2**64 - 1))],
}


@pytest.mark.parametrize("name", NO_STREAM)
async def test_frames_out_of_place_end_the_stream(held: Contract, name: str) -> None:
    async with attacker(held, "mallory") as mallory:
        peer = mallory.to(PROVIDER)
        call = negotiation_pb2_grpc.NegotiationServiceStub(peer.channel).Exchange(
            iter(NO_STREAM[name]), metadata=peer.metadata(), timeout=5
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [answer async for answer in call]
        assert caught.value.code() in (
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        ), caught.value


async def test_anothers_negotiation_cannot_be_touched(held: Contract) -> None:
    async with held.space.node("provider") as node:
        before = await node.negotiations()
        agreements = await node.agreements()
    (victim, *_) = before
    pids = {"consumer_pid": victim.peer_pid, "provider_pid": victim.pid}
    end = negotiation_pb2.ContractNegotiationTerminationMessage(**pids, code="x", reason="mine")
    error = negotiation_pb2.ContractNegotiationError(**pids, code="x", reason="mine")
    notice = negotiation_pb2.AgreementNotice(agreement_id=held.agreement, statement="e30")
    request = negotiation_pb2.ContractRequestMessage(consumer_pid="\0\u202e", offer=b"{" * 5000)
    async with attacker(held, "mallory") as mallory:
        peer = mallory.to(PROVIDER)
        call = negotiation_pb2_grpc.NegotiationServiceStub(peer.channel).Exchange(
            metadata=peer.metadata(), timeout=5
        )
        await call.write(HELLO)
        hello = await call.read()
        last = hello.frame.hello.received
        for number, message in enumerate(
            (
                {"contract_negotiation_termination": end},
                {"contract_negotiation_error": error},
                {"agreement_notice": notice},
                {"contract_request": request},
            ),
            last + 1,
        ):
            await call.write(_envelope(number, **message))
        answered, errors = last, []
        while answered < last + 4:
            frame = (await call.read()).frame
            if frame.WhichOneof("body") == "acknowledgement":
                answered = frame.acknowledgement.received
            else:
                errors.append(frame.envelope.contract_negotiation_error.code)
        call.cancel()
        assert "not_found" in errors
    async with held.space.node("provider") as node:
        assert await node.negotiations() == before
        assert [one.state for one in await node.agreements()] == [one.state for one in agreements]


async def test_idle_streams_of_one_member_do_not_starve_another(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory:
        provider, directory = mallory.to(PROVIDER), mallory.to(DIRECTORY)
        exchange = negotiation_pb2_grpc.NegotiationServiceStub(provider.channel).Exchange
        watch = directory_pb2_grpc.DirectoryServiceStub(directory.channel).Watch
        calls: list[Any] = [exchange(metadata=provider.metadata()) for _ in range(64)]
        calls += [
            watch(directory_pb2.WatchRequest(), metadata=directory.metadata()) for _ in range(64)
        ]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        assert (await held.ask()).receipt.outcome == "allowed"
        assert time.monotonic() - began < 3
        assert await held.again()
        for call in calls:
            call.cancel()


async def test_slow_texts_do_not_hold_up_another_member(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory, attacker(held, "consumer") as consumer:
        text = "SELECT " + "1," * 32_000
        storm = [
            asyncio.create_task(mallory.execute(use_id=f"storm{n}", query=text[:65_000]))
            for n in range(100)
        ]
        slow = [
            asyncio.create_task(consumer.execute(use_id=f"text{n}", query=text[:65_000]))
            for n in range(20)
        ]
        peer = consumer.to(PROVIDER)
        stub = metering_pb2_grpc.MeteringServiceStub(peer.channel)
        worst = 0.0
        while not all(task.done() for task in slow):
            began = time.monotonic()
            await peer.ask(stub.GetCheckpoint, metering_pb2.GetCheckpointRequest())
            worst = max(worst, time.monotonic() - began)
            await asyncio.sleep(0.01)
        await asyncio.gather(*storm, *slow)
        assert worst < 2.0


async def test_refusals_beyond_the_rate_leave_no_receipt(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory:
        codes = []
        for _ in range(12):
            answers = await asyncio.gather(
                *(
                    mallory.execute(use_id=f"flood{len(codes) + n}", agreement_id="urn:uuid:x")
                    for n in range(100)
                ),
                return_exceptions=True,
            )
            codes += [getattr(answer, "code", "receipt") for answer in answers]
        assert set(codes) <= {"receipt", "rate_limited"}
    assert (await held.ask()).receipt.outcome == "allowed"


async def test_a_killed_query_worker_costs_its_query_alone(held: Contract) -> None:
    provider = held.space.members["provider"]
    before = await _uses(held)
    running = asyncio.create_task(held.ask(SLOW))
    await asyncio.sleep(1.0)
    workers = [pid for pid in _descendants(provider.pid) if _cpu(pid) > 0.3]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UseFailed):
        await running
    assert provider.alive()
    assert (await held.ask()).receipt.outcome == "allowed"
    assert await _uses(held) == before + 1


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _descendants(child)


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_suspended_member_is_refused_everywhere(held: Contract) -> None:
    async with attacker(held, "mallory") as mallory:
        provider, directory = mallory.to(PROVIDER), mallory.to(DIRECTORY)
        exchange = negotiation_pb2_grpc.NegotiationServiceStub(provider.channel).Exchange(
            metadata=provider.metadata()
        )
        await exchange.write(HELLO)
        await exchange.read()
        watch = directory_pb2_grpc.DirectoryServiceStub(directory.channel).Watch(
            directory_pb2.WatchRequest(), metadata=directory.metadata()
        )
        await watch.read()
        async with held.space.operator() as operator:
            await operator.set_membership(MALLORY, "suspended", reason="test")
        assert await _end(exchange, 1.0) is grpc.StatusCode.UNAUTHENTICATED
        assert await _end(watch, 3.0) is grpc.StatusCode.UNAUTHENTICATED
        for peer, services in ((provider, _OF_A_NODE), (directory, _OF_THE_DIRECTORY)):
            for method in services:
                call = peer.channel.unary_stream(method)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    [one async for one in call(b"", metadata=peer.metadata(), timeout=5)]
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, method


async def _end(call: Any, seconds: float) -> grpc.StatusCode:
    """The status with which the other side ends a stream, within so many seconds."""
    async with asyncio.timeout(seconds):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return await call.code()


def _methods(*modules: Any) -> list[str]:
    return [
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


_ALL = _methods(catalog_pb2, directory_pb2, metering_pb2, negotiation_pb2, usage_pb2)
_OF_THE_DIRECTORY = [
    method
    for method in _ALL
    if any(name in method for name in ("CatalogIndex", "DirectoryService", "Witness"))
]
_OF_A_NODE = [
    method for method in _ALL if method not in _OF_THE_DIRECTORY and "Enrolment" not in method
]


async def test_nothing_private_is_in_a_log_or_readable_by_others(held: Contract) -> None:
    marker = "zq1234567890"
    with pytest.raises(Refused):
        await held.ask(f"SELECT name FROM people WHERE region = '{marker}'")
    with pytest.raises(ConnectorError):
        await held.ask("SELECT region, count(*) AS zq1234567890 FROM people WHERE region = 'x")
    result = await held.ask()
    async with held.space.node("consumer") as node:
        evidence = await node.export_evidence(held.agreement, disclose_secret=True)
    secret = parse_evidence(evidence).secret
    spellings = (secret.hex(), b64encode(secret).decode(), urlsafe_b64encode(secret).decode())
    assert len(secret) == 32
    processes = (*held.space.members.values(), held.space.directory)
    for process in processes:
        for leaked in (marker, "PRIVATE KEY", "SELECT ", "Bearer ", *spellings):
            assert leaked not in process.log, (process.data.name, leaked)
        for value in _secrets(process.data):
            assert value not in process.log.encode()
        for path in [process.data, *process.data.rglob("*")]:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or path.name == "operations.log":
                continue
            open_to_others = mode & 0o077
            reached = all(not parent.stat().st_mode & 0o077 for parent in _parents(path, process))
            assert not open_to_others or reached, f"{path}: {stat.filemode(mode)}"
        assert stat.S_IMODE((process.data / "run" / "connector.sock").stat().st_mode) == 0o600
    assert result.table.num_rows == 2


def _secrets(data: Path) -> Iterator[bytes]:
    """The lines of every private key file."""
    for path in (data / "keys").iterdir():
        for line in path.read_bytes().splitlines():
            if b"PRIVATE" not in line and len(line) > 20 and path.suffix in (".key", ".pem"):
                yield line


def _parents(path: Path, process: Any) -> list[Path]:
    return [parent for parent in path.parents if parent.is_relative_to(process.data)][:1]
