"""The Dataspace Protocol over HTTPS, as this node speaks it to others: put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from connector import config
from connector.app.base import Base
from connector.errors import ConfigError, Conflict, InvalidInput, NotFound
from connector.identity.invitations import Space
from connector.model.participant import Participant
from connector.negotiation.service import Negotiations
from connector.ports.negotiation import Post
from connector.transport.http.dsp import paths
from connector.transport.http.dsp.courier import Courier
from connector.transport.http.dsp.holds import Holds
from connector.transport.http.dsp.outgoing import Outgoing
from connector.transport.http.dsp.peers import Known, Peers

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
