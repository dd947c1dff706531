"""The gate: the way of one use, from the request to the released result.

    find -> describe -> decide -> reserve -> run -> record -> release

* A use that was recorded before gives the same receipt again, and for a while the same result.
* The policy is asked once; counters are checked again where they are reserved, atomically, so
  that uses in parallel cannot overshoot together.
* What is counted is reserved durably before anything runs, and the receipt is durable under a
  signed checkpoint before the first byte of the result is released.
* A refusal takes the same way and leaves a receipt with its reasons. It shows nothing of the
  data: reasons come from the request, the contract or the counters.

Everything fails closed: no policy answer, no agreement, no durable receipt, no result.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    RateLimited,
    Reason,
    Refused,
    Unavailable,
)
from connector.gate.describe import describe
from connector.gate.results import KeptResults
from connector.metering.meter import Meter
from connector.model.participant import Participant
from connector.model.receipt import Outcome, Quantity, UseReceipt
from connector.model.use import MAX_REQUEST_BYTES, MAX_USE_ID, Decision, Use
from connector.policy import decisions, inputs
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore, PublishedDataset
from connector.ports.policy import PolicyEngine
from connector.ports.query import QueryEngine, QueryResult

log = structlog.get_logger()
