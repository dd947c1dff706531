"""Segments that are complete become sealed, and sealed ones dropped, while the log is in use.

The new form is written under another name, synced and read again; then it gets its name, and
only when that is durable the old one is removed. A crash leaves the old form, both, or the new
one; ``Files`` finds out which.

Before it is compressed a segment is read from its first byte: chain, checkpoints and leaves must
be what the log's hashes say, so that damage is not sealed in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import IO

from connector.adapters.segments import frames
from connector.adapters.segments.derived import Derived
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.files import Files, damaged
from connector.adapters.segments.frames import Broken
from connector.adapters.segments.marks import Marks
from connector.adapters.segments.sealed import (
    BLOCK_BYTES,
    SealedFile,
    SealedWriter,
    Summary,
    encode_dropped,
)
from connector.core.interface import Core
from connector.errors import Conflict, InvalidInput, NotFound, Unavailable
from connector.ports.segments import Form, Segment


class Sealing:
    """``ports.segments.Segments`` over the files of an open log, ``size`` leaves long."""

    def __init__(
        self,
        files: Files,
        derived: Derived,
        disk: Disk,
        core: Core,
        marks: Marks,
        size: Callable[[], int],
    ) -> None:
        self._files = files
        self._derived = derived
        self._disk = disk
        self._core = core
        self._marks = marks
        self._size = size
        self._changing = threading.Lock()
        self._stopped = False

    def segments(self) -> list[Segment]:
        try:
            return [self.segment(start) for start in self._files.starts()]
        except (Broken, OSError) as error:
            raise Unavailable("the log's segments cannot be read") from error

    def seal(self, start: int) -> Segment:
        with self._changing:
            found = self._known(start)
            if found.form in (Form.OPEN, Form.DROPPED):
                raise Conflict(f"this segment is {found.form.value}: it cannot be sealed")
            if found.form is Form.COMPLETE:
                self._become(start, Form.SEALED, self._write_sealed)
            return self.segment(start)

    def drop(self, start: int) -> Segment:
        with self._changing:
            found = self._known(start)
            if found.form is not Form.SEALED or start != self._files.oldest_left():
                raise Conflict(
                    "only the oldest segment that is left can be dropped, when it is sealed"
                )
            if not found.kept:
                raise Conflict(
                    "this segment is still needed when the node starts",
                    hint="stop the node and start it again: then it is not",
                )
            self._become(start, Form.DROPPED, self._write_dropped)
            return self.segment(start)

    def stop(self) -> None:
        """Nothing more is changed: what is under way ends between two blocks, or at its end."""
        self._stopped = True
        with self._changing:
            pass

    def segment(self, start: int) -> Segment:
        """Raises ``Broken`` and ``OSError``."""
        files, following = self._files, self._files.after(start)
        form, stored = files.form(start), files.stored(start)
        first = self._first(start)
        end = self._size() if following is None else self._first(following)
        is_kept = self._marks.last is not None and self._marks.last.segment > start
        if following is None:
            form = Form.OPEN
        return Segment(start, first, end - first, stored, form, is_kept)

    def oldest_left(self) -> Segment | None:
        """The first segment that is not dropped; None if none is. Raises as ``segment`` does."""
        start = self._files.oldest_left()
        return None if start == self._files.first else self.segment(start)

    def _first(self, start: int) -> int:
        summary = self._files.summary(start)
        if summary:
            return summary.first
        return frames.parse_header(self._files.read(start, 0, frames.HEADER_BYTES)).leaves

    def _known(self, start: int) -> Segment:
        self._proceed()
        if start not in self._files.starts():
            raise NotFound("the log has no such segment")
        return self.segment(start)

    def _proceed(self) -> None:
        if self._stopped:
            raise Unavailable("the node is stopping")

    def _become(self, start: int, form: Form, write: Callable[[int, int], None]) -> None:
        """``write`` is given the segment and the file that becomes it."""
        files, disk = self._files, self._disk
        old, fresh = files.path(start), files.new(start)
        try:
            try:
                disk.remove(fresh)
                fd = disk.create(fresh)
                try:
                    write(start, fd)
                finally:
                    os.close(fd)
                disk.rename(fresh, files.named(start, form))
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
            disk.sync_folder(old.parent)
            files.became(start, form)
            disk.remove(old)
            disk.sync_folder(old.parent)
        except Broken:
            raise damaged("a segment of the log is damaged") from None
        except OSError as error:
            raise Unavailable(
                "the segment cannot be written", hint="check the disk and its free space"
            ) from error

    def _write_dropped(self, start: int, fd: int) -> None:
        with self._marks.lock:
            self._marks.copy(start)
        summary = self._files.summary(start)
        if summary is None:
            raise Broken
        self._disk.write(fd, encode_dropped(summary), 0)
        self._disk.sync(fd)

    def _write_sealed(self, start: int, fd: int) -> None:
        summary = self._summed_up(start)
        writer = SealedWriter(fd, self._disk)
        with self._files.open(start, 0) as file:
            while block := file.read(BLOCK_BYTES):
                writer.add(block)
                self._proceed()
        writer.finish(summary)
        sealed = SealedFile(self._files.new(start), start)
        try:
            with self._files.open(start, 0) as file:
                self._compare(sealed, file)
        finally:
            sealed.close()

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

    def _compare(self, sealed: SealedFile, file: IO[bytes]) -> None:
        for number in range(sealed.blocks):
            if sealed.block(number) != file.read(sealed.block_bytes):
                raise Broken
            self._proceed()
        if file.read(1):
            raise Broken
