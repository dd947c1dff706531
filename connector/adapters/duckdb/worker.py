"""The worker's program: one child process, one kind of job, one request after another.

It is started by ``process`` as ``python -I`` with an empty environment and no files but its
standard pipes. The first request says what it will be: ``open`` a prepared file for queries,
``inspect`` or ``prepare`` a source, or ``export`` a prepared file. It shuts itself in before it
opens anything, answers, and goes when its input ends. What fails is named by a code; the engine's
own words stay here.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute  # loaded before the sandbox closes

from connector.adapters.duckdb import execute, sources
from connector.adapters.duckdb.frames import HEAD, decode_header, encode
from connector.adapters.duckdb.sandbox import Sandbox, start_clock, stop_clock
from connector.ports.query import Program

MIB = 1 << 20
_LOADED = pyarrow.compute.__name__  # pyarrow's kernels register themselves when this is imported


class Worker:
    """Requests in, answers out."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, parent: int) -> None:
        self._source = source
        self._sink = sink
        self._sandbox = Sandbox(parent)
        self._database: execute.Database | None = None

    def serve(self) -> None:
        while True:
            head = self._source.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            length, _ = HEAD.unpack(head)
            request = decode_header(self._source.read(length))
            try:
                answer, body = self._answer(request)
            except sources.BadSource as error:
                answer, body = {"error": "source", "text": str(error)}, b""
            except execute.TooLarge:
                answer, body = {"error": "query_too_large"}, b""
            except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
                answer, body = {"error": "query_memory"}, b""
            except Exception as error:  # noqa: BLE001  whatever it is, its name alone goes out
                answer, body = {"error": "query_failed", "kind": type(error).__name__}, b""
            self._sink.write(encode(answer, body))
            self._sink.flush()

    def _answer(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
        match request["do"]:
            case "run":
                return self._run(request)
            case "open":
                return self._open(request), b""
            case "inspect":
                return self._inspect(request), b""
            case "prepare":
                return self._prepare(request), b""
            case "export":
                return self._export(request), b""
        raise ValueError("unknown request")

    def _open(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open a prepared file for queries; for no file, only say what the sandbox does."""
        memory_mb, threads = request["memory_mb"], request["threads"]
        self._sandbox.first(memory_bytes=memory_mb * MIB, written_bytes=0)
        database = Path(request["database"]) if request["database"] else None
        self._sandbox.files(readable=[database] if database else [], writable=[])
        if database is not None:
            self._database = execute.Database(database, memory_mb=memory_mb, threads=threads)
        return {"sandbox": dataclasses.asdict(self._sandbox.last(may_write=False))}

    def _run(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
        if self._database is None:
            raise ValueError("nothing is open")
        values = {**request["program"], "guards": tuple(request["program"]["guards"])}
        start_clock(request["timeout_s"], request["threads"])
        try:
            result = self._database.run(
                Program(**values),
                row_cap=request["row_cap"],
                result_bytes=request["result_bytes"],
            )
        finally:
            stop_clock()
        answer = {
            field.name: getattr(result, field.name)
            for field in dataclasses.fields(result)
            if field.name != "arrow"
        }
        return answer, result.arrow

    def _inspect(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        source = Path(request["source"])
        self._shut_in_for_preparing(request, source, [])
        return sources.inspect(
            source,
            request["csv_null"],
            memory_mb=request["memory_mb"],
            threads=request["threads"],
        )

    def _prepare(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        source, target = Path(request["source"]), Path(request["target"])
        self._shut_in_for_preparing(request, source, [target.parent])
        rows = sources.prepare(
            source,
            request["columns"],
            request["table"],
            target,
            request["csv_null"],
            request["privacy_unit"],
            memory_mb=request["memory_mb"],
            threads=request["threads"],
        )
        return {"rows": rows}

    def _export(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        database, target = Path(request["database"]), Path(request["target"])
        self._shut_in_for_preparing(request, database, [target.parent])
        sources.export(
            database,
            request["table"],
            request["columns"],
            target,
            memory_mb=request["memory_mb"],
            threads=request["threads"],
        )
        return {}

    def _shut_in_for_preparing(
        self, request: Mapping[str, Any], source: Path, writable: list[Path]
    ) -> None:
        memory_bytes = request["memory_mb"] * MIB
        self._sandbox.first(memory_bytes=memory_bytes, written_bytes=request["file_bytes"])
        self._sandbox.files(readable=[source], writable=writable)
        self._sandbox.last(may_write=True)


def main(parent: int) -> None:
    """Serve on the standard pipes, which nothing else in the process may write to."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.setrecursionlimit(2000)
    Worker(source, sink, parent).serve()
