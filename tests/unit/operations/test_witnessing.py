"""A log and its witness: kept up to date, and stopped where the log is behind what was seen."""

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.adapters.witness_store import SqliteWitnessStore
from connector.errors import Conflict, Unavailable
from connector.metering.meter import Meter
from connector.metering.witness import CheckpointRequest, Witness
from connector.operations import witnessing
from connector.operations.witnessing import Witnessing
from tests.logs import ORIGIN, PUBLIC, ManualClock, open_meter, refusal, test_key, until
from tests.parties import participant

NAME = "space.example/log"
WITNESS_KEY = test_key("the witness")
SPACE = participant("did:web:space.example", NAME, WITNESS_KEY.public_key().public_bytes_raw())


class Directory:
    """``ports.peers.DirectoryPeer``, over a real witness."""

    def __init__(self) -> None:
        self._store = SqliteWitnessStore(Path(":memory:"))
        self._witness = Witness(self._store, name=NAME, key=WITNESS_KEY, clock=ManualClock())
        self.down = False
        self.line: bytes | None = None  # what it answers instead

    async def witnessed(self):
        if self.down:
            raise Unavailable("the other side cannot be reached")
        last = await self._witness.last(ORIGIN)
        return (last.size, last.checkpoint) if last else (0, b"")

    async def cosign(self, old_size, consistency, note):
        if self.line is not None:
            return self.line
        request = CheckpointRequest(old_size, tuple(consistency), note)
        return (await self._witness.add_checkpoint(request, origin=ORIGIN, keys=[PUBLIC])).encode()

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def directory(monkeypatch):
    monkeypatch.setattr(witnessing, "PAUSE_S", 0.001)
    directory = Directory()
    yield directory
    directory.close()


@asynccontextmanager
async def running(meter: Meter, directory: Directory):
    one = Witnessing(meter, directory, lambda: SPACE)  # type: ignore[arg-type]
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await meter.close()


async def grow(meter: Meter, name: str) -> None:
    await meter.record([refusal(name)])


def cosigned_size(meter: Meter) -> int:
    note = meter.latest_cosigned(NAME)
    return int(note.split(b"\n")[1]) if note else 0


async def test_every_growth_is_cosigned(directory) -> None:
    meter = await open_meter(MemoryLog(), await_witness=True)
    async with running(meter, directory) as witnessed:
        await witnessed.compared.wait()
        for number in range(1, 4):
            await grow(meter, f"u{number}")
            await until(lambda wanted=number: cosigned_size(meter) == wanted)
        assert witnessed.problem == ""


async def test_nothing_is_issued_before_the_directory_was_asked(directory) -> None:
    directory.down = True
    meter = await open_meter(MemoryLog(), await_witness=True)
    async with running(meter, directory) as witnessed:
        await until(lambda: "reached" in witnessed.problem)
        assert not witnessed.compared.is_set()
        with pytest.raises(Unavailable, match="not yet compared"):
            await grow(meter, "u1")
        directory.down = False
        await witnessed.compared.wait()
        await grow(meter, "u1")
        await until(lambda: cosigned_size(meter) == 1 and witnessed.problem == "")


@pytest.mark.parametrize("own", [0, 1, 3])
async def test_a_log_that_is_not_what_was_witnessed_issues_nothing(directory, own: int) -> None:
    """Behind it (a folder of yesterday), or as long but with another past."""
    meter = await open_meter(MemoryLog())
    async with running(meter, directory):
        for number in range(3):
            await grow(meter, f"u{number}")
        await until(lambda: cosigned_size(meter) == 3)
    storage = MemoryLog()
    earlier = await open_meter(storage)
    for number in range(own):
        await grow(earlier, f"other{number}")
    await earlier.close()
    copy = await open_meter(storage, await_witness=True)
    async with running(copy, directory) as witnessed:
        await until(lambda: "log is" in witnessed.problem)
        assert not witnessed.compared.is_set()
        with pytest.raises(Conflict):
            await witnessed.catch_up()
        with pytest.raises(Conflict):
            await grow(copy, "one more")
        assert copy.checkpoint().size == own


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", "— other.example/log AAAA".encode()])
async def test_a_witness_that_answers_nonsense_does_no_harm(directory, line: bytes) -> None:
    meter = await open_meter(MemoryLog())
    async with running(meter, directory) as witnessed:
        await witnessed.compared.wait()
        directory.line = line
        await grow(meter, "u1")
        await until(lambda: witnessed.problem != "" and witnessed.compared.is_set())
        assert cosigned_size(meter) == 0
        directory.line = None
        await until(lambda: cosigned_size(meter) == 1)
        await grow(meter, "u2")
