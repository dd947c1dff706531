"""Other connectors over the HTTPS binding of DSP 2025-1: how each is reached, and what it offers.

A peer is one of

* a *member of the space*: it is known by the space's CA and the name that follows from its DID,
  and gets a token of ours that is good for it alone;
* a connector that ``connector.toml`` names (``Known``): known by the web's PKI or a CA of its own,
  and shown the token that was agreed on with it, at the origin of its URL and nowhere else;
* any other, by a DID or a URL: its catalogue can be read if it is open, and no more.

Members with an endpoint in their record are reached over gRPC, unless their URL is configured.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from connector.errors import (
    ConnectorError,
    InvalidInput,
    NotFound,
    PeerFault,
    RateLimited,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.identity.ourselves import Ourselves
from connector.model import fields
from connector.model.participant import Participant, host_label
from connector.ports.clock import Clock
from connector.ports.peers import FoundPeer, PeerDataset, PeerPage
from connector.transport.http.dsp import codec, dcat, discovery, paths, reading
from connector.transport.http.dsp.authority import issue_dsp_token
from connector.transport.http.dsp.outgoing import WEB, Answer, Outgoing, Trust, Way

MAX_CATALOG = 8 << 20  # bytes of one page
MAX_DATASET = 1 << 20
CATALOG_S = 30.0  # seconds for one page
FOUND_S = 300.0  # seconds that what a DID document said is believed
_MAX_FOUND = 1000
_MAX_SAID = 10  # of the datasets that are left out, in the log
_SMALL = 65_536  # bytes that are read without leaving the event loop
_NEXT = re.compile(r'<([^<>"\s]{1,2048})>((?:\s*;\s*[a-zA-Z*-]+\s*=\s*(?:"[^"]*"|[^",;\s]+))*)')
_IS_NEXT = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)', re.IGNORECASE)

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """A peer of ``connector.toml``. ``url``: its base URL, may be empty. ``authority``: PEM of the
    CA by which its certificate is checked; empty for the system's roots."""

    id: str
    url: str = ""
    presents: Callable[[], str] = lambda: ""
    authority: str = ""


class Peers:
    """``lookup`` gives the record of who may be dealt with now, or raises. ``authority`` is the
    PEM of the space's CA."""

    def __init__(
        self,
        *,
        ourselves: Ourselves,
        outgoing: Outgoing,
        known: Iterable[Known],
        lookup: Callable[[str], Participant],
        authority: str,
        clock: Clock,
    ) -> None:
        self._ourselves = ourselves
        self._outgoing = outgoing
        self._known = {one.id: replace(one, url=one.url.rstrip("/")) for one in known}
        self._lookup = lookup
        self._authority = authority
        self._clock = clock
        self._found: dict[str, tuple[float, str]] = {}

    # How a peer is reached.

    async def introduce(self, peer: str, address: str) -> Way:
        """For one request to ``peer`` (its id) at ``address``: a token may be good once.

        Raises what ``lookup`` does, and ``InvalidInput`` for an address that is no URL.
        """
        participant = self._lookup(peer)
        trust = self.trust(participant)
        known = self._known.get(peer)
        if known is not None and (token := known.presents()):
            return Way(trust, self._if_same_origin(token, known, address), participant.signs)
        if not participant.signs:
            return Way(trust)
        token = issue_dsp_token(
            self._ourselves.signing_key,
            did=self._ourselves.did,
            audience=peer,
            clock=self._clock,
        )
        return Way(trust, f"Bearer {token}", signs=True)

    def trust(self, participant: Participant) -> Trust:
        """Whose certificate is believed to be this peer's.

        A member's may be the space's, which names the member, or one of the web's for the host
        that the member itself named.
        """
        known = self._known.get(participant.did)
        if known is not None and known.authority:
            return Trust(known.authority)
        if participant.signs:
            return Trust(self._authority, host_label(participant.did), or_web=True)
        return WEB

    def _if_same_origin(self, token: str, known: Known, address: str) -> str:
        """The ``Authorization`` of a token that is for the origin of the configured URL alone."""
        asked = self._outgoing.target(address, query=True).origin
        if not known.url or self._outgoing.target(known.url).origin != asked:
            return ""
        return token if " " in token else f"Bearer {token}"

    async def address(self, peer: str) -> str:
        """The base URL by which ``peer`` (its id) is reached, or "" for gRPC.

        Raises ``Unavailable`` or ``PeerFault`` where nothing says how to reach it.
        """
        known = self._known.get(peer)
        if known is not None and known.url:
            return known.url
        participant = self._lookup(peer)
        if participant.signs and participant.endpoint:
            return ""
        try:
            return await self._discovered(peer)
        except ConnectorError:
            if participant.signs:
                return ""  # a member that opens a stream to us
            raise

    async def find(self, name: str) -> FoundPeer:
        """A peer by its id (a DID, or as configured) or by the URL of its binding.

        A URL that is nobody's whom we know is looked at all the same; the peer has no id then.
        Raises ``InvalidInput``, ``Unavailable``, ``PeerFault``.
        """
        if not name.startswith(("https://", "http://")):
            try:
                return FoundPeer(name, await self.address(name))
            except Unauthenticated:  # neither a member nor configured
                return FoundPeer(name, await self._discovered(name), stranger=True)
        url = self._outgoing.target(name.rstrip("/")).url
        base = await self._below(url)
        for known in self._known.values():
            if known.url and known.url in (base, url):
                return FoundPeer(known.id, known.url)
        return FoundPeer("", base, stranger=True)

    async def _discovered(self, did: str) -> str:
        now = self._clock.monotonic()
        until, base = self._found.get(did, (0.0, ""))
        if not base or until < now:
            document = await self._get(discovery.document_url(did), discovery.MAX_DOCUMENT)
            endpoint = discovery.service_of(document.body, did)
            if endpoint.endswith(discovery.CATALOG):
                base = self._outgoing.target(endpoint.removesuffix(discovery.CATALOG)).url
            else:
                base = await self._base(endpoint.removesuffix(paths.VERSIONS))
            if len(self._found) >= _MAX_FOUND:
                self._found.clear()
            self._found[did] = (now + FOUND_S, base)
        return base

    async def _below(self, url: str) -> str:
        """The base URL at a URL that a person gave: it is that itself, or a root."""
        url = url.removesuffix(paths.VERSIONS)
        if url.endswith(paths.BASE):
            return url
        try:
            return await self._base(url)
        except (NotFound, Unauthenticated, Refused, PeerFault):
            return url

    async def _base(self, root: str) -> str:
        answer = await self._get(root + paths.VERSIONS, discovery.MAX_DOCUMENT)
        versions = _read(answer.body, "VersionResponse", discovery.MAX_DOCUMENT)
        return self._outgoing.target(discovery.base_of(versions, root)).url

    async def _get(self, url: str, limit: int) -> Answer:
        """Without a token. Raises ``NotFound``, ``PeerFault``, ``Unavailable``."""
        accept = {"Accept": "application/did+json, application/did+ld+json, application/json"}
        answer = await self._outgoing.ask("GET", url, headers=accept, limit=limit)
        if answer.status != 200:
            raise _error(answer)
        return answer

    # What it offers.

    async def catalog(self, peer: FoundPeer, *, filter: str = "", page: str = "") -> PeerPage:
        """A page of its datasets. ``page``: from the page before.

        ``filter`` is words, as connectors of our make read them (``catalogue``), or JSON in
        whichever language the peer speaks: DSP leaves it open. Raises what the peer answered with.
        """
        base = self._outgoing.target(peer.address)
        url = peer.address + paths.CATALOG
        if page:
            url = page
            if self._outgoing.target(url, "page_token", query=True).origin != base.origin:
                raise InvalidInput("page_token: not of this peer")
        parts: dict[str, Any] = {"filter": _filter(filter)} if filter else {}
        body = fields.encode_json(codec.body("CatalogRequestMessage", **parts))
        answer = await self._ask("POST", peer, url, body, MAX_CATALOG)
        value, wrong = await _aside(_read_catalog, answer.body)
        if wrong:
            log.warning(
                "datasets were left out", peer=peer.id or peer.address, reasons=wrong[:_MAX_SAID]
            )
        participant = value["participantId"]
        if peer.id and participant != peer.id:
            raise PeerFault("the catalogue is another participant's")
        datasets = await asyncio.to_thread(_datasets, value, participant)
        return PeerPage(participant, datasets, self._next(answer, url, base.origin))

    async def dataset(self, peer: FoundPeer, dataset_id: str) -> PeerDataset:
        """Raises ``NotFound``, or what else the peer answered with."""
        url = f"{peer.address}{paths.DATASETS}/{paths.segment(dataset_id)}"
        answer = await self._ask("GET", peer, url, b"", MAX_DATASET)
        value = await _aside(_read_dataset, answer.body)
        try:
            found = dcat.read_dataset(value, peer.id or peer.address)
        except InvalidInput as error:
            raise PeerFault(error.message) from error
        if found.id != dataset_id:
            raise PeerFault("the peer answers with another dataset")
        return _peer_dataset(found)

    async def fetch(self, provider: str, dataset_id: str) -> str:
        """A dataset of one who signs nothing, as ``model.catalog.parse_offers`` reads it."""
        found = await self.dataset(FoundPeer(provider, await self.address(provider)), dataset_id)
        return found.record.decode()

    def _next(self, answer: Answer, url: str, origin: tuple[str, str, int]) -> str:
        """The URL of the next page (RFC 8288), if it is of the same origin."""
        for found in _NEXT.finditer(", ".join(answer.headers.get_list("link"))):
            if _IS_NEXT.search(found[2]):
                try:
                    target = self._outgoing.target(found[1], "Link", query=True)
                except InvalidInput as error:
                    raise PeerFault(error.message) from error
                if target.origin != origin or target.url == url:
                    raise PeerFault("the catalogue's next page is not of the same origin")
                return target.url
        return ""

    async def _ask(self, method: str, peer: FoundPeer, url: str, body: bytes, limit: int) -> Answer:
        way = Way() if peer.stranger else await self.introduce(peer.id, peer.address)
        headers = way.headers() | ({"Content-Type": "application/json"} if body else {})
        answer = await self._outgoing.ask(
            method,
            url,
            body=body,
            headers=headers,
            limit=limit,
            timeout_s=CATALOG_S,
            trust=way.trust,
            query=True,
        )
        if answer.status != 200:
            raise _error(answer)
        return answer


def fetcher(
    lookup: Callable[[str], Participant],
    *,
    signed: Callable[[str, str], Awaitable[str]],
    foreign: Callable[[str, str], Awaitable[str]],
) -> Callable[[str, str], Awaitable[str]]:
    """Of a provider that signs, the publisher's JWS of a dataset; of another, its JSON."""

    async def fetch(provider: str, dataset_id: str) -> str:
        return await (signed if lookup(provider).signs else foreign)(provider, dataset_id)

    return fetch


def _datasets(value: Mapping[str, Any], participant: str) -> tuple[PeerDataset, ...]:
    try:
        return tuple(_peer_dataset(one) for one in dcat.read_catalog(value, participant))
    except InvalidInput as error:
        raise PeerFault(error.message) from error


def _peer_dataset(found: dcat.ForeignDataset) -> PeerDataset:
    return PeerDataset(
        id=found.id,
        title=found.title,
        description=found.description,
        keywords=found.keywords,
        offers=found.offers,
        formats=tuple(dict.fromkeys(one.format for one in found.distributions)),
        record=found.record,
    )


def _filter(text: str) -> list[Any]:
    try:
        value = fields.parse_json(text.encode(), limit=_SMALL, what="filter")
    except InvalidInput:
        value = None
    if isinstance(value, list):
        return value
    return [value if isinstance(value, dict) else {"text": text}]


def _read(body: bytes, kind: str, limit: int) -> dict[str, Any]:
    """Raises ``PeerFault`` for what breaks the protocol's schema."""
    try:
        return reading.read(body, kind, limit=limit)
    except InvalidInput as error:
        raise PeerFault(error.message) from error


def _read_catalog(body: bytes) -> tuple[dict[str, Any], list[str]]:
    try:
        return reading.read_catalog(body, limit=MAX_CATALOG)
    except InvalidInput as error:
        raise PeerFault(error.message) from error


def _read_dataset(body: bytes) -> dict[str, Any]:
    try:
        return reading.read_dataset(body, limit=MAX_DATASET)
    except InvalidInput as error:
        raise PeerFault(error.message) from error


async def _aside(read: Callable[[bytes], T], body: bytes) -> T:
    """Without holding up the event loop where it is much."""
    return read(body) if len(body) <= _SMALL else await asyncio.to_thread(read, body)


def _error(answer: Answer) -> ConnectorError:
    """What a status means to who asked (DSP's CatalogError explains it, if it is one)."""
    status, said = answer.status, ""
    try:
        error = fields.as_object(fields.parse_json(answer.body, limit=_SMALL), "error")
        code, reason = codec.explanation(error)
        said = ": ".join(part for part in (code, reason) if part and part.isprintable())
    except InvalidInput:
        pass
    detail = f" ({said})" if said else ""
    if status in (401, 407):
        return Unauthenticated(f"the peer does not know us{detail}")
    if status == 403:
        return Refused([Reason("peer", said or "403", "what the peer allows us")])
    if status in (404, 410):
        return NotFound(f"the peer has no such thing{detail}")
    if status == 429:
        return RateLimited("the peer asks for patience")
    if status >= 500 or status == 408:
        return Unavailable(f"the peer answers with {status}{detail}")
    return PeerFault(f"the peer answers with {status}{detail}")
