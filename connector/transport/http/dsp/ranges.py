"""Which bytes of a file a GET asks for, and on which conditions (RFC 9110, sections 13 and 14).

Pure. One range at a time: several are refused, as RFC 9110 section 14.2 lets a server do, for
their parts would be metered in ways that nobody expects. Units other than bytes are ignored, as
it says. Our validators are strong entity tags and nothing else, so conditions by date never hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"([0-9]{0,19})-([0-9]{0,19})", re.ASCII)
_MAX_HEADER = 1024  # characters of a condition


@dataclass(frozen=True, slots=True)
class Part:
    """``size - 1`` is the file's last byte; ``first`` to ``end - 1`` are to be sent, and are the
    whole file if ``status`` is 200. Of 304, 412 and 416 none are."""

    status: int
    first: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.first


def part_of(headers: Mapping[str, str], size: int, etag: str, *, ranges: bool = True) -> Part:
    """What to answer to a request with these headers (lower-case names) for a file of ``size``
    bytes and this strong ``etag``; without ``ranges`` (a HEAD) no range is looked at."""
    if_match = headers.get("if-match", "")
    if if_match and not _names(if_match, etag, weak=False):
        return Part(412, 0, 0)
    if_none_match = headers.get("if-none-match", "")
    if if_none_match and _names(if_none_match, etag, weak=True):
        return Part(304, 0, 0)
    asked = headers.get("range", "").strip()
    unit, _, wanted = asked.partition("=")
    if not ranges or not asked or unit.strip().lower() != "bytes":
        return Part(200, 0, size)
    if_range = headers.get("if-range", "").strip()
    if if_range and if_range != etag:
        return Part(200, 0, size)
    return _satisfied(wanted.strip(), size)


def _satisfied(wanted: str, size: int) -> Part:
    found = _RANGE.fullmatch(wanted)
    if found is None or wanted == "-":
        return Part(416, 0, 0)
    first, last = found[1], found[2]
    if not first:  # the last bytes
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return Part(416, 0, 0)
    return Part(206, begin, end) if begin < end else Part(416, 0, 0)


def _names(condition: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or ``*``, names this one."""
    if len(condition) > _MAX_HEADER:
        return False
    tags = [tag.strip() for tag in condition.split(",")]
    if weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    return "*" in tags or etag in tags
