"""Our node with an Eclipse EDC beside it: a real ``connector serve`` in a space of its own, whose
door and whose peer's door are both recorded. Driven by the commands that a user has."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.space import Space, connector, free_ports, space
from tests.interop.edc.build import Built
from tests.interop.edc.management import Json, Management, Peer
from tests.interop.edc.recorder import Recorder, record
from tests.interop.edc.runtime import Runtime, StaticTokens, start

OTHER = "did:web:edc.example"
NAME = "airport"
PATIENCE_S = 30.0
SETTINGS = """
[dsp]
listen = "127.0.0.1:{port}"
url = "{url}"
plain_http = true
allow = ["127.0.0.0/8"]
[[peer]]
id = "{edc}"
name = "The Eclipse EDC"
url = "{edc_url}"
accepts = "edc.accepts"
presents = "edc.presents"
"""


@dataclass(frozen=True)
class Pair:
    """An EDC, and our node."""

    edc: Runtime
    space: Space
    data: Path  # our node's folder
    did: str
    recorder: Recorder  # what the EDC sent to us
    configuration: str

    @property
    def management(self) -> Management:
        return self.edc.management

    @property
    def ours(self) -> Peer:
        """Our node, as the EDC is told of it."""
        return Peer(self.did, f"{self.recorder.url}/2025-1")

    def run(self, *arguments: object, ok: bool = True) -> Any:
        """One of our commands; its answer."""
        return connector(*arguments, "--data", self.data, ok=ok)

    def said(self, *arguments: object) -> tuple[int, str]:
        """One of our commands without ``--json``: its exit code, and what a person reads."""
        done = subprocess.run(
            [sys.executable, "-m", "connector.cli", *map(str, arguments), "--data", self.data],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    def publish(self, source: Path, id: str, terms: Json, *options: str) -> str:
        """Offer a file as general data; the dataset's id."""
        file = source.parent / f"{id}.terms.json"
        file.write_text(json.dumps(terms))
        named = ("--title", f"The {id}", "--id", id, "--classification", "general")
        found = self.run("publish", source, *named, "--terms", file, *options)
        return str(found["dataset_id"])

    def restart(self, automation: str = "") -> None:
        """With these settings for its automatic steps."""
        text = self.configuration.replace("[automation]", f"[automation]\n{automation}")
        (self.data / "connector.toml").write_text(text)
        member = self.space.members[NAME]
        member.stop()
        member.start()
        deadline = time.monotonic() + PATIENCE_S
        while '"state": "ready"' not in self.said("status", "--json")[1]:
            assert time.monotonic() < deadline and member.alive(), member.log

    def negotiation(self, test: Callable[[Json], bool]) -> Json:
        """Wait for a negotiation of ours that passes."""
        return self._await("negotiate", "--list", of="negotiations", test=test)

    def transfer(self, theirs: str, state: str) -> Json:
        """Wait until our transfer, by the EDC's name for it, is in a state."""
        return self._await(
            "transfer",
            "list",
            of="transfers",
            test=lambda one: (one["peer_pid"], one["state"]) == (theirs, state),
        )

    def verified(self, agreement: str) -> tuple[int, Json]:
        """Our evidence of an agreement, by the auditor's tool: its exit code, and its verdict."""
        file = self.data.parent / f"evidence-{secrets.token_hex(4)}.json"
        key = self.run("evidence", "export", agreement, "--out", file)["space_key"]
        done = subprocess.run(
            [sys.executable, "-m", "connector.verifier.cli", file, "--space-key", key, "--json"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    def _await(self, *command: str, of: str, test: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.run(*command)[of]
            fitting: Sequence[Json] = [one for one in found if test(one)]
            if fitting:
                return fitting[0]
            assert time.monotonic() < deadline, json.dumps(found, indent=2)


@contextmanager
def pair(built: Built, folder: Path) -> Iterator[Pair]:
    """Both, until the block ends; their files are in ``folder``."""
    did = f"did:web:{NAME}.example"
    theirs, mine = (secrets.token_urlsafe(24) for _ in range(2))
    (port,) = free_ports(1)
    with ExitStack() as stack:
        tokens = StaticTokens(own=theirs, peer=mine, peer_id=did)
        edc = stack.enter_context(start(built, folder / "edc", OTHER, tokens))
        recorder = stack.enter_context(record(0, f"http://127.0.0.1:{port}"))
        runner = stack.enter_context(asyncio.Runner())
        members = space(folder / "space")
        found = runner.run(members.__aenter__())
        stack.callback(lambda: runner.run(members.__aexit__(None, None, None)))
        settings = SETTINGS.format(port=port, url=recorder.url, edc=OTHER, edc_url=edc.protocol_url)
        member = found.prepare(NAME, settings)
        for name, token in (("edc.accepts", theirs), ("edc.presents", mine)):
            (member.data / name).write_text(token)
            (member.data / name).chmod(0o600)
        runner.run(found.enrol(NAME, ["provider", "consumer"]))
        configuration = (member.data / "connector.toml").read_text()
        yield Pair(edc, found, member.data, did, recorder, configuration)
