"""``connector init`` and ``connector directory init``: a data folder with a commented
``connector.toml``.

The comments come from the defaults of ``connector.config``, so they cannot say something else
than what the program does. Keys are made by the node itself when it first starts.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from connector import config
from connector.cli import output
from connector.cli.session import DEFAULT_DATA, Data, Json
from connector.errors import Conflict, InvalidInput

DSP = "127.0.0.1:9480"  # where a new node serves the Dataspace Protocol, unless told otherwise

_ABOUT = {
    "did": "the organisation's identifier, a did:web",
    "name": "the organisation's name, for people",
    "listen": "host:port of the gRPC door (mutual TLS)",
    "endpoint": "host:port that peers dial, when it differs from listen",
    "enrol": "host:port of the enrolment door (TLS, open to candidates)",
    "enrol_endpoint": "host:port that candidates dial, when it differs from enrol",
    "http": "host:port for health, metrics and log tiles",
    "socket": "path of the management socket; by default run/connector.sock in this folder",
    "view_max_age_s": "seconds; with an older view of the directory no peer is served",
    "heartbeat_s": "seconds between the directory's heartbeats; a third of view_max_age_s",
    "certificate_days": "days that a member's TLS certificate holds",
    "credential_days": "days that a membership credential holds",
    "drain_s": "seconds that running work gets on SIGTERM",
    "core": "the metering core: auto, python or native",
    "log_level": "debug, info, warning or error",
    "management.http": "host:port of the management API over HTTP; empty for its Unix socket alone",
    "management.token": "path of the token for it; by default run/management.token in this folder",
    "https.certificate": "path of the HTTP door's certificate chain (PEM); empty for plain HTTP",
    "https.key": "path of that certificate's private key (PEM)",
    "witness": "further witnesses of this log; for each a table [[witness]] with url and vkey",
    "witness_for": 'vkeys of logs that this node witnesses, as ["log.example+0123abcd+AQ..."]',
    "log.segment_mb": "mebibytes of a segment of the log",
    "log.seal": "compress segments that are complete, in the background",
    "policy.engine": "embedded, or opa for an OPA server; both give the same answers",
    "policy.bundle": "folder of the policy bundle; empty for the one that ships",
    "policy.opa_url": "the OPA server",
    "policy.timeout_s": "seconds for one decision; later means refused",
    "limits.query_timeout_s": "seconds of one query",
    "limits.query_memory_mb": "mebibytes of one query worker",
    "limits.query_threads": "threads of one query worker",
    "limits.workers": "query workers at once",
    "limits.row_cap": "rows of one result",
    "limits.result_mb": "mebibytes of one result",
    "limits.result_kept_s": "seconds that a repeated use_id still gets its result",
    "limits.refusals_per_minute": "receipts for refusals, for each member",
    "limits.uses_waiting": "uses at once; more are told to come back",
    "limits.message_mb": "mebibytes of one gRPC message",
    "automation.decide": "as a provider, agree to a request that the policy approves",
    "automation.agree": "as a provider, make the agreement when our offer was accepted",
    "automation.verify": "as a consumer, sign an agreement that says what was negotiated",
    "automation.finalize": "as a provider, finalize what the consumer verified",
    "automation.start": "as a provider, start a transfer that the policy allows",
    "dsp.listen": "host:port of the Dataspace Protocol's HTTPS door; empty for none",
    "dsp.url": "https://host[:port][/path] that peers reach it by, when it differs from listen",
    "dsp.plain_http": "without TLS; on loopback alone, for trying things out",
    "dsp.allow": "networks and hosts that a peer's URLs may name although they are private",
    "peer": "connectors outside the space; for each a table [[peer]], see docs/dsp.md",
    "reporting.listen": "host:port of the door for reporters, as 127.0.0.1:9445; empty for none",
    "reporting.endpoint": "host:port that reporters dial, when it differs from listen",
}


def render(kind: type[config.Node] | type[config.Directory], values: dict[str, str]) -> str:
    """``connector.toml`` with ``values`` set and every other key as a comment."""
    role = "node" if kind is config.Node else "directory"
    lines = [
        "# Read once at start; an unknown key is an error.",
        "# A line that starts with # shows the default.",
        "",
        f'role = "{role}"',
    ]
    tables: list[tuple[str, Any]] = []
    for field in dataclasses.fields(kind):
        default = (
            field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default
        )
        if dataclasses.is_dataclass(default):
            tables.append((field.name, default))
        else:
            lines += _entry(field.name, field.name, values.get(field.name), default)
    for name, defaults in tables:
        lines += ["", f"[{name}]"]
        for field in dataclasses.fields(defaults):
            key = f"{name}.{field.name}"
            lines += _entry(key, field.name, values.get(key), getattr(defaults, field.name))
    return "\n".join(lines) + "\n"


def _entry(key: str, name: str, value: str | None, default: Any) -> list[str]:
    about = f"# {_ABOUT.get(key, name)}"
    if value:
        return [about, f"{name} = {_toml(value)}"]
    return [about, f"# {name} = {_toml(default)}"]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings take JSON's escapes
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)


def write(data: Path, content: str) -> Path:
    """The folder (0700) and its configuration (0600). Raises ``Conflict`` if there is one."""
    path = data / config.FILE_NAME
    if path.exists():
        raise Conflict(
            f"there is already a {config.FILE_NAME} in {data}",
            hint="edit it, or choose another folder with --data",
        )
    if data.exists() and any(data.iterdir()):
        raise Conflict(f"{data} is not empty", hint="choose an empty or new folder with --data")
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        path.touch(mode=0o600)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    return path


Did = Annotated[
    str, typer.Option("--did", help="A did:web that is yours, as did:web:airport.example.")
]
Name = Annotated[str, typer.Option("--name", help="The organisation's name, for people.")]
Listen = Annotated[
    str, typer.Option("--listen", help="host:port of the gRPC door.", metavar="HOST:PORT")
]
Endpoint = Annotated[
    str,
    typer.Option(
        "--endpoint", help="host:port that others dial, if not --listen.", metavar="HOST:PORT"
    ),
]
Http = Annotated[
    str,
    typer.Option("--http", help="host:port for health, metrics and tiles.", metavar="HOST:PORT"),
]


def init(
    did: Did,
    name: Name,
    listen: Listen = "",
    endpoint: Endpoint = "",
    http: Http = "",
    dsp: Annotated[
        str,
        typer.Option(
            "--dsp",
            help="host:port of the Dataspace Protocol's HTTPS door; '' for none.",
            metavar="HOST:PORT",
        ),
    ] = DSP,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Make a data folder for a new node."""
    values = {"did": did, "name": name, "listen": listen, "endpoint": endpoint, "http": http}
    values["dsp.listen"] = dsp
    _create(config.Node, values, data, as_json, "connector serve")


def init_directory(
    did: Did,
    name: Name,
    listen: Listen = "",
    endpoint: Endpoint = "",
    enrol: Annotated[
        str, typer.Option("--enrol", help="host:port of the enrolment door.", metavar="HOST:PORT")
    ] = "",
    enrol_endpoint: Annotated[
        str,
        typer.Option(
            "--enrol-endpoint",
            help="host:port that candidates dial, if not --enrol.",
            metavar="HOST:PORT",
        ),
    ] = "",
    http: Http = "",
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Make a data folder for a new directory, the space operator's node."""
    values = {
        "did": did,
        "name": name,
        "listen": listen,
        "endpoint": endpoint,
        "enrol": enrol,
        "enrol_endpoint": enrol_endpoint,
        "http": http,
    }
    _create(config.Directory, values, data, as_json, "connector directory serve")


def _create(
    kind: type[config.Node] | type[config.Directory],
    values: dict[str, str],
    data: Path,
    as_json: bool,
    serve: str,
) -> None:
    content = render(kind, values)
    load = config.load_node if kind is config.Node else config.load_directory
    path = write(data, content)
    try:
        found = load(data)
        config.socket_path(data, found.socket)
    except InvalidInput:
        path.unlink()  # nothing half made stays behind
        raise
    if as_json:
        output.show_json({"data": str(data), "config": str(path), "did": values["did"]})
        return
    output.say(f"wrote {path}")
    output.say(f"next: {serve} --data {data}")
