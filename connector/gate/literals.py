"""Literals: numbers and texts as they were written, dates and timestamps in one ISO form.

A text that is compared with a date becomes a date here, or is refused here: the engine never
parses one.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from connector.gate.expressions import Kind, Value
from connector.gate.sql import refuse, shown

MAX_TEXT = 1024  # characters of one literal
MAX_DIGITS = 18  # of a whole number: always a BIGINT
_WHOLE = re.compile(r"\d+", re.ASCII)
_NUMBER = re.compile(r"\d*\.?\d*([eE][+-]?\d{1,3})?", re.ASCII)


def literal(text: str, *, is_text: bool) -> Value:
    """A text or a number, from what the parser read. Raises ``Refused``."""
    if is_text:
        if len(text) > MAX_TEXT:
            refuse("size", f"a text of {len(text)} characters", f"at most {MAX_TEXT}")
        return Value(text, Kind.TEXT)
    digits = sum(char.isdigit() for char in text)
    if _WHOLE.fullmatch(text) and digits <= MAX_DIGITS:
        return Value(str(int(text)), Kind.NUMBER)
    if not digits or digits > MAX_DIGITS or not _NUMBER.fullmatch(text):
        refuse("syntax", shown(text), f"a number of at most {MAX_DIGITS} digits")
    return Value(text, Kind.NUMBER)


def moment(value: Value, kind: Kind) -> Value:
    """A text as a date or timestamp of ``kind``; times with a zone are turned into UTC."""
    try:
        if kind is Kind.DATE:
            return Value(date.fromisoformat(value.text.strip()).isoformat(), kind)
        read = datetime.fromisoformat(value.text.strip())
        if read.tzinfo is not None:
            read = read.astimezone(UTC).replace(tzinfo=None)
        return Value(read.isoformat(" "), kind)
    except (ValueError, OverflowError):
        form = "'2013-06-01'" if kind is Kind.DATE else "'2013-06-01' or '2013-06-01 05:00:00'"
        refuse("type", f"'{shown(value.text)}' where {kind} stands", f"a text like {form}")
