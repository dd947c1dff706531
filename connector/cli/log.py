"""``connector log``: the log itself, as files, who may read it, and whether it is sound."""

from __future__ import annotations

import typer

from connector.cli import log_export, log_fsck

group = typer.Typer(no_args_is_help=True, help="The log itself: its files, keys and readers.")
log_export.register(group)
group.command()(log_fsck.fsck)
