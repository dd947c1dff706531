"""Log and witness tools of other projects, for tests: built once with Go into ``.cache/peers``.

Which ones and which versions say ``conformance/peers/go.mod`` and ``go.sum``, against whose hashes
Go checks what it downloads. ``python -m tests.go_peers`` builds them ahead of time. Where they
cannot be had the tests that need them are skipped, loudly.

    fsck           Tessera's: reads a tlog-tiles log and computes every hash anew
    posix-oneshot  Tessera's: a log of its own, which has its checkpoints witnessed
    omniwitness    a witness
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "conformance" / "peers"
COMMANDS = (
    "github.com/transparency-dev/tessera/cmd/fsck",
    "github.com/transparency-dev/tessera/cmd/examples/posix-oneshot",
    "github.com/transparency-dev/witness/cmd/omniwitness",
)
BUILD_TIMEOUT_S = 900


def folder() -> Path | None:
    """Where the commands are; built if Go is here. None if they cannot be had."""
    pinned = hashlib.sha256((SOURCES / "go.sum").read_bytes()).hexdigest()[:16]
    target = Path(__file__).parent.parent / ".cache" / "peers" / pinned
    if _complete(target):
        return target
    go = shutil.which("go")
    if go is None:
        return None
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not _complete(target):
            subprocess.run(
                [go, "build", "-mod=readonly", "-buildvcs=false", "-o", f"{target}/", *COMMANDS],
                cwd=SOURCES,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""},
                check=False,
                timeout=BUILD_TIMEOUT_S,
            )
    return target if _complete(target) else None


def require(command: str) -> str:
    """The command's path, or a skip that nobody overlooks."""
    found = folder()
    if found is None:
        message = f"NO {command}: its tests are skipped. Install Go (or open its module proxy)."
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return str(found / command)


def _complete(target: Path) -> bool:
    return all((target / command.rpartition("/")[2]).exists() for command in COMMANDS)


if __name__ == "__main__":
    sys.exit(0 if folder() else "the log tools of other projects cannot be built here")
