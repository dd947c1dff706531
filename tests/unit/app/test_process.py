"""One process for a data folder, and work in the background that is begun again."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest
import structlog

from connector.app import process
from connector.app.process import (
    OPEN_FILES,
    allow_files,
    background,
    only_process,
    until_stopped,
)
from connector.errors import Conflict, Unavailable
from connector.transport.calls import bind_correlation, correlation_id


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with only_process(tmp_path):
        with pytest.raises(Conflict, match="another process") as caught, only_process(tmp_path):
            pass
        assert caught.value.hint
    with only_process(tmp_path):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait(number: signal.Signals) -> None:
    waiting = asyncio.create_task(until_stopped())
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(10):
        await waiting
    asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.parametrize("error", [Unavailable("not now"), ValueError("a bug")])
async def test_work_that_fails_is_begun_again(monkeypatch, error: Exception) -> None:
    monkeypatch.setattr(process, "AGAIN_S", 0)
    tries = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise error
        done.set()

    async with background(("work", work)), asyncio.timeout(10):
        await done.wait()
    assert tries == 3


async def test_work_ends_with_its_context() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(("work", work)), asyncio.timeout(10):
        await started.wait()
    assert ended.is_set()


async def test_background_work_is_not_part_of_the_call_that_began_it() -> None:
    bind_correlation("theenrolcall")
    found: list[object] = []
    done = asyncio.Event()

    async def work() -> None:
        found.extend((correlation_id(), structlog.contextvars.get_contextvars()))
        done.set()

    async with background(("work", work)), asyncio.timeout(10):
        await done.wait()
    assert found[0] != "theenrolcall"
    assert found[1] == {}


def test_a_node_may_open_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        allow_files()
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert now == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
