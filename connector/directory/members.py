"""Members: resolve, list, suspend, restore, revoke, and renew a TLS certificate."""

from __future__ import annotations

from dataclasses import dataclass

from connector.directory import paging
from connector.directory.authority import Authority
from connector.directory.register import Register
from connector.errors import Conflict, InvalidInput
from connector.identity.membership import MAX_REASON, Change
from connector.model.participant import Membership, Participant, parse_did
from connector.ports.clock import Clock
from connector.ports.directory import DirectoryStore, Recorded

PAGE, MOST = 100, 1000  # records in a page: usually, and at most


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Records by DID; ``next_token`` is empty on the last page."""

    records: tuple[Recorded, ...]
    next_token: str


class MemberService:
    def __init__(
        self, *, register: Register, store: DirectoryStore, authority: Authority, clock: Clock
    ) -> None:
        self._register = register
        self._store = store
        self._authority = authority
        self._clock = clock

    def resolve(self, did: str) -> Recorded:
        """The record of a participant and the event that wrote it. Raises ``NotFound``."""
        return self._register.record(parse_did(did))

    def active(self, did: str) -> Participant:
        """Raises ``Unauthenticated`` unless ``did`` is an active member."""
        return self._register.active(did)

    async def list_participants(self, page_size: int = 0, page_token: str = "") -> MemberPage:
        """Every record, the operator's own too. Raises ``InvalidInput``."""
        size = paging.page_size(page_size, usual=PAGE, most=MOST)
        after = paging.read_page_token("participants", page_token)
        found = await self._store.records_after(after, size + 1)
        page = tuple(found[: paging.fitting(record.statement for record in found[:size])])
        more = len(page) < len(found)
        return MemberPage(
            page, paging.page_token("participants", page[-1].participant.did) if more else ""
        )

    async def suspend(self, did: str, reason: str) -> Recorded:
        """As ``set_state``."""
        return await self.set_state(did, Membership.SUSPENDED, reason)

    async def restore(self, did: str, reason: str) -> Recorded:
        """As ``set_state``."""
        return await self.set_state(did, Membership.ACTIVE, reason)

    async def revoke(self, did: str, reason: str) -> Recorded:
        """As ``set_state``; it is final."""
        return await self.set_state(did, Membership.REVOKED, reason)

    async def set_state(self, did: str, state: Membership, reason: str) -> Recorded:
        """Suspend, restore or revoke a member; watchers hear of it at once.

        Raises ``NotFound``, ``Conflict`` if its state does not allow it, ``InvalidInput`` for a
        reason of more than ``MAX_REASON`` characters, and ``Unavailable``.
        """
        if len(reason) > MAX_REASON or not (reason == "" or reason.isprintable()):
            raise InvalidInput(f"reason: at most {MAX_REASON} printable characters")
        participant = self.resolve(did).participant
        if "operator" in participant.roles:
            raise Conflict("the space's operator cannot be suspended or revoked")
        return await self._register.change(participant, _CHANGES[state], reason)

    def renew_certificate(self, caller: str, request: bytes) -> bytes:
        """A new chain in PEM for the caller, an active member.

        Raises ``Unauthenticated`` or ``InvalidInput``.
        """
        member = self._register.active(caller)
        return self._authority.certify(
            request, did=member.did, name=member.name, now=self._clock.now()
        )


_CHANGES = {
    Membership.ACTIVE: Change.RESTORED,
    Membership.SUSPENDED: Change.SUSPENDED,
    Membership.REVOKED: Change.REVOKED,
}
