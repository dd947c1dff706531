"""The query engine of a node: a bounded pool of warm workers, one prepared file for each.

A worker serves one file, one query at a time, and is used again only after it answered well: one
that failed, was late, or whose caller went away is killed. Queries that find no worker free wait
in order. This module never imports duckdb or pyarrow.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from connector.adapters.duckdb.process import WorkerDied, WorkerProcess
from connector.config import Limits
from connector.errors import InvalidInput, Unavailable
from connector.model.use import Obligations
from connector.ports.query import QueryFailed, QueryPlan, QueryResult, SourceColumn, SourceInfo

log = structlog.get_logger()

MIB = 1 << 20
START_TIMEOUT_S = 30.0  # for a worker to start and open its file
PREPARE_TIMEOUT_S = 3600.0  # for a source to be read
MOST_ANSWERS = 1000  # of one worker, then a fresh one takes its place
PREPARED_BYTES = 1 << 40  # of one prepared file
_UNFINISHED = ".unfinished"


class DuckDbEngine:
    """Answers ``connector.ports.query.QueryEngine``. Used from one event loop.

    ``folder`` is where the prepared files are; what a preparation left there that did not end,
    because the node did, is removed.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob(f".*{_UNFINISHED}"):
            shutil.rmtree(unfinished)
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.workers)
        self._idle: list[tuple[_Key, WorkerProcess]] = []  # least recently used first
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    async def run(self, plan: QueryPlan, obligations: Obligations, database: Path) -> QueryResult:
        program = plan.program(obligations)
        limits = self._limits
        row_cap = min(program.row_cap or limits.row_cap, limits.row_cap)
        request = {
            "do": "run",
            "program": dataclasses.asdict(program),
            "row_cap": row_cap,
            "result_bytes": limits.result_mb * MIB,
            "timeout_s": limits.query_timeout_s,
            "threads": limits.query_threads,
        }
        async with self._slot():
            key = _key(database)
            worker = self._take(key) or await self._start(key)
            started = time.perf_counter()
            async with self._using(worker, key):
                answer, arrow = await self._ask(
                    worker, request, limits.query_timeout_s, most_bytes=limits.result_mb * MIB
                )
        return QueryResult(
            arrow=arrow,
            rows_scanned=int(answer["rows_scanned"]),
            rows_returned=int(answer["rows_returned"]),
            groups_withheld=int(answer["groups_withheld"]),
            cells_withheld=int(answer["cells_withheld"]),
            truncated=bool(answer["truncated"]),
            duration_ms=int((time.perf_counter() - started) * 1000),
        )

    async def inspect(self, source: Path, csv_null: str) -> SourceInfo:
        request = {"do": "inspect", "source": _absolute(source), "csv_null": csv_null}
        answer = await self._read_source(request)
        columns = tuple(SourceColumn(str(name), str(kind)) for name, kind in answer["columns"])
        return SourceInfo(columns, int(answer["rows"]))

    async def prepare(
        self,
        source: Path,
        columns: tuple[str, ...],
        table: str,
        target: Path,
        csv_null: str,
        privacy_unit: str = "",
    ) -> int:
        request = {
            "do": "prepare",
            "source": _absolute(source),
            "columns": list(columns),
            "table": table,
            "csv_null": csv_null,
            "privacy_unit": privacy_unit,
        }
        return int((await self._write(request, target))["rows"])

    async def export(
        self, database: Path, table: str, columns: tuple[str, ...], target: Path
    ) -> None:
        request = {
            "do": "export",
            "database": _key(database).path,
            "columns": list(columns),
            "table": table,
        }
        await self._write(request, target)

    async def _write(self, request: Mapping[str, Any], target: Path) -> Mapping[str, Any]:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder of its own: all that the worker can write to.
        folder = target.with_name(f".{secrets.token_hex(8)}{_UNFINISHED}")
        folder.mkdir(mode=0o700)
        written = folder / f"rows{target.suffix}"
        try:
            answer = await self._read_source({**request, "target": _absolute(written)})
            written.replace(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(folder)
        return answer

    async def sandbox_report(self) -> Mapping[str, Any]:
        """Which protections hold for a worker on this machine (``sandbox.SandboxReport``)."""
        async with self._slot():
            worker = await self._spawn()
            try:
                answer, _ = await self._ask(worker, self._opening(""), START_TIMEOUT_S)
            finally:
                self._discard(worker)
        report: Mapping[str, Any] = answer["sandbox"]
        return report

    async def close(self) -> None:
        self._closed = True
        workers = [worker for _, worker in self._idle] + list(self._busy)
        self._idle.clear()
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(worker.gone() for worker in workers))

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._slots:
            if self._closed:
                raise Unavailable("the node is stopping")
            yield

    @contextlib.asynccontextmanager
    async def _using(self, worker: WorkerProcess, key: _Key) -> AsyncIterator[None]:
        """Keep the worker if all goes well; whatever else happens, kill it."""
        try:
            yield
        except BaseException:
            self._discard(worker)
            raise
        self._busy.discard(worker)
        if self._closed or worker.answered >= MOST_ANSWERS:
            self._discard(worker)
        else:
            self._idle.append((key, worker))

    def _take(self, key: _Key) -> WorkerProcess | None:
        """A warm worker for this file. Of two, the one used last."""
        for number in range(len(self._idle) - 1, -1, -1):
            if self._idle[number][0] == key:
                _, worker = self._idle.pop(number)
                if worker.alive:
                    self._busy.add(worker)
                    return worker
        return None

    async def _start(self, key: _Key) -> WorkerProcess:
        """A new worker with the file open; the longest idle one makes room for it."""
        worker = await self._spawn()
        try:
            await self._ask(worker, self._opening(key.path), START_TIMEOUT_S)
        except BaseException:
            self._discard(worker)
            raise
        return worker

    async def _spawn(self) -> WorkerProcess:
        while self._idle and len(self._idle) + len(self._busy) >= self._limits.workers:
            _, oldest = self._idle.pop(0)
            oldest.kill()
            await oldest.gone()
        try:
            worker = await WorkerProcess.spawn()
        except OSError as error:
            raise Unavailable("no worker process could be started") from error
        self._busy.add(worker)
        return worker

    def _opening(self, path: str) -> Mapping[str, Any]:
        limits = self._limits
        return {
            "do": "open",
            "database": path,
            "memory_mb": limits.query_memory_mb,
            "threads": limits.query_threads,
        }

    async def _ask(
        self,
        worker: WorkerProcess,
        request: Mapping[str, Any],
        timeout_s: float,
        *,
        most_bytes: int = 0,
    ) -> tuple[dict[str, Any], bytes]:
        try:
            async with asyncio.timeout(timeout_s):
                answer, body = await worker.ask(request, most_bytes=most_bytes)
        except TimeoutError as error:
            raise QueryFailed("query_timeout") from error
        except WorkerDied as error:
            if self._closed:
                raise Unavailable("the node is stopping") from error
            raise QueryFailed(error.code) from error
        if "error" not in answer:
            return answer, body
        if answer["error"] == "source":
            raise InvalidInput(f"source: {answer['text']}")
        log.warning("a worker failed", code=answer["error"], kind=answer.get("kind", ""))
        raise QueryFailed(str(answer["error"]))

    async def _read_source(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask a worker of its own, which ends with its answer."""
        request = {
            **request,
            "memory_mb": self._limits.query_memory_mb,
            "threads": self._limits.query_threads,
            "file_bytes": PREPARED_BYTES,
        }
        async with self._slot():
            worker = await self._spawn()
            try:
                answer, _ = await self._ask(worker, request, PREPARE_TIMEOUT_S)
            except QueryFailed as error:
                raise Unavailable(f"the source could not be read: {error.message}") from error
            finally:
                self._discard(worker)
                await worker.gone()
        return answer

    def _discard(self, worker: WorkerProcess) -> None:
        worker.kill()
        self._busy.discard(worker)


@dataclass(frozen=True, slots=True)
class _Key:
    """A prepared file as it is now; one that replaces it is another."""

    path: str
    inode: int
    changed_ns: int


def _key(database: Path) -> _Key:
    try:
        found = database.stat()
    except OSError as error:
        raise Unavailable("the dataset's rows are not there") from error
    return _Key(_absolute(database), found.st_ino, found.st_mtime_ns)


def _absolute(path: Path) -> str:
    try:
        return str(path.resolve())
    except (ValueError, OSError, RuntimeError) as error:  # a zero byte; a loop of links
        raise InvalidInput("source: not a path that can be used") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
