"""Which use has which leaf: the keys of a log in memory, and the runs they are written to.

Keys are added to a table in memory. ``freeze`` has a thread write the table to a run
(``keyfiles``), while the next one fills. Runs lie end to end, from leaf 0 on. When the newer ones
together have three times the keys of an older one, another thread makes one run of them all, so
that their number grows with the logarithm of the log's size; a long merge stops for the short
ones that fall due meanwhile. A key is looked for in the oldest place first, so that the first
leaf of two with one key is found.

No file says which files there are: a run's name and header say which leaves it holds, it gets the
name when it is durable, and a run whose leaves another one holds too is left over from a crash.

Leaves out: what keys are made of (``interface.key_of``), making the map anew from the log.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from connector.core.keyfiles import (
    ENTRY_BYTES,
    HEADER_BYTES,
    MAX_INDEX,
    SPOTS,
    Run,
    RunWriter,
    remove,
)
from connector.errors import InternalError, InvalidInput, Unavailable

FREEZE_AT = 2**18  # keys; about 40 MB in memory, twice while they are written
LATE_AT = 2 * FREEZE_AT  # while earlier ones are still being written
_MERGE_STEP = 4096  # entries that a merge has at hand, and holds the interpreter for


@dataclass(frozen=True, slots=True)
class _View:
    """Where keys are, oldest first. Replaced as a whole, so that a reader needs no lock.

    ``frozen``: tables that a freeze took and that are in no run yet; ``memory``: the one that
    grows.
    """

    runs: tuple[Run, ...]
    frozen: tuple[dict[bytes, int], ...]
    memory: dict[bytes, int]


class FileKeys:
    """``interface.Keys`` in Python. The constructor raises ``Unavailable``.

    If files cannot be written, nothing is lost and nothing is raised: ``trouble`` says so,
    ``covered`` stays, the keys stay in memory, and the next ``freeze`` tries again. Memory grows
    until one succeeds, by about 170 bytes a key; a full disk stops the log itself first.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            runs = _open_runs(folder)
        except OSError as error:
            raise Unavailable("the folder of the key files cannot be used") from error
        self._folder = folder
        self._view = _View(runs, (), {})
        self._staged: list[bytes] = []
        self._sealed: deque[list[bytes]] = deque()
        self._damaged: int | None = None  # first leaf of a run that is not what was written
        self._trouble = ""
        self._lock = threading.Lock()  # held by whoever replaces the view, never for long
        self._stopping = False
        self._merging = False  # there is a merger that will look again
        self._writer: threading.Thread | None = None
        self._merger: threading.Thread | None = None

    @property
    def covered(self) -> int:
        end = self._end
        return end if self._damaged is None else min(self._damaged, end)

    @property
    def pending(self) -> int:
        staged = len(self._staged) + sum(map(len, self._sealed))
        return len(self._view.memory) - staged

    @property
    def freeze_at(self) -> int:
        return LATE_AT if self._writer and self._writer.is_alive() else FREEZE_AT

    @property
    def trouble(self) -> str:
        """Why files could not be written or read lately; empty if they could."""
        return self._trouble

    @property
    def runs(self) -> int:
        """How many files there are."""
        return len(self._view.runs)

    def find(self, key: bytes) -> int | None:
        view = self._view
        if view.runs:
            number = int.from_bytes(key, "big")
            top = number >> 16
            byte_0, bit_0 = SPOTS[number & 63]
            byte_1, bit_1 = SPOTS[number >> 6 & 63]
            byte_0 += HEADER_BYTES + 8  # of words 0 and 1 of a filter
            byte_1 += HEADER_BYTES + 16
            for run in view.runs:
                line = (top * run.lines >> 64) << 6
                data = run.data
                if data[line + byte_0] & bit_0 and data[line + byte_1] & bit_1:
                    index = run.search(key, number, line + HEADER_BYTES)
                    if index is not None:
                        return index
        for table in view.frozen:
            index = table.get(key)
            if index is not None:
                return index
        return view.memory.get(key)

    def stage(self, key: bytes, index: int) -> None:
        if not 0 <= index <= MAX_INDEX or len(key) != 10:
            raise InternalError("keys: a key has 10 bytes and a leaf's index less than 48 bits")
        memory = self._view.memory
        if key not in memory:
            memory[key] = index
            self._staged.append(key)

    def seal(self) -> None:
        self._sealed.append(self._staged)
        self._staged = []

    def settle(self) -> None:
        if self._sealed:
            self._sealed.popleft()
        else:
            self._staged.clear()

    def unstage(self) -> None:
        memory = self._view.memory
        for key in self._staged:
            del memory[key]
        self._staged.clear()

    def discard(self) -> None:
        self._staged += (key for group in self._sealed for key in group)
        self._sealed.clear()
        self.unstage()

    def freeze(self, size: int) -> None:
        if self._staged or self._sealed:
            raise InternalError("keys: frozen while some are staged")
        self.wait()
        view = self._view
        first = self._end
        if size <= first:
            return
        with self._lock:
            frozen = (*view.frozen, view.memory) if view.memory else view.frozen
            self._view = _View(self._view.runs, frozen, {})
        writer = threading.Thread(
            target=self._write, args=(first, size, frozen), name="keys-write", daemon=True
        )
        try:
            writer.start()
        except RuntimeError:
            self._trouble = "key files cannot be written: there is no thread for it"
        else:
            self._writer = writer

    def wait(self) -> None:
        if self._writer:
            self._writer.join()
            self._writer = None

    def sound(self) -> int:
        """Reads every byte of the files: they are as they were written for leaves below this."""
        sound = 0
        for run in self._view.runs:
            if not run.is_sound():
                return sound
            sound = run.end
        return sound

    def clear(self) -> None:
        """Raises ``Unavailable`` if files cannot be removed."""
        self.close()
        with self._lock:
            runs, self._view = self._view.runs, _View((), (), {})
        self._staged.clear()
        self._sealed.clear()
        self._damaged, self._trouble, self._stopping = None, "", False
        # The newest first: what a crash leaves reaches from leaf 0 to somewhere.
        if not all(remove(run.path) for run in reversed(runs)):
            raise Unavailable("the key files cannot be removed")

    def close(self) -> None:
        self.wait()
        self._stopping = True
        if self._merger:
            self._merger.join()
            self._merger = None

    @property
    def _end(self) -> int:
        runs = self._view.runs
        return runs[-1].end if runs else 0

    def _write(self, first: int, end: int, tables: Sequence[dict[bytes, int]]) -> None:
        """Thread: a run of all keys of the tables."""
        try:
            writer = RunWriter(self._folder, first, end, sum(map(len, tables)))
            try:
                for entries in _sorted(tables):
                    writer.add(entries)
                run = Run(writer.finish())
            except (OSError, InvalidInput):
                writer.abandon()
                raise
        except (OSError, InvalidInput) as error:
            self._trouble = f"key files cannot be written: {_reason(error)}"
            return
        with self._lock:
            self._view = _View((*self._view.runs, run), (), self._view.memory)
            if self._damaged is None:
                self._trouble = ""
            idle, self._merging = not self._merging, True
        if idle:
            if self._merger:
                self._merger.join()  # it is on its way out
            merger = threading.Thread(target=self._merge_all, name="keys-merge", daemon=True)
            try:
                merger.start()
            except RuntimeError:
                self._merging, self._merger = False, None
            else:
                self._merger = merger

    def _merge_all(self) -> None:
        """Thread: merge until nothing is due, or it does not work."""
        while True:
            done = self._tidy(0)
            with self._lock:
                if not (done and self._due(0)):
                    self._merging = False
                    return

    def _due(self, after: int) -> list[Run]:
        runs = [run for run in self._view.runs if run.first >= after]
        return runs[first_due([run.count for run in runs]) :]

    def _tidy(self, after: int) -> bool:
        """Merge what is due of the runs of leaf ``after`` and later. False if that failed or was
        stopped."""
        while due := self._due(after):
            if self._damaged is not None or self._stopping:
                return False
            try:
                if not self._merge(due):
                    return False
            except (OSError, InvalidInput) as error:
                self._trouble = f"key files cannot be merged: {_reason(error)}"
                self._look_for_damage(due)
                return False
        return True

    def _merge(self, runs: list[Run]) -> bool:
        """One run of several neighbours. False if it was stopped."""
        count = sum(run.count for run in runs)
        writer = RunWriter(self._folder, runs[0].first, runs[-1].end, count)
        done = False
        try:
            done = self._merge_into(writer, runs, max(1, count // _MERGE_STEP))
            merged = Run(writer.finish()) if done else None
        except (OSError, InvalidInput):
            writer.abandon()
            raise
        if merged is None:
            writer.abandon()
            return False
        with self._lock:
            view = self._view
            at = view.runs.index(runs[0])
            rest = view.runs[at + len(runs) :]
            self._view = _View((*view.runs[:at], merged, *rest), view.frozen, view.memory)
        for run in runs:
            remove(run.path)
        return True

    def _merge_into(self, writer: RunWriter, runs: list[Run], steps: int) -> bool:
        """A range of keys at a time: sorting is merging, when what is sorted are sorted pieces."""
        starts = [0] * len(runs)
        digests = [hashlib.sha256() for _ in runs]
        for step in range(1, steps + 1):
            batch: list[bytes] = []
            for i, run in enumerate(runs):
                stop = run.rank((step << 64) // steps)
                data = run.read(starts[i], stop)
                digests[i].update(data)
                batch += _split(data)
                starts[i] = stop
            batch.sort()
            writer.add(batch)
            self._tidy(runs[-1].end)
            if self._stopping:
                return False
        for run, digest in zip(runs, digests, strict=True):
            if digest.digest() != run.entries_digest:
                raise InvalidInput("key file: its entries are not what was written")
        return True

    def _look_for_damage(self, runs: list[Run]) -> None:
        """Remove a run that does not hold what was written: opening will notice the gap.

        Until then it stays in use, as far as it goes.
        """
        for run in runs:
            if not run.is_sound():
                self._damaged = run.first
                self._trouble = "a key file is damaged; the next start makes it anew"
                remove(run.path)
                return


def first_due(counts: Sequence[int]) -> int:
    """Where the runs begin that are due for a merge, to the newest; ``len(counts)`` for none.

    An older run is merged with all newer ones as soon as those have three times its keys:
    so each run has more than a third of what is newer, and n keys make O(log n) runs, while a
    key is written again O(log n) times. Equal runs are merged four at a time.
    """
    due, newer = len(counts), 0
    for i in range(len(counts) - 1, -1, -1):
        if newer and 3 * (counts[i] + 1) <= newer:
            due = i
        newer += counts[i] + 1
    return due


def _open_runs(folder: Path) -> tuple[Run, ...]:
    """The runs from leaf 0 as far as they reach. Every other file is removed."""
    found: list[Run] = []
    for path in sorted(folder.iterdir()):
        try:
            found.append(Run(path))
        except (OSError, InvalidInput, ValueError):
            remove(path)
    runs: list[Run] = []
    end = 0
    for run in sorted(found, key=lambda run: (run.first, -run.end)):
        if run.first == end:
            runs.append(run)
            end = run.end
        else:
            remove(run.path)
    return tuple(runs)


def _sorted(tables: Sequence[dict[bytes, int]]) -> list[list[bytes]]:
    """All entries, in 256 pieces: the interpreter goes to others between two of them."""
    pieces: list[list[bytes]] = [[] for _ in range(256)]
    for table in tables:
        for key, index in table.items():
            pieces[key[0]].append(key + index.to_bytes(6, "big"))
    for piece in pieces:
        piece.sort()
    return pieces


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + ENTRY_BYTES] for at in range(0, len(data), ENTRY_BYTES)]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "they make no sense"
