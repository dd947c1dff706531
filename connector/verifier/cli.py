"""``connector-verify``: an evidence file and the space's public key to a verdict on paper.

``connector-verify proof`` and ``connector-verify log`` (``cli_log``) check a single receipt and a
whole exported log instead. Reads files, writes to standard output, and does nothing else: no
network, no clock. Exit status: 0 the evidence is valid, 1 it is not, 2 it could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from connector.errors import ConnectorError, InvalidInput
from connector.model.participant import unb64url
from connector.verifier import cli_log
from connector.verifier.cli_output import (
    INVALID,
    VALID,
    clean,
    concluded,
    read_file,
    told,
    unusable,
)
from connector.verifier.evidence import MAX_EVIDENCE_BYTES
from connector.verifier.verdict import Verdict
from connector.verifier.verify import KEY_BYTES, verify_file

_KEY_CHARS = 43


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in cli_log.COMMANDS and not _names_a_space_key(arguments):
        return cli_log.main(arguments)
    options = _parser().parse_args(arguments)
    try:
        verdict = verify_file(
            read_file(Path(options.evidence), MAX_EVIDENCE_BYTES), _key(options.space_key)
        )
    except ConnectorError as error:
        return unusable(error)
    lines = (
        json.dumps(verdict.as_json(), indent=2).splitlines() if options.json else _report(verdict)
    )
    for line in lines:
        print(clean(line))  # noqa: T201
    return VALID if verdict.valid else INVALID


def _names_a_space_key(arguments: Sequence[str]) -> bool:
    """Then the first argument is an evidence file, even if it has a command's name."""
    return any(argument.partition("=")[0] == "--space-key" for argument in arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="connector-verify",
        description="Check an evidence file offline, step by step. Trusts nothing but the space's "
        "public key, which you must have from somewhere else than the file.",
        epilog="exit status: 0 valid, 1 not valid, 2 could not be read. "
        "A single receipt: connector-verify proof --help. "
        "A whole exported log: connector-verify log --help.",
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


def _key(value: str) -> bytes:
    if len(value) != _KEY_CHARS or Path(value).is_file():
        value = read_file(Path(value), MAX_EVIDENCE_BYTES).decode("ascii", "replace").strip()
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
        lines += told(step)
    if verdict.totals:
        lines += ["", *_totals(verdict)]
    lines += ["", *(f"note: {item}" for item in verdict.assurance), ""]
    return [*lines, concluded(verdict.steps)]


def _totals(verdict: Verdict) -> list[str]:
    sides = list(verdict.totals)
    lines = [f"{'':<18}" + "".join(f"{side:>16}" for side in sides)]
    for name in next(iter(verdict.totals.values())):
        amounts = "".join(f"{verdict.totals[side][name]:>16,}" for side in sides)
        lines.append(f"{name.replace('_', ' '):<18}{amounts}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
