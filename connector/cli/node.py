"""``connector enrol``, ``status`` and ``doctor``: a node and its place in the space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector import config
from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json, with_directory, with_node
from connector.errors import ConnectorError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from connector.client import Check, Status

MAX_INVITATION_BYTES = 65_536


def enrol(
    invitation: Annotated[
        str | None, typer.Argument(help="The invitation; - or nothing reads it from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read it from a file.", metavar="FILE")
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Join a space with the invitation that its operator gave you."""
    token = _invitation(invitation, file)
    found = with_node(data, lambda node: node.enrol(token), doing="enrolling")
    if as_json:
        output.show_json(found)
        return
    output.say(f"member of {found.space}")
    output.pairs([("certificate ends", found.certificate_expires)])
    output.say("next: connector publish --help, or connector catalog search")


def status(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Say what this node is and whether it is ready."""
    show_status(with_node(data, lambda node: node.status()), as_json)


def show_status(found: Status, as_json: bool) -> None:
    if as_json:
        output.show_json(found)
        return
    heard = "never" if found.view_age_s < 0 else f"{found.view_age_s:.1f} s ago"
    output.pairs(
        [
            ("name", found.name),
            ("did", found.did),
            ("state", found.state),
            ("space", found.space),
            ("space key", found.space_key),
            ("gRPC", found.endpoint),
            ("HTTP", found.http_endpoint),
            ("receipts in log", found.log_size),
            ("directory heard", heard),
            ("certificate ends", found.certificate_expires),
            ("version", found.version),
        ]
    )


def doctor(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Check the node's health; say what to do about what is wrong."""
    found = _local_checks(data)
    if all(check.ok for check in found):
        try:
            if config.role_of(data) == "directory":
                found += with_directory(data, lambda node: node.diagnose(), doing="checking")
            else:
                found += with_node(data, lambda node: node.diagnose(), doing="checking")
        except Unavailable as error:
            found.append(_check("running", False, error.message, error.hint))
    healthy = all(check.ok for check in found)
    if as_json:
        output.show_json({"healthy": healthy, "checks": found})
    else:
        for check in found:
            output.say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
            if not check.ok and check.hint:
                output.say(f"      what to do: {check.hint}")
    if not healthy:
        raise typer.Exit(1)


def _local_checks(data: Path) -> list[Check]:
    """What can be seen without a running node: the folder, its mode, the configuration."""
    try:
        role = config.role_of(data)
        if role == "directory":
            config.socket_path(data, config.load_directory(data).socket)
        else:
            config.socket_path(data, config.load_node(data).socket)
    except ConnectorError as error:
        return [_check("configuration", False, error.message, error.hint)]
    checks = [_check("configuration", True, f"{config.FILE_NAME} is valid ({role})", "")]
    open_to = data.stat().st_mode & 0o077
    checks.append(
        _check(
            "data folder",
            not open_to,
            "others can enter it" if open_to else "closed to others",
            f"chmod 700 {data}",
        )
    )
    return checks


def _check(name: str, ok: bool, detail: str, hint: str) -> Check:
    from connector.client.types import Check

    return Check(name, ok, detail, hint)


def _invitation(given: str | None, file: Path | None) -> str:
    if file is not None and given is not None:
        raise InvalidInput("give the invitation or --file, not both")
    try:
        if file is not None:
            content = file.read_text(encoding="ascii")
        elif given is None or given == "-":
            content = sys.stdin.read(MAX_INVITATION_BYTES + 1)
        else:
            content = given
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("the invitation cannot be read") from error
    content = content.strip()
    if not 0 < len(content) <= MAX_INVITATION_BYTES:
        raise InvalidInput(
            "there is no invitation",
            hint="paste what connector directory invite printed, or give --file FILE",
        )
    return content
