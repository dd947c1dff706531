"""One step before it is saved: what changes, and what is sent.

A ``Draft`` only collects. Every change of state goes through ``machine.after``, so an illegal
message raises before anything has changed, and a draft that is dropped has never happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from connector.errors import Reason
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementNotice,
    AgreementState,
    Channel,
    Message,
    MessageType,
    Negotiation,
    Party,
    State,
    StoredAgreement,
)
from connector.model.transfer import TransferProcess
from connector.negotiation import machine
from connector.negotiation.messages import MAX_CODE, MAX_REASON
from connector.negotiation.transfer_draft import TransferDraft
from connector.ports.negotiation import Act


class Draft:
    """Changes to at most one negotiation and one agreement of one channel, and to transfers."""

    def __init__(self, channel: Channel, negotiation: Negotiation | None = None) -> None:
        self.channel = channel
        self.before = negotiation
        self.outgoing: list[Content] = []
        self.acts: list[Act] = []
        self.agreement: StoredAgreement | None = None
        self.transfers: list[TransferDraft] = []
        self.passed: list[State] = []  # every state on the way, the last one included
        self._negotiation = negotiation

    @property
    def address(self) -> str:
        """Base URL of the peer's HTTPS binding; empty where messages go by the stream."""
        if self._negotiation is not None:
            return self._negotiation.address
        return self.agreement.address if self.agreement is not None else ""

    @property
    def negotiation(self) -> Negotiation:
        """As it will be."""
        if self._negotiation is None:
            raise LookupError("this draft is of no negotiation")
        return self._negotiation

    @property
    def changed(self) -> Negotiation | None:
        """The negotiation, one revision on, if the draft changes it."""
        now = self._negotiation
        if now is None or now == self.before:
            return None
        return replace(now, revision=self.before.revision + 1 if self.before else 1)

    def begin(
        self,
        sender: Party,
        message: MessageType,
        *,
        pid: str,
        peer_pid: str = "",
        dataset: str,
        offer: bytes,
        **more: Any,
    ) -> None:
        """A new negotiation, by the first message, which is sent if it is ours."""
        self._negotiation = Negotiation(
            pid=pid,
            peer_pid=peer_pid,
            party=self.channel.party,
            peer=self.channel.peer,
            dataset=dataset,
            state=machine.after(sender, None, message),
            offer=offer,
            revision=1,
            **more,
        )
        self.passed.append(self.negotiation.state)
        if sender is self.channel.party:
            self.outgoing.append(Message(message, *pids(self.negotiation), offer=offer))

    def take(self, message: MessageType, **changes: Any) -> None:
        """The peer sent ``message``. Raises ``Conflict``."""
        self._move(self.channel.party.other, message, changes)

    def send(self, message: MessageType, *, quiet: bool = False, **parts: Any) -> None:
        """We send ``message`` with ``parts``. Raises ``Conflict``.

        ``quiet``: the peer knows of no such negotiation, so nobody is there to be told.
        """
        changes: dict[str, Any] = {
            name: parts[name] for name in ("offer", "code", "reason") if name in parts
        }
        self._move(self.channel.party, message, changes)
        if not quiet:
            self.outgoing.append(Message(message, *pids(self.negotiation), **parts))

    def terminate(self, code: str, reason: str, *, quiet: bool = False) -> None:
        """We end the negotiation. Raises ``Conflict`` if it is final."""
        left = self.negotiation.state
        code, reason = code[:MAX_CODE], reason[:MAX_REASON]
        self.send(MessageType.TERMINATION, quiet=quiet, code=code, reason=reason)
        self.note(left=left)

    def wait(self, code: str = "", reason: str = "") -> None:
        """A person here must decide."""
        self.note(waiting=True, code=code[:MAX_CODE], reason=reason[:MAX_REASON])

    def note(self, **changes: Any) -> None:
        """Fields that are no matter of the protocol's."""
        self._negotiation = replace(self.negotiation, **changes)

    def transfer(self, process: TransferProcess | None = None) -> TransferDraft:
        """A part of this draft that changes ``process``, or begins a new one."""
        part = TransferDraft(self.channel, process)
        self.transfers.append(part)
        return part

    @property
    def kept(self) -> StoredAgreement:
        """The agreement as it will be."""
        if self.agreement is None:
            raise LookupError("this draft keeps no agreement")
        return self.agreement

    def keep(self, agreement: StoredAgreement) -> None:
        """Change an agreement that was stored before."""
        self.agreement = replace(agreement, revision=agreement.revision + 1)

    def amend(self, **changes: Any) -> None:
        """Fields of the agreement that this draft makes or keeps."""
        self.agreement = replace(self.kept, **changes)

    def conclude(self, act: Act) -> None:
        """The agreement is in force, and our log will have ``act``."""
        self.amend(state=AgreementState.ACTIVE)
        self.acts.append(act)

    def end(self, act: Act, reason: str, *, tell: bool) -> None:
        """The agreement is over by the signed ``act``; ``tell`` the peer if it is ours."""
        self.amend(state=AgreementState.ENDED, ended_reason=reason, notice=act.statement)
        self.acts.append(act)
        if tell:
            self.outgoing.append(AgreementNotice(self.kept.terms.id, act.statement))

    def _move(self, sender: Party, message: MessageType, changes: dict[str, Any]) -> None:
        state = machine.after(sender, self.negotiation.state, message)
        told = {"waiting": False, "code": "", "reason": "", **changes}
        self.note(**told, state=state)
        self.passed.append(state)


def pids(negotiation: Negotiation) -> tuple[str, str]:
    """(consumerPid, providerPid)."""
    if negotiation.party is Party.CONSUMER:
        return negotiation.pid, negotiation.peer_pid
    return negotiation.peer_pid, negotiation.pid


def explain(reasons: Iterable[Reason]) -> str:
    """Reasons as one text for the peer, within the bounds of a message."""
    text = "; ".join(str(reason) for reason in reasons)
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
