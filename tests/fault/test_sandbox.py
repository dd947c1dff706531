"""What code inside a worker could still do: a program that shuts itself in, and then tries."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Each attempt must fail once the sandbox is closed; the first list of names needs Landlock.
TRIES = """
import ctypes, json, os, socket, subprocess, sys, threading
from pathlib import Path
from connector.adapters.duckdb.sandbox import Sandbox

folder, mode = Path(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)

def thread():
    ran = []
    one = threading.Thread(target=lambda: ran.append(1))
    one.start(); one.join()
    if not ran: raise OSError

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno())

tries = {
    "read the prepared file": lambda: data.seek(0) or data.read(),
    "start a thread": thread,
    "read another file": lambda: (folder / "other").read_bytes(),
    "read a password file": lambda: Path("/etc/passwd").read_bytes(),
    "list a folder": lambda: os.listdir(folder),
    "write a new file": lambda: (folder / "new").write_bytes(b"x"),
    "write the prepared file": lambda: (folder / "data").open("r+b"),
    "remove a file": lambda: (folder / "other").unlink(),
    "rename a file": lambda: (folder / "other").rename(folder / "moved"),
    "make a folder": lambda: (folder / "made").mkdir(),
    "open a socket": lambda: socket.socket(),
    "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "make a pair of sockets": lambda: socket.socketpair(),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": lambda: os.fork() or os._exit(0),
    "trace": lambda: call(101 if "x86" in os.uname().machine else 117, 16, os.getppid(), 0, 0),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "become root": lambda: os.setuid(0) if os.getuid() else (_ for _ in ()).throw(OSError()),
    "change the root": lambda: os.chroot(folder),
    "more address space": lambda: bytearray(20 << 30),
}
sandbox = Sandbox(os.getppid())
sandbox.first(memory_bytes=256 << 20, written_bytes=0 if mode == "query" else 1 << 20)
sandbox.files(readable=[folder / "data"], writable=[folder / "out"] if mode == "prepare" else [])
data = (folder / "data").open("rb")
tries["write where it may"] = lambda: (folder / "out" / "x").write_bytes(b"x")

def attempt(names):
    done = []
    for name in names:
        try:
            tries[name]()
            done.append(name)
        except (OSError, MemoryError, subprocess.SubprocessError):
            pass
    return done

by_landlock = attempt(["read another file", "read a password file", "list a folder"])
report = sandbox.last(may_write=mode == "prepare")
did = attempt(tries)
print(json.dumps({"landlock": report.landlock, "seccomp": report.seccomp, "did": did,
                  "before the rest": by_landlock}))
"""
ALLOWED = {"read the prepared file", "start a thread"}
NEED_LANDLOCK = {"read another file", "read a password file", "list a folder"}
NEED_LANDLOCK_TO_PREPARE = NEED_LANDLOCK | {
    "write a new file",
    "write the prepared file",
    "remove a file",
    "rename a file",
    "make a folder",
}


def attempts(folder: Path, mode: str) -> dict[str, Any]:
    (folder / "data").write_bytes(b"rows")
    (folder / "other").write_bytes(b"secret")
    (folder / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TRIES, str(folder), mode],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


linux = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="seccomp and Landlock are Linux's",
)


@linux
def test_a_query_worker_is_shut_in(tmp_path: Path) -> None:
    found = attempts(tmp_path, "query")
    assert found["seccomp"]
    beyond = set() if found["landlock"] else NEED_LANDLOCK
    assert set(found["did"]) - beyond == ALLOWED
    assert found["before the rest"] == [] or not found["landlock"]


@linux
def test_a_preparing_worker_may_write_in_one_folder(tmp_path: Path) -> None:
    found = attempts(tmp_path, "prepare")
    assert found["seccomp"]
    beyond = set() if found["landlock"] else NEED_LANDLOCK_TO_PREPARE
    did = set(found["did"]) - beyond
    assert did == ALLOWED | {"write where it may"}
