"""A node's log, checked while no node runs: ``connector log fsck``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from connector.adapters.segments.fsck import Checked, Finding, fsck
from connector.core.choose import choose

__all__ = ["Checked", "Finding", "check_log"]


def check_log(data: Path, *, mend: bool, progress: Callable[[int, int], None]) -> Checked:
    """See ``adapters.segments.fsck``; ``data`` is the node's data folder."""
    return fsck(data / "log", choose(), mend=mend, progress=progress)
