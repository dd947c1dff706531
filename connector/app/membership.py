"""Keeping a node's membership alive: the watch on the directory, and the certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import stamina
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from connector.directory.view import MembershipView
from connector.errors import ConnectorError, NotFound
from connector.identity.certificates import make_csr, read_chain
from connector.identity.invitations import Space
from connector.model.participant import Membership, Participant
from connector.ports.clock import Clock
from connector.transport.grpc.peers import GrpcDirectory

log = structlog.get_logger()

LONGEST_WAIT_S = 3.0  # seconds between two attempts to reach the directory
LONGEST_SLEEP_S = 3600.0  # seconds between two looks at the certificate's end


def directory_record(space: Space, view: MembershipView) -> Participant:
    """The directory's own record, or what the invitation pinned before there is one."""
    try:
        return view.participant(space.did)
    except NotFound:
        return Participant(
            did=space.did,
            name="",
            roles=("operator",),
            state=Membership.ACTIVE,
            signing_keys=(space.key,),
            endpoint=space.directory,
            log_origin="",
            revision=0,
        )


async def watch(view: MembershipView, directory: GrpcDirectory) -> None:
    """Follow the directory's events for ever; each break is mended with growing patience."""
    while True:
        async for attempt in stamina.retry_context(
            on=ConnectorError,
            attempts=None,
            timeout=None,
            wait_initial=0.05,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=0.1,
        ):
            with attempt:
                await _follow(view, directory)


async def _follow(view: MembershipView, directory: GrpcDirectory) -> None:
    """Until the stream breaks. Raises if it broke before anything was heard."""
    heard = False
    try:
        async for statement in directory.watch(view.last):
            await view.apply(statement)
            heard = True
    except ConnectorError as error:
        log.info("the directory's feed broke", reason=error.message)
        if not heard:
            raise


async def renew_certificate(
    directory: GrpcDirectory,
    chain: Callable[[], bytes],
    save: Callable[[bytes], None],
    tls_key: ec.EllipticCurvePrivateKey,
    clock: Clock,
) -> None:
    """Ask for a new certificate when two thirds of the old one's life are over, for ever."""
    while True:
        due = read_chain(chain()).renew_at - clock.now()
        if due > timedelta(0):
            await asyncio.sleep(min(due.total_seconds(), LONGEST_SLEEP_S))
            continue
        try:
            save(await directory.renew(make_csr(tls_key)))
            log.info("the TLS certificate was renewed")
        except ConnectorError as error:
            log.warning("the TLS certificate could not be renewed", reason=error.message)
            await asyncio.sleep(LONGEST_WAIT_S)
