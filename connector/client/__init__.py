"""What a Python user imports to work with a node on the same machine.

    from connector.client import connect, connect_sync

Async first, with a sync face; typed values, no protobuf; results as Arrow tables.
"""

from connector.client.directory import DirectoryNode, connect_directory
from connector.client.errors import NodeNotRunning, Refused, UseFailed
from connector.client.node import Node, connect
from connector.client.reporting import Reporting, UseReport
from connector.client.sync import SyncNode, connect_sync
from connector.client.types import (
    Agreement,
    Check,
    DataAddress,
    Datasets,
    Enrolment,
    Event,
    Invitation,
    Member,
    Negotiation,
    PeerCatalog,
    PeerDataset,
    PeerOffer,
    Publication,
    Pulled,
    PullStart,
    Receipt,
    ReceiptProof,
    Receipts,
    ReconcileLine,
    Reconciliation,
    Reporter,
    ReportersDoor,
    Result,
    Status,
    Transfer,
)

__all__ = [
    "Agreement",
    "Check",
    "DataAddress",
    "Datasets",
    "DirectoryNode",
    "Enrolment",
    "Event",
    "Invitation",
    "Member",
    "Negotiation",
    "Node",
    "NodeNotRunning",
    "PeerCatalog",
    "PeerDataset",
    "PeerOffer",
    "Publication",
    "PullStart",
    "Pulled",
    "Receipt",
    "ReceiptProof",
    "Receipts",
    "ReconcileLine",
    "Reconciliation",
    "Refused",
    "Reporter",
    "ReportersDoor",
    "Reporting",
    "Result",
    "Status",
    "SyncNode",
    "Transfer",
    "UseFailed",
    "UseReport",
    "connect",
    "connect_directory",
    "connect_sync",
]
