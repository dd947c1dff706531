"""The files that whole datasets are served from (``ports.pulls``): copies, and exports.

A copy is the owner's file, byte for byte, made when it is published. Where there is none (a
folder of files, a dataset that an earlier version published) the prepared rows are exported to
Parquet when they are first asked for. Both are written beside, synced and renamed to
``<publication>-<digest><suffix>``, and never written again: the digest is of the bytes, so the
name alone gives the same ETag after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from connector.errors import InvalidInput, Unavailable
from connector.model.catalog import Dataset, Role
from connector.ports.datasets import PublishedDataset
from connector.ports.pulls import ServedFile

log = structlog.get_logger()

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".csv.gz": "application/gzip",
    ".tsv.gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
    ".pq": "application/vnd.apache.parquet",
}
_KEPT = re.compile(r"[0-9a-f]{32}-([0-9a-f]{64})((?:\.[a-z]+){1,2})", re.ASCII)
_CHUNK = 1 << 20

Export = Callable[[Path, str, tuple[str, ...], Path], Awaitable[None]]


class LocalDatasetFiles:
    """In one folder, which is this object's alone. ``databases`` is the folder of the prepared
    rows; ``export(database, table, columns, target)`` writes columns of a table to a Parquet
    file (``ports.query.QueryEngine``)."""

    def __init__(self, folder: Path, databases: Path, export: Export) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob(".*"):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        self._folder = folder
        self._databases = databases
        self._export = export
        self._making: dict[str, asyncio.Lock] = {}

    async def of(self, published: PublishedDataset) -> ServedFile:
        stem = Path(published.database).stem
        async with self._making.setdefault(stem, asyncio.Lock()):
            found = await asyncio.to_thread(self._find, stem)
            if found is None:
                found = await self._make(stem, published)
        digest, suffix = _parts(found)
        return ServedFile(
            path=found,
            size=(await asyncio.to_thread(found.stat)).st_size,
            etag=f'"{digest}"',
            media_type=_MEDIA_TYPES[suffix],
            name=published.dataset.table + suffix,
        )

    async def stamp(self, source: Path) -> bytes:
        return await asyncio.to_thread(_stamp, source)

    async def keep(self, source: Path, database: str, stamp: bytes) -> Path | None:
        return await asyncio.to_thread(self._keep, source, Path(database).stem, stamp)

    async def drop(self, database: str) -> None:
        found = await asyncio.to_thread(self._find, Path(database).stem)
        if found is not None:
            try:
                await asyncio.to_thread(found.unlink, missing_ok=True)
            except OSError as error:
                log.warning("a dataset's former file stays", reason=error.strerror)

    async def _make(self, stem: str, published: PublishedDataset) -> Path:
        beside = self._beside(".parquet")
        try:
            await self._export(
                self._databases / published.database,
                published.dataset.table,
                _shown(published.dataset),
                beside,
            )
            return await asyncio.to_thread(self._take_in, beside, stem, ".parquet")
        except OSError as error:
            raise Unavailable("the dataset's file cannot be written now") from error
        finally:
            beside.unlink(missing_ok=True)

    def _keep(self, source: Path, stem: str, stamp: bytes) -> Path | None:
        suffix = _suffix(source)
        if not stamp or not suffix:
            return None
        beside = self._beside(suffix)
        try:
            _copy(source, beside)
            if _stamp(source) != stamp:
                raise InvalidInput("source: it changed while it was read", hint="publish it again")
            return self._take_in(beside, stem, suffix)
        except OSError as error:
            raise Unavailable("the source cannot be copied now") from error
        finally:
            beside.unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self._folder / f".{secrets.token_hex(8)}{suffix}"

    def _take_in(self, beside: Path, stem: str, suffix: str) -> Path:
        """Give a whole, synced file its name."""
        with beside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        target = self._folder / f"{stem}-{digest}{suffix}"
        beside.replace(target)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target

    def _find(self, stem: str) -> Path | None:
        found = self._folder.glob(f"{stem}-*")
        return next((path for path in found if _KEPT.fullmatch(path.name)), None)


def _copy(source: Path, target: Path) -> None:
    """The bytes alone, with no more rights than ours; by reference where the file system can."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb", buffering=0) as read, open(descriptor, "wb", buffering=0) as written:  # noqa: PTH123  a descriptor
        while True:
            try:
                copied = os.copy_file_range(read.fileno(), written.fileno(), 1 << 30)
            except OSError:  # not between these two
                chunk = read.read(_CHUNK)
                copied = len(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[written.write(rest) :]
            if not copied:
                return


def _stamp(source: Path) -> bytes:
    try:
        found = source.stat()
    except (OSError, ValueError):  # not there, or a name that no file can have
        return b""
    if not stat.S_ISREG(found.st_mode):
        return b""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()


def _suffix(source: Path) -> str:
    name = source.name.lower()
    return max((suffix for suffix in _MEDIA_TYPES if name.endswith(suffix)), key=len, default="")


def _parts(path: Path) -> tuple[str, str]:
    found = _KEPT.fullmatch(path.name)
    assert found is not None  # noqa: S101  it was found by this pattern
    return found[1], found[2]


def _shown(dataset: Dataset) -> tuple[str, ...]:
    return tuple(column.name for column in dataset.columns if column.role is not Role.HIDDEN)
