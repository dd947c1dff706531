"""One step of a transfer process before it is saved; a part of a ``Draft``.

As there, every change of state goes through the machine, and nothing is saved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from connector.model.negotiation import Channel, Party, StoredAgreement
from connector.model.transfer import (
    DataAddress,
    TransferMessage,
    TransferProcess,
    TransferState,
    TransferType,
)
from connector.negotiation import transfer_machine as machine
from connector.negotiation.messages import MAX_CODE, MAX_REASON


class TransferDraft:
    """Changes to one process."""

    def __init__(self, channel: Channel, process: TransferProcess | None) -> None:
        self.before = process
        self.outgoing: list[TransferMessage] = []
        self.passed: list[TransferState] = []  # every state on the way, the last one included
        self._channel = channel
        self._process = process

    @property
    def process(self) -> TransferProcess:
        """As it will be."""
        if self._process is None:
            raise LookupError("this draft is of no transfer")
        return self._process

    @property
    def changed(self) -> TransferProcess | None:
        """The process, one revision on, if the draft changes it."""
        now = self._process
        if now is None or now == self.before:
            return None
        return replace(now, revision=self.before.revision + 1 if self.before else 1)

    def begin(
        self,
        agreement: StoredAgreement,
        *,
        pid: str,
        peer_pid: str = "",
        format: str,
        address: str,
    ) -> None:
        """A new process by the consumer's request, which is sent if that is us."""
        state = machine.after(Party.CONSUMER, None, TransferType.REQUEST)
        self._process = TransferProcess(
            pid=pid,
            peer_pid=peer_pid,
            party=self._channel.party,
            peer=self._channel.peer,
            agreement_id=agreement.terms.id,
            format=format,
            state=state,
            revision=1,
            dataset=agreement.terms.target,
            address=address,
        )
        self.passed.append(state)
        if self._channel.party is Party.CONSUMER:
            self._send(TransferType.REQUEST, agreement_id=agreement.terms.id, format=format)

    def take(self, message: TransferMessage) -> None:
        """The peer sent ``message``. Raises ``Conflict``.

        A message that has crossed with ours and changes no state changes nothing else either,
        except that a start tells a consumer where the data is.
        """
        before, sender = self.process, self._channel.party.other
        state = machine.after(sender, before.state, message.type, before.left)
        start = message.type is TransferType.START and state is TransferState.STARTED
        if (sender, before.state, message.type) in machine.TABLE:
            asked = start and sender is Party.CONSUMER
            self._move(state, left=None, code=message.code, reason=message.reason, resuming=asked)
        elif state is not before.state:
            self._move(state, left=before.left, code=message.code, reason=message.reason)
        if start and sender is Party.PROVIDER:
            self.note(data_address=message.data_address)

    def send(
        self, message: TransferType, *, code: str = "", reason: str = "", quiet: bool = False
    ) -> None:
        """We send ``message``. Raises ``Conflict``.

        ``quiet``: the peer knows of no such process, so nobody is there to be told.
        """
        code, reason = code[:MAX_CODE], reason[:MAX_REASON]
        left = self.process.state
        state = machine.after(self._channel.party, left, message)
        self._move(state, left=left, code=code, reason=reason)
        if not quiet:
            self._send(message, code=code, reason=reason)

    def start(self, address: DataAddress) -> None:
        """As a provider: the data is there. Raises ``Conflict``."""
        before = self.process
        state = machine.answer(self._channel.party, before.state, resuming=before.resuming)
        left = before.left if before.resuming else before.state
        self._move(state, left=left, data_address=address)
        self._send(TransferType.START, data_address=address)

    def terminate(self, code: str, reason: str, *, quiet: bool = False) -> None:
        """We end the process. Raises ``Conflict`` if it is over."""
        self.send(TransferType.TERMINATION, code=code, reason=reason, quiet=quiet)

    def wait(self, code: str = "", reason: str = "") -> None:
        """A person here must decide."""
        self.note(waiting=True, code=code[:MAX_CODE], reason=reason[:MAX_REASON])

    def note(self, **changes: Any) -> None:
        """Fields that are no matter of the protocol's."""
        self._process = replace(self.process, **changes)

    def _move(self, state: TransferState, **changes: Any) -> None:
        told = {
            "waiting": False,
            "resuming": False,
            "code": "",
            "reason": "",
            "data_address": None,
            **changes,
        }
        self.note(**told, state=state)
        self.passed.append(state)

    def _send(self, message: TransferType, **parts: Any) -> None:
        process = self.process
        ours, theirs = process.pid, process.peer_pid
        pids = (ours, theirs) if process.party is Party.CONSUMER else (theirs, ours)
        self.outgoing.append(TransferMessage(message, *pids, **parts))
