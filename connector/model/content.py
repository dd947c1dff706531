"""All that may pass between two connectors on one channel, whatever carries it."""

from __future__ import annotations

from typing import TypeAlias

from connector.model.negotiation import AgreementNotice, ContractNegotiationError, Message
from connector.model.transfer import TransferError, TransferMessage

Content: TypeAlias = (
    Message | ContractNegotiationError | AgreementNotice | TransferMessage | TransferError
)
