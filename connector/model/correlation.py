"""The id under which the log lines of one piece of work are found on every node that has a part in
it. It is the caller's word, and means nothing else."""

from __future__ import annotations

CORRELATION = "correlation_id"  # the name under which log lines and letters carry it
MAX_CORRELATION = 64  # characters


def is_usable(value: str) -> bool:
    """Whether an id that came from elsewhere may stand in our log lines."""
    return len(value) <= MAX_CORRELATION and value.isascii() and value.isalnum()
