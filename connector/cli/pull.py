"""``connector transfer pull``: the data of a transfer, to a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.cli.transfer import Pid


def pull(
    pid: Pid,
    to: Annotated[Path, typer.Option("--to", help="The file to write.", metavar="FILE")],
    max_size: Annotated[
        int | None,
        typer.Option("--max-size", min=1, help="Mebibytes to take at most.", metavar="MIB"),
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Get the data of a transfer that is STARTED.

    It goes to FILE.part first. If it breaks off, the same command goes on where it stopped. More
    than --max-size, or than the disk has room for, is not taken.
    """
    most = None if max_size is None else max_size << 20
    with _shown() as shown:
        found = with_node(
            data, lambda node: node.pull_to(pid, to, max_bytes=most, on_progress=shown)
        )
    if as_json:
        output.show_json(
            {"path": str(found.path), "bytes": found.size, "resumed_from": found.resumed_from}
        )
        return
    if found.resumed_from:
        output.note(f"went on after {found.resumed_from:,} bytes")
    output.say(f"wrote {found.size:,} bytes to {found.path}")
    output.say(f"next: connector transfer complete {pid}")


@contextmanager
def _shown() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; called with the bytes that are there, and all there will be."""
    if not sys.stderr.isatty():
        yield lambda there, size: None
        return
    from rich import progress as rich
    from rich.console import Console

    bar = rich.Progress(
        rich.DownloadColumn(),
        rich.BarColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None)

        def show(there: int, size: int) -> None:
            bar.update(task, completed=there, total=size if size >= 0 else None)

        yield show
