"""A real OPA server for tests: built once with Go into ``.cache/opa``, started on a free port.

``python -m tests.opa_server`` builds it ahead of time. Where neither the binary nor Go can be had
the tests that need it are skipped, loudly.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

VERSION = "v1.20.2"
FOLDER = Path(__file__).parent.parent / ".cache" / "opa" / VERSION
BUILD_TIMEOUT_S = 1200
START_TIMEOUT_S = 20


def binary() -> Path | None:
    """The pinned OPA; built if Go is here. None if it cannot be had."""
    path = FOLDER / "opa"
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not path.exists():
            _build(go)
    return path if path.exists() else None


def _build(go: str) -> None:
    subprocess.run(
        [go, "install", f"github.com/open-policy-agent/opa@{VERSION}"],
        env={**os.environ, "CGO_ENABLED": "0", "GOBIN": str(FOLDER), "GOFLAGS": "-mod=mod"},
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )


def require_binary() -> Path:
    """The binary, or a skip that nobody overlooks."""
    path = binary()
    if path is None:
        message = f"NO OPA {VERSION}: its tests are skipped. Install Go and run again."
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return path


@contextmanager
def running(*arguments: str, opa: Path | None = None) -> Iterator[str]:
    """The URL of an OPA server with these further arguments, on the loopback interface."""
    path = opa or require_binary()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: Sequence[str] = (
        *(str(path), "run", "--server", "--addr", f"127.0.0.1:{port}"),
        *("--log-level", "error", "--disable-telemetry", *arguments),
    )
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(server, url)
        yield url
    finally:
        server.terminate()
        server.communicate(timeout=START_TIMEOUT_S)


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            assert server.stderr is not None
            raise RuntimeError(f"OPA ended: {server.stderr.read().decode()[:2000]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("OPA did not start in time")


if __name__ == "__main__":
    sys.exit(0 if binary() else f"OPA {VERSION} cannot be built here: there is no Go")
