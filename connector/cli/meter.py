"""``connector meter``: report the uses in a file, as a reporter or as the node's operator.

A file beside the source says up to which row everything was answered. After a crash the same
command goes on from there; what it sends a second time is refused as a duplicate, without harm.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from connector.cli import output
from connector.cli.failure import REFUSED
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import ConnectorError, InvalidInput

if TYPE_CHECKING:
    from connector.cli.progress import Progress
    from connector.client.records import Batch
    from connector.client.reporting import Reporting, Taken

STDIN = Path("-")


def meter(
    source: Annotated[
        Path,
        typer.Option("--from", help="A file of use records; - for stdin.", metavar="FILE"),
    ],
    form: Annotated[
        str, typer.Option("--format", help="jsonl, csv or parquet; by default the name's end.")
    ] = "",
    reporter: Annotated[
        Path | None,
        typer.Option(
            "--reporter",
            help="The file that connector reporters add wrote; without it, the node of --data.",
            metavar="FILE",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=10_000, help="Records in one message.")
    ] = 1000,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", help="Write refused records here.", metavar="FILE"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            help="Where to keep how far it got; by default FILE.meter-progress.",
            metavar="FILE",
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to wait for a node that is away.")
    ] = 60.0,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Report uses from JSON Lines, CSV or Parquet; exit 3 if any was refused.

    Columns: agreement, use_id, served (RFC 3339 or milliseconds), purpose (none: empty), calls
    (none: 1), and rows_scanned, rows_returned, bytes_returned, duration_ms, groups_withheld,
    cells_withheld (none: 0).
    """
    import stamina.instrumentation

    from connector.cli.progress import Progress, progress_path
    from connector.client.records import Form, form_of, read_batches

    stamina.instrumentation.set_on_retry_hooks([])  # its default hook writes to stdout
    if form and form not in list(Form):
        raise InvalidInput(f"--format: one of {', '.join(Form)}")
    found = Form(form) if form else form_of(source)
    if source == STDIN and found is Form.PARQUET:
        raise InvalidInput("Parquet cannot be read from stdin", hint="it begins at its end")
    with ExitStack() as stack:
        file = stack.enter_context(_opened(source))
        progress = stack.enter_context(
            Progress(progress_path(source, resume), file if source != STDIN else None, refused)
        )
        if progress.rows:
            output.note(f"going on after row {progress.rows:,}")
        shown = stack.enter_context(_shown(file, source))
        batches = read_batches(file, found, batch, progress.rows)
        try:
            asyncio.run(_send(batches, reporter or data, patience, progress, shown))
        except ConnectorError:
            if progress.rows and progress.kept:
                output.note(f"answered up to row {progress.rows:,}; the same command goes on there")
            raise
        progress.finish()
    _tell(progress, as_json)
    if progress.refused:
        raise typer.Exit(REFUSED)


async def _send(
    batches: Iterator[Batch], place: Path, patience: float, progress: Progress, shown: Any
) -> None:
    """Batches travel ahead of their answers, which are counted in order."""
    from connector.client.reporting import WINDOW, Reporting

    async with Reporting(place, patience_s=patience) as reporting:
        under_way: deque[tuple[Batch, asyncio.Task[Taken | None]]] = deque()

        async def settle() -> None:
            batch, task = under_way[0]
            taken = await task
            progress.add(batch, taken)
            shown(batch.count)
            under_way.popleft()

        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                under_way.append((batch, asyncio.create_task(_report(reporting, batch))))
                if len(under_way) >= WINDOW:
                    await settle()
            while under_way:
                await settle()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def _report(reporting: Reporting, batch: Batch) -> Taken | None:
    reports = [group.report for group in batch.groups if group.report is not None]
    return await reporting.report(reports) if reports else None


@contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    if source == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def _shown(file: BinaryIO, source: Path) -> Iterator[Any]:
    """A bar on a terminal; called with the number of rows that were answered."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich import progress as rich
    from rich.console import Console

    bar = rich.Progress(
        rich.TextColumn("{task.fields[rows]:,} rows"),
        rich.BarColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        size = None if source == STDIN else source.stat().st_size
        task = bar.add_task("", total=size, rows=0)
        answered = 0

        def show(rows: int) -> None:
            nonlocal answered
            answered += rows
            place = None if size is None else file.tell()
            bar.update(task, rows=answered, completed=place)

        yield show


def _tell(progress: Progress, as_json: bool) -> None:
    reasons = dict(sorted(progress.reasons.items()))
    if as_json:
        output.show_json(
            {
                "rows": progress.rows,
                "accepted": progress.accepted,
                "calls": progress.calls,
                "already_there": progress.already_there,
                "refused": reasons,
                "tree_size": progress.tree_size,
            }
        )
        return
    output.pairs(
        [
            ("accepted", f"{progress.accepted:,} records, {progress.calls:,} calls"),
            ("already there", f"{progress.already_there:,}" if progress.already_there else ""),
            *((f"refused: {reason}", f"{count:,}") for reason, count in reasons.items()),
        ]
    )
