"""The segment files of a log: which there are, in which form, and slices of them.

A segment is a plain file named by its position, or ``.sealed``, or ``.dropped`` (``sealed``).
Whoever reads sees the same bytes of plain and sealed ones; those of dropped ones are gone. Where
a crash left a segment in two forms, the newer one counts if it is sound.

Files are opened when they are read and closed when others are read more, so that a log of many
segments needs few descriptors.
"""

from __future__ import annotations

import io
import os
import re
import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from pathlib import Path
from typing import IO, cast

import structlog

from connector.adapters.segments.disk import Disk
from connector.adapters.segments.frames import Broken
from connector.adapters.segments.sealed import SealedFile, SealedReader, Summary, read_dropped
from connector.errors import Gone
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form

BUFFER = 1 << 20
MAX_OPEN = 64
MAX_BLOCKS = 32  # decompressed ones at hand, 4 MiB in all

log = structlog.get_logger()

_NAME_DIGITS = 20
_NAME = re.compile(rf"(?P<start>[0-9]{{{_NAME_DIGITS}}})(?P<suffix>\.sealed|\.dropped|\.new)?")
_SUFFIXES = {Form.COMPLETE: "", Form.SEALED: ".sealed", Form.DROPPED: ".dropped"}
_NEWEST_FIRST = (Form.DROPPED, Form.SEALED, Form.COMPLETE)


class Files:
    """Segments by the position where they start. Reading: any thread; the rest: one at a time.

    Raises ``CorruptLog`` for a file that is not the log's. ``OPEN`` is no form here: the last
    segment is ``COMPLETE`` too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forms: dict[int, Form] = {}
        self.leftovers: list[Path] = []  # of what a crash stopped; they say nothing
        self._summaries: dict[int, Summary] = {}
        self._find()
        self._starts = sorted(self._forms)
        self._dropped = 0  # segments from the first one on
        while self._dropped < len(self._starts) and self._is_dropped(self._dropped):
            self._dropped += 1
        if any(map(self._is_dropped, range(self._dropped, len(self._starts)))):
            raise CorruptLog("the log's folder lacks a segment in its middle")
        self._reading = threading.Lock()
        self._open: OrderedDict[int, int | SealedFile] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._writable: tuple[int, int] | None = None

    def _find(self) -> None:
        found: dict[int, set[Form]] = {}
        for path in self._folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if not name or not path.is_file():
                raise CorruptLog("the log's folder holds a file that is not the log's")
            suffix = name["suffix"] or ""
            if suffix == ".new":
                self.leftovers.append(path)
                continue
            form = next(form for form, its in _SUFFIXES.items() if its == suffix)
            found.setdefault(int(name["start"]), set()).add(form)
        for start, forms in found.items():
            there = [form for form in _NEWEST_FIRST if form in forms]
            counts = next(
                (form for form in there[:-1] if self._is_sound(start, form)),
                there[-1],
            )
            self._forms[start] = counts
            self.leftovers += [self._named(start, form) for form in there if form is not counts]

    def _is_sound(self, start: int, form: Form) -> bool:
        path = self._named(start, form)
        try:
            if form is Form.DROPPED:
                read_dropped(path, start)
                return True
            file = SealedFile(path, start)
            try:
                return file.check() is None
            finally:
                file.close()
        except Broken:
            return False

    def tidy(self, disk: Disk) -> None:
        """Remove the leftovers. Raises ``OSError``."""
        for path in self.leftovers:
            log.info("what an interrupted sealing or dropping left is removed", file=path.name)
            disk.remove(path)
        self.leftovers = []

    def starts(self) -> list[int]:
        """Ascending."""
        return self._starts.copy()

    @property
    def last(self) -> int:
        """The start of the segment that is written to."""
        return self._starts[-1]

    @property
    def first(self) -> int:
        return self._starts[0]

    def oldest_left(self) -> int:
        """The start of the first segment that is not dropped."""
        return self._starts[self._dropped]

    def start_of(self, position: int) -> int:
        """The segment that a position of the log lies in."""
        return self._starts[bisect_right(self._starts, position) - 1]

    def after(self, start: int) -> int | None:
        """The segment that follows."""
        at = bisect_right(self._starts, start)
        return self._starts[at] if at < len(self._starts) else None

    def form(self, start: int) -> Form:
        return self._forms[start]

    def path(self, start: int) -> Path:
        return self._named(start, self._forms[start])

    def named(self, start: int, form: Form) -> Path:
        """The segment's file if it had this form."""
        return self._named(start, form)

    def new(self, start: int) -> Path:
        """A name for what will be one of its forms."""
        return self._folder / f"{start:0{_NAME_DIGITS}d}.new"

    def summary(self, start: int) -> Summary | None:
        """None for a plain segment. Raises ``Broken`` and ``OSError``."""
        with self._reading:
            form = self._forms[start]
            if form is Form.COMPLETE:
                return None
            if start not in self._summaries:
                path = self._named(start, form)
                if form is Form.DROPPED:
                    self._summaries[start] = read_dropped(path, start)
                else:
                    file = SealedFile(path, start)
                    self._summaries[start] = file.summary
                    file.close()
            return self._summaries[start]

    def size(self, start: int) -> int:
        """Bytes of the segment, whatever its form. Raises ``Broken`` and ``OSError``."""
        summary = self.summary(start)
        return summary.length if summary else self.path(start).stat().st_size

    def stored(self, start: int) -> int:
        """Bytes on the disk."""
        with self._reading:
            return self.path(start).stat().st_size

    def open(self, start: int, offset: int) -> IO[bytes]:
        """A reader of its own, standing at ``offset``. Raises ``Gone``, ``Broken``, ``OSError``;
        reading from it ``Broken`` and ``OSError``."""
        with self._reading:  # so that the form does not change meanwhile
            path = self.path(start)
            match self._forms[start]:
                case Form.DROPPED:
                    raise dropped()
                case Form.SEALED:
                    raw = SealedReader(path, start, offset)
                    return cast(IO[bytes], io.BufferedReader(raw, BUFFER))
                case _:
                    file = path.open("rb", buffering=BUFFER)
                    file.seek(offset)
                    return file

    def read(self, start: int, offset: int, count: int) -> bytes:
        """At most ``count`` bytes; fewer at the segment's end. Raises as ``open`` does."""
        with self._reading:
            found = self._opened(start)
            if isinstance(found, int):
                return os.pread(found, count, offset)
            summary = found.summary
            end = min(offset + count, summary.length)
            if offset >= end:
                return b""
            size = found.block_bytes
            numbers = range(offset // size, (end - 1) // size + 1)
            data = b"".join(self._block(start, number, found) for number in numbers)
        skip = offset - numbers[0] * size
        return data[skip : skip + end - offset]

    def _opened(self, start: int) -> int | SealedFile:
        found = self._open.pop(start, None)
        if found is None:
            path = self.path(start)
            match self._forms[start]:
                case Form.DROPPED:
                    raise dropped()
                case Form.SEALED:
                    found = SealedFile(path, start)
                case _:
                    found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[start] = found
        if len(self._open) > MAX_OPEN:
            _close(self._open.popitem(last=False)[1])
        return found

    def _block(self, start: int, number: int, file: SealedFile) -> bytes:
        block = self._blocks.pop((start, number), None)
        if block is None:
            block = file.block(number)
        self._blocks[start, number] = block
        if len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def writable(self, start: int) -> int:
        """The segment's file, open for writing; one at a time is."""
        if self._writable is None or self._writable[0] != start:
            fd = os.open(self.path(start), os.O_RDWR | os.O_CLOEXEC)
            self._forget_writable()
            self._writable = start, fd
        return self._writable[1]

    def added(self, start: int, fd: int) -> None:
        """A new segment, the one that is written from now on."""
        self._forms[start] = Form.COMPLETE
        insort(self._starts, start)
        self._forget_writable()
        self._writable = start, fd

    def became(self, start: int, form: Form) -> None:
        """Its file in the new form is there; the old one is not read any more on return."""
        with self._reading:
            self._forget(start)
            self._summaries.pop(start, None)
            self._forms[start] = form
            self._dropped += form is Form.DROPPED

    def remove(self, start: int) -> None:
        with self._reading:
            self._forget(start)
        self.path(start).unlink()
        self._starts.remove(start)
        del self._forms[start]

    def close(self) -> None:
        with self._reading:
            self._forget_writable()
            while self._open:
                _close(self._open.popitem()[1])
            self._blocks.clear()

    def _is_dropped(self, at: int) -> bool:
        return self._forms[self._starts[at]] is Form.DROPPED

    def _named(self, start: int, form: Form) -> Path:
        return self._folder / f"{start:0{_NAME_DIGITS}d}{_SUFFIXES[form]}"

    def _forget(self, start: int) -> None:
        found = self._open.pop(start, None)
        if found is not None:
            _close(found)
        for key in [key for key in self._blocks if key[0] == start]:
            del self._blocks[key]

    def _forget_writable(self) -> None:
        if self._writable is not None:
            os.close(self._writable[1])
            self._writable = None


def damaged(what: str) -> CorruptLog:
    return CorruptLog(
        f"{what}; nothing was changed",
        hint="stop the node; connector log fsck says where, docs/operations.md what then",
    )


def dropped() -> Gone:
    return Gone("these receipts were dropped when their retention ended")


def _close(file: int | SealedFile) -> None:
    if isinstance(file, int):
        os.close(file)
    else:
        file.close()
