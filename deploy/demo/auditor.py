"""The auditor: a clean environment that holds the verifier alone, with the network cut off.

Nothing here imports the connector: the auditor runs ``connector-verify`` from an environment of
its own, on a file and a key, and this module only starts it and edits copies of the file.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERIFY_S = 60.0  # seconds that one verification may take
_DIAL = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
_PACKAGES = (
    "from importlib.metadata import distributions as d; "
    "print(*sorted(x.metadata['Name'].lower() for x in d()))"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    code: int
    text: str
    value: Any


class Auditor:
    """``environment`` is a virtual environment made by ``make setup``."""

    def __init__(self, environment: Path) -> None:
        self.bin = environment / "bin"
        self.cut_off = _may_cut_off()

    @property
    def ready(self) -> bool:
        return (self.bin / "connector-verify").exists()

    def packages(self) -> list[str]:
        """What is installed there, pip and setuptools aside."""
        found = self._run([str(self.bin / "python"), "-I", "-c", _PACKAGES]).stdout.split()
        return [name for name in found if name not in ("pip", "setuptools", "wheel")]

    def reaches(self, address: str) -> bool:
        """Whether the auditor's processes can connect to host:port."""
        host, _, port = address.rpartition(":")
        return self._run([str(self.bin / "python"), "-I", "-c", _DIAL, host, port]).returncode == 0

    def verify(self, evidence: Path, key: str) -> Verdict:
        """Text for people and the same as JSON."""
        words = [str(self.bin / "connector-verify"), str(evidence), "--space-key", key]
        told = self._run(words)
        data = self._run([*words, "--json"])
        try:
            value = json.loads(data.stdout)
        except ValueError:
            value = None
        return Verdict(told.returncode, (told.stdout + told.stderr).strip(), value)

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        cut = ["unshare", "--user", "--map-root-user", "--net"] if self.cut_off else []
        return subprocess.run(
            [*cut, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERIFY_S,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )


def with_a_byte_changed(evidence: Path, number: int) -> Path:
    """A copy in which one byte of the receipt at place ``number`` (from 0) is another."""
    value = json.loads(evidence.read_bytes())
    entry = value["logs"][0]["entries"][number]
    leaf = bytearray(base64.b64decode(entry["leaf"]))
    leaf[len(leaf) // 2] ^= 1
    entry["leaf"] = base64.b64encode(bytes(leaf)).decode()
    return _copy(evidence, value, "one-byte-changed")


def with_a_receipt_removed(evidence: Path, number: int) -> Path:
    """A copy without the receipt at place ``number`` (from 0)."""
    value = json.loads(evidence.read_bytes())
    del value["logs"][0]["entries"][number]
    return _copy(evidence, value, "one-receipt-removed")


def _copy(evidence: Path, value: Any, name: str) -> Path:
    path = evidence.with_name(f"{name}.json")
    path.write_text(json.dumps(value, ensure_ascii=False))
    return path


def _may_cut_off() -> bool:
    """Whether this machine lets us make a network namespace."""
    tool = shutil.which("unshare")
    if tool is None:
        return False
    words = [tool, "--user", "--map-root-user", "--net", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
