"""A process of its own that serves one dataset to pulls, until it is killed.

    python -m tests.fault.pull_server FOLDER SOURCE PID [tls]

It takes up what an earlier run left in FOLDER. A first line on standard output has the address of
its door, a token and a refresh token, which are empty if the process PID runs already. Then each
line on standard input is a command that is answered with a line: ``suspend``, ``end`` (the bytes
of the receipt), ``stale`` (the directory is not heard any more), ``moved`` (as stored).
"""

import asyncio
import sys
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from connector.adapters.clock import SystemClock
from connector.adapters.segments import SegmentLog
from connector.app import logs
from connector.core.choose import choose
from connector.errors import Unavailable
from connector.identity.certificates import make_tls_key, self_signed
from connector.model.receipt import Quantity
from connector.transport.http.dsp import pull
from connector.transport.http.server import HttpDoor
from connector.transport.http.tls import ServerTls
from tests.logs import open_meter
from tests.pulls import Provider, prop


async def main(folder: Path, source: Path, pid: str, *, secure: bool) -> None:
    core = choose("python")
    with (
        closing(SegmentLog(folder / "log", core=core)) as storage,
        closing(core.open_keys(folder / "log" / "keys")) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys, clock=SystemClock())  # type: ignore[arg-type]
        provider = Provider(folder, meter, SystemClock(), base="http://127.0.0.1")
        await provider.serve(source)
        await provider.pulls.open()
        running = bool(provider.pulls.uses())
        await meter.recover(provider.pulls.uses())
        await provider.pulls.take_up()
        app = Starlette(routes=pull.routes(provider.pulls))
        tls = ServerTls(*certificate(folder)) if secure else None
        door = HttpDoor(app, "127.0.0.1:0", tls)
        address = await door.open()
        token = refresh = ""
        if not running:
            data = await provider.start(pid)
            token, refresh = prop(data, "authorization"), prop(data, "refreshToken")
        say(f"http://{address}/data/{pid} {token} {refresh}")
        async for command in commands():
            say(await obey(provider, pid, command))


def certificate(folder: Path) -> tuple[Path, Path]:
    """That nobody trusts."""
    secret = make_tls_key()
    made = self_signed(secret, "airport", SystemClock().now(), 1).sign(secret, SHA256())
    chain, key = folder / "door.pem", folder / "door.key"
    chain.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, key


async def obey(provider: Provider, pid: str, command: str) -> str:
    if command == "suspend":
        await provider.pulls.suspend(pid)
    elif command == "end":
        await provider.pulls.end(pid)
        (receipt,) = provider.observed
        return str(receipt.quantities.get(Quantity.BYTES_RETURNED, 0))
    elif command == "stale":
        provider.trouble = Unavailable("the view of the directory is too old")
    elif command == "moved":
        (stored,) = await provider.store.all()
        return str(stored.moved)
    return "done"


async def commands():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logs.configure("error", "pull_server")  # to standard error
    told = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    asyncio.run(main(*told, secure=sys.argv[4:] == ["tls"]))
