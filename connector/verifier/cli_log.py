"""``connector-verify proof`` and ``connector-verify log``: one receipt, or a whole exported log.

Both trust nothing but the verifier keys (C2SP signed-note vkeys) that they are given. Exit status
as ``connector-verify``: 0 valid, 1 not valid, 2 could not be read.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connector.core.choose import NAMES, choose
from connector.errors import ConnectorError, InvalidInput, VerificationFailed
from connector.model import cbor, fields
from connector.model import receipt as receipts
from connector.model.receipt import Receipt
from connector.tlog import merkle, note
from connector.tlog.proof import MAX_PROOF_BYTES, Proved, parse_proof, verify_proof
from connector.verifier.cli_output import (
    INVALID,
    VALID,
    clean,
    concluded,
    read_file,
    told,
    unusable,
)
from connector.verifier.folder import LogFolder
from connector.verifier.shown import show_receipt
from connector.verifier.wholelog import LogVerdict, verify_log

COMMANDS = ("proof", "log")
MOST_SCOPES = 50  # in the plain output; --json has all
MOST_THREADS = 8
_MAX_KEY_FILE = 4_096


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        status, lines = options.run(options)
    except ConnectorError as error:
        return unusable(error)
    for line in lines:
        print(clean(line))  # noqa: T201
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="connector-verify")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    proof = commands.add_parser(
        "proof",
        help="one receipt",
        description="Check offline that a receipt is in a log: a C2SP tlog-proof and the receipt's "
        "bytes.",
        epilog="exit status: 0 valid, 1 not valid, 2 could not be read",
    )
    proof.add_argument("proof", metavar="FILE", help="the tlog-proof")
    proof.add_argument("--leaf", metavar="FILE", required=True, help="the receipt's bytes")
    _add_keys(proof, "--key")
    proof.set_defaults(run=_proof)
    log = commands.add_parser(
        "log",
        help="a whole exported log",
        description="Check a whole exported log (a C2SP tlog-tiles folder): every leaf, every "
        "hash, every number.",
        epilog="exit status: 0 valid, 1 not valid, 2 could not be read",
    )
    log.add_argument("folder", metavar="FOLDER", help="holds checkpoint and tile/")
    _add_keys(log, "--vkey")
    log.add_argument(
        "--allow-dropped",
        action="store_true",
        help="entry bundles may be missing, as after the end of their retention; their hashes "
        "may not",
    )
    log.add_argument("--core", choices=NAMES, default="auto", help="which metering core hashes")
    log.add_argument(
        "--threads", type=int, default=min(os.cpu_count() or 1, MOST_THREADS), metavar="N"
    )
    log.set_defaults(run=_log)
    return parser


def _add_keys(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        name,
        dest="keys",
        metavar="VKEY",
        action="append",
        required=True,
        help="the log's verifier key (name+id+key), or a file that holds it; more than one if it "
        "changed",
    )
    parser.add_argument(
        "--witness",
        dest="witnesses",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness's verifier key: it must have cosigned the checkpoint; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")


def _proof(options: argparse.Namespace) -> tuple[int, list[str]]:
    proof = parse_proof(read_file(Path(options.proof), MAX_PROOF_BYTES))
    leaf = read_file(Path(options.leaf), cbor.MAX_BYTES)
    receipt = receipts.decode(leaf)
    keys, witnesses = _keys(options.keys), _keys(options.witnesses)
    found: dict[str, Any] = {
        "valid": False,
        "index": proof.index,
        "leafHash": merkle.leaf_hash(leaf).hex(),
        "receipt": show_receipt(receipt),
    }
    try:
        proved = verify_proof(proof, merkle.leaf_hash(leaf), keys, witnesses)
    except VerificationFailed as error:
        found["failure"] = error.message
        status, end = INVALID, f"NOT VALID: {error.message}"
    else:
        found |= {"valid": True} | _proved(proved)
        status, end = VALID, "VALID"
    if options.json:
        return status, json.dumps(found, indent=2).splitlines()
    lines = [f"{name:<14}{value}" for name, value in _flat(receipt, found)]
    return status, [*lines, "", end]


def _proved(proved: Proved) -> dict[str, Any]:
    return {
        "origin": proved.checkpoint.origin,
        "size": proved.checkpoint.size,
        "cosigned": {name: _time(time) for name, time in proved.cosigned.items()},
    }


def _flat(receipt: Receipt, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown: Mapping[str, Any] = found["receipt"]
    lines = [(name, str(value)) for name, value in shown.items()]
    lines.append(("leaf", f"{found['index']:,}, hash {found['leafHash']}"))
    if "origin" in found:
        lines.append(("log", f"{found['origin']} at {found['size']:,} leaves"))
        lines += [("cosigned", f"{name} at {time}") for name, time in found["cosigned"].items()]
    return lines


def _log(options: argparse.Namespace) -> tuple[int, list[str]]:
    if not 1 <= options.threads <= MOST_THREADS:
        raise InvalidInput(f"threads: 1 to {MOST_THREADS}")
    core = choose(options.core)
    keys, witnesses = _keys(options.keys), _keys(options.witnesses)
    with tempfile.TemporaryDirectory(prefix="connector-verify-") as scratch:
        uses = core.open_keys(Path(scratch) / "uses")
        try:
            verdict = verify_log(
                LogFolder(Path(options.folder)),
                keys,
                witnesses,
                core=core,
                uses=uses,
                allow_dropped=options.allow_dropped,
                threads=options.threads,
            )
        finally:
            uses.close()
    if options.json:
        lines = json.dumps(verdict.as_json(), indent=2).splitlines()
    else:
        lines = _report(verdict)
    return (VALID if verdict.valid else INVALID), lines


def _report(verdict: LogVerdict) -> list[str]:
    lines = [
        f"log        {verdict.origin}",
        f"leaves     {verdict.size:,}",
        f"root       {verdict.root.hex()}",
        f"core       {verdict.core}",
        "",
    ]
    for step in verdict.steps:
        lines += told(step)
    for name, time in verdict.cosigned.items():
        lines.append(f"cosigned by {name} at {_time(time)}")
    lines += ["", *_scopes(verdict.scopes), ""]
    return [*lines, concluded(verdict.steps)]


def _scopes(scopes: Mapping[str, Mapping[str, int]]) -> list[str]:
    lines = []
    for name, counts in list(scopes.items())[:MOST_SCOPES]:
        said = ", ".join(f"{amount:,} {what}" for what, amount in counts.items() if amount)
        lines.append(f"{name}: {said}")
    if len(scopes) > MOST_SCOPES:
        lines.append(f"and {len(scopes) - MOST_SCOPES:,} more scopes (--json lists them)")
    return lines


def _keys(values: Sequence[str]) -> list[note.VerifierKey]:
    return [note.parse_verifier_key(_key_text(value)) for value in values]


def _key_text(value: str) -> str:
    try:
        if not Path(value).is_file():
            return value
    except OSError:  # too long to be a name, say
        return value
    return read_file(Path(value), _MAX_KEY_FILE).decode("utf-8", "replace").strip()


def _time(seconds: int) -> str:
    try:
        return fields.format_time(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds since 1970"
