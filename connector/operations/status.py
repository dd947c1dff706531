"""What a node says of itself: its status, and checks with what to do when one fails."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``state`` is ``ready``, or why not. Before enrolment ``space``, ``space_key`` and
    ``certificate_expires`` are empty. ``view_age_seconds`` is -1 before the directory was heard.
    """

    did: str
    name: str
    state: str
    endpoint: str
    http_endpoint: str
    version: str
    log_size: int
    space: str = ""
    view_age_seconds: float = -1.0
    certificate_expires: str = ""
    space_key: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """``hint`` says what to do if it does not hold."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
