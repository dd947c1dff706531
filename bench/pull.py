"""Data over HTTP, beside a plain static file server: ``python -m bench.pull``.

Three servers in processes of their own serve the same file over loopback: the node's door with
everything that a pull has (token, policy, directory view, accounts on the disk, the real meter and
its log); Starlette's ``FileResponse`` under the same uvicorn settings; and Python's own
``http.server``. The baseline is the faster of the two plain ones. A client reads each in turn, so
that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import http.server
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from bench.figures import figure, save, table
from connector.adapters.bundle import load_bundle
from connector.adapters.clock import SystemClock
from connector.adapters.rego import RegoEngine
from connector.adapters.segments import SegmentLog
from connector.core.choose import choose
from connector.transport.http.dsp import pull
from connector.transport.http.server import HttpDoor
from tests.logs import open_meter
from tests.pulls import Provider, prop

MEBIBYTE = 1 << 20
PID = "urn:uuid:1"
SERVERS = ("pull", "starlette", "http.server")


async def serve_pull(folder: Path, source: Path) -> None:
    core = choose("auto")
    with (
        closing(SegmentLog(folder / "log", core=core)) as storage,
        closing(core.open_keys(folder / "log" / "keys")) as keys,
    ):
        clock = SystemClock()
        meter = await open_meter(storage, core=core, keys=keys, clock=clock)  # type: ignore[arg-type]
        provider = Provider(
            folder, meter, clock, base="http://127.0.0.1", policy=RegoEngine(load_bundle())
        )
        await provider.serve(source)
        await provider.open()
        door = HttpDoor(Starlette(routes=pull.routes(provider.pulls)), "127.0.0.1:0")
        address = await door.open()
        token = prop(await provider.start(PID), "authorization")
        _say(f"http://{address}/data/{PID} {token}")
        await asyncio.Event().wait()


async def serve_starlette(source: Path) -> None:
    async def file(_: Request) -> Response:
        return FileResponse(source, media_type="text/csv")

    door = HttpDoor(Starlette(routes=[Route("/file", file)]), "127.0.0.1:0")
    _say(f"http://{await door.open()}/file none")
    await asyncio.Event().wait()


def serve_plain(source: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(source.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    _say(f"http://127.0.0.1:{server.server_port}/{source.name} none")
    server.serve_forever()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Server:
    def __init__(self, kind: str, folder: Path, source: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.pull", "--serve", kind, str(folder), str(source)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url, self.token = self._process.stdout.readline().split()

    def read(self, size: int) -> float:
        """Seconds for one GET of the whole file, by a client that costs as little as can be."""
        parts = urlsplit(self.url)
        assert parts.port is not None
        request = (
            f"GET {parts.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
            "Connection: close\r\n\r\n"
        )
        buffer = bytearray(MEBIBYTE)
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", parts.port)) as connection:
            connection.sendall(request.encode())
            got = 0
            while count := connection.recv_into(buffer):
                if not got:
                    assert b" 200 " in buffer[:20], bytes(buffer[:200])
                got += count
        assert got >= size
        return time.perf_counter() - began

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Mebibytes a second of each round, by server."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.csv"
        block = bytes(range(256)) * (MEBIBYTE // 256)
        with source.open("wb") as file:
            for _ in range(size // MEBIBYTE):
                file.write(block)
        servers: dict[str, Server] = {}
        try:
            for kind in SERVERS:
                (Path(folder) / kind).mkdir()
                servers[kind] = Server(kind, Path(folder) / kind, source)
            found: dict[str, list[float]] = {kind: [] for kind in SERVERS}
            for number in range(rounds + 1):
                for kind, server in servers.items():
                    seconds = server.read(size)
                    if number:  # the first fills the page cache
                        found[kind].append(size / MEBIBYTE / seconds)
            return found
        finally:
            for server in servers.values():
                server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, folder, source = given.serve
        if kind == "http.server":
            serve_plain(Path(source))
        else:
            work = (
                serve_pull(Path(folder), Path(source))
                if kind == "pull"
                else serve_starlette(Path(source))
            )
            asyncio.run(work)
        return
    found = measure(given.megabytes * MEBIBYTE, given.rounds)
    medians = {kind: sorted(rates)[len(rates) // 2] for kind, rates in found.items()}
    best = max(("starlette", "http.server"), key=medians.__getitem__)
    names = {"starlette": "Starlette's FileResponse, same uvicorn", "http.server": "http.server"}
    shown = figure(
        "http_pull_mb_per_s", "MiB/s", found["pull"], baseline=(names[best], medians[best])
    )
    others = [
        figure(f"http_static_{kind.replace('.', '_')}_mb_per_s", "MiB/s", found[kind])
        for kind in ("starlette", "http.server")
    ]
    wanted = {each.name for each in (shown, *others)}
    print(table([each for each in save([shown, *others]) if each["name"] in wanted]))


if __name__ == "__main__":
    main()
