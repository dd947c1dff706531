"""``connector-verify``: an evidence file and the space's public key to a verdict on paper.

Reads two files at most, writes to standard output, and does nothing else: no network, no clock.
Exit status: 0 the evidence is valid, 1 it is not, 2 it could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from connector.errors import ConnectorError, InvalidInput
from connector.model.participant import unb64url
from connector.verifier.evidence import MAX_EVIDENCE_BYTES
from connector.verifier.verdict import Step, Verdict
from connector.verifier.verify import KEY_BYTES, verify_file

VALID, INVALID, UNUSABLE = 0, 1, 2
MOST_LINES = 20  # findings of one step in the plain output; --json has all
_KEY_CHARS = 43


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        verdict = verify_file(_read(Path(options.evidence)), _key(options.space_key))
    except ConnectorError as error:
        print(_clean(f"connector-verify: {error.message}"), file=sys.stderr)  # noqa: T201
        return UNUSABLE
    lines = (
        json.dumps(verdict.as_json(), indent=2).splitlines() if options.json else _report(verdict)
    )
    for line in lines:
        print(_clean(line))  # noqa: T201
    return VALID if verdict.valid else INVALID


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="connector-verify",
        description="Check an evidence file offline, step by step. Trusts nothing but the space's "
        "public key, which you must have from somewhere else than the file.",
        epilog="exit status: 0 valid, 1 not valid, 2 could not be read",
    )
    parser.add_argument("evidence", metavar="EVIDENCE", help="the evidence file")
    parser.add_argument(
        "--space-key",
        metavar="KEY",
        required=True,
        help="the space's Ed25519 public key in base64url, or a file that holds it",
    )
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")
    return parser


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_EVIDENCE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"the file cannot be read: {error.strerror}") from error


def _key(value: str) -> bytes:
    if len(value) != _KEY_CHARS or Path(value).is_file():
        value = _read(Path(value)).decode("ascii", "replace").strip()
    try:
        return unb64url(value, KEY_BYTES)
    except InvalidInput as error:
        raise InvalidInput("the space key must be 32 bytes in base64url") from error


def _report(verdict: Verdict) -> list[str]:
    lines = [
        f"agreement  {verdict.agreement}",
        f"provider   {verdict.provider}",
        f"consumer   {verdict.consumer}",
        f"exporter   {verdict.exporter}",
        "",
    ]
    for step in verdict.steps:
        lines += _step(step)
    if verdict.totals:
        lines += ["", *_totals(verdict)]
    lines += ["", *(f"note: {item}" for item in verdict.assurance), ""]
    failed = [str(step.number) for step in verdict.steps if not step.ok]
    lines.append(f"NOT VALID: step {', '.join(failed)} failed" if failed else "VALID")
    return lines


def _step(step: Step) -> list[str]:
    lines = [f"{step.number:>2}. {'ok    ' if step.ok else 'FAILED'}  {step.title}"]
    found = [f"! {item}" for item in step.failures] + [f"? {item}" for item in step.warnings]
    if step.detail:
        found.insert(0, step.detail)
    lines += [f"            {item}" for item in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        lines.append(f"            and {len(found) - MOST_LINES} more (--json lists them)")
    return lines


def _totals(verdict: Verdict) -> list[str]:
    sides = list(verdict.totals)
    lines = [f"{'':<18}" + "".join(f"{side:>16}" for side in sides)]
    for name in next(iter(verdict.totals.values())):
        amounts = "".join(f"{verdict.totals[side][name]:>16,}" for side in sides)
        lines.append(f"{name.replace('_', ' '):<18}{amounts}")
    return lines


def _clean(line: str) -> str:
    """What came from a file must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


if __name__ == "__main__":
    sys.exit(main())
