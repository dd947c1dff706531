"""A whole data space of real processes, for tests: a directory and nodes, started by the program
itself in folders of their own, driven through the client library."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connector.client import DirectoryNode, Node, Result, connect, connect_directory
from connector.client.types import Reconciliation
from connector.errors import ConnectorError

CONNECTOR = [sys.executable, "-m", "connector.cli"]
PURPOSE = "tourism-planning"
COUNT = "SELECT region, count(*) AS n FROM people GROUP BY region ORDER BY region"
_LONG = " AND ".join(f"upper(code || '{'x' * 1000}') <> '{n}'" for n in range(25))
# Allowed, and slow: long texts are made and compared again and again, for every row.
SLOW = f"SELECT region, count(*) AS n FROM people WHERE {_LONG} GROUP BY region"
PORTS = (15_000, 32_000)
START_S = 20.0  # seconds that a process may take to answer


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no outgoing connection is given meanwhile: below
    those that systems hand out by themselves."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*PORTS)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


@dataclass
class Process:
    """One ``connector serve`` or ``connector directory serve`` and its data folder."""

    data: Path
    command: list[str]
    http: str
    _running: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def log(self) -> str:
        return (self.data / "operations.log").read_text()

    def start(self) -> None:
        with (self.data / "operations.log").open("ab") as log:
            self._running = subprocess.Popen(
                [*CONNECTOR, *self.command, "--data", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """As if the power went."""
        assert self._running is not None
        self._running.send_signal(signal.SIGKILL)
        self._running.wait()

    def stop(self) -> int:
        """Ask it to end; the exit code."""
        if self._running is None:
            return 0
        if self._running.poll() is None:
            self._running.terminate()
            try:
                self._running.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._running.returncode

    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None


@dataclass
class Member(Process):
    did: str = ""


@dataclass
class Space:
    folder: Path
    directory: Process
    members: dict[str, Member] = field(default_factory=dict)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[DirectoryNode]:
        async with connect_directory(self.directory.data) as node:
            yield node

    @asynccontextmanager
    async def node(self, name: str) -> AsyncIterator[Node]:
        async with connect(self.members[name].data) as node:
            yield node

    async def admit(self, name: str, roles: list[str], settings: str = "") -> Member:
        """A new member: initialised, started, invited, enrolled, ready."""
        self.prepare(name, settings)
        return await self.enrol(name, roles)

    async def enrol(self, name: str, roles: list[str]) -> Member:
        """A member that was prepared: started, invited, enrolled, ready."""
        member = self.members[name]
        member.start()
        async with self.operator() as operator:
            invitation = await operator.invite(name, roles=roles)
        await self.until(name, lambda status: True)
        async with self.node(name) as node:
            await node.enrol(invitation.invitation)
        await self.until(name, lambda status: status.state == "ready")
        return member

    def prepare(self, name: str, settings: str = "") -> Member:
        listen, http = free_ports(2)
        data = self.folder / name
        did = f"did:web:{name}.example"
        connector(
            "init",
            "--data",
            data,
            "--did",
            did,
            "--name",
            name,
            "--listen",
            f"127.0.0.1:{listen}",
            "--http",
            f"127.0.0.1:{http}",
            "--dsp",
            "",
        )
        _configure(data, settings)
        member = Member(data, ["serve"], f"127.0.0.1:{http}", did=did)
        self.members[name] = member
        return member

    async def until(self, name: str, holds: Any, seconds: float = START_S) -> None:
        """Wait until the node answers and its status ``holds``."""
        deadline = asyncio.get_running_loop().time() + seconds
        last: object = None
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with self.node(name) as node:
                    last = await node.status()
                if holds(last):
                    return
            except ConnectorError as error:
                last = error
            assert self.members[name].alive(), self.members[name].log
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} is not there: {last}\n{self.members[name].log[-4000:]}")

    def stop(self) -> None:
        for process in (*self.members.values(), self.directory):
            process.stop()


@asynccontextmanager
async def space(folder: Path, settings: str = "") -> AsyncIterator[Space]:
    """A running directory, and whoever is admitted to it. ``settings``: TOML lines for it."""
    listen, enrol, http = free_ports(3)
    data = folder / "directory"
    connector(
        "directory",
        "init",
        "--data",
        data,
        "--did",
        "did:web:space.example",
        "--name",
        "Space",
        "--listen",
        f"127.0.0.1:{listen}",
        "--enrol",
        f"127.0.0.1:{enrol}",
        "--http",
        f"127.0.0.1:{http}",
    )
    _configure(data, settings)
    directory = Process(data, ["directory", "serve"], f"127.0.0.1:{http}")
    found = Space(folder, directory)
    directory.start()
    try:
        await _until_directory(found)
        yield found
    finally:
        found.stop()


def _configure(data: Path, settings: str) -> None:
    """Set some settings, as TOML; a line that sets the same, or opens the same table, gives way."""
    path = data / "connector.toml"
    lines = settings.splitlines()
    table = next((place for place, line in enumerate(lines) if line.startswith("[")), len(lines))
    written = path.read_text().splitlines()
    opened = next((place for place, line in enumerate(written) if line.startswith("[")), None)
    kept = [*_without(written[:opened], lines[:table])]
    if opened is not None:
        kept += _without(written[opened:], lines[table:])
    for line in lines[table:]:
        if line.startswith("[") and not line.startswith("[["):
            kept.remove(line)
    opened = next((at for at, line in enumerate(kept) if line.startswith("[")), len(kept))
    ordered = [*lines[:table], *kept[:opened], *lines[table:], "", *kept[opened:]]
    path.write_text("\n".join(ordered) + "\n")


def _without(lines: list[str], settings: list[str]) -> list[str]:
    """The lines that set something else."""
    names = {line.split("=")[0].strip() for line in settings if "=" in line}
    return [line for line in lines if line.split("=")[0].strip() not in names]


async def _until_directory(found: Space) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            async with found.operator() as operator:
                await operator.status()
                return
        except ConnectorError:
            assert found.directory.alive(), found.directory.log
            assert asyncio.get_running_loop().time() < deadline, found.directory.log
            await asyncio.sleep(0.05)


def connector(*arguments: object, ok: bool = True) -> Any:
    """Run one command with ``--json``; its answer. Fails unless it succeeds."""
    done = subprocess.run(
        [*CONNECTOR, *map(str, arguments), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"NO_COLOR": "1"},
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is ok, (done.stdout + done.stderr).decode()
    return json.loads(done.stdout) if done.stdout.strip() else None


@dataclass
class Contract:
    """A provider, a consumer, and an agreement in force between them on a table of people."""

    space: Space
    dataset_id: str
    agreement: str

    async def ask(self, sql: str = COUNT, *, purpose: str = PURPOSE, use_id: str = "") -> Result:
        async with self.space.node("consumer") as node:
            return await node.query(self.agreement, sql, purpose=purpose, use_id=use_id)

    async def again(self) -> str:
        """Another agreement on the same offer; its id."""
        async with self.space.node("consumer") as node:
            done = await node.negotiate("did:web:provider.example", self.dataset_id)
        assert done.state == "FINALIZED", done
        return done.agreement_id


@asynccontextmanager
async def contract(
    folder: Path, *, uses: int = 20, settings: str = "", directory: str = ""
) -> AsyncIterator[Contract]:
    """A whole space with one agreement. ``settings`` are for both nodes."""
    async with space(folder, directory) as found:
        await found.admit("provider", ["provider", "consumer"], settings)
        await found.admit("consumer", ["consumer"], settings)
        async with found.node("provider") as node:
            published = await node.publish(
                people(folder / "people.csv"),
                title="People of three regions",
                table="people",
                classification="important",
                terms=offer_terms(uses=uses, minimum=5),
                privacy_unit="person",
                dimensions=["region", "code"],
                hidden_columns=["name"],
                accept_free_sql=True,
            )
        held = Contract(found, published.dataset_id, "")
        held.agreement = await held.again()
        yield held


def people(path: Path) -> Path:
    """200,000 rows: regions 0 and 1 have hundreds of people each, region 2 has three."""
    with path.open("w") as out:
        out.write("person,name,region,code,amount\n")
        for number in range(200_000):
            region = 2 if number < 3 else number % 2
            person = number if region == 2 else number % 500
            out.write(f"p{person},n{number},r{region},c{number},{number % 97}\n")
    return path


def offer_terms(**constraints: Any) -> Mapping[str, Any]:
    """Terms for the tests' dataset: aggregates over groups of at least ``minimum`` units."""
    rows = [
        {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["tourism-planning"]},
        {"leftOperand": "tds:output", "operator": "eq", "rightOperand": "aggregate"},
        {
            "leftOperand": "tds:minimumGroup",
            "operator": "gteq",
            "rightOperand": constraints.get("minimum", 2),
            "unit": "person",
        },
        {"leftOperand": "count", "operator": "lteq", "rightOperand": constraints.get("uses", 20)},
    ]
    if "until" in constraints:
        rows.append(
            {"leftOperand": "dateTime", "operator": "lt", "rightOperand": constraints["until"]}
        )
    return {"permission": [{"action": "use", "constraint": rows}]}


async def agreed(node: Node, agreement: str) -> Reconciliation:
    """Both sides' counts, once they agree: the consumer's record of a transfer comes after it."""
    async with asyncio.timeout(START_S):
        while not (found := await node.reconcile(agreement)).agree:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found
