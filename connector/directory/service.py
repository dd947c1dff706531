"""The directory, put together from its parts over one store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.directory.authority import Authority
from connector.directory.catalog import CatalogIndex
from connector.directory.enrolment import EnrolmentService
from connector.directory.feed import Feed
from connector.directory.members import MemberService
from connector.directory.register import Register, open_register
from connector.identity.invitations import Space
from connector.identity.ourselves import Ourselves
from connector.ports.clock import Clock
from connector.ports.directory import CatalogStore, DirectoryStore
from connector.ports.journal import Journal
from connector.ports.policy import PolicyEngine


class Store(DirectoryStore, CatalogStore, Protocol):
    """Both in one database: what is listed depends on who is a member."""


@dataclass(frozen=True, slots=True)
class DirectoryServices:
    """``space`` is what every member pins of this directory."""

    space: Space
    register: Register
    enrolment: EnrolmentService
    members: MemberService
    feed: Feed
    catalog: CatalogIndex


async def open_directory(
    *,
    ourselves: Ourselves,
    endpoint: str,
    enrol_endpoint: str,
    store: Store,
    authority: Authority,
    policy: PolicyEngine,
    journal: Journal,
    clock: Clock,
    heartbeat_s: float,
    credential_days: int,
) -> DirectoryServices:
    """Open the register (the first time, with the operator's own record) and what stands on it.

    ``endpoint`` and ``enrol_endpoint`` are host:port as members and candidates dial them. Raises
    ``Unavailable``, and ``VerificationFailed`` if the store is another space's.
    """
    register = await open_register(ourselves, store, journal, clock, endpoint=endpoint)
    space = Space(
        did=ourselves.did,
        key=register.active(ourselves.did).signing_keys[0],
        enrol=enrol_endpoint,
        directory=endpoint,
        ca=authority.pem,
    )
    return DirectoryServices(
        space=space,
        register=register,
        enrolment=EnrolmentService(
            ourselves=ourselves,
            space=space,
            register=register,
            store=store,
            authority=authority,
            policy=policy,
            clock=clock,
            credential_days=credential_days,
        ),
        members=MemberService(register=register, store=store, authority=authority, clock=clock),
        feed=Feed(register, store, heartbeat_s=heartbeat_s),
        catalog=CatalogIndex(register=register, store=store, clock=clock, policy=policy),
    )
