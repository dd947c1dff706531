"""The space operator's node, put together."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from connector import config
from connector._pb.dataspace.catalog.v1.catalog_pb2_grpc import (
    add_CatalogIndexServiceServicer_to_server,
)
from connector._pb.dataspace.directory.v1.directory_pb2_grpc import (
    add_DirectoryServiceServicer_to_server,
    add_EnrolmentServiceServicer_to_server,
)
from connector._pb.dataspace.management.v1.management_pb2_grpc import (
    add_DirectoryManagementServiceServicer_to_server,
)
from connector._pb.dataspace.metering.v1.metering_pb2_grpc import (
    add_WitnessServiceServicer_to_server,
)
from connector.adapters.clock import SystemClock
from connector.adapters.directory_store import SqliteDirectoryStore
from connector.adapters.keys import KeyFolder
from connector.adapters.segments import SegmentLog
from connector.adapters.witness_store import SqliteWitnessStore
from connector.app import logs
from connector.app.engine import open_engine
from connector.app.metrics import Metrics
from connector.app.process import only_process, until_stopped, version
from connector.directory.authority import Authority
from connector.directory.service import DirectoryServices, open_directory
from connector.identity.certificates import issue_certificate, chain_pem, make_authority, read_authority, read_chain
from connector.identity.ourselves import Ourselves, log_origin
from connector.identity.tokens import TokenVerifier
from connector.metering.journal import MeterJournal
from connector.metering.meter import Meter
from connector.metering.witness import Witness
from connector.transport.grpc.channels import TlsIdentity
from connector.transport.grpc.directory import (
    CatalogIndexServicer,
    DirectoryServicer,
    EnrolmentServicer,
)
from connector.transport.grpc.guard import Guard, MutualTls, OpenCalls
from connector.transport.grpc.management import DirectoryManagementServicer
from connector.transport.grpc.metering import WitnessServicer
from connector.transport.grpc.server import Door
from connector.transport.http.server import HttpDoor, Sources, application

log = structlog.get_logger()
