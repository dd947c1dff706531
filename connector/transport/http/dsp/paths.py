"""Where each message of the Dataspace Protocol 2025-1 goes, below a connector's base URL.

Owns the path tables of the HTTPS bindings (negotiation and transfer, provider's and consumer's
paths); ``door`` serves them and ``courier`` posts to them. A path with a process id names the
receiver's.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from connector.model.negotiation import AgreementNotice, Message, MessageType, Party
from connector.model.transfer import TransferMessage, TransferType

VERSION = "2025-1"
BASE = f"/{VERSION}"  # below the root at which the version endpoint is
VERSIONS = "/.well-known/dspace-version"
CATALOG = "/catalog/request"
DATASETS = "/catalog/datasets"
NEGOTIATIONS = "/negotiations"
TRANSFERS = "/transfers"
AGREEMENTS = "/tds/agreements"  # ours, not DSP's: the signed end of one, between two who sign

# The first message of a process, for its receiver has no process id yet.
BEGIN: Mapping[MessageType | TransferType, str] = {
    MessageType.REQUEST: f"{NEGOTIATIONS}/request",
    MessageType.OFFER: f"{NEGOTIATIONS}/offers",
    TransferType.REQUEST: f"{TRANSFERS}/request",
}
# All others: what follows the receiver's process id.
ACTIONS: Mapping[MessageType | TransferType, str] = {
    MessageType.REQUEST: "request",
    MessageType.OFFER: "offers",
    MessageType.ACCEPTED: "events",
    MessageType.AGREEMENT: "agreement",
    MessageType.VERIFICATION: "agreement/verification",
    MessageType.FINALIZED: "events",
    MessageType.TERMINATION: "termination",
    TransferType.START: "start",
    TransferType.COMPLETION: "completion",
    TransferType.SUSPENSION: "suspension",
    TransferType.TERMINATION: "termination",
}


def path_of(content: Message | TransferMessage | AgreementNotice, receiver: Party) -> str:
    """Below the receiver's base URL."""
    if isinstance(content, AgreementNotice):
        return f"{AGREEMENTS}/{segment(content.agreement_id)}/notice"
    pid = content.consumer_pid if receiver is Party.CONSUMER else content.provider_pid
    if not pid:
        return BEGIN[content.type]
    kind = NEGOTIATIONS if isinstance(content, Message) else TRANSFERS
    return f"{kind}/{segment(pid)}/{ACTIONS[content.type]}"


def segment(identifier: str) -> str:
    """An identifier as one segment of a path (RFC 3986 section 3.3)."""
    return quote(identifier, safe=":@!$&'()*+,;=~")
