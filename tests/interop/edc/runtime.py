"""One running Eclipse EDC: a participant with a control and a data plane, all in memory.

It listens on loopback ports of its own. Its management API is driven by ``management.py``.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.interop.edc.build import Built
from tests.interop.edc.management import Failed, Management
from tests.interop.edc.recorder import Recorder, record

MAIN = "org.eclipse.edc.boot.system.runtime.BaseRuntime"
VERSION_PATH = "/2025-1"
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 10
POLL_S = 0.1
APIS = ("default", "management", "control", "protocol", "version", "public")
MACHINES = ("negotiation.consumer", "negotiation.provider", "transfer", "data.plane.selector")
# A small, quick-starting virtual machine: several of them share two cores in a test.
JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")


@dataclass(frozen=True)
class StaticTokens:
    """Bearer tokens that both sides hold, in place of the EDC's mock identity."""

    own: str
    peer: str
    peer_id: str


@dataclass(frozen=True)
class Runtime:
    """A running participant."""

    participant_id: str
    protocol_url: str  # with the version's path: what the other side is told to call
    management: Management
    recorder: Recorder  # what others sent to this participant
    log: Path


@contextmanager
def start(
    built: Built, folder: Path, participant_id: str, tokens: StaticTokens | None = None
) -> Iterator[Runtime]:
    """Run one participant until the block ends; its files are in ``folder``.

    With ``tokens``, peers authenticate with bearer tokens; without, by the EDC's mock identity,
    which believes the name that a peer gives itself.
    """
    ports = dict(zip(APIS, _free_ports(len(APIS)), strict=True))
    extensions = ["public_endpoint"] + (["static_identity"] if tokens else [])
    classpath = built.classpath(*extensions, without="iam-mock" if tokens else "")
    settings = folder / "edc.properties"
    log = folder / "edc.log"
    folder.mkdir(parents=True, exist_ok=True)
    upstream = f"http://127.0.0.1:{ports['protocol']}/protocol"
    with ExitStack() as stack:
        recorder = stack.enter_context(record(0, upstream))
        lines = _settings(participant_id, ports, recorder.url, tokens)
        settings.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [built.java, *JVM, f"-Dedc.fs.config={settings}", "-cp", classpath, MAIN],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        stack.callback(_stop, process)
        management = stack.enter_context(
            Management(f"http://127.0.0.1:{ports['management']}/management")
        )
        _wait_until_ready(process, ports["default"], management, log)
        yield Runtime(participant_id, recorder.url + VERSION_PATH, management, recorder, log)


def _settings(
    participant_id: str, ports: dict[str, int], callback: str, tokens: StaticTokens | None
) -> dict[str, str]:
    settings = {
        "edc.participant.id": participant_id,
        "edc.hostname": "127.0.0.1",
        "edc.dsp.callback.address": callback,
        "web.http.port": str(ports["default"]),
        "web.http.path": "/api",
        "interop.public.port": str(ports["public"]),
        "edc.transfer.proxy.token.signer.privatekey.alias": "token-private",
        "edc.transfer.proxy.token.verifier.publickey.alias": "token-public",
        # Else it refuses to offer a constraint for which no evaluator is installed.
        "edc.policy.validation.enabled": "false",
        "edc.dataplane.state-machine.iteration-wait-millis": "50",
    }
    for api in ("management", "control", "protocol", "version"):
        settings[f"web.http.{api}.port"] = str(ports[api])
        settings[f"web.http.{api}.path"] = f"/{api}"
    for machine in MACHINES:
        settings[f"edc.{machine}.state-machine.iteration-wait-millis"] = "50"
    if tokens:
        settings["interop.identity.own.token"] = tokens.own
        settings["interop.identity.peer.token"] = tokens.peer
        settings["interop.identity.peer.id"] = tokens.peer_id
    return settings


def _wait_until_ready(
    process: subprocess.Popen[bytes], port: int, management: Management, log: Path
) -> None:
    """Ready is: healthy, and its data plane registered with its control plane."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/check/readiness")
            if answer.is_success and management.data_planes() == ["AVAILABLE"]:
                return
        except (httpx.TransportError, Failed):
            pass  # not listening, or not serving, yet
        time.sleep(POLL_S)
    raise RuntimeError(f"the EDC did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports
