"""What the directory and its members' views ask of storage and of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from connector.model.participant import Participant


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """What the directory remembers of an invitation: its digest, never its id.

    ``digest``: SHA-256 of the id. ``spent_by`` and ``spent_key`` (DID and Ed25519 key, 32 bytes)
    are empty until it is spent.
    """

    digest: bytes
    organisation: str
    expires: datetime
    spent_by: str = ""
    spent_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A participant's record and the signed membership event that wrote it."""

    participant: Participant
    statement: str


@dataclass(frozen=True, slots=True)
class PendingAct:
    """A signed act (``identity.acts``) that the log may not have yet."""

    number: int
    type: str
    scope: str
    statement: str


class DirectoryStore(Protocol):
    """The directory's registry. A write is on stable storage when it returns, or nothing of it
    happened; calls may overlap. Raises ``Unavailable`` when the disk refuses, and then the write
    may have happened all the same: the caller reads again."""

    async def add_invitation(self, invitation: InvitationRecord, act: tuple[str, str, str]) -> None:
        """A new invitation, and the (type, scope, statement) of the act that made it."""
        ...

    async def invitation(self, digest: bytes) -> InvitationRecord | None: ...

    async def append_event(
        self,
        recorded: Recorded,
        act: tuple[str, str, str],
        *,
        spends: bytes = b"",
    ) -> None:
        """The event numbered ``recorded.participant.revision``, the record that it writes, its act
        and the spending of the invitation with digest ``spends``, in one write.

        Raises ``Conflict``, and nothing happened, unless the number is the next one, the
        invitation exists and is not spent, and no other participant has the log origin or one of
        the signing keys.
        """
        ...

    async def last_event(self) -> int:
        """The number of the last event; 0 before the first."""
        ...

    async def events_after(self, number: int, limit: int) -> Sequence[str]:
        """Signed membership events in order."""
        ...

    async def records_after(self, did: str, limit: int) -> Sequence[Recorded]:
        """Records with a DID greater than ``did``, by DID."""
        ...

    async def record(self, did: str) -> Recorded | None: ...

    async def pending_acts(self, limit: int) -> Sequence[PendingAct]:
        """Acts not yet marked as logged, oldest first."""
        ...

    async def act_logged(self, number: int) -> None:
        """The log has this act now."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """A dataset in the index. ``terms`` are the search terms of its title, keywords, publisher
    and description (``directory.words``), in this order."""

    publisher: str
    dataset: str
    record: str
    terms: tuple[str, str, str, str]


class CatalogStore(Protocol):
    """The index of published datasets. Durability, concurrency and ``Unavailable`` as in
    ``DirectoryStore``."""

    async def list_dataset(self, listing: Listing, most: int) -> None:
        """Add or replace. Raises ``Conflict`` if its publisher would have more than ``most``."""
        ...

    async def unlist_dataset(self, publisher: str, dataset: str) -> bool:
        """Whether it was there."""
        ...

    async def search(self, match: str, offset: int, limit: int) -> Sequence[str]:
        """Signed records of active participants' datasets, best first; ``match`` is an FTS5
        query by ``directory.words``, and empty for all, newest first."""
        ...


class MembershipStore(Protocol):
    """The membership events that a node has verified. Durability, concurrency and ``Unavailable``
    as in ``DirectoryStore``."""

    async def append(self, number: int, did: str, statement: str) -> None:
        """Event ``number`` of participant ``did``. The same again changes nothing; raises
        ``Conflict`` for another one of that number, or one that is not next."""
        ...

    async def after(self, number: int, limit: int) -> Sequence[str]:
        """Signed events in order."""
        ...

    async def of(self, did: str) -> Sequence[str]:
        """All signed events of one participant, in order; for evidence."""
        ...
