"""One worker as the node sees it: spawned, asked, killed. Never forked.

Killing is the only way to stop it: a query that is past its deadline, or that nobody waits for
any more, does not get to say when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import connector
from connector.adapters.duckdb.frames import HEAD, MAX_HEADER_BYTES, decode_header, encode

_ROOT = str(Path(connector.__file__).resolve().parent.parent)
# The package is imported from where the node's own is; after that the folder is off the path.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]);"
    "from connector.adapters.duckdb.worker import main;"
    "sys.path.remove(sys.argv[1]); main(int(sys.argv[2]))"
)
_TOO_LONG = frozenset({signal.SIGXCPU, signal.SIGALRM})


class WorkerDied(Exception):
    """The worker ended without an answer; ``code`` says why, as ``QueryFailed`` does."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class WorkerProcess:
    """A child process that answers one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.answered = 0

    @classmethod
    async def spawn(cls) -> WorkerProcess:
        """Raises ``OSError`` where no process can be had."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            _BOOT,
            _ROOT,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
            close_fds=True,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Asked of the system now: the event loop hears of a death a little later."""
        if self._process.returncode is not None:
            return False
        if not hasattr(os, "waitid"):  # not Linux
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def ask(
        self, request: Mapping[str, Any], *, most_bytes: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to one request. Raises ``WorkerDied``; the caller sets the deadline."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise WorkerDied("query_failed")
        try:
            stdin.write(encode(request))
            await stdin.drain()
            length, size = HEAD.unpack(await stdout.readexactly(HEAD.size))
            if length > MAX_HEADER_BYTES or size > most_bytes:
                raise WorkerDied("query_too_large")
            header = decode_header(await stdout.readexactly(length))
            body = await stdout.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            raise WorkerDied(await self._why()) from error
        self.answered += 1
        return header, body

    def kill(self) -> None:
        """At once; nothing happens to one that is dead already.

        Not ``Process.kill``, which looks whether the child has ended and so takes its status from
        the event loop.
        """
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self.pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until the operating system has taken it back."""
        await self._process.wait()

    async def _why(self) -> str:
        self.kill()
        status = await self._process.wait()
        if -status in _TOO_LONG:
            return "query_timeout"
        return "query_failed"
