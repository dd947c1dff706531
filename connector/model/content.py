"""All that may pass between two connectors on one channel, whatever carries it."""

from __future__ import annotations

from typing import TypeAlias

from connector.model.negotiation import (
    AgreementNotice,
    ContractNegotiationError,
    Message,
    Party,
)
from connector.model.transfer import TransferError, TransferMessage

Content: TypeAlias = (
    Message | ContractNegotiationError | AgreementNotice | TransferMessage | TransferError
)


def process_ids(
    party: Party, content: Message | ContractNegotiationError | TransferMessage | TransferError
) -> tuple[str, str]:
    """(ours, the peer's) as ``content`` has them, where we are ``party``."""
    if party is Party.CONSUMER:
        return content.consumer_pid, content.provider_pid
    return content.provider_pid, content.consumer_pid
