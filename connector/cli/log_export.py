"""``connector log export`` and ``connector log grant``: the log as files, and who may read it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import Unavailable

if TYPE_CHECKING:
    from connector.client.log import NodeLog

T = TypeVar("T")

GOES_ON = "once the node is there again, the same command goes on where it stopped"

Name = Annotated[
    str, typer.Option("--to", help="For whom; a member's DID also grants to its own tokens.")
]


def export(
    folder: Annotated[Path, typer.Argument(help="The folder to write or to bring up to date.")],
    size: Annotated[
        int, typer.Option("--size", min=0, help="Leaves of the tree; by default as was cosigned.")
    ] = 0,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Leave out the entries: hashes say nothing.")
    ] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Write the log as C2SP tlog-tiles files, for an archive or a static web server."""
    try:
        found = with_log(
            data,
            lambda log: log.export(folder, size=size, hashes_only=hashes_only),
            doing="writing the log's files",
        )
    except Unavailable as error:
        if error.hint:
            raise
        raise Unavailable(error.message, hint=GOES_ON) from error
    if as_json:
        output.show_json(found)
        return
    output.say(f"{folder} has {found.size:,} leaves; files written now: {found.files:,}")
    if found.dropped:
        output.say(
            f"bundles whose entries were dropped, of which there are hashes: {found.dropped:,}"
        )
    if not hashes_only:
        output.say("the entries in it are receipts: hand it to those alone who may see them all")


def grant(
    name: Name,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days that it holds.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Let an auditor read all entries over HTTPS; prints the token, this once."""
    token, expires = with_log(data, lambda log: log.grant(name, days=days))
    if as_json:
        output.show_json({"name": name, "token": token, "expires": expires})
        return
    output.say(token)
    output.note(f"until {expires:%Y-%m-%d %H:%M} UTC; to be sent as: Authorization: Bearer TOKEN")


def grants(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List who may read all entries."""
    found = with_log(data, lambda log: log.grants())
    if as_json:
        output.show_json({"grants": found})
        return
    output.table(
        ("FOR", "MADE", "ENDS"),
        [(one.name, one.made, one.expires) for one in found],
        empty="none; next: connector log grant",
    )


def revoke(
    name: Annotated[str, typer.Argument(help="For whom it was.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Take a grant away, at once."""
    with_log(data, lambda log: log.revoke(name))
    if as_json:
        output.show_json({"name": name})
        return
    output.say("revoked")


def token(
    audience: Annotated[str, typer.Argument(help="The DID of the member whose log it is.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Print a token for one request for a bundle of another member's log."""
    made = with_log(data, lambda log: log.token(audience))
    if as_json:
        output.show_json({"token": made})
        return
    output.say(made)


def keys(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Print this node's verifier keys: of its log, and as a witness of others' logs."""
    found = with_log(data, lambda log: log.keys())
    if as_json:
        output.show_json(found)
        return
    output.say(f"log      {found.log}")
    output.say(f"witness  {found.witness}")


def register(group: typer.Typer) -> None:
    """Put these commands into a group."""
    for command in (export, grant, grants, revoke, token, keys):
        group.command()(command)


def with_log(data: Path, call: Callable[[NodeLog], Awaitable[T]], *, doing: str = "") -> T:
    """As ``session.with_node``, for the log of either kind of node."""
    from connector.client.log import connect_log

    async def run() -> T:
        async with connect_log(data) as log:
            return await call(log)

    with output.busy(doing):
        return asyncio.run(run())
