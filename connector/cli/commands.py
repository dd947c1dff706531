"""All commands in one tree, and the one place where an error becomes text and an exit code."""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from connector.cli import (
    agreements,
    catalog,
    configuration,
    directory,
    failure,
    log,
    meter,
    negotiate,
    node,
    output,
    publish,
    pull,
    query,
    receipts,
    reporters,
    serve,
    transfer,
)
from connector.core.choose import choose, described
from connector.errors import ConnectorError

_ABOUT = """A node of a trusted data space: data usable but invisible, controllable and measurable.

\b
The way of one contract, by hand:
1. the space's operator: directory init, directory serve
2. each organisation:    init, serve
3. both:                 directory invite, then enrol
4. the owner:            publish (and approvals, where a person decides)
5. the user:             catalog search, negotiate, query (or transfer request)
6. both:                 agreements, receipts list, receipts reconcile
   the owner's gateways:  reporters add, then meter
7. for an auditor:       evidence export, then connector-verify anywhere

connector doctor says what is wrong. Exit codes: 0 done, 1 failed or unavailable, 2 wrong input,
3 refused, 4 not found or not possible now, 5 not authenticated, 6 the peer is at fault.
"""

app = typer.Typer(
    name="connector",
    help=_ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(configuration.init)
app.command()(serve.serve)
app.add_typer(directory.group, name="directory")
app.command()(node.enrol)
app.command()(node.status)
app.command()(publish.publish)
app.add_typer(catalog.group, name="catalog")
app.command()(negotiate.negotiate)
app.command()(negotiate.propose)
app.add_typer(negotiate.approvals, name="approvals")
app.add_typer(agreements.group, name="agreements")
app.command()(query.query)
transfer.group.command()(pull.pull)
app.add_typer(transfer.group, name="transfer")
app.command()(meter.meter)
app.add_typer(reporters.group, name="reporters")
app.add_typer(receipts.receipts, name="receipts")
app.add_typer(receipts.evidence, name="evidence")
app.add_typer(log.group, name="log")
app.command()(node.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            output.say(f"connector {version('tds-connector')}")
        except PackageNotFoundError:
            output.say("connector (not installed)")
        output.say(described(choose()))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """One command; gives its exit code. Nothing that is expected leaves as a traceback."""
    as_json = "--json" in arguments
    try:
        found = app(arguments, prog_name="connector", standalone_mode=False)
    except ConnectorError as error:
        return failure.report(error, as_json=as_json)
    except TyperException as error:
        return _usage(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        output.note("interrupted")
        return failure.INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return failure.FAILURE
    return found if isinstance(found, int) else 0


def _usage(error: TyperException, as_json: bool) -> int:
    """A command that was not understood: exit 2, as JSON where JSON was asked for."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "connector"
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        output.say(message or (context.get_help() if context is not None else ""))
        return failure.INVALID
    if as_json:
        found = {"code": "usage", "message": message, "hint": f"{command} --help", "reasons": []}
        output.show_json({"error": found})
    else:
        output.note(f"error: {message}")
        output.note(f"what to do: see {command} --help")
    return failure.INVALID
