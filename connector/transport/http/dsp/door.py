"""The door of the Dataspace Protocol 2025-1's HTTPS binding: its routes, and what each does.

Owns the table of endpoints of the bindings "Catalog", "Contract Negotiation" and "Transfer
Process", provider's and consumer's side, with the version endpoint and the DID document at the
root. It adds no state: a message becomes one for ``Negotiations.receive``, as those of gRPC's
stream do, and a process is read from where it is kept.

Which side a message is for, its path says; where both sides have the same path, our own record of
the process does. A peer sees its own processes alone. A message that came before is answered as
the first time: a retry, whose answer was lost, is known by the digest of its bytes, which has a
message's own ``@id`` in it (``Negotiation.heard``).

Left out: authentication (``authority``), errors (``exchange``), the catalogue (``catalogue``), our
own messages (``courier``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.errors import InternalError, InvalidInput, NotFound
from connector.model.content import Content
from connector.model.negotiation import Channel, MessageType, Negotiation, Party, StoredAgreement
from connector.model.transfer import TransferProcess, TransferType
from connector.negotiation.messages import MAX_PID
from connector.ports.datasets import DatasetStore
from connector.transport.calls import Watch
from connector.transport.http.dsp import codec, did, paths
from connector.transport.http.dsp.authority import Authenticate
from connector.transport.http.dsp.catalogue import Catalogue
from connector.transport.http.dsp.dcat import Service
from connector.transport.http.dsp.exchange import Endpoint, Exchange, Handle, answer, unknown
from connector.transport.http.dsp.holds import Holds

Process: TypeAlias = Negotiation | TransferProcess
_VERSIONED = {"Cache-Control": "public, max-age=300"}
_C, _P = Party.CONSUMER, Party.PROVIDER

# Paths that begin a process: the message, and who we are then.
_BEGIN: Mapping[str, tuple[MessageType | TransferType, Party]] = {
    paths.BEGIN[MessageType.REQUEST]: (MessageType.REQUEST, _P),
    paths.BEGIN[MessageType.OFFER]: (MessageType.OFFER, _C),
    paths.BEGIN[TransferType.REQUEST]: (TransferType.REQUEST, _P),
}
# What follows a process id: the message, and who we may be.
_FOLLOW: Mapping[str, Mapping[str, tuple[MessageType | TransferType, frozenset[Party]]]] = {
    paths.NEGOTIATIONS: {
        paths.ACTIONS[type_]: (type_, parties)
        for type_, parties in {
            MessageType.REQUEST: frozenset({_P}),
            MessageType.OFFER: frozenset({_C}),
            MessageType.ACCEPTED: frozenset(Party),  # with FINALIZED, which has the same path
            MessageType.AGREEMENT: frozenset({_C}),
            MessageType.VERIFICATION: frozenset({_P}),
            MessageType.TERMINATION: frozenset(Party),
        }.items()
    },
    paths.TRANSFERS: {
        paths.ACTIONS[type_]: (type_, frozenset(Party))
        for type_ in TransferType
        if type_ in paths.ACTIONS
    },
}


def _anywhere(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the door needs of the node.

    ``root`` is the URL that the door is reached by (the base URL is ``root`` + ``/2025-1``).
    ``receive`` is ``Negotiations.receive``, ``negotiation`` and ``transfer`` give a process by our
    id, ``agreement`` an agreement by its own, or raise ``NotFound``. ``check_address`` raises
    ``InvalidInput`` for a callbackAddress that is certainly not to be called; who calls it looks
    again. ``document``: our DID document.
    """

    did: str
    root: str
    formats: tuple[str, ...]
    document: Mapping[str, Any]
    authenticate: Authenticate
    receive: Callable[[Channel, Content, str], Awaitable[Process | None]]
    negotiation: Callable[[str], Awaitable[Negotiation]]
    transfer: Callable[[str], Awaitable[TransferProcess]]
    agreement: Callable[[str], Awaitable[StoredAgreement]]
    datasets: DatasetStore
    holds: Holds
    watch: Watch
    check_address: Callable[[str], None] = _anywhere


def application(sources: Sources) -> Starlette:
    return serving(routes(sources))


def serving(routes: Sequence[Route]) -> Starlette:
    """Nothing is redirected, and what is not there is said in the protocol's words."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: unknown})
    app.router.redirect_slashes = False
    return app


def routes(sources: Sources) -> list[Route]:
    door = _Door(sources)
    service = Service(f"{sources.did}#connector", f"{sources.root}{paths.BASE}", sources.formats)
    catalogue = Catalogue(sources.did, service, sources.datasets)
    found = [
        Route(paths.VERSIONS, partial(_versions, service.id)),
        did.route(dict(sources.document)),
    ]

    def add(method: str, path: str, kind: str, handle: Handle) -> None:
        endpoint = Endpoint(
            name=f"{method} {path}",
            kind=kind,
            handle=handle,
            authenticate=sources.authenticate,
            watch=sources.watch,
        )
        found.append(Route(paths.BASE + path, endpoint, methods=[method]))

    add("POST", paths.CATALOG, codec.CATALOG_ERROR, catalogue.request)
    add("GET", paths.CATALOG, codec.CATALOG_ERROR, catalogue.request)
    add("GET", paths.DATASETS + "/{id:path}", codec.CATALOG_ERROR, catalogue.dataset)
    errors = {
        paths.NEGOTIATIONS: codec.NEGOTIATION_ERROR,
        paths.TRANSFERS: codec.TRANSFER_ERROR,
    }
    for path, (type_, party) in _BEGIN.items():
        kind = errors[path[: path.rindex("/")]]
        add("POST", path, kind, partial(door.begin, type_, party))
    for below, kind in errors.items():
        add("GET", below + "/{pid}", kind, partial(door.show, below))
        for action, (type_, parties) in _FOLLOW[below].items():
            handle = partial(door.follow, below, type_, parties)
            add("POST", f"{below}/{{pid}}/{action}", kind, handle)
    add("POST", paths.AGREEMENTS + "/{id}/notice", codec.NEGOTIATION_ERROR, door.notice)
    return found


async def _versions(service: str, _: Request) -> Response:
    """DSP 2025-1, "Exposure of Versions"; open to everybody."""
    version = {
        "version": paths.VERSION,
        "path": paths.BASE,
        "binding": "HTTPS",
        "identifierType": "did:web",
        "serviceId": service,
    }
    return JSONResponse({"protocolVersions": [version]}, headers=_VERSIONED)


class _Door:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def show(self, below: str, exchange: Exchange) -> Response:
        return answer(codec.process_json(await self._find(below, exchange)))

    async def begin(
        self, type_: MessageType | TransferType, party: Party, exchange: Exchange
    ) -> Response:
        """A message that begins a process in which we are ``party``."""
        value = await exchange.message(codec.type_of(type_))
        if value.get(_pid(party)):
            raise InvalidInput(
                f"{_pid(party)}: this path begins a process",
                hint="post to the path that has the process id in it",
            )
        self._sources.check_address(value["callbackAddress"])
        hold = exchange.stack.enter_context(self._sources.holds.answering(exchange.peer.did))
        process = await self._receive(party, exchange, value)
        hold.began(process.pid)
        return answer(codec.process_json(process), 201)

    async def follow(
        self,
        below: str,
        type_: MessageType | TransferType,
        parties: frozenset[Party],
        exchange: Exchange,
    ) -> Response:
        """A message for a process that there is, in which we must be one of ``parties``."""
        process = await self._find(below, exchange)
        party = process.party
        if party not in parties:
            raise _unknown(below)
        value = await exchange.message(codec.type_of(type_))
        if value.get(_pid(party)) != process.pid:
            raise InvalidInput(f"{_pid(party)}: not the process that the path names")
        if process.peer_pid not in ("", value.get(_pid(party.other))):
            raise _unknown(below)
        exchange.stack.enter_context(self._sources.holds.answering(process.peer, process.pid))
        if "@id" not in value or process.heard != exchange.digest:
            process = await self._receive(party, exchange, value)
        return answer(codec.process_json(process))

    async def notice(self, exchange: Exchange) -> Response:
        """The caller's signed end of an agreement that both hold."""
        content = codec.decode_notice(await exchange.body())
        if exchange.request.path_params["id"] != content.agreement_id:
            raise InvalidInput("agreementId: not the agreement that the path names")
        agreement = await self._sources.agreement(content.agreement_id)
        channel = Channel(exchange.peer.did, agreement.party)
        await self._sources.receive(channel, content, "")
        return answer({})

    async def _find(self, below: str, exchange: Exchange) -> Process:
        """The process that the path names, if it is the caller's."""
        pid = exchange.request.path_params["pid"]
        find = self._sources.negotiation if below == paths.NEGOTIATIONS else self._sources.transfer
        try:
            process: Process | None = await find(pid) if len(pid) <= MAX_PID else None
        except NotFound:
            process = None
        if process is None or process.peer != exchange.peer.did:
            raise _unknown(below)
        return process

    async def _receive(self, party: Party, exchange: Exchange, value: Mapping[str, Any]) -> Process:
        peer = exchange.peer
        content = codec.decode(value, sender=peer.did, receiver=self._sources.did, signs=peer.signs)
        try:
            found = await self._sources.receive(Channel(peer.did, party), content, exchange.digest)
        except NotFound as error:  # a dataset, an offer, an agreement: the message is at fault
            raise InvalidInput(error.message, hint=error.hint) from error
        if found is None:
            raise InternalError("a message led to no process")
        return found


def _pid(party: Party) -> str:
    return f"{party}Pid"


def _unknown(below: str) -> NotFound:
    return NotFound(f"no such {below.strip('/').removesuffix('s')}")
