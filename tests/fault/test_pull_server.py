"""Pulls through a real door of a process of its own: killed in the middle, cut while a reader is
slow, asked for by many, and by those who mean no good.

What left is never more than what is accounted for, whenever the process is killed.
"""

import asyncio
import hashlib
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from connector.gate.accounts import MOST
from connector.transport.http.dsp.pull import CHUNK

ROOT = Path(__file__).parents[2]
PID = "urn:uuid:1"
SIZE = 96 << 20
IN_BUFFERS = 16 << 20  # of both kernels' sockets and a transport, at most
ROUNDS = int(os.environ.get("HAMMER_ROUNDS", "4"))

pytestmark = pytest.mark.usefixtures("socket_enabled")


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """One run of ``pull_server``."""

    def __init__(self, folder: Path, source: Path, *more: str) -> None:
        self.tls = _unchecked() if more else None
        told = (str(folder), str(source), PID, *more)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.pull_server", *told],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url, *tokens = self._line().split(" ")
        self.token, self.refresh = tokens
        self.port = int(re.findall(r":(\d+)/", self.url)[0])

    def ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def memory(self) -> int:
        """Bytes that it had in memory at most, and files do not count."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) << 10

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server ended"
        return line.rstrip("\n")


class Answer:
    """A GET as bytes on a socket, so that nothing is read that was not asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.head = b""

    @classmethod
    async def get(cls, server: Server, token: str, *more: str) -> "Answer":
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, limit=1 << 16, ssl=server.tls
        )
        lines = [f"GET /data/{PID} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *more]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = cls(reader, writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            answer.head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return answer

    @property
    def status(self) -> int:
        return int(self.head[9:12] or b"0")

    async def read(self, most: int) -> bytes:
        """Some bytes; none at the end, however it came."""
        try:
            return await asyncio.wait_for(self._reader.read(most), 10)
        except ConnectionError:
            return b""

    async def read_all(self) -> bytes:
        data = b""
        length = int(re.findall(rb"content-length: (\d+)", self.head)[0])
        parts = []
        got = 0
        while got < length and (data := await self.read(1 << 20)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def close(self) -> None:
        self._writer.transport.abort()


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.csv"
    block = random.Random(7).randbytes(1 << 20)
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])
    return path


@pytest.fixture
async def server(
    tmp_path: Path, source: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    server = Server(tmp_path, source, *getattr(request, "param", ()))
    yield server
    server.kill()


async def test_killed_at_any_time_and_resumed(tmp_path: Path, source: Path) -> None:
    dice = random.Random(3)
    server = Server(tmp_path, source)
    token, content = server.token, b""
    received = 0
    for _ in range(ROUNDS):
        answer = await Answer.get(server, token, f"Range: bytes={len(content)}-")
        wanted = dice.randrange(1, SIZE // ROUNDS)
        begun = len(content)
        while len(content) - begun < wanted and (data := await answer.read(1 << 16)):
            content += data
        server.kill()
        while data := await answer.read(1 << 20):  # what was under way
            content += data
        received += len(content) - begun
        server = Server(tmp_path, source)
        assert server.token == "", "the process runs on"
        moved = int(server.ask("moved"))
        assert moved >= received
    answer = await Answer.get(server, token, f"Range: bytes={len(content)}-")
    rest = await answer.read_all()
    received += len(rest)
    assert digest(content + rest) == digest(await asyncio.to_thread(source.read_bytes))
    counted = int(server.ask("end"))
    assert received <= counted <= received + ROUNDS * (MOST + IN_BUFFERS)
    assert (await Answer.get(server, token)).status == 401
    server.kill()


@pytest.mark.parametrize("server", [(), ("tls",)], indirect=True, ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["suspend", "stale", "end"])
async def test_a_slow_reader_is_cut_within_a_second(server: Server, how: str) -> None:
    answer = await Answer.get(server, server.token)
    await answer.read(1000)
    await asyncio.sleep(0.3)  # all buffers are full now
    began = time.monotonic()
    counted = await asyncio.to_thread(server.ask, how)
    if how == "stale":
        await asyncio.sleep(0.6)
    got = 1000
    while data := await answer.read(1 << 20):
        got += len(data)
    assert time.monotonic() - began < 1
    assert got < IN_BUFFERS < SIZE
    if how == "end":
        assert int(counted) >= got
    assert (await Answer.get(server, server.token)).status == (503 if how == "stale" else 401)


async def test_memory_does_not_grow_with_the_file(server: Server) -> None:
    first = await Answer.get(server, server.token, "Range: bytes=0-99")
    await first.read_all()
    before = server.memory()
    answers = [await Answer.get(server, server.token) for _ in range(4)]
    grown = 0
    while any([await answer.read(1 << 20) for answer in answers]):
        grown = max(grown, server.memory() - before)
    assert grown < len(answers) * 4 * CHUNK + (8 << 20)


async def test_many_readers_of_one_process(server: Server) -> None:
    answers = await asyncio.gather(*(Answer.get(server, server.token) for _ in range(40)))
    statuses = sorted(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == 8
    for answer in answers:
        answer.close()
    deadline = time.monotonic() + 5
    while (again := await Answer.get(server, server.token, "Range: bytes=0-9")).status == 429:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert len(await again.read_all()) == 10


HOSTILE = {
    "a range without end": ("Range: bytes=" + "0-0," * 3000, 416),
    "a huge number": ("Range: bytes=" + "9" * 12_000 + "-", 416),
    "a header that is too large": ("X-Filler: " + "x" * 2_000_000, 400),
    "many headers": ("\r\n".join(f"X-{n}: y" for n in range(100_000)), 400),
    "two tokens": ("Authorization: Bearer x", 401),
    "octets": ("Range: bytes=0-1\xff", 416),
    "conditions without end": ("If-Match: " + '"x",' * 3000, 412),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_headers(server: Server, name: str) -> None:
    header, status = HOSTILE[name]
    answer = await Answer.get(server, server.token, header)
    assert answer.status in (status, 0), "refused, or the connection was closed"
    answer.close()
    assert int(server.ask("moved")) == 0
    again = await Answer.get(server, server.token, "Range: bytes=0-9")
    assert len(await again.read_all()) == 10
