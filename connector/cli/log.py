"""``connector log``: the log itself, as files, who may read it, and whether it is sound."""

from __future__ import annotations

import typer

from connector.cli import log_export, log_fsck, log_segments

group = typer.Typer(no_args_is_help=True, help="The log itself: its files, keys and readers.")
log_export.register(group)
for command in (log_segments.segments, log_segments.seal, log_segments.drop, log_fsck.fsck):
    group.command()(command)
