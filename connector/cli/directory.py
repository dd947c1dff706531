"""``connector directory ...``: the space operator's commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from connector.cli import configuration, output, serve
from connector.cli.node import show_status
from connector.cli.session import DEFAULT_DATA, Data, Json, with_directory
from connector.errors import InvalidInput

group = typer.Typer(no_args_is_help=True, help="The space operator's node.")
group.command("init")(configuration.init_directory)
group.command("serve")(serve.serve_directory)

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

MemberDid = Annotated[str, typer.Argument(help="The member's DID.", metavar="DID")]
Reason = Annotated[str, typer.Option("--reason", help="For the record, and for the member.")]


@group.command()
def invite(
    organisation: Annotated[str, typer.Argument(help="The organisation's name.")],
    role: Annotated[
        list[str] | None, typer.Option("--role", help="provider or consumer; repeatable.")
    ] = None,
    did: Annotated[str, typer.Option("--did", help="Only this DID may use it.")] = "",
    valid: Annotated[
        str, typer.Option("--valid", help="How long it holds, as 90s, 30m, 12h or 7d.")
    ] = "1d",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write it to a file of mode 0600.", metavar="FILE"),
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Make a one-time invitation; it pins the space's key."""
    if not role:
        raise InvalidInput("an invitation names roles", hint="add --role provider or consumer")
    seconds = duration(valid)
    found = with_directory(
        data,
        lambda node: node.invite(organisation, roles=role, did=did, valid_s=seconds),
    )
    if out is not None:
        write_private(out, found.invitation + "\n")
    if as_json:
        output.show_json(found)
        return
    output.note(f"for {organisation}; it can be used once, until {output.text(found.expires)}")
    if out is None:
        output.note("hand it over by a channel that you trust:")
        output.say(found.invitation)
    else:
        output.say(f"wrote {out}")


@group.command()
def members(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List all members."""
    found = with_directory(data, lambda node: node.members())
    if as_json:
        output.show_json({"members": found})
        return
    output.table(
        ("DID", "NAME", "ROLES", "STATE", "ENDPOINT", "WITNESSED"),
        [(m.did, m.name, m.roles, m.state, m.endpoint, m.witnessed_size) for m in found],
        empty="no members yet; next: connector directory invite",
    )


@group.command()
def suspend(
    did: MemberDid, reason: Reason, data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Suspend a member: every node refuses it, and its running uses stop."""
    _set(did, "suspended", reason, data, as_json)


@group.command()
def restore(
    did: MemberDid, reason: Reason, data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Lift a suspension."""
    _set(did, "active", reason, data, as_json)


@group.command()
def revoke(
    did: MemberDid, reason: Reason, data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Revoke a membership; that is final."""
    _set(did, "revoked", reason, data, as_json)


@group.command()
def status(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Say what the directory is and whether it is ready."""
    show_status(with_directory(data, lambda node: node.status()), as_json)


def _set(did: str, state: str, reason: str, data: Path, as_json: bool) -> None:
    event = with_directory(data, lambda node: node.set_membership(did, state, reason=reason))
    if as_json:
        output.show_json({"did": did, "state": state, "event_number": event})
        return
    output.say(f"{did} is now {state} (membership event {event})")


def duration(value: str) -> int:
    """Seconds from ``90s``, ``30m``, ``12h`` or ``7d``. Raises ``InvalidInput``."""
    match = _DURATION.fullmatch(value)
    if match is None or not int(match[1]):
        raise InvalidInput("--valid: must be a number with s, m, h or d, as 12h")
    return int(match[1]) * _SECONDS[match[2]]


def write_private(path: Path, content: str) -> None:
    """A new file of mode 0600. Raises ``InvalidInput`` if it is there or cannot be written."""
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(content, encoding="utf-8")
    except FileExistsError as error:
        raise InvalidInput(f"{path} is already there", hint="choose another name") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
