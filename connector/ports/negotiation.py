"""Where negotiations, agreements, transfers and the messages between two connectors are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.model.negotiation import Channel, Negotiation, Party, StoredAgreement
from connector.model.transfer import TransferProcess

# Terminated negotiations, and transfers that are over, kept for each channel; older ones are
# forgotten.
MAX_TERMINATED = 1000


@dataclass(frozen=True, slots=True)
class Act:
    """A signed act (``identity.acts``) that our log must have. ``number`` is the store's, 0 before
    it is saved."""

    type: str
    scope: str
    actor: str
    statement: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """An outgoing message: its place in the channel's order, and its JSON
    (``negotiation.messages``)."""

    sequence: int
    body: bytes
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Post:
    """An outgoing message to a peer's HTTPS binding, which waits until the peer took it.

    ``pid`` is our process id (empty for an ``AgreementNotice``); the posts of one process go out
    in the order of ``number``, which is the store's and grows. ``body`` as in ``Letter``.
    """

    channel: Channel
    pid: str
    address: str
    body: bytes
    correlation_id: str = ""
    number: int = 0

    @property
    def peer(self) -> str:
        return self.channel.peer


@dataclass(frozen=True, slots=True)
class Counts:
    """The sequences of one channel, 0 for none: ``sent`` is the last given to a message of ours,
    ``acknowledged`` the last that the peer has for certain (letters up to it are forgotten),
    ``received`` the last of the peer's messages whose effect is stored."""

    sent: int = 0
    acknowledged: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one step changes, all or nothing.

    ``negotiation``, ``agreement`` and ``transfers`` are new if their revision is 1. ``outgoing``
    are bodies of letters, in order; ``posts`` are new ones, ``posted`` the numbers of those that
    are done with. ``received`` and ``acknowledged`` are 0 where they do not change; ``logged`` are
    the numbers of acts that the log has now.
    """

    channel: Channel
    negotiation: Negotiation | None = None
    agreement: StoredAgreement | None = None
    transfers: tuple[TransferProcess, ...] = ()
    outgoing: tuple[bytes, ...] = ()
    correlation_id: str = ""
    received: int = 0
    acknowledged: int = 0
    acts: tuple[Act, ...] = ()
    logged: tuple[int, ...] = ()
    posts: tuple[Post, ...] = ()
    posted: tuple[int, ...] = ()


class NegotiationStore(Protocol):
    """A write is on stable storage when it returns, or nothing of it happened; calls may overlap.
    Raises ``Unavailable`` when the disk refuses, and then the write may have happened all the
    same: the caller reads again."""

    async def commit(self, change: Change) -> tuple[Act, ...]:
        """The change's acts, with their numbers.

        Raises ``Conflict``, and nothing happened, unless each revision is the stored one plus
        one, a new negotiation's or transfer's process ids and a new agreement's id are new, and
        ``received`` is the stored one plus one.
        """
        ...

    async def negotiation(self, pid: str) -> Negotiation | None: ...

    async def by_peer_pid(self, channel: Channel, peer_pid: str) -> Negotiation | None: ...

    async def open_count(self, channel: Channel) -> int:
        """Negotiations of the channel that are not final."""
        ...

    async def negotiations(self, *, waiting_only: bool, limit: int) -> tuple[Negotiation, ...]:
        """Newest first."""
        ...

    async def agreement(self, agreement_id: str) -> StoredAgreement | None: ...

    async def agreements(self, *, party: Party | None, limit: int) -> tuple[StoredAgreement, ...]:
        """Those that are active or ended, newest first; ``party``: only where we are it."""
        ...

    async def transfer(self, pid: str) -> TransferProcess | None: ...

    async def transfer_by_peer_pid(
        self, channel: Channel, peer_pid: str
    ) -> TransferProcess | None: ...

    async def open_transfers(self, channel: Channel) -> int:
        """Transfers of the channel that are not over."""
        ...

    async def transfers(
        self, *, agreement_id: str = "", open_only: bool = False, limit: int
    ) -> tuple[TransferProcess, ...]:
        """Newest first; ``agreement_id``: only under it; ``open_only``: that are not over."""
        ...

    async def unrecorded(self, *, limit: int) -> tuple[TransferProcess, ...]:
        """Transfers whose consumer we are, that are over and not ``recorded``; oldest first."""
        ...

    async def recorded(self, pid: str) -> None:
        """The log has what it can have of how this transfer ended."""
        ...

    async def counts(self, channel: Channel) -> Counts: ...

    async def outbox(self, channel: Channel, after: int, limit: int) -> tuple[Letter, ...]:
        """Letters with a sequence greater than ``after``, in order."""
        ...

    async def posts(self, *, after: int = 0, pid: str = "", limit: int) -> tuple[Post, ...]:
        """Posts with a greater number, in order; ``pid``: only that process's."""
        ...

    async def post_count(self, channel: Channel) -> int: ...

    async def pending_acts(self, channel: Channel) -> tuple[Act, ...]:
        """Acts that were saved and not yet marked as logged, in order."""
        ...

    async def channels_with_acts(self) -> tuple[Channel, ...]: ...
