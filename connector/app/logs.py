"""Structured operations logs: one JSON object a line on standard error.

Every line carries the correlation id of the work it belongs to, the same on every node that the
work touches. They are for operators; what must be provable is in the receipt log.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str, node: str) -> None:
    """``level``: a key of ``LEVELS``; ``node``: the DID that every line names."""
    logging.basicConfig(
        stream=sys.stderr, format='{"event": "%(message)s", "logger": "%(name)s"}', level="WARNING"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without local variables: they may hold secrets and data.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            lambda _logger, _method, event: {"node": node, **event},
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
