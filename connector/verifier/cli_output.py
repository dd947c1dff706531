"""What the commands of ``connector-verify`` share: exit statuses, reading, printing steps."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from connector.errors import ConnectorError, InvalidInput
from connector.verifier.verdict import Step

VALID, INVALID, UNUSABLE = 0, 1, 2
MOST_LINES = 20  # findings of one step in the plain output; --json has all


def read_file(path: Path, most: int) -> bytes:
    """At most one byte more than ``most``, so that a parser refuses it. Raises ``InvalidInput``."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise InvalidInput(f"the file cannot be read: {error.strerror}") from error


def unusable(error: ConnectorError) -> int:
    """Says what could not be read, on standard error."""
    print(clean(f"connector-verify: {error.message}"), file=sys.stderr)  # noqa: T201
    return UNUSABLE


def concluded(steps: Iterable[Step]) -> str:
    """The last line of a report."""
    failed = [str(step.number) for step in steps if not step.ok]
    return f"NOT VALID: step {', '.join(failed)} failed" if failed else "VALID"


def told(step: Step) -> list[str]:
    lines = [f"{step.number:>2}. {'ok    ' if step.ok else 'FAILED'}  {step.title}"]
    found = [f"! {item}" for item in step.failures] + [f"? {item}" for item in step.warnings]
    if step.detail:
        found.insert(0, step.detail)
    lines += [f"            {item}" for item in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        lines.append(f"            and {len(found) - MOST_LINES} more (--json lists them)")
    return lines


def clean(line: str) -> str:
    """What came from a file must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
