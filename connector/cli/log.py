"""``connector log``: the log itself, as files, and who may read it."""

from __future__ import annotations

import typer

from connector.cli import log_export

group = typer.Typer(no_args_is_help=True, help="The log itself: its files, keys and readers.")
log_export.register(group)
