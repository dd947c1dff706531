"""How far ``connector meter`` got: totals, and a file from which the next run goes on.

The file is replaced as a whole, after the refused records that it speaks of were written. It is
not forced to the disk: what is sent a second time is a duplicate, which is no harm.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from connector.cli.output import plain
from connector.core.interface import Fault
from connector.errors import Conflict, InvalidInput
from connector.model import fields

if TYPE_CHECKING:
    from connector.client.records import Batch
    from connector.client.reporting import Refusal, Taken

FORMAT = "tds-meter-progress/1"
HEAD_BYTES = 65_536  # of the source, by which it is known again
_KEYS = frozenset(
    {"format", "head", "head_bytes", "rows", "accepted", "calls", "already_there"}
    | {"reasons", "refused_bytes"}
)


def progress_path(source: Path, resume: Path | None) -> Path | None:
    """Where it is kept; None for stdin, unless a place was named."""
    if resume is not None or str(source) == "-":
        return resume
    return source.with_name(source.name + ".meter-progress")


@dataclass(slots=True)
class Progress:
    """Totals over all runs; a context manager. ``source`` is None where it cannot be known again.

    Entering it raises ``Conflict`` if what is kept is of another source, ``InvalidInput`` for
    files that cannot be read or written.
    """

    path: Path | None
    source: BinaryIO | None
    refused_to: Path | None
    rows: int = 0  # up to which everything was answered
    accepted: int = 0
    calls: int = 0
    already_there: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tree_size: int = 0
    _head: tuple[str, int] = ("", 0)
    _out: BinaryIO | None = None

    @property
    def refused(self) -> int:
        return self.reasons.total()

    @property
    def kept(self) -> bool:
        return self.path is not None

    def __enter__(self) -> Self:
        told = self._read()
        if self.source is not None:
            self._head = _head(self.source, told.get("head_bytes", HEAD_BYTES))
            if told and self._head != (told["head"], told["head_bytes"]):
                raise Conflict(
                    f"{self.path} is of another file",
                    hint="remove it to begin anew: records that are there already are no harm",
                )
        if told:
            self.rows, self.accepted, self.calls = told["rows"], told["accepted"], told["calls"]
            self.already_there, self.reasons = told["already_there"], Counter(told["reasons"])
        if self.refused_to is not None:
            self._out = _opened(self.refused_to, told.get("refused_bytes"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._out is not None:
            self._out.close()

    def add(self, batch: Batch, taken: Taken | None) -> None:
        """The next batch with its answer."""
        results = iter(taken.results if taken is not None else ())
        for group in batch.groups:
            if group.report is None:
                self._refuse(batch, group.rows.to_pylist(), group.refusal)
                continue
            result = next(results)
            self.accepted += result.count
            self.calls += result.calls
            if result.refusal is not None:
                self._refuse(batch, group.rows.to_pylist(), _why(result.refusal))
            for fault, rows in result.refused.items():
                if fault is Fault.DUPLICATE:
                    self.already_there += len(rows)
                else:
                    why = fault.name.lower()
                    self._refuse(batch, [group.rows[row].as_py() for row in rows], why)
        self.rows = batch.first + batch.count
        if taken is not None:
            self.tree_size = taken.tree_size
        self._write()

    def finish(self) -> None:
        """Everything was answered: the next run begins anew."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _refuse(self, batch: Batch, rows: list[int], why: str) -> None:
        self.reasons[why] += len(rows)
        if self._out is not None:
            for row in rows:
                line = json.dumps(
                    {**plain(batch.row(row)), "refused": why}, ensure_ascii=False, default=str
                )
                self._out.write(line.encode() + b"\n")

    def _write(self) -> None:
        if self._out is not None:
            self._out.flush()
        if self.path is None:
            return
        value = {
            "format": FORMAT,
            "head": self._head[0],
            "head_bytes": self._head[1],
            "rows": self.rows,
            "accepted": self.accepted,
            "calls": self.calls,
            "already_there": self.already_there,
            "reasons": dict(self.reasons),
            "refused_bytes": self._out.tell() if self._out is not None else 0,
        }
        draft = self.path.with_name(self.path.name + ".new")
        try:
            draft.write_bytes(fields.encode_json(value))
            draft.replace(self.path)
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be written: {error.strerror}") from error

    def _read(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}") from error
        value = dict(fields.as_object(fields.parse_json(data, what="progress"), "progress"))
        reasons = value.get("reasons")
        if (
            set(value) != _KEYS
            or value["format"] != FORMAT
            or not isinstance(value["head"], str)
            or not isinstance(reasons, dict)
            or not all(
                type(number) is int and number >= 0
                for number in (
                    *(value[name] for name in _KEYS - {"format", "head", "reasons"}),
                    *reasons.values(),
                )
            )
        ):
            raise InvalidInput(f"{self.path} is no file of this command", hint="remove it")
        return value


def _head(source: BinaryIO, length: int) -> tuple[str, int]:
    """By what a file is known again, although it may have grown."""
    try:
        data = source.read(min(length, HEAD_BYTES))
        source.seek(0)
    except OSError as error:
        raise InvalidInput("the source cannot be read from its begin") from error
    return hashlib.sha256(data).hexdigest(), len(data)


def _opened(path: Path, length: int | None) -> BinaryIO:
    """For writing on at ``length``; without it a file that was not there, or empty."""
    try:
        size = path.stat().st_size if path.exists() else None
        if size is None or (size and not length):
            return path.open("xb")
        file = path.open("r+b")
        file.truncate(min(size, length or 0))
        file.seek(0, 2)
    except FileExistsError as error:
        raise InvalidInput(f"{path} is already there", hint="choose another --refused") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    return file


def _why(refusal: Refusal) -> str:
    if refusal.reasons:
        return ", ".join(sorted({reason.term for reason in refusal.reasons}))
    return refusal.code
