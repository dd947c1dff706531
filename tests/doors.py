"""An HTTP door over one log, as whoever reaches its port sees it, for tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import httpx
from prometheus_client import CollectorRegistry

from connector.adapters.grant_store import SqliteGrantStore
from connector.adapters.witness_store import SqliteWitnessStore
from connector.errors import NotFound, Unauthenticated
from connector.metering.meter import Meter
from connector.metering.witness import Witness
from connector.model.participant import Participant
from connector.operations.bundles import Bundles
from connector.operations.grants import Grants
from connector.transport.http.server import HttpDoor, Sources, application
from connector.transport.http.tiles import LogFiles
from connector.transport.http.tls import ServerTls
from connector.transport.http.witness import WitnessDoor
from tests.logs import CONSUMER, PROVIDER, SCOPE, ManualClock, test_key
from tests.parties import participant

# Reading the web's authorities takes longer than what is tested here.
Client = partial(httpx.AsyncClient, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

WITNESS = "space.example/witness"
WITNESS_KEY = test_key("the witness")
CONSUMER_KEY = test_key("the consumer")
STRANGER = "did:web:stranger.example"
STRANGER_KEY = test_key("a stranger")


@dataclass
class TestDoor:
    """``members`` may ask with tokens; ``agreements`` gives the other party of each scope."""

    __test__ = False

    url: str
    meter: Meter
    clock: ManualClock
    grants: Grants
    witness: Witness
    logs: dict[str, list[bytes]]
    members: dict[str, Participant]
    agreements: dict[str, str]


@asynccontextmanager
async def open_door(
    meter: Meter,
    folder: Path,
    *,
    logs: Mapping[str, Iterable[bytes]] | None = None,
    tls: ServerTls | None = None,
    clock: ManualClock | None = None,
) -> AsyncIterator[TestDoor]:
    """A door on a free port of the loopback interface. ``logs``: those that it witnesses."""
    clock = clock or ManualClock()
    _make(folder)
    members = {
        did: participant(did, f"{did[8:]}/log", key.public_key().public_bytes_raw())
        for did, key in ((CONSUMER, CONSUMER_KEY), (STRANGER, STRANGER_KEY))
    }
    agreements = {SCOPE: CONSUMER}
    known = {origin: list(keys) for origin, keys in (logs or {}).items()}
    with (
        closing(SqliteGrantStore(folder / "grants.db")) as store,
        closing(SqliteWitnessStore(folder / "witness.db")) as seen,
    ):
        grants = Grants(store, clock, Random(1).randbytes)
        await grants.open()
        witness = Witness(seen, name=WITNESS, key=WITNESS_KEY, clock=clock)

        def member(did: str) -> Participant:
            if did not in members:
                raise Unauthenticated("not an active member of this space")
            return members[did]

        async def counterparty(scope: str) -> str:
            if scope not in agreements:
                raise NotFound("there is no such agreement")
            return agreements[scope]

        bundles = Bundles(
            meter.log,
            grants,
            did=PROVIDER,
            member=member,
            counterparty=counterparty,
            clock=clock,
        )
        clock.time += timedelta(seconds=1)  # tokens are not older than the door

        async def checkpoint() -> bytes:
            return meter.checkpoint().checkpoint

        door = HttpDoor(
            application(
                Sources(
                    lambda: "",
                    LogFiles(
                        checkpoint,
                        lambda path: asyncio.to_thread(meter.log.tile, path),
                        bundles.bundle,
                    ),
                    CollectorRegistry(),
                    WitnessDoor(
                        lambda: known,
                        lambda request, origin, keys: witness.add_checkpoint(
                            request, origin=origin, keys=keys
                        ),
                        witness.last,
                    ),
                )
            ),
            "127.0.0.1:0",
            tls,
        )
        address = await door.open()
        url = f"{'http' if tls is None else 'https'}://{address}"
        try:
            yield TestDoor(url, meter, clock, grants, witness, known, members, agreements)
        finally:
            await door.close()


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
