"""Protobuf messages of ``dataspace.management.v1`` to the dataclasses of ``client.types``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.client import types
from connector.errors import Reason
from connector.model import fields

MAX_DOCUMENT_BYTES = 1 << 20


def time(value: str) -> datetime | None:
    """RFC 3339 to an aware datetime; empty means "not yet"."""
    return fields.parse_time(value) if value else None


def document(data: bytes) -> Mapping[str, Any]:
    """UTF-8 JSON to an object; no bytes mean no object."""
    if not data:
        return {}
    return fields.as_object(fields.parse_json(data, limit=MAX_DOCUMENT_BYTES), "document")


def status(message: pb.GetStatusResponse) -> types.Status:
    return types.Status(
        did=message.did,
        name=message.name,
        space=message.space,
        state=message.state,
        endpoint=message.endpoint,
        http_endpoint=message.http_endpoint,
        log_size=message.log_size,
        view_age_s=message.view_age_seconds,
        version=message.version,
        certificate_expires=time(message.certificate_expires),
        space_key=message.space_key,
    )


def peer_catalog(message: pb.ListPeerCatalogResponse) -> types.PeerCatalog:
    return types.PeerCatalog(
        peer=message.peer,
        claimed=message.claimed,
        stranger=message.stranger,
        signed=message.signed,
        datasets=tuple(_peer_dataset(each) for each in message.datasets),
        next_page_token=message.next_page_token,
    )


def _peer_dataset(message: pb.PeerDataset) -> types.PeerDataset:
    return types.PeerDataset(
        id=message.id,
        title=message.title,
        description=message.description,
        keywords=tuple(message.keywords),
        formats=tuple(message.formats),
        offers=tuple(
            types.PeerOffer(
                id=offer.id,
                offer=document(offer.offer),
                unenforced=tuple(Reason(r.term, r.observed, r.allowed) for r in offer.unenforced),
            )
            for offer in message.offers
        ),
    )


def negotiation(message: pb.Negotiation) -> types.Negotiation:
    return types.Negotiation(
        pid=message.pid,
        peer_pid=message.peer_pid,
        party=message.party,
        peer=message.peer,
        dataset_id=message.dataset_id,
        state=message.state,
        agreement_id=message.agreement_id,
        waiting=message.waiting,
        code=message.code,
        reason=message.reason,
        offer=document(message.offer),
        updated=time(message.updated),
    )


def agreement(message: pb.Agreement) -> types.Agreement:
    return types.Agreement(
        id=message.id,
        party=message.party,
        peer=message.peer,
        dataset_id=message.dataset_id,
        state=message.state,
        document=message.document,
        terms=document(message.document),
        uses=message.uses,
        reason=message.reason,
        concluded=time(message.concluded),
    )


def transfer(message: pb.Transfer, address: pb.DataAddress | None = None) -> types.Transfer:
    found = None
    if address is not None:
        found = types.DataAddress(
            address.endpoint_type, address.endpoint, dict(sorted(address.properties.items()))
        )
    return types.Transfer(
        pid=message.pid,
        peer_pid=message.peer_pid,
        party=message.party,
        peer=message.peer,
        agreement_id=message.agreement_id,
        dataset_id=message.dataset_id,
        format=message.format,
        state=message.state,
        waiting=message.waiting,
        code=message.code,
        reason=message.reason,
        updated=time(message.updated),
        data_address=found,
    )


def event(message: pb.Event) -> types.Event:
    return types.Event(
        kind=message.kind,
        pid=message.pid,
        peer=message.peer,
        party=message.party,
        state=message.state,
        dataset_id=message.dataset_id,
        agreement_id=message.agreement_id,
        waiting=message.waiting,
        number=message.number,
    )


def receipt(message: pb.UseSummary) -> types.Receipt:
    return types.Receipt(
        scope=message.scope,
        number=message.number,
        kind=message.kind,
        outcome=message.outcome,
        use_id=message.use_id,
        time=time(message.time),
        reasons=tuple(Reason(r.term, r.observed, r.allowed) for r in message.reasons),
        quantities=dict(sorted(message.quantities.items())),
        index=message.index,
        act=message.act,
        leaf_hash=message.leaf_hash,
        purpose=message.purpose,
        reporter=message.reporter,
    )


def checks(message: pb.DiagnoseResponse) -> tuple[types.Check, ...]:
    return tuple(types.Check(c.name, c.ok, c.detail, c.hint) for c in message.checks)


def reporter(message: pb.Reporter) -> types.Reporter:
    return types.Reporter(
        name=message.name,
        thumbprint=message.thumbprint,
        added=time(message.added),
        expires=time(message.expires),
    )


def member(message: pb.Member) -> types.Member:
    return types.Member(
        did=message.did,
        name=message.name,
        roles=tuple(message.roles),
        state=message.state,
        endpoint=message.endpoint,
        revision=message.revision,
        witnessed_size=message.witnessed_size,
    )
