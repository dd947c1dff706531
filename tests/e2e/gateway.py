"""A data space whose provider has a reporters' door, for tests and measurements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from connector.identity.reporters import DOOR_NAME, read_file
from tests.e2e import space as spaces

ALLOWED = 1 << 50  # calls


@dataclass
class Served:
    """A provider's node with an agreement."""

    space: spaces.Space
    agreement: str

    @property
    def provider(self) -> spaces.Member:
        return self.space.members["provider"]

    def register(self, name: str) -> Path:
        """The file of a new reporter."""
        file = self.space.folder / f"{name}.json"
        spaces.connector("reporters", "add", name, "--out", file, "--data", self.provider.data)
        return file


@asynccontextmanager
async def served(folder: Path, core: str) -> AsyncIterator[Served]:
    """The provider runs this metering core."""
    (door,) = spaces.free_ports(1)
    settings = f'core = "{core}"\n[reporting]\nlisten = "127.0.0.1:{door}"\n'
    async with spaces.space(folder) as running:
        provider = await running.admit("provider", ["provider"], settings)
        await running.admit("consumer", ["consumer"])
        dataset = await publish(running, _people(folder / "people.csv"), spaces.PURPOSE, ALLOWED)
        async with running.node("consumer") as node:
            done = await node.negotiate(provider.did, dataset)
        assert done.state == "FINALIZED", done
        yield Served(running, done.agreement_id)


async def publish(running: spaces.Space, table: Path, purpose: str, calls: int) -> str:
    """The id of a dataset of the provider's whose uses may be reported."""
    constraints = [
        {"leftOperand": "purpose", "operator": "eq", "rightOperand": purpose},
        {"leftOperand": "count", "operator": "lteq", "rightOperand": calls},
    ]
    async with running.node("provider") as node:
        published = await node.publish(
            table,
            title="People of three regions",
            table="people",
            classification="general",
            terms={"permission": [{"action": "use", "constraint": constraints}]},
            dimensions=["region"],
            accept_free_sql=True,
        )
    return published.dataset_id


def channel_of(file: Path) -> grpc.aio.Channel:
    """To the door that a reporter's file names, with nothing of the client library in between."""
    held = read_file(file.read_bytes())
    credentials = grpc.ssl_channel_credentials(held.door, held.key, held.certificate)
    options = [("grpc.ssl_target_name_override", DOOR_NAME), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(held.endpoint, credentials, options=options)


def _people(path: Path) -> Path:
    lines = ["person,name,region,amount", *(f"p{n},n{n},r{n % 3},{n % 97}" for n in range(1000))]
    path.write_text("\n".join(lines) + "\n")
    return path
