"""``ports.peers`` over gRPC: what this node asks of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from connector._pb.dataspace.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from connector._pb.dataspace.directory.v1 import directory_pb2, directory_pb2_grpc
from connector._pb.dataspace.metering.v1 import metering_pb2, metering_pb2_grpc
from connector._pb.dataspace.usage.v1 import usage_pb2, usage_pb2_grpc
from connector.errors import PeerFault
from connector.model.participant import Participant
from connector.ports.peers import Page, ReceiptProof
from connector.transport.grpc.channels import Channels, PeerChannel

RECEIPTS_PAGE = 500


class GrpcDirectory:
    """``ports.peers.DirectoryPeer``, and the calls that only the composition root makes.

    ``record`` gives the directory's participant record.
    """

    def __init__(self, channels: Channels, record: Callable[[], Participant]) -> None:
        self._channels = channels
        self._record = record

    async def search(self, query: str, size: int, token: str) -> Page:
        request = catalog_pb2.SearchRequest(query=query, page_size=size, page_token=token)
        peer = self._peer()
        answer = await peer.ask(self._index(peer).Search, request)
        return Page(tuple(answer.records), answer.next_page_token)

    async def publish(self, record: str) -> None:
        request = catalog_pb2.PublishDatasetRequest(record=record)
        peer = self._peer()
        await peer.ask(self._index(peer).PublishDataset, request)

    async def witnessed(self) -> tuple[int, bytes]:
        peer = self._peer()
        stub = metering_pb2_grpc.WitnessServiceStub(peer.channel)
        request = metering_pb2.GetWitnessedRequest()
        answer = await peer.ask(stub.GetWitnessed, request)
        return answer.size, answer.checkpoint

    async def cosign(self, old_size: int, consistency: Sequence[bytes], note: bytes) -> bytes:
        request = metering_pb2.AddCheckpointRequest(
            old_size=old_size, consistency=consistency, checkpoint=note
        )
        peer = self._peer()
        stub = metering_pb2_grpc.WitnessServiceStub(peer.channel)
        answer = await peer.ask(stub.AddCheckpoint, request)
        return answer.cosignature

    async def renew(self, certificate_request: bytes) -> bytes:
        """PEM chain of a new certificate for the caller."""
        peer = self._peer()
        stub = directory_pb2_grpc.DirectoryServiceStub(peer.channel)
        request = directory_pb2.RenewCertificateRequest(certificate_request=certificate_request)
        answer = await peer.ask(stub.RenewCertificate, request)
        return answer.certificate_chain

    async def watch(self, after: int) -> AsyncIterator[str]:
        """Signed membership events after a number, and heartbeats, until the stream breaks."""
        peer = self._peer()
        stub = directory_pb2_grpc.DirectoryServiceStub(peer.channel)
        async for response in peer.follow(stub.Watch, directory_pb2.WatchRequest(after=after)):
            yield response.event

    def _peer(self) -> PeerChannel:
        return self._channels.to(self._record())

    def _index(self, peer: PeerChannel) -> catalog_pb2_grpc.CatalogIndexServiceAsyncStub:
        return catalog_pb2_grpc.CatalogIndexServiceStub(peer.channel)


class GrpcProviders:
    """``ports.peers.ProviderPeer``. ``lookup`` gives the record of an active member."""

    def __init__(
        self, channels: Channels, lookup: Callable[[str], Participant], use_s: float
    ) -> None:
        self._channels = channels
        self._lookup = lookup
        self._use_s = use_s  # seconds that one use may take, queueing included

    async def dataset(self, provider: str, dataset_id: str) -> str:
        peer = self._peer(provider)
        stub = catalog_pb2_grpc.CatalogServiceStub(peer.channel)
        request = catalog_pb2.GetDatasetRequest(dataset_id=dataset_id)
        answer = await peer.ask(stub.GetDataset, request)
        return answer.record

    async def execute(
        self, provider: str, agreement_id: str, purpose: str, query: str, use_id: str
    ) -> AsyncIterator[ReceiptProof | bytes]:
        peer = self._peer(provider)
        stub = usage_pb2_grpc.UsageServiceStub(peer.channel)
        request = usage_pb2.ExecuteRequest(
            agreement_id=agreement_id, purpose=purpose, query=query, use_id=use_id
        )
        async for response in peer.follow(stub.Execute, request, self._use_s):
            match response.WhichOneof("body"):
                case "receipt":
                    yield proof_value(response.receipt)
                case "chunk":
                    yield response.chunk
                case _:
                    raise PeerFault("the provider sent an empty answer")

    async def receipts(
        self, peer: str, agreement_id: str, first: int, tree_size: int, *, use_id: str = ""
    ) -> tuple[tuple[ReceiptProof, ...], bytes]:
        channel = self._peer(peer)
        request = metering_pb2.ListReceiptsRequest(
            agreement_id=agreement_id,
            first=first,
            page_size=RECEIPTS_PAGE,
            tree_size=tree_size,
            use_id=use_id,
        )
        answer = await channel.ask(self._metering(channel).ListReceipts, request)
        return tuple(proof_value(proof) for proof in answer.receipts), answer.checkpoint

    async def consistency(self, peer: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        channel = self._peer(peer)
        request = metering_pb2.GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        answer = await channel.ask(self._metering(channel).GetConsistencyProof, request)
        return tuple(answer.hashes)

    async def add_cosignature(self, provider: str, note: bytes) -> None:
        peer = self._peer(provider)
        request = metering_pb2.AddCosignatureRequest(checkpoint=note)
        await peer.ask(self._metering(peer).AddCosignature, request)

    def _peer(self, did: str) -> PeerChannel:
        return self._channels.to(self._lookup(did))

    def _metering(self, peer: PeerChannel) -> metering_pb2_grpc.MeteringServiceAsyncStub:
        return metering_pb2_grpc.MeteringServiceStub(peer.channel)


def proof_value(proof: metering_pb2.ReceiptProof) -> ReceiptProof:
    return ReceiptProof(proof.leaf, proof.index, tuple(proof.inclusion), proof.checkpoint)


def proof_message(proof: ReceiptProof) -> metering_pb2.ReceiptProof:
    return metering_pb2.ReceiptProof(
        leaf=proof.leaf, index=proof.index, inclusion=proof.inclusion, checkpoint=proof.checkpoint
    )
