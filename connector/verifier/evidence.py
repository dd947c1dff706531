"""The evidence file: its shape, its strict parser and its writer (docs/evidence.md, section 4).

A file carries everything that proves what happened under one agreement: signed membership
events, the agreement with both signatures, and the receipts of one or both parties with proofs
under signed checkpoints. Parsing proves nothing; ``connector.verifier.verify`` does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from connector.errors import InvalidInput
from connector.model import cbor, fields
from connector.model.terms import MAX_DOCUMENT_BYTES
from connector.tlog import merkle, note

T = TypeVar("T")

FORMAT = "tds-evidence/1"
MAX_EVIDENCE_BYTES = 64 << 20
MAX_MEMBERS = 256  # membership events
MAX_STATEMENT = 1 << 16  # characters of a JWS
MAX_REQUESTS = 100_000
MAX_QUERY = 1 << 16  # characters
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf, its index in its log, and its inclusion proof under the log's checkpoint."""

    index: int
    leaf: bytes
    inclusion: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """One party's entries for the agreement, in ascending number.

    ``checkpoint`` is a signed note, with the cosignatures of witnesses if there are any.
    """

    origin: str
    checkpoint: bytes
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class GivenReceipt:
    """A receipt of the provider's as the consumer was given it, with its own checkpoint."""

    checkpoint: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class SignedAgreement:
    """The agreement's exact bytes and both parties' detached JWS over them; empty for a party from
    outside the space, which signs nothing."""

    document: bytes
    provider_signature: str
    consumer_signature: str


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked in the use with this receipt number, where the exporter discloses it."""

    number: int
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``space`` and ``exporter`` are DIDs; ``members`` are membership events (compact JWS).

    ``secret`` (32 bytes) keys the digests in receipts; empty where it is not disclosed.
    """

    space: str
    exporter: str
    members: tuple[str, ...]
    agreement: SignedAgreement
    logs: tuple[LogEvidence, ...]
    secret: bytes = b""
    requests: tuple[Request, ...] = ()
    given: tuple[GivenReceipt, ...] = ()


_KEYS = frozenset(
    {"format", "space", "exporter", "members", "agreement", "logs", "secret", "requests", "given"}
)
_AGREEMENT_KEYS = frozenset({"document", "providerSignature", "consumerSignature"})
_LOG_KEYS = frozenset({"origin", "checkpoint", "entries"})
_GIVEN_KEYS = frozenset({"checkpoint", "index", "leaf", "inclusion"})
_ENTRY_KEYS = frozenset({"index", "leaf", "inclusion"})
_REQUEST_KEYS = frozenset({"number", "query"})


def write_evidence(evidence: Evidence) -> bytes:
    """The file's bytes: JSON, with a line for each entry. Raises ``InvalidInput`` if too large."""
    agreement = evidence.agreement
    value: dict[str, Any] = {
        "format": FORMAT,
        "space": evidence.space,
        "exporter": evidence.exporter,
        "members": list(evidence.members),
        "agreement": {
            "document": _base64(agreement.document),
            "providerSignature": agreement.provider_signature,
            "consumerSignature": agreement.consumer_signature,
        },
    }
    if evidence.secret:
        value["secret"] = _base64(evidence.secret)
    if evidence.requests:
        value["requests"] = [{"number": r.number, "query": r.query} for r in evidence.requests]
    if evidence.given:
        value["given"] = [
            {"checkpoint": given.checkpoint.decode(), **_entry_json(given.entry)}
            for given in evidence.given
        ]
    head = json.dumps(value, ensure_ascii=False, indent=1)[:-2]  # without the closing brace
    try:
        logs = ",\n".join(_write_log(log) for log in evidence.logs)
        data = f'{head},\n "logs": [\n{logs}\n ]\n}}\n'.encode()
    except UnicodeError as error:
        raise InvalidInput("evidence: text that is not UTF-8") from error
    if len(data) > MAX_EVIDENCE_BYTES:
        raise InvalidInput(f"evidence: larger than {MAX_EVIDENCE_BYTES} bytes")
    return data


def _write_log(log: LogEvidence) -> str:
    entries = ",\n".join("    " + json.dumps(_entry_json(entry)) for entry in log.entries)
    origin = json.dumps(log.origin, ensure_ascii=False)
    checkpoint = json.dumps(log.checkpoint.decode(), ensure_ascii=False)
    return f'  {{"origin": {origin},\n   "checkpoint": {checkpoint},\n   "entries": [\n{entries}]}}'


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "index": entry.index,
        "leaf": _base64(entry.leaf),
        "inclusion": [_base64(item) for item in entry.inclusion],
    }


def parse_evidence(data: bytes) -> Evidence:
    """Strict: known keys, bounded sizes, one spelling of base64.

    Raises ``InvalidInput``, whose message says where in the file.
    """
    value = fields.as_object(_parse_json(data), "evidence")
    if value.get("format") != FORMAT:
        raise InvalidInput(f"format: must be {FORMAT}")
    fields.only_keys(value, _KEYS, "evidence")
    agreement = fields.as_object(value.get("agreement"), "agreement")
    fields.only_keys(agreement, _AGREEMENT_KEYS, "agreement")
    secret = value.get("secret")
    evidence = Evidence(
        space=fields.text(value, "space", limit=256),
        exporter=fields.text(value, "exporter", limit=256),
        members=fields.texts(value, "members", limit=MAX_STATEMENT, most=MAX_MEMBERS),
        agreement=SignedAgreement(
            document=_octets(agreement.get("document"), "document", MAX_DOCUMENT_BYTES),
            provider_signature=_signature(agreement, "providerSignature"),
            consumer_signature=_signature(agreement, "consumerSignature"),
        ),
        logs=_each(value, "logs", 2, _log),
        secret=b"" if secret is None else _octets(secret, "secret", SECRET_BYTES),
        requests=_each(value, "requests", MAX_REQUESTS, _request, default=[]),
        given=_each(value, "given", MAX_REQUESTS, _given, default=[]),
    )
    if len({log.origin for log in evidence.logs}) != len(evidence.logs):
        raise InvalidInput("logs: two of one origin")
    if secret is not None and len(evidence.secret) != SECRET_BYTES:
        raise InvalidInput(f"secret: must have {SECRET_BYTES} bytes")
    return evidence


def _signature(value: Mapping[str, Any], key: str) -> str:
    if key not in value:
        raise InvalidInput(f"{key}: is missing")
    return fields.text(value, key, limit=MAX_STATEMENT, default="")


def _parse_json(data: bytes) -> Any:
    try:
        return fields.parse_json(data, limit=MAX_EVIDENCE_BYTES, what="evidence")
    except InvalidInput as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError):
            place = f"line {cause.lineno}, column {cause.colno}"
            raise InvalidInput(f"{error.message} at {place}") from error
        if isinstance(cause, UnicodeDecodeError):
            raise InvalidInput(f"{error.message}: no UTF-8 at byte {cause.start}") from error
        raise


def _log(value: Mapping[str, Any]) -> LogEvidence:
    fields.only_keys(value, _LOG_KEYS, "log")
    return LogEvidence(
        origin=fields.text(value, "origin", limit=256),
        checkpoint=fields.text(value, "checkpoint", limit=note.MAX_NOTE_BYTES).encode(),
        entries=_each(value, "entries", MAX_EVIDENCE_BYTES, _entry),
    )


def _given(value: Mapping[str, Any]) -> GivenReceipt:
    fields.only_keys(value, _GIVEN_KEYS, "given")
    note_text = fields.text(value, "checkpoint", limit=note.MAX_NOTE_BYTES)
    entry = {key: value[key] for key in _ENTRY_KEYS if key in value}
    return GivenReceipt(note_text.encode(), _entry(entry))


def _entry(value: Mapping[str, Any]) -> Entry:
    fields.only_keys(value, _ENTRY_KEYS, "entry")
    inclusion = value.get("inclusion")
    if not isinstance(inclusion, list) or len(inclusion) > merkle.MAX_PROOF:
        raise InvalidInput(f"inclusion: must be a list of at most {merkle.MAX_PROOF}")
    return Entry(
        index=fields.integer(value, "index"),
        leaf=_octets(value.get("leaf"), "leaf", cbor.MAX_BYTES),
        inclusion=tuple(_octets(item, "inclusion", merkle.HASH_BYTES) for item in inclusion),
    )


def _request(value: Mapping[str, Any]) -> Request:
    fields.only_keys(value, _REQUEST_KEYS, "request")
    return Request(
        number=fields.integer(value, "number", low=1),
        query=fields.text(value, "query", limit=MAX_QUERY),
    )


def _each(
    value: Mapping[str, Any],
    key: str,
    most: int,
    parse: Callable[[Mapping[str, Any]], T],
    default: list[Any] | None = None,
) -> tuple[T, ...]:
    """A list of objects; an error names the place, as ``logs[0]: entries[6]: ...``."""
    items = value.get(key, default)
    if not isinstance(items, list) or len(items) > most:
        raise InvalidInput(f"{key}: must be a list of at most {most}")
    parsed = []
    for place, item in enumerate(items):
        try:
            parsed.append(parse(fields.as_object(item, "item")))
        except InvalidInput as error:
            raise InvalidInput(f"{key}[{place}]: {error.message}") from error
    return tuple(parsed)


def _octets(value: object, what: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > 4 * -(-limit // 3):
        raise InvalidInput(f"{what}: must be base64 of at most {limit} bytes")
    data = note.decode_base64(value, what)
    if len(data) > limit:
        raise InvalidInput(f"{what}: must be base64 of at most {limit} bytes")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
