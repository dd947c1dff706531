"""The Dataspace Protocol over HTTPS, as this node speaks it to others: put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from connector import config
from connector.app.base import Base
from connector.errors import ConfigError, Conflict, InvalidInput, NotFound, Unavailable
from connector.gate.pulls import Pulls
from connector.identity.invitations import Space
from connector.identity.statements import public_bytes
from connector.model.participant import Participant
from connector.negotiation.service import Negotiations
from connector.ports.datasets import DatasetStore
from connector.ports.negotiation import Post
from connector.transport.calls import OpenCalls, Watch
from connector.transport.http.dsp import door, paths, pull
from connector.transport.http.dsp.authority import MemberTokens, StaticTokens, by_bearer
from connector.transport.http.dsp.courier import Courier
from connector.transport.http.dsp.did import did_document
from connector.transport.http.dsp.door import Sources
from connector.transport.http.dsp.download import Downloads
from connector.transport.http.dsp.holds import Holds
from connector.transport.http.dsp.outgoing import Outgoing
from connector.transport.http.dsp.peers import Known, Peers
from connector.transport.http.server import HttpDoor
from connector.transport.http.tls import ServerTls

log = structlog.get_logger()

MAX_FILE = 65_536  # bytes of a token's or certificates' file


@dataclass(frozen=True, slots=True)
class Reach:
    """How other connectors are reached. ``root``: the URL below which they reach us, empty where
    there is no door; ``holds``: which of our processes are being answered there."""

    lookup: Callable[[str], Participant]
    outgoing: Outgoing
    peers: Peers
    holds: Holds
    root: str

    async def address(self, peer: str) -> str:
        """As ``Peers.address``. Raises ``Conflict`` where the peer could not answer."""
        if not self.root and self.lookup(peer).signs:
            return ""
        found = await self.peers.address(peer)
        if not self.root:
            raise Conflict(
                "the peer is reached over HTTPS, and could not reach this node",
                hint="set dsp.listen in connector.toml",
            )
        return found

    def check_address(self, url: str) -> None:
        """A callbackAddress that is certainly not to be called. Raises ``InvalidInput``."""
        self.outgoing.target(url, "callbackAddress")

    def courier(self, negotiations: Negotiations) -> Courier:
        return Courier(
            negotiations,
            self.outgoing,
            introduce=self.peers.introduce,
            callback=self.root + paths.BASE,
            peer_pid=partial(_peer_pid, negotiations),
            free=self.holds.free,
        )

    def downloads(self, negotiations: Negotiations) -> Downloads:
        return Downloads(
            self.outgoing,
            transfer=negotiations.transfers.transfer,
            renewed=negotiations.transfers.renewed,
            trust=lambda peer: self.peers.trust(self.lookup(peer)),
        )


@asynccontextmanager
async def open_reach(
    base: Base[config.Node], space: Space, lookup: Callable[[str], Participant]
) -> AsyncIterator[Reach]:
    """Raises ``ConfigError``."""
    settings = base.settings
    outgoing = Outgoing(settings.dsp.allow, plain_http=settings.dsp.plain_http)
    try:
        peers = Peers(
            ourselves=base.ourselves,
            outgoing=outgoing,
            known=[_known(base.data, one) for one in settings.peer],
            lookup=lookup,
            authority=space.ca.decode(),
            clock=base.clock,
        )
        yield Reach(lookup, outgoing, peers, Holds(), root_url(settings.dsp))
    finally:
        await outgoing.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What the door serves. ``members`` gives the record of an active member, ``ready`` says why
    peers would not be served now, or nothing; its requests are among ``calls`` while they run."""

    negotiations: Negotiations
    datasets: DatasetStore
    pulls: Pulls
    members: Callable[[str], Participant]
    ready: Callable[[], str]
    calls: OpenCalls


@asynccontextmanager
async def open_door(base: Base[config.Node], reach: Reach, behind: Behind) -> AsyncIterator[None]:
    """Serve DSP's HTTPS binding until the end of the context, if there is to be a door.

    Raises ``ConfigError`` and, where the port is taken, ``Unavailable``.
    """
    settings = base.settings.dsp
    if not reach.root:
        yield
        return
    known = by_bearer(
        [
            StaticTokens(_accepted(base), reach.lookup),
            MemberTokens(base.ourselves.did, behind.members, base.clock),
        ]
    )

    async def authenticate(header: str) -> Participant:
        participant = await known(header)
        if reason := behind.ready():
            raise Unavailable(reason, hint="try again in a moment")
        return participant

    transfers = behind.negotiations.transfers
    sources = Sources(
        did=base.ourselves.did,
        root=reach.root,
        formats=behind.pulls.formats,
        document=did_document(
            base.ourselves.did,
            public_bytes(base.ourselves.signing_key),
            root=reach.root,
            endpoint=base.settings.endpoint or base.settings.listen,
        ),
        authenticate=authenticate,
        receive=behind.negotiations.receive,
        negotiation=behind.negotiations.negotiation,
        transfer=transfers.transfer,
        agreement=behind.negotiations.agreement,
        datasets=behind.datasets,
        holds=reach.holds,
        watch=Watch(behind.calls, base.clock, base.metrics.call),
        check_address=reach.check_address,
    )
    app = door.serving([*door.routes(sources), *pull.routes(behind.pulls)])
    # The space's certificate serves where the operator has none of the web's PKI.
    tls = None if settings.plain_http else base.tls() or ServerTls(*base.keys.tls_paths())
    http = HttpDoor(app, settings.listen, tls, setting="dsp.listen")
    address = await http.open()
    try:
        log.info("the node serves the Dataspace Protocol", door=address, url=reach.root)
        yield
    finally:
        await http.close()


def _accepted(base: Base[config.Node]) -> dict[str, str]:
    """The tokens that configured peers show."""
    return {
        peer.id: read_token(base.data / peer.accepts) for peer in base.settings.peer if peer.accepts
    }


def root_url(dsp: config.Dsp) -> str:
    """Where peers reach the door; empty without one."""
    scheme = "http" if dsp.plain_http else "https"
    return (dsp.url or f"{scheme}://{dsp.listen}").rstrip("/") if dsp.listen else ""


def read_token(path: Path) -> str:
    """What a file says in one line; read each time, so that it can be changed. Raises
    ``ConfigError``."""
    token = _read(path).strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise ConfigError(f"{path} holds no token: one line of printable ASCII")
    return token


def _known(data: Path, peer: config.Peer) -> Known:
    presents: Callable[[], str] = lambda: ""  # noqa: E731
    if peer.presents:
        presents = partial(read_token, data / peer.presents)
        presents()  # a file that is not there is said at the start
    authority = _read(data / peer.ca) if peer.ca else ""
    return Known(peer.id, peer.url, presents, authority)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ConfigError(f"{path} is larger than {MAX_FILE} bytes")
        return content.decode("ascii")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not ASCII") from error


async def _peer_pid(negotiations: Negotiations, post: Post) -> str:
    """Of the process that a post is of, as far as it is known."""
    try:
        return (await negotiations.negotiation(post.pid)).peer_pid
    except NotFound:
        pass
    try:
        return (await negotiations.transfers.transfer(post.pid)).peer_pid
    except NotFound as error:
        raise InvalidInput("a message of a process that is forgotten") from error
