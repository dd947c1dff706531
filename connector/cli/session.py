"""What every command shares: the data folder, the output form, and the way to the node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from connector.cli import output

if TYPE_CHECKING:
    from connector.client import DirectoryNode, Node

T = TypeVar("T")

DEFAULT_DATA = Path("connector-data")

Data = Annotated[
    Path,
    typer.Option("--data", envvar="CONNECTOR_DATA", help="The node's data folder.", metavar="DIR"),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, errors too.")]


def with_node(data: Path, call: Callable[[Node], Awaitable[T]], *, doing: str = "") -> T:
    """Runs ``call`` with a connection to the node in ``data``; ``doing`` is what a person who
    waits is told. Raises the classes of ``connector.errors``."""
    import stamina.instrumentation

    from connector.client import connect

    stamina.instrumentation.set_on_retry_hooks([])  # its default hook writes to stdout

    async def run() -> T:
        async with connect(data) as node:
            return await call(node)

    with output.busy(doing):
        return asyncio.run(run())


def with_directory(
    data: Path, call: Callable[[DirectoryNode], Awaitable[T]], *, doing: str = ""
) -> T:
    """As ``with_node``, for the directory in ``data``."""
    from connector.client import connect_directory

    async def run() -> T:
        async with connect_directory(data) as directory:
            return await call(directory)

    with output.busy(doing):
        return asyncio.run(run())
