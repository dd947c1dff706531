"""The participants as processes: starting them, asking them through the command line, stopping
them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo.tell import StoryBroken, Teller

START_S = 30.0  # seconds that a process may take until it answers
STOP_S = 15.0  # seconds that it may take to drain
CONNECTOR = [str(Path(sys.executable).parent / "connector")]
LOG_LINES = 25  # of a process's log, shown when the story breaks


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed with ``--json``, and its exit code."""

    code: int
    value: Any
    text: str

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.value.get("error", {}) if isinstance(self.value, dict) else {}
        return found

    @property
    def reasons(self) -> list[dict[str, str]]:
        return list(self.error.get("reasons", []))

    @property
    def terms(self) -> list[str]:
        return [reason["term"] for reason in self.reasons]


@dataclass(slots=True)
class Organisation:
    """One participant: its name, its data folder, its process."""

    tell: Teller
    nick: str
    name: str
    did: str
    data: Path
    directory: bool = False
    ports: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def run(self, *words: str, quiet: bool = False) -> Answer:
        """One command of this organisation, shown unless ``quiet``."""
        if not quiet:
            self.tell.command(self.nick, ["connector", *_shown(words)])
        return finish(self.start_command(*words))

    def must(self, *words: str, quiet: bool = False) -> Any:
        """As ``run``; the story breaks if the command fails."""
        answer = self.run(*words, quiet=quiet)
        if answer.code != 0:
            self.tell.need(False, f"connector {words[0]} succeeds", answer.text)
        return answer.value

    def start_command(self, *words: str) -> subprocess.Popen[str]:
        """A command that runs beside others; ``finish`` gives its answer."""
        return subprocess.Popen(
            [*CONNECTOR, *words, "--json", "--data", str(self.data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def init(self) -> None:
        words = ["init", "--did", self.did, "--name", self.name]
        doors = ["listen", "http", "enrol" if self.directory else "dsp"]
        for door, port in zip(doors, free_ports(len(doors)), strict=True):
            self.ports[door] = f"127.0.0.1:{port}"
            words += [f"--{door}", self.ports[door]]
        self.must(*(["directory"] if self.directory else []), *words)

    def serve(self) -> None:
        """Starts the process; ``wait_ready`` waits for it."""
        words = [*(["directory"] if self.directory else []), "serve"]
        self.tell.command(self.nick, ["connector", *words, "&"])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*CONNECTOR, *words, "--data", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.nick}.log"

    def wait_ready(self) -> float:
        """Seconds until the process answered on its management socket."""
        begun = time.monotonic()
        while time.monotonic() - begun < START_S:
            if self.process is not None and self.process.poll() is not None:
                break
            if _answers(self.data / "run" / "connector.sock"):
                return time.monotonic() - begun
            time.sleep(0.05)
        raise StoryBroken(f"{self.name} does not start:\n{self.tail()}")

    def stop(self) -> int | None:
        """SIGTERM, and the exit code; ``None`` if it had to be killed."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def tail(self) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def finish(command: subprocess.Popen[str], timeout: float = 90.0) -> Answer:
    out, err = command.communicate(timeout=timeout)
    try:
        value = json.loads(out)
    except ValueError:
        value = None
    return Answer(command.returncode, value, (out + err).strip())


def environment() -> dict[str, str]:
    """What a participant's process sees: nothing of this repository, no other's data folder."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, found by binding them all at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def stop_all(organisations: Sequence[Organisation]) -> dict[str, int | None]:
    """Stops them in this order; exit codes by nick."""
    return {each.nick: each.stop() for each in organisations if each.process is not None}


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _shown(words: Sequence[str]) -> list[str]:
    """Words as a person would read them: without the paths and keys that fill lines."""
    return [word if len(word) <= 90 else f"{word[:87]}..." for word in words]
