"""``connector``: the command line.

One file per command group. Commands talk to the running node through ``connector.client``; none
opens its database or keys. Heavy imports (gRPC, Arrow, the node itself) happen inside the
commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """The ``connector`` command. Leaves by ``SystemExit`` with a code of ``cli.failure``."""
    try:
        from connector.cli.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "connector":
            raise
        sys.stderr.write(
            f"error: {error.name} is not installed: this is the auditor's installation\n"
            "what to do: pip install 'tds-connector[node]' to run a node, "
            "or use connector-verify\n"
        )
        sys.exit(1)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
