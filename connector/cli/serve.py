"""``connector serve`` and ``connector directory serve``: the two that run until SIGTERM.

A short banner goes to stdout; the structured log goes to stderr. Everything else is the
composition root's (``connector.app``).
"""

from __future__ import annotations

from pathlib import Path

from connector import config
from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import ConfigError


def serve(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Run this organisation's node until SIGTERM."""
    _refuse_role(data, "directory", "connector directory serve")
    node = config.load_node(data)
    socket = config.socket_path(data, node.socket)
    _banner("node", node, socket, data, as_json)
    from connector.app.node import run

    run(data)


def serve_directory(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Run the space operator's node until SIGTERM."""
    _refuse_role(data, "node", "connector serve")
    directory = config.load_directory(data)
    socket = config.socket_path(data, directory.socket)
    _banner("directory", directory, socket, data, as_json)
    from connector.app.directory import run

    run(data)


def _refuse_role(data: Path, role: str, command: str) -> None:
    if config.role_of(data) == role:
        raise ConfigError(f"{data} belongs to a {role}", hint=f"use {command} --data {data}")


def _banner(
    role: str, found: config.Node | config.Directory, socket: Path, data: Path, as_json: bool
) -> None:
    if as_json:
        output.show_json(
            {
                "role": role,
                "did": found.did,
                "listen": found.listen,
                "http": found.http,
                "socket": str(socket),
                "data": str(data),
            }
        )
        return
    output.say(f"{role} of {found.name} ({found.did})")
    rows = [("gRPC", found.listen), ("HTTP", f"{found.http}  (health, metrics, tiles)")]
    if isinstance(found, config.Directory):
        rows.insert(1, ("enrolment", found.enrol))
    rows += [("data", str(data)), ("management", str(socket))]
    rows += [("and over HTTP", str(config.http_socket_path(data, found.socket)))]
    if found.management.http:
        rows += [("and at", found.management.http)]
    output.pairs(rows)
    output.say("stop it with Ctrl-C or SIGTERM; the log is on stderr")
