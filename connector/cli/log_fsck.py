"""``connector log fsck``: every byte of a stopped node's log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli import failure, output
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import Unavailable

if TYPE_CHECKING:
    from connector.app.fsck import Checked, Finding

UNSOUND = 1
UNREADABLE = 2


def fsck(
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Write what is computed from the receipts anew where wrong."),
    ] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Check the whole log of a node that is stopped, from its first byte.

    Exit codes: 0 sound, 1 damaged, 2 it cannot be read, 4 a node has it open.
    """
    from connector.app.fsck import check_log

    try:
        with _progress() as progress:
            found = check_log(data, mend=mend, progress=progress)
    except Unavailable as error:
        failure.report(error, as_json=as_json)
        raise typer.Exit(UNREADABLE) from error
    if as_json:
        output.show_json({"sound": found.sound, "checked": found})
    else:
        _show(found)
    if not found.sound:
        raise typer.Exit(UNSOUND)


def _show(found: Checked) -> None:
    for finding in found.findings:
        output.say(f"{_word(finding)}  {finding.what}{_where(finding)}")
    output.pairs(
        [
            ("log", found.origin or "empty"),
            ("leaves", f"{found.size:,}"),
            ("segments", f"{found.segments:,}, {found.bytes:,} bytes"),
            ("dropped", found.dropped or ""),
        ]
    )
    output.say("the log is sound" if found.sound else "THE LOG IS DAMAGED")
    if not found.sound:
        output.note("what to do: keep this folder as it is; docs/operations.md, A damaged log")


def _word(finding: Finding) -> str:
    if finding.mended:
        return "mended "
    return "DAMAGED" if finding.damage else "note   "


def _where(finding: Finding) -> str:
    places = []
    if finding.segment is not None:
        places.append(f"segment {finding.segment}")
    if finding.leaf is not None:
        places.append(f"from leaf {finding.leaf}")
    return f" ({', '.join(places)})" if places else ""


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
