"""Segments that are complete become sealed, and sealed ones dropped, while the log is in use.

The new form is written under another name, synced and read again; then it gets its name, and
only when that is durable the old one is removed. A crash leaves the old form, both, or the new
one; ``Files`` finds out which.

Before it is compressed a segment is read from its first byte: chain, checkpoints and leaves must
be what the log's hashes say, so that damage is not sealed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO

from connector.adapters.segments import frames
from connector.adapters.segments.derived import Derived
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.files import Files
from connector.adapters.segments.frames import Broken
from connector.adapters.segments.sealed import (
    BLOCK_BYTES,
    SealedFile,
    SealedWriter,
    Summary,
    encode_dropped,
)
from connector.core.interface import Core
from connector.errors import ConnectorError, InvalidInput
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form


class Sealing:
    """``proceed`` is called between blocks, and raises when it is time to stop. One at a time;
    the segments given are complete and not dropped. Raises ``OSError`` and ``CorruptLog``."""

    def __init__(
        self,
        files: Files,
        derived: Derived,
        disk: Disk,
        core: Core,
        proceed: Callable[[], None],
    ) -> None:
        self._files = files
        self._derived = derived
        self._disk = disk
        self._core = core
        self._proceed = proceed

    def seal(self, start: int) -> None:
        fresh = self._files.new(start)
        try:
            summary = self._summed_up(start)
            self._write(start, summary)
        except Broken:
            fresh.unlink(missing_ok=True)
            raise _damaged() from None
        except (OSError, ConnectorError):
            fresh.unlink(missing_ok=True)
            raise
        self._replace(start, Form.SEALED)

    def drop(self, start: int) -> None:
        try:
            summary = self._files.summary(start)
        except Broken:
            raise _damaged() from None
        if summary is None:
            raise _damaged()
        fresh = self._files.new(start)
        try:
            self._disk.remove(fresh)
            fd = self._disk.create(fresh)
            try:
                self._disk.write(fd, encode_dropped(summary), 0)
                self._disk.sync(fd)
            finally:
                os.close(fd)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self._replace(start, Form.DROPPED)

    def _summed_up(self, start: int) -> Summary:
        """Reads the whole segment. Raises ``Broken`` for one that is not sound."""
        with self._files.open(start, 0) as file:
            header = frames.parse_header(file.read(frames.HEADER_BYTES))
            size, chain, note, end = header.leaves, header.chain, b"", frames.HEADER_BYTES
            for batch in frames.read_batches(file, header.log_id, chain, size, end):
                if batch.count:
                    self._require_leaves(batch, size)
                size, chain, end = batch.size, batch.chain, batch.end
                note = batch.note or note
                self._proceed()
        if header.position != start or end != self._files.size(start):
            raise Broken
        leaves = size - header.leaves
        return Summary(header.log_id, start, end, header.leaves, leaves, header.chain, chain, note)

    def _require_leaves(self, batch: frames.Batch, first: int) -> None:
        try:
            hashes = self._core.leaf_hashes(batch.packed)
        except InvalidInput:
            raise Broken from None
        if hashes != self._derived.hashes(0, first, batch.count):
            raise Broken

    def _write(self, start: int, summary: Summary) -> None:
        fresh = self._files.new(start)
        self._disk.remove(fresh)
        fd = self._disk.create(fresh)
        try:
            writer = SealedWriter(fd, self._disk)
            with self._files.open(start, 0) as file:
                while block := file.read(BLOCK_BYTES):
                    writer.add(block)
                    self._proceed()
            writer.finish(summary)
        finally:
            os.close(fd)
        sealed = SealedFile(fresh, start)
        try:
            with self._files.open(start, 0) as file:
                self._compare(sealed, file)
        finally:
            sealed.close()

    def _compare(self, sealed: SealedFile, file: IO[bytes]) -> None:
        for number in range(sealed.blocks):
            if sealed.block(number) != file.read(sealed.block_bytes):
                raise Broken
            self._proceed()
        if file.read(1):
            raise Broken

    def _replace(self, start: int, form: Form) -> None:
        """``new`` is complete and durable: it gets its name, and takes over."""
        old = self._files.path(start)
        self._disk.rename(self._files.new(start), self._files.named(start, form))
        self._disk.sync_folder(old.parent)
        self._files.became(start, form)
        self._disk.remove(old)
        self._disk.sync_folder(old.parent)


def _damaged() -> CorruptLog:
    return CorruptLog(
        "this segment is damaged: nothing was changed",
        hint="stop the node; connector log fsck says where; then restore the newest copy",
    )
