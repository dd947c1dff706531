"""What both kinds of node share: one event loop, one lock on the data folder, one way to end."""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import metadata
from pathlib import Path

import structlog

from connector.errors import Conflict, ConnectorError

log = structlog.get_logger()

OPEN_FILES = 65_536  # that a node wants to be allowed
AGAIN_S = 1.0  # seconds before failed background work is begun again


def version() -> str:
    """The installed program's version."""
    return metadata.version("tds-connector")


@contextmanager
def only_process(data: Path) -> Iterator[None]:
    """Hold the data folder's lock. Raises ``Conflict`` if another process has it."""
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another process serves {data}", hint="stop it first, or use another data folder"
            ) from error
        yield
    finally:
        os.close(handle)


def allow_files() -> None:
    """As many open files as the system lets us have: each connection is one, and what shells
    allow by default (1,024) is for programs that have few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def until_stopped() -> None:
    """Until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


@asynccontextmanager
async def background(
    *works: tuple[str, Callable[[], Awaitable[None]]],
) -> AsyncIterator[None]:
    """Run work beside the caller; a piece that fails is logged, and begun again.

    Nothing of the caller's context (a correlation id, say) goes with it.
    """
    tasks = [
        asyncio.create_task(_until_done(name, work), context=contextvars.Context())
        for name, work in works
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_done(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
            return
        except ConnectorError as error:
            log.warning("background work failed", work=name, reason=error.message)
        except Exception:
            log.exception("background work failed", work=name)
        await asyncio.sleep(AGAIN_S)
