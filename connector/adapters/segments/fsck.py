"""Checking a whole log that no node has open: every byte is read, nothing is taken on trust.

1. every segment follows the one before it, and its blocks are what was written;
2. every commit's chain value, and the root in its checkpoint from the hashes of its leaves;
3. hash files and places from the leaves; what is above the kept mark was never synced, and the
   next opening mends it: a remark, no damage;
4. the kept mark: the commit it names, its tree;
5. the files of keys by their own digests.

Of dropped segments the kept hashes are compared with the checkpoint at their end. Behind damage
it goes on with the hashes that were kept, so that everything wrong is named at once.

Leaves out: who signed the checkpoints, what leaves say, and whether witnesses saw more
(``connector-verify log`` and the meter).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from connector.adapters.segments import frames, marks
from connector.adapters.segments.derived import PLACE_BYTES, STRIDE, encode_places
from connector.adapters.segments.disk import Disk
from connector.adapters.segments.files import Files
from connector.adapters.segments.frames import Broken
from connector.adapters.segments.log import lock
from connector.adapters.segments.opening import ADOPTED, covers, places_of
from connector.core.interface import Core
from connector.core.keyfiles import Run
from connector.errors import InvalidInput, Unavailable
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.merkle import HASH_BYTES
from connector.tlog.tiles import TILE_HEIGHT

MAX_FINDINGS = 1000
_MAKE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Finding:
    """``segment``: where it starts; ``leaf``: index of the first leaf concerned. ``damage``: else
    it is a remark. ``mended``: it was damage, and is not any more."""

    what: str
    segment: int | None = None
    leaf: int | None = None
    damage: bool = True
    mended: bool = False


@dataclass(slots=True)
class Checked:
    """``origin`` and ``size`` are those of the newest checkpoint; ``bytes`` are on the disk."""

    origin: str = ""
    size: int = 0
    segments: int = 0
    dropped: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not any(finding.damage and not finding.mended for finding in self.findings)


def fsck(
    folder: Path,
    core: Core,
    *,
    mend: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Checked:
    """Check the log in ``folder``; with ``mend``, write derived files anew where they are wrong.

    ``progress`` is told bytes read, done and in all. Raises ``Conflict`` if a node has the
    log open, ``Unavailable`` if there is no log or it cannot be read.
    """
    if not (folder / "segments").is_dir():
        raise Unavailable("there is no log here", hint="give the node's data folder: --data DIR")
    try:
        held = lock(folder / "lock")
        try:
            return _Check(folder, core, mend, progress).run()
        finally:
            os.close(held)
    except OSError as error:
        raise Unavailable(f"the log cannot be read: {error.strerror}") from error


class _Check:
    """``tree`` is None where the hashes of some leaves are unknown."""

    def __init__(
        self, folder: Path, core: Core, mend: bool, progress: Callable[[int, int], None]
    ) -> None:
        self.folder = folder
        self.core = core
        self.progress = progress
        self.found = Checked()
        self.marks: dict[str, marks.Position] = {}
        self.log_id, self.chain, self.note = b"", frames.FIRST_CHAIN, b""
        self.size, self.end = 0, 0
        self.tree: tuple[bytes, ...] | None = ()
        self.derived = _Derived(folder, self.found, mend)
        self.done = self.total = 0  # bytes of segments
        self.behind_damage = False

    def run(self) -> Checked:
        try:
            files = Files(self.folder / "segments")
        except CorruptLog as error:
            self._say(error.message)
            return self.found
        with closing(files), closing(self.derived):
            for path in files.leftovers:
                self._remark(f"{path.name} was left by an interrupted sealing or dropping")
            starts = files.starts()
            self.found.bytes = sum(files.stored(start) for start in starts)
            self._read_marks()
            sizes = [_bytes_to_read(files, start) for start in starts]
            self.total = sum(sizes)
            for start, size in zip(starts, sizes, strict=True):
                self.found.segments += 1
                self._segment(files, start, last=start == starts[-1])
                self.done += size
                self.progress(self.done, self.total)
            self._check_marks(files)
            self.derived.finish(self.size if self.found.sound and self.tree is not None else None)
        self._check_keys()
        if self.note:
            checkpoint = parse_checkpoint(self.note)
            self.found.origin, self.found.size = checkpoint.origin, checkpoint.size
        return self.found

    def _segment(self, files: Files, start: int, *, last: bool) -> None:
        try:
            summary = files.summary(start)
            if files.form(start) is Form.DROPPED and summary is not None:
                header = frames.Header(
                    summary.log_id, summary.position, summary.first, summary.before
                )
            else:
                header = frames.parse_header(files.read(start, 0, frames.HEADER_BYTES))
        except Broken:
            if last and files.form(start) is Form.COMPLETE:
                size = files.size(start)
                if size <= frames.HEADER_BYTES:
                    self._remark("the last segment was never begun; opening removes it", start)
                    return
            first = None if self.behind_damage else self.size
            self._say("its head is damaged; nothing in it can be read", start, first)
            self.behind_damage = True
            return
        self._follow(header, start)
        if files.form(start) is Form.DROPPED and summary is not None:
            self.found.dropped += 1
            self._adopt(start, summary.first + summary.leaves, summary.note)
            self.chain, self.end = summary.after, start + summary.length
            return
        self.end = start + frames.HEADER_BYTES
        try:
            with files.open(start, frames.HEADER_BYTES) as file:
                at = frames.HEADER_BYTES
                for batch in frames.read_batches(file, self.log_id, self.chain, self.size, at):
                    self._batch(batch, start)
        except Broken:
            self._broken(files, start, last=last)

    def _follow(self, header: frames.Header, start: int) -> None:
        """The segment as its head says; if that is not what came before, go on from there."""
        expected = frames.Header(self.log_id or header.log_id, self.end, self.size, self.chain)
        if header == expected and header.position == start:
            self.log_id, self.behind_damage = header.log_id, False
            return
        self.log_id = self.log_id or header.log_id
        if header.log_id != self.log_id or header.position != start:
            self._say("it is not this log's", start)
        elif not self.behind_damage:
            self._say("it does not follow the one before it", start, self.size)
        self.behind_damage = False
        if header.leaves > self.size and self.tree is not None:
            self._adopt(start, header.leaves, b"")
        elif header.leaves != self.size:
            self.tree = None
        self.size, self.chain = header.leaves, header.chain

    def _adopt(self, start: int, size: int, note: bytes) -> None:
        """Take the hashes of leaves that are not there, up to ``size``, as they were kept."""
        while self.size < size and self.tree is not None:
            count = min(ADOPTED, size - self.size)
            hashes = self.derived.stored(self.size, count)
            if len(hashes) != count * HASH_BYTES:
                self._say("the kept hashes of its leaves are missing", start, self.size)
                self.tree = None
                break
            tree, completed = self.core.extend(self.size, self.tree, hashes)
            above = {level: values for level, values in completed.items() if level}
            self.derived.compare(self.size, b"", above)
            self.tree, self.size = tuple(tree), self.size + count
        self.size = size
        if note and self.tree is not None and not covers(note, size, self.tree):
            self._say("the kept hashes of its leaves are not those of its checkpoint", start)
            self.tree = None
        self.note = note or self.note

    def _batch(self, batch: frames.Batch, start: int) -> None:
        if batch.count:
            self._leaves(batch, start)
        self.size, self.chain, self.end = batch.size, batch.chain, start + batch.end
        self.note = batch.note or self.note
        self._see_marks(start)
        self.progress(self.done + batch.end, self.total)

    def _leaves(self, batch: frames.Batch, start: int) -> None:
        first = self.size
        stored = self.derived.stored(first, batch.count)
        try:
            hashes = self.core.leaf_hashes(batch.packed)
        except InvalidInput:
            hashes = b""
        if len(hashes) == batch.count * HASH_BYTES and self.tree is not None:
            tree, completed = self.core.extend(first, self.tree, hashes)
            if covers(batch.note, batch.size, tree):
                places = encode_places(places_of(self.core, batch, start, first))
                self.derived.compare(first, places, completed)
                self.tree = tuple(tree)
                return
        elif hashes and hashes == stored:
            return  # the tree is unknown; nothing speaks against these leaves
        wrong = first + _first_difference(self.core, batch, stored)
        self._say("a leaf is not what it was when it was written", start, wrong)
        if self.tree is None or len(stored) != batch.count * HASH_BYTES:
            self.tree = None
            return
        tree, _ = self.core.extend(first, self.tree, stored)
        self.tree = tuple(tree) if covers(batch.note, batch.size, tree) else None

    def _broken(self, files: Files, start: int, *, last: bool) -> None:
        at = self.end - start
        if last and files.form(start) is Form.COMPLETE:
            tail = files.read(start, at, files.size(start) - at)
            if frames.is_torn(tail, at, self.log_id):
                self._remark(
                    f"an unfinished commit of {len(tail)} bytes; opening cuts it off", start
                )
                return
        self._say(f"damaged from byte {at} of the segment on", start, self.size)
        self.behind_damage = True

    # The kept marks

    def _read_marks(self) -> None:
        for name in marks.KEPT:
            path = self.folder / name
            mark = marks.read_kept(path)
            if mark is not None:
                self.marks[name] = mark[0]
            elif path.exists():
                self._remark(f"the file {name} is damaged and of no use")
        self.derived.synced = max((mark.size for mark in self.marks.values()), default=0)

    def _see_marks(self, start: int) -> None:
        for name, mark in list(self.marks.items()):
            if mark.end == self.end:
                if not self._fits(mark, start):
                    self._remark(f"the file {name} is of another log, and of no use")
                del self.marks[name]

    def _fits(self, mark: marks.Position, start: int) -> bool:
        known = self.log_id, start, self.size, self.chain, self.note
        told = mark.log_id, mark.segment, mark.size, mark.chain, mark.note
        return known == told and (self.tree is None or mark.subtrees == self.tree)

    def _check_marks(self, files: Files) -> None:
        for name, mark in self.marks.items():
            if mark.end == mark.commit and mark.end - frames.HEADER_BYTES in files.starts():
                continue  # before the first commit of a segment
            if mark.end > self.end or mark.size > self.size:
                self._say(f"the file {name} knows more commits than there are", leaf=self.size)
            else:
                self._remark(f"the file {name} is of another log, and of no use")

    def _check_keys(self) -> None:
        for path in sorted((self.folder / "keys").glob("*.keys")):
            try:
                is_sound = Run(path).is_sound()
            except InvalidInput:
                is_sound = False
            if not is_sound:
                self._remark(f"{path.name} is damaged; opening makes keys from the receipts anew")

    def _say(self, what: str, segment: int | None = None, leaf: int | None = None) -> None:
        _add(self.found, Finding(what, segment, leaf))

    def _remark(self, what: str, segment: int | None = None) -> None:
        _add(self.found, Finding(what, segment, damage=False))


class _Derived:
    """Derived files beside what they should be. ``synced``: leaves of which they were synced."""

    def __init__(self, folder: Path, found: Checked, mend: bool) -> None:
        self._folder = folder
        self._found = found
        self._mend = mend
        self._disk = Disk()
        self._fds: dict[str, int] = {}
        # first wrong leaf; wrong items; leaves that the log had when the first of them was written
        self._wrong: dict[str, tuple[int, int, int]] = {}
        self.synced = 0

    def stored(self, first: int, count: int) -> bytes:
        """Hashes of leaves, as they are kept."""
        fd = self._open("hashes/0")
        return b"" if fd is None else os.pread(fd, count * HASH_BYTES, first * HASH_BYTES)

    def compare(self, first: int, places: bytes, hashes: Mapping[int, bytes]) -> None:
        """Of leaves from ``first`` on."""
        if places:
            self._compare("places16", PLACE_BYTES, STRIDE, 1, -(-first // STRIDE), places)
        for level, values in hashes.items():
            span = 1 << TILE_HEIGHT * level
            self._compare(f"hashes/{level}", HASH_BYTES, span, span, first // span, values)

    def _compare(
        self, name: str, width: int, span: int, needs: int, index: int, items: bytes
    ) -> None:
        """An item stands for ``span`` leaves, and is there when the first ``needs`` of them are."""
        fd = self._open(name)
        stored = b"" if fd is None else os.pread(fd, len(items), index * width)
        if stored == items:
            return
        wrong = [
            at
            for at in range(0, len(items), width)
            if stored[at : at + width] != items[at : at + width]
        ]
        leaf = (index + wrong[0] // width) * span
        first, count, size = self._wrong.get(name, (leaf, 0, leaf + needs))
        self._wrong[name] = first, count + len(wrong), size
        if self._mend:
            fd = os.open(self._folder / name, _MAKE, 0o600) if fd is None else fd
            self._fds[name] = fd
            self._disk.write(fd, items, index * width)

    def finish(self, size: int | None) -> None:
        """Say what is wrong. ``size``: leaves of the log, None if it is damaged: then what seems
        too long may be all that is left of some leaves."""
        self._say_what_is_wrong()
        if size is not None:
            self._cut(size)
        if self._mend:
            for fd in self._fds.values():
                self._disk.sync(fd)
            for folder in (self._folder / "hashes", self._folder):
                self._disk.sync_folder(folder)

    def _cut(self, size: int) -> None:
        wanted = {"places16": -(-size // STRIDE) * PLACE_BYTES}
        for path in (self._folder / "hashes").iterdir():
            if path.name.isdecimal():
                level = int(path.name)
                wanted[f"hashes/{level}"] = (size >> TILE_HEIGHT * level) * HASH_BYTES
        for name, length in wanted.items():
            fd = self._open(name)
            if fd is not None and os.fstat(fd).st_size > length:
                _add(
                    self._found,
                    Finding(
                        f"{name}: longer than the log", leaf=size, damage=False, mended=self._mend
                    ),
                )
                if self._mend:
                    self._disk.truncate(fd, length)

    def _say_what_is_wrong(self) -> None:
        for name, (leaf, count, size) in self._wrong.items():
            _add(
                self._found,
                Finding(
                    f"{name}: {count} entries are not what the receipts give",
                    leaf=leaf,
                    damage=size <= self.synced,
                    mended=self._mend,
                ),
            )

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def _open(self, name: str) -> int | None:
        if name not in self._fds:
            flags = (os.O_RDWR if self._mend else os.O_RDONLY) | os.O_CLOEXEC
            try:
                self._fds[name] = os.open(self._folder / name, flags)
            except FileNotFoundError:
                return None
        return self._fds[name]


def _first_difference(core: Core, batch: frames.Batch, stored: bytes) -> int:
    """The number in the batch of the first leaf that does not have its stored hash; 0 if none."""
    at, number = 0, 0
    while at + 2 <= len(batch.packed):
        end = at + 2 + int.from_bytes(batch.packed[at : at + 2])
        expected = stored[number * HASH_BYTES : (number + 1) * HASH_BYTES]
        if end > len(batch.packed) or core.leaf_hashes(batch.packed[at:end]) != expected:
            return number
        at, number = end, number + 1
    return 0


def _bytes_to_read(files: Files, start: int) -> int:
    try:
        return 0 if files.form(start) is Form.DROPPED else files.size(start)
    except Broken:
        return 0


def _add(found: Checked, finding: Finding) -> None:
    if len(found.findings) < MAX_FINDINGS:
        found.findings.append(finding)
