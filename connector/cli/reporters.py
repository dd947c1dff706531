"""``connector reporters``: which programs of this organisation may report uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import InvalidInput

group = typer.Typer(no_args_is_help=True, help="Programs of this organisation that report uses.")

Name = Annotated[
    str, typer.Argument(help="1 to 64 visible ASCII characters; its receipts carry it.")
]


@group.command()
def add(
    name: Name,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; by default NAME.reporter.", metavar="FILE"),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3650, help="Days that its certificate holds.")
    ] = 365,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Let a program report uses; writes the file with the key that it needs."""
    from connector.adapters.clock import SystemClock
    from connector.identity.certificates import make_tls_key
    from connector.identity.reporters import (
        ReporterFile,
        key_pem,
        make_certificate,
        require_name,
        write_file,
    )

    path = out if out is not None else _path(require_name(name))
    key = make_tls_key()
    certificate = make_certificate(key, name, SystemClock().now(), days)
    _reserve(path)
    try:
        door = with_node(data, lambda node: node.add_reporter(name, certificate))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    file = ReporterFile(door.endpoint, name, key_pem(key), certificate, door.certificate)
    try:
        path.write_bytes(write_file(file))
    except OSError as error:
        with_node(data, lambda node: node.remove_reporter(name))
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    if as_json:
        output.show_json({"name": name, "endpoint": door.endpoint, "path": str(path)})
        return
    output.say(f"wrote {path}; it holds a private key, so hand it over with care")
    output.say(f"next, where the program runs: connector meter --from FILE --reporter {path}")


@group.command("list")
def list_reporters(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List who may report."""
    found = with_node(data, lambda node: node.reporters())
    if as_json:
        output.show_json({"reporters": found})
        return
    output.table(
        ("NAME", "ADDED", "CERTIFICATE ENDS", "THUMBPRINT"),
        [(one.name, one.added, one.expires, one.thumbprint) for one in found],
        empty="none yet; next: connector reporters add",
    )


@group.command()
def remove(name: Name, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Let a program report no more; its running streams are cut."""
    streams = with_node(data, lambda node: node.remove_reporter(name))
    if as_json:
        output.show_json({"name": name, "streams": streams})
        return
    output.say(f"removed; streams that were cut: {streams}")


def _path(name: str) -> Path:
    if "/" in name or name.startswith("."):
        raise InvalidInput("this name makes no file name", hint="say which with --out FILE")
    return Path(f"{name}.reporter")


def _reserve(path: Path) -> None:
    """An empty file of mode 0600 that was not there before."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise InvalidInput(f"{path} is already there", hint="choose another --out") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
