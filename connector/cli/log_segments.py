"""``connector log segments``, ``seal`` and ``drop``: how the log is stored, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli import output
from connector.cli.log_export import with_log
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import InvalidInput
from connector.model import fields

if TYPE_CHECKING:
    from connector.client.log import LogSegment, NodeLog


def segments(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List the segments that the log is stored in."""
    found = with_log(data, lambda log: log.segments())
    if as_json:
        output.show_json({"segments": found})
        return
    _table(found)


def seal(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Compress the segments that are complete, after they were checked."""

    async def run(log: NodeLog) -> list[LogSegment]:
        return [segment async for segment in log.seal()]

    found = with_log(data, run, doing="checking and compressing")
    if as_json:
        output.show_json({"segments": found})
        return
    if found:
        _table(found)
    else:
        output.say("nothing to seal: only complete segments are; connector log segments")


def drop(
    before: Annotated[
        str,
        typer.Option(
            "--before",
            help="A day (UTC) or an RFC 3339 time, before which everything in them had ended.",
            metavar="TIME",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Remove the oldest receipts for ever, a segment at a time; their hashes stay.

    A segment can go when all its receipts are older than TIME and every agreement with a receipt
    in it has ended before TIME.
    """
    time = _time(before)
    found = with_log(data, lambda log: log.droppable(time), doing="asking what can go")
    if not as_json:
        if found.segments:
            leaves = sum(segment.leaves for segment in found.segments)
            output.say(f"{leaves:,} receipts in {len(found.segments)} segments can be dropped:")
            _table(found.segments)
        else:
            output.say("nothing can be dropped")
        if found.kept_by:
            output.say(f"the next segment stays: {found.kept_by}")
    if found.segments:
        if not yes:
            typer.confirm("drop them for ever?", abort=True, err=True)
        chosen = found.segments
        found = with_log(data, lambda log: log.drop(time, chosen), doing="dropping")
    if as_json:
        output.show_json(found)
    elif found.segments:
        output.say("dropped; proofs of what remains are the same as before")


def _table(found: list[LogSegment] | tuple[LogSegment, ...]) -> None:
    output.table(
        ("SEGMENT", "FIRST", "RECEIPTS", "BYTES", "FORM"),
        [
            (segment.start, segment.first, segment.leaves, segment.stored, segment.form)
            for segment in found
        ],
    )


def _time(value: str) -> datetime:
    try:
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return fields.parse_time(value)
    except InvalidInput as error:
        raise InvalidInput(
            "--before: a day as 2026-01-31, or a time as 2026-01-31T00:00:00Z"
        ) from error
