"""What an enrolled node can do for its operator, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connector.negotiation.service import Negotiations
from connector.negotiation.transfers import Transfers
from connector.operations.books import Books
from connector.operations.catalogue import Catalogue
from connector.operations.consuming import Consumer
from connector.operations.peers import PeerCatalogues
from connector.operations.publishing import Publisher
from connector.operations.reporters import Reporters
from connector.operations.reporting import Reporting
from connector.ports.peers import PullPeer


@dataclass(frozen=True, slots=True)
class Services:
    """``reach`` opens the stream to a provider over which its answers will come; ``uses`` counts
    the allowed uses of an agreement, by our own log."""

    publisher: Publisher
    consumer: Consumer
    negotiations: Negotiations
    transfers: Transfers
    catalogue: Catalogue
    peers: PeerCatalogues
    pulled: PullPeer
    books: Books
    reporting: Reporting
    reporters: Reporters
    reach: Callable[[str], None]
    uses: Callable[[str], int]
