"""Shutting a worker in: what the operating system takes away from it before it reads any data.

1. It dies with its parent, cannot gain privileges, leaves no core file and cannot be traced.
2. Limits: address space, size of a file that it writes, open files, and per query CPU time.
3. Landlock: no file but the prepared one and the program's own libraries.
4. Where it runs as root, it becomes nobody. 5. seccomp: no network, programs or processes.

Each is taken where the system has it; ``SandboxReport`` says which of them hold. None is a
promise that a fault in the engine cannot be used; together they leave it little to reach.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import connector
from connector.adapters.duckdb import landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65_534
OPEN_FILES = 256
CPU_GRACE_S = 5  # seconds of CPU beyond a query's own
# What the C library and the engine look at: processors, and the limits of our own group.
_SYSTEM_FILES = tuple(
    Path(name)
    for name in (
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/share/zoneinfo",
        "/proc/self/cgroup",
        "/proc/meminfo",
        "/proc/stat",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
    )
)
# Address space beside a query's memory: the allocators reserve arenas of a gigabyte that they
# hardly use, and the prepared file is mapped. Twice the memory limit for what is mapped twice.
ARENA_BYTES = 3 << 30


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What holds for a worker on this machine. ``landlock`` is its version, 0 for none."""

    dies_with_parent: bool
    limits: bool
    landlock: int
    seccomp: bool
    unprivileged: bool


class Sandbox:
    """Called once in a worker, in this order: ``first``, ``files``, ``last``."""

    def __init__(self, parent: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._parent = parent
        self._landlock = 0
        self._limits = False
        self._dies_with_parent = False

    def first(self, *, memory_bytes: int, written_bytes: int) -> None:
        """Before anything is opened. Limits are in bytes, of address space and of one file."""
        self._die_with_parent()
        if platform.system() == "Linux":
            self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            self._libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        space = _mapped_bytes() + ARENA_BYTES + 2 * memory_bytes
        self._limits = all(
            [
                _limit(resource.RLIMIT_CORE, 0),
                _limit(resource.RLIMIT_NOFILE, OPEN_FILES),
                _limit(resource.RLIMIT_FSIZE, written_bytes),
                _limit(resource.RLIMIT_AS, space),
            ]
        )

    def files(self, *, readable: Iterable[Path], writable: Iterable[Path]) -> None:
        """Before the engine starts its threads."""
        libraries = {Path(sys.prefix), Path(sys.base_prefix), Path(connector.__file__).parent}
        self._landlock = landlock.install(
            self._libc, readable={*libraries, *_SYSTEM_FILES, *readable}, writable=writable
        )

    def last(self, *, may_write: bool) -> SandboxReport:
        """After the data is open. ``may_write`` for preparing data, which writes a file."""
        if os.geteuid() == 0 and not may_write:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            self._die_with_parent()  # the kernel forgets it when the user changes
        filtered = seccomp.install(self._libc, may_write=may_write)
        return SandboxReport(
            dies_with_parent=self._dies_with_parent,
            limits=self._limits,
            landlock=self._landlock,
            seccomp=filtered,
            unprivileged=os.geteuid() != 0,
        )

    def _die_with_parent(self) -> None:
        if platform.system() == "Linux":
            result = self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            self._dies_with_parent = result == 0
        if os.getppid() != self._parent:
            os._exit(0)


def start_clock(seconds: float, threads: int) -> None:
    """Kill this process when a query takes too long, even if nobody is left to do it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent + threads * seconds) + CPU_GRACE_S, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)


def stop_clock() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(kind: int, value: int) -> bool:
    try:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
    except (OSError, ValueError):
        return False
    return True


def _mapped_bytes() -> int:
    """Address space in use now; the program's own libraries take a few hundred megabytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 1 << 30
    return pages * resource.getpagesize()
