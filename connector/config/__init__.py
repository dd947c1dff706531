"""A node's configuration: one TOML file, ``connector.toml``, in its data folder.

Frozen dataclasses with the unit of every number in its comment. An unknown key is an error: a
misspelt security option must never be silent.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from connector.errors import ConfigError, InvalidInput
from connector.model.participant import parse_did
from connector.tlog import note

FILE_NAME = "connector.toml"
HTTP_SOCKET = "management-http.sock"
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit for a Unix socket's path is 107
MAX_FILE_BYTES = 65_536
CORES = ("auto", "python", "native")
MAX_ITEMS = 256  # of a list
MAX_PEER_ID = 256
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104  nobody is told to bind to it
LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
LOG_LEVELS = ("debug", "info", "warning", "error")

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which engine decides. Both give the same answers."""

    engine: str = "embedded"  # embedded or opa
    bundle: str = ""  # folder of the policy bundle; empty: the one that ships with the program
    opa_url: str = "http://127.0.0.1:8181"
    timeout_s: float = 2.0  # seconds for one decision


@dataclass(frozen=True, slots=True)
class Limits:
    """What one use, one peer and the node may take."""

    query_timeout_s: float = 30.0  # seconds of one query
    query_memory_mb: int = 1024  # mebibytes of one worker
    query_threads: int = 2  # of one worker
    workers: int = 2  # query workers at once
    row_cap: int = 100_000  # rows of one result
    result_mb: int = 64  # mebibytes of one result
    result_kept_s: float = 600.0  # seconds that a repeated use_id still gets its result
    refusals_per_minute: int = 600  # receipts for refusals, for each member
    uses_waiting: int = 256  # uses in the gate at once; more are told to come back
    message_mb: int = 4  # mebibytes of one gRPC message


@dataclass(frozen=True, slots=True)
class Reporting:
    """The reporters' door, for programs of the node's own organisation (docs/metering.md)."""

    listen: str = ""  # host:port (mutual TLS with registered certificates); empty: no such door
    endpoint: str = ""  # host:port that reporters dial; empty: as listen


@dataclass(frozen=True, slots=True)
class Management:
    """The management API over HTTP at a port, besides its Unix socket. Plain HTTP on loopback;
    elsewhere TLS with the certificate of ``https``."""

    http: str = ""  # host:port; empty: the Unix socket alone
    token: str = ""  # path of the operator's token; empty: run/management.token


@dataclass(frozen=True, slots=True)
class Https:
    """TLS on the HTTP door: both files (PEM) or neither. They are read again when they change."""

    certificate: str = ""  # path of the certificate and its chain, of the web's PKI
    key: str = ""  # path of its private key


@dataclass(frozen=True, slots=True)
class Dsp:
    """The door of the Dataspace Protocol's HTTPS binding (docs/dsp.md)."""

    listen: str = ""  # host:port; empty: no such door
    url: str = ""  # https://host[:port][/path] that peers reach it by; empty: https://<listen>
    plain_http: bool = False  # without TLS, and towards peers without TLS; on loopback alone
    allow: tuple[str, ...] = ()  # networks and hosts that peers' URLs may name although private


@dataclass(frozen=True, slots=True)
class Peer:
    """A connector outside the space, or a member to be reached over HTTPS all the same."""

    id: str  # its participant id, as its agreements have it
    url: str = ""  # base URL of its HTTPS binding (…/2025-1); empty: only what it begins
    name: str = ""  # for people; empty: its id
    roles: tuple[str, ...] = ("provider", "consumer")  # that policy sees
    accepts: str = ""  # path of the file with the token by which we know it; empty: none does
    presents: str = ""  # path of the file with the token that we show it; empty: none
    ca: str = ""  # path of the certificates (PEM) that its TLS is checked by; empty: the system's


@dataclass(frozen=True, slots=True)
class Automation:
    """Steps that the node makes by itself; each that is off waits for a person."""

    decide: bool = True  # provider: agree to a request that the policy approves
    agree: bool = True  # provider: make the agreement when our offer was accepted
    verify: bool = True  # consumer: sign an agreement that says what was negotiated
    finalize: bool = True  # provider: finalize what the consumer verified
    start: bool = True  # provider: start a transfer that the policy allows


@dataclass(frozen=True, slots=True)
class Log:
    """How the log is stored. What is dropped, and when, is said by hand (connector log drop)."""

    segment_mb: int = 256  # mebibytes of a segment, after which the next one begins
    seal: bool = True  # compress segments that are complete, in the background


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness of this node's log, asked by C2SP tlog-witness."""

    url: str  # its submission prefix: https://host[:port][/path]
    vkey: str  # name+id+key, of type cosignature/v1 (Ed25519)


@dataclass(frozen=True, slots=True)
class Node:
    """An enterprise's node."""

    did: str
    name: str
    listen: str = "127.0.0.1:9443"  # host:port of the gRPC door
    endpoint: str = ""  # host:port that peers dial; empty: as listen
    http: str = "127.0.0.1:9080"  # host:port for health, metrics and tiles
    socket: str = ""  # path of the management socket; empty: run/connector.sock in the data folder
    view_max_age_s: float = 15.0  # seconds; older than this, no peer is served
    drain_s: float = 5.0  # seconds that running uses get on SIGTERM
    log_level: str = "info"  # debug, info, warning or error
    core: str = "auto"  # the metering core: python, native, or auto for native where it is there
    log: Log = field(default_factory=Log)
    https: Https = field(default_factory=Https)
    management: Management = field(default_factory=Management)
    witness: tuple[Witnessed, ...] = ()  # further witnesses of this log, besides the directory
    witness_for: tuple[str, ...] = ()  # vkeys (C2SP signed-note) of logs that it witnesses
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    reporting: Reporting = field(default_factory=Reporting)
    automation: Automation = field(default_factory=Automation)
    dsp: Dsp = field(default_factory=Dsp)
    peer: tuple[Peer, ...] = ()  # connectors that are named here instead of by the directory


@dataclass(frozen=True, slots=True)
class Directory:
    """The space operator's node."""

    did: str
    name: str
    listen: str = "127.0.0.1:9500"  # host:port of the members' door (mutual TLS)
    endpoint: str = ""  # host:port that members dial; empty: as listen
    enrol: str = "127.0.0.1:9501"  # host:port of the enrolment door (TLS, open)
    enrol_endpoint: str = ""  # host:port that candidates dial; empty: as enrol
    http: str = "127.0.0.1:9580"  # host:port for health, metrics and tiles
    socket: str = ""  # path of the management socket; empty: run/connector.sock in the data folder
    heartbeat_s: float = 5.0  # seconds; a third of the members' view_max_age_s
    certificate_days: int = 30  # of a member's TLS certificate
    credential_days: int = 365  # of a membership credential
    drain_s: float = 5.0  # seconds that open calls get on SIGTERM
    log_level: str = "info"  # debug, info, warning or error
    core: str = "auto"  # the metering core: python, native, or auto for native where it is there
    log: Log = field(default_factory=Log)
    https: Https = field(default_factory=Https)
    management: Management = field(default_factory=Management)
    witness: tuple[Witnessed, ...] = ()  # further witnesses of this log
    witness_for: tuple[str, ...] = ()  # vkeys of logs that it witnesses, besides its members'
    policy: Policy = field(default_factory=Policy)


def load_node(data: Path) -> Node:
    """The configuration of the node in the folder ``data``. Raises ``ConfigError``."""
    return _checked(_load(data, Node, role="node"))


def load_directory(data: Path) -> Directory:
    """The configuration of the directory in the folder ``data``. Raises ``ConfigError``."""
    return _checked(_load(data, Directory, role="directory"))


def socket_path(data: Path, configured: str) -> Path:
    """Where the management socket is. Raises ``ConfigError`` if the kernel could not bind it."""
    path = Path(configured) if configured else data.resolve() / "run" / "connector.sock"
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the management socket's path is longer than {MAX_SOCKET_PATH} bytes",
            hint="use a data folder with a shorter path, or set socket in connector.toml",
        )
    return path


def http_socket_path(data: Path, configured: str) -> Path:
    """Where the management socket that speaks HTTP is: beside the other one. Raises as
    ``socket_path``, whose limit leaves room for this longer name."""
    other = socket_path(data, configured)
    return other.with_name(f"{other.stem}-http{other.suffix}" if configured else HTTP_SOCKET)


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` can be reached from this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def role_of(data: Path) -> str:
    """``node`` or ``directory``: which the folder ``data`` was initialised as."""
    return str(_read(data).get("role", ""))


def _read(data: Path) -> Mapping[str, Any]:
    path = data / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no {FILE_NAME} in {data}", hint="run connector init first"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _load(data: Path, kind: type[C], *, role: str) -> C:
    value = dict(_read(data))
    found = value.pop("role", "")
    if found != role:
        raise ConfigError(f"{data / FILE_NAME}: role is {found!r}, wanted {role!r}")
    return _build(kind, value, FILE_NAME)


def _build(kind: type[C], value: Mapping[str, Any], where: str) -> C:
    """A dataclass from a table, by its own annotations."""
    types_of = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(types_of))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}")
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name not in value:
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{where}: {item.name} is missing")
            continue
        arguments[item.name] = _value(
            types_of[item.name], value[item.name], f"{where}: {item.name}"
        )
    return kind(**arguments)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must be a table")
        return _build(typing.cast(type[Any], wanted), value, where)
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise ConfigError(f"{where}: must be a list of at most {MAX_ITEMS}")
        one = typing.get_args(wanted)[0]
        return tuple(_value(one, item, f"{where}[{at}]") for at, item in enumerate(value))
    accepted: types.UnionType | type = int | float if wanted is float else wanted
    if isinstance(value, bool) is not (wanted is bool) or not isinstance(value, accepted):
        raise ConfigError(f"{where}: must be of type {wanted.__name__}")
    if wanted is not bool and isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ConfigError(f"{where}: must be above 0")
    return value


def _checked(config: C) -> C:
    """What holds for both kinds of node and the types do not say."""
    both = typing.cast("Node | Directory", config)
    try:
        parse_did(both.did)
    except InvalidInput as error:
        raise ConfigError(f"did: {error.message}") from error
    if both.policy.engine not in ("embedded", "opa"):
        raise ConfigError("policy.engine: must be embedded or opa")
    if not both.name:
        raise ConfigError("name: must not be empty")
    if both.core not in CORES:
        raise ConfigError(f"core: must be one of {', '.join(CORES)}")
    if both.log_level not in LOG_LEVELS:
        raise ConfigError(f"log_level: must be one of {', '.join(LOG_LEVELS)}")
    if bool(both.https.certificate) != bool(both.https.key):
        raise ConfigError("https: both certificate and key, or neither")
    _check_witnesses(both)
    addresses = {"listen": both.listen, "http": both.http}
    if both.endpoint:
        addresses["endpoint"] = both.endpoint
    if both.management.http:
        addresses["management.http"] = both.management.http
    if isinstance(both, Directory):
        addresses["enrol"] = both.enrol
        if both.enrol_endpoint:
            addresses["enrol_endpoint"] = both.enrol_endpoint
    if isinstance(both, Node):
        told = {
            "reporting.listen": both.reporting.listen,
            "reporting.endpoint": both.reporting.endpoint,
            "dsp.listen": both.dsp.listen,
        }
        addresses |= {name: address for name, address in told.items() if address}
        _check_dsp(both)
    for name, address in addresses.items():
        if not _is_address(address):
            raise ConfigError(f"{name}: must be host:port")
    managed = both.management.http
    if managed and not is_loopback(managed) and not both.https.key:
        raise ConfigError(
            "management.http: plain HTTP is for loopback alone",
            hint="set certificate and key in [https], or listen on 127.0.0.1",
        )
    return config


def _check_dsp(config: Node) -> None:
    dsp = config.dsp
    host = dsp.listen.rpartition(":")[0]
    if dsp.plain_http and host not in LOOPBACK:
        raise ConfigError("dsp.plain_http: only where dsp.listen is on loopback")
    if host in EVERYWHERE and not dsp.url:
        raise ConfigError(
            "dsp.url: is needed where dsp.listen is no address that peers can call",
            hint='say how peers reach the door, as url = "https://data.example:9444"',
        )
    if dsp.url and not is_peer_url(dsp.url, plain_http=dsp.plain_http):
        raise ConfigError("dsp.url: must be https://host[:port][/path]")
    for at, one in enumerate(dsp.allow):
        try:
            ipaddress.ip_network(one)
        except ValueError:
            if not _HOST.fullmatch(one):
                raise ConfigError(f"dsp.allow[{at}]: must be a network or a host name") from None
    names: set[str] = set()
    for at, peer in enumerate(config.peer):
        if not peer.id or len(peer.id) > MAX_PEER_ID or peer.id in {*names, config.did}:
            raise ConfigError(f"peer[{at}].id: must be a participant id of its own")
        names.add(peer.id)
        if peer.presents and not peer.url:
            raise ConfigError(f"peer[{at}].presents: goes to the origin of url, and there is none")
        if peer.url and not is_peer_url(peer.url, plain_http=dsp.plain_http):
            raise ConfigError(
                f"peer[{at}].url: must be https://host[:port][/path]",
                hint="plain http is for loopback alone, and with dsp.plain_http",
            )


def is_peer_url(value: str, *, plain_http: bool) -> bool:
    """As ``is_witness_url``; plain ``http`` must be switched on."""
    return is_witness_url(value) and (plain_http or value.startswith("https:"))


def _check_witnesses(config: Node | Directory) -> None:
    names = set()
    for at, one in enumerate(config.witness):
        if not is_witness_url(one.url):
            raise ConfigError(
                f"witness[{at}].url: must be https://host[:port][/path]",
                hint="plain http is for a witness on this machine's loopback alone",
            )
        key = _vkey(one.vkey, f"witness[{at}].vkey")
        if key.type != note.COSIGNATURE_V1:
            raise ConfigError(f"witness[{at}].vkey: not of type cosignature/v1 (0x04)")
        if key.name in names:
            raise ConfigError(f"witness[{at}].vkey: this name is there twice")
        names.add(key.name)
    for at, value in enumerate(config.witness_for):
        if _vkey(value, f"witness_for[{at}]").type != note.ED25519:
            raise ConfigError(f"witness_for[{at}]: not of type Ed25519 (0x01)")


def is_witness_url(value: str) -> bool:
    """``https://host[:port][/path]``, or ``http`` where the host is this machine's loopback."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    loopback = host in LOOPBACK
    extra = parts.query or parts.fragment or parts.username or parts.password
    plain = value.isascii() and value.isprintable() and " " not in value and not extra
    return (
        bool(host) and plain and (parts.scheme == "https" or (parts.scheme == "http" and loopback))
    )


def _vkey(value: str, where: str) -> note.VerifierKey:
    try:
        return note.parse_verifier_key(value)
    except InvalidInput as error:
        raise ConfigError(f"{where}: {error.message}") from error


def _is_address(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 <= int(port) < 65_536
