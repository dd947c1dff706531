"""How commands speak: text for people, JSON for programs.

Results go to stdout, everything else (progress, notes, errors in text form) to stderr. On a
terminal tables and spinners are drawn with rich; anywhere else the text is plain, one record a
line, so that it can be piped. With ``--json`` stdout holds exactly one JSON document.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from connector.model.fields import format_time


def plain(value: Any) -> Any:
    """Dataclasses, times and bytes as JSON values: times in RFC 3339, bytes in hexadecimal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def show_json(value: Any) -> None:
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2, default=str) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """One line of the result."""
    sys.stdout.write(_printable(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line beside the result."""
    sys.stderr.write(_printable(text) + "\n")
    sys.stderr.flush()


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Names and values, aligned; empty values are left out."""
    shown = [(name, text(value)) for name, value in rows if text(value)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name:<{width}}  {value}")


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "") -> None:
    """A table; ``empty`` is said when there are no rows."""
    if not rows and empty:
        say(empty)
        return
    cells = [[_printable(text(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headers, cells)
        return
    widths = [
        max(len(header), *(len(row[i]) for row in cells)) if cells else len(header)
        for i, header in enumerate(headers)
    ]
    for row in [list(headers), *cells]:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def text(value: Any) -> str:
    """One cell."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """A spinner on stderr while something takes time; nothing where nobody watches."""
    if not doing or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(drawn)


def _printable(value: str) -> str:
    """Without control characters: what a peer wrote must not drive this terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in value)
