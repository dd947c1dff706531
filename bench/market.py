"""The data space that is measured: a directory, a provider, and two consumers who reach it, one
over gRPC and one over the Dataspace Protocol's HTTPS binding; what is published there; and calls
that ask for next to nothing, as baselines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from bench.timing import Call
from connector import config
from connector._pb.dataspace.metering.v1 import metering_pb2, metering_pb2_grpc
from connector.adapters.clock import SystemClock
from connector.adapters.keys import KeyFolder
from connector.client import Node
from connector.identity.certificates import read_chain
from connector.model.participant import Membership, Participant, host_label
from connector.transport.grpc.channels import Channels, TlsIdentity
from connector.transport.http.dsp import paths
from connector.transport.http.dsp.outgoing import Outgoing, Trust
from tests.e2e.space import Space, free_ports, offer_terms, space

PROVIDER = "did:web:provider.example"
RPC = "an empty call over mutual TLS"
GET = "an empty HTTPS request over the same TLS"


@dataclass(frozen=True, slots=True)
class Table:
    """A published table, an agreement on it, and the provider's prepared file of its rows."""

    dataset_id: str
    agreement: str
    database: Path


@asynccontextmanager
async def market(folder: Path) -> AsyncIterator[Space]:
    """``consumer`` reaches ``provider`` over gRPC, ``remote`` over HTTPS, as it is told to."""
    here, there = free_ports(2)
    door = '[dsp]\nlisten = "127.0.0.1:{}"\nallow = ["127.0.0.0/8"]\n'
    peer = f'[[peer]]\nid = "{PROVIDER}"\nurl = "https://127.0.0.1:{here}{paths.BASE}"\n'
    async with space(folder) as running:
        await running.admit("provider", ["provider"], door.format(here))
        await running.admit("consumer", ["consumer"])
        await running.admit("remote", ["consumer"], door.format(there) + peer)
        yield running


async def publish(running: Space, name: str, csv: Path) -> Table:
    folder = running.members["provider"].data / "gate"
    before = set(folder.glob("*.duckdb"))
    async with running.node("provider") as node:
        published = await node.publish(
            csv,
            title=name,
            table=name,
            classification="important",
            terms=_terms(),
            privacy_unit="tailnum",
            dimensions=["month", "carrier", "origin"],
            accept_free_sql=True,
            csv_null="NA",
        )
    (database,) = set(folder.glob("*.duckdb")) - before
    async with running.node("consumer") as node:
        agreement = await negotiate(node, published.dataset_id)
    return Table(published.dataset_id, agreement, database)


def _terms() -> Any:
    """As the tests' terms, with the unit that the tables here have."""
    terms: Any = offer_terms(uses=1_000_000, minimum=10)
    for constraint in terms["permission"][0]["constraint"]:
        if "unit" in constraint:
            constraint["unit"] = "tailnum"
    return terms


def flights(path: Path, rows: int) -> Path:
    """Made up, in the shape of a year of departures from three airports; always the same."""
    columns = (
        "1 + i % 12 AS month, 'C' || hash(i) % 16 AS carrier, "
        "['EWR', 'JFK', 'LGA'][1 + i % 3] AS origin, 'N' || hash(i + 1) % 4000 AS tailnum, "
        "(hash(i + 2) % 400)::INT - 60 AS dep_delay, (hash(i + 3) % 420)::INT - 80 AS arr_delay, "
        "(100 + hash(i + 4) % 4800)::INT AS distance"
    )
    made = f"SELECT {columns} FROM range({rows:d}) made(i)"  # noqa: S608
    with duckdb.connect() as connection:
        connection.sql(made).write_csv(str(path))
    return path


async def negotiate(node: Node, dataset_id: str) -> str:
    done = await node.negotiate(PROVIDER, dataset_id)
    assert done.state == "FINALIZED", done
    return done.agreement_id


@asynccontextmanager
async def empty_call(running: Space) -> AsyncIterator[Call]:
    """A ``GetCheckpoint`` of the provider with the consumer's own identity: TLS, a fresh token,
    its check, and the directory view."""
    consumer, provider = running.members["consumer"], running.members["provider"]
    keys = KeyFolder(consumer.data / "keys")
    joined, chain = keys.space(), keys.chain()
    assert joined is not None
    assert chain is not None
    tls = TlsIdentity(keys.tls_key_pem(), chain, joined.ca, read_chain(chain).thumbprint)
    channels = Channels(consumer.did, keys.signing_key(), tls, SystemClock(), 4 << 20)
    record = Participant(
        did=provider.did,
        name="provider",
        roles=("provider",),
        state=Membership.ACTIVE,
        signing_keys=(bytes(32),),
        endpoint=config.load_node(provider.data).listen,
        log_origin="",
        revision=1,
    )
    try:
        peer = channels.to(record)
        stub = metering_pb2_grpc.MeteringServiceStub(peer.channel)
        request = metering_pb2.GetCheckpointRequest()
        yield lambda: peer.ask(stub.GetCheckpoint, request)
    finally:
        await channels.close()


@asynccontextmanager
async def empty_request(running: Space) -> AsyncIterator[Call]:
    """A GET of the protocol's versions at the provider's door, as its peers trust it, on a kept
    connection; nobody is authenticated."""
    provider = running.members["provider"]
    joined = KeyFolder(provider.data / "keys").space()
    assert joined is not None
    url = f"https://{config.load_node(provider.data).dsp.listen}{paths.VERSIONS}"
    trust = Trust(joined.ca.decode(), host_label(provider.did))
    outgoing = Outgoing(["127.0.0.0/8"])

    async def get() -> None:
        answer = await outgoing.ask("GET", url, trust=trust)
        assert answer.status == 200, answer

    try:
        yield get
    finally:
        await outgoing.close()
