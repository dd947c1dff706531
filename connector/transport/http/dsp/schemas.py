"""Is it a message of the Dataspace Protocol 2025-1? Its published JSON schemas say so, or why not.

Owns the schemas of ``published/`` (its README names the source) and the one repair that they need.
They are JSON Schema 2019-09; each message has one, found by the message's ``@type``. References
are answered from these files alone, never from the network.

Left out: whether the bytes are JSON (``reading``), and what a message means (``wire``). Plain JSON:
a message is not expanded as JSON-LD, which the protocol allows (section 4.1.3).

A refusal is in our own words around what the schema says: nothing of the input is repeated but
where in it the trouble is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jsonschema_rs import Draft201909Validator, RegexOptions, Registry

from connector.errors import InvalidInput

CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"

# By @type; the last two are named after their schemas.
FILES: Mapping[str, str] = {
    "CatalogRequestMessage": "catalog/catalog-request-message",
    "DatasetRequestMessage": "catalog/dataset-request-message",
    "Catalog": "catalog/catalog",
    "Dataset": "catalog/dataset",
    "CatalogError": "catalog/catalog-error",
    "ContractRequestMessage": "negotiation/contract-request-message",
    "ContractOfferMessage": "negotiation/contract-offer-message",
    "ContractAgreementMessage": "negotiation/contract-agreement-message",
    "ContractAgreementVerificationMessage": "negotiation/contract-agreement-verification-message",
    "ContractNegotiationEventMessage": "negotiation/contract-negotiation-event-message",
    "ContractNegotiationTerminationMessage": "negotiation/contract-negotiation-termination-message",
    "ContractNegotiation": "negotiation/contract-negotiation",
    "ContractNegotiationError": "negotiation/contract-negotiation-error",
    "TransferRequestMessage": "transfer/transfer-request-message",
    "TransferStartMessage": "transfer/transfer-start-message",
    "TransferCompletionMessage": "transfer/transfer-completion-message",
    "TransferSuspensionMessage": "transfer/transfer-suspension-message",
    "TransferTerminationMessage": "transfer/transfer-termination-message",
    "TransferProcess": "transfer/transfer-process",
    "TransferError": "transfer/transfer-error",
    "DataAddress": "transfer/data-address",
    "VersionResponse": "common/protocol-version",
    "DidService": "common/did-service",
}

# As published in transfer-error, transfer-suspension-message and transfer-termination-message:
# a JSON pointer that lacks its first slash.
BROKEN_REF = "transfer-schema.json#definitions/AbstractTransferCodeMessage"
MENDED_REF = "transfer-schema.json#/definitions/AbstractTransferCodeMessage"

_PLACES = 3  # at most so many are named in one refusal
_LONGEST = 200  # characters of a place or of what is wrong there
_EXPLAINED = 1000  # values of a message in which it is looked for what is wrong
_FIRST = 2  # of each list, where there are more than that
_EXPLAINED = 1000  # values of a message in which it is looked for what is wrong
_FIRST = 2  # of each list, where there are more than that
_LINEAR = RegexOptions()  # an engine without backtracking: a pattern takes linear time
_ALTERNATIVE = re.compile(r"(.*/(oneOf|anyOf))/[0-9]+/required")


def check(kind: str, value: object) -> None:
    """Nothing, if ``value`` is a valid ``kind`` (a key of ``FILES``).

    Raises ``InvalidInput`` with up to three places (JSON pointers) and what is wrong there. To
    find them takes far longer than to see that there are some, so of a large message only the
    first of each list are looked at, and of one that is larger still nothing.
    """
    validator = _validators()[kind]
    if validator.is_valid(value):
        return
    for part in (value, _firsts(value)):
        if not _is_large(part) and not validator.is_valid(part):
            raise InvalidInput(f"{kind}: {_explained(validator, part)}")
    raise InvalidInput(
        f"{kind}: does not have the protocol's form, in a place too deep to be named"
    )


def _firsts(value: Any) -> Any:
    """Without all but the first items of each list: what is wrong is often wrong in all."""
    if isinstance(value, dict):
        return {key: _firsts(item) for key, item in value.items()}
    return [_firsts(item) for item in value[:_FIRST]] if isinstance(value, list) else value


def _is_large(value: Any) -> bool:
    waiting, count = [value], 0
    while waiting and count <= _EXPLAINED:
        found = waiting.pop()
        count += 1
        if isinstance(found, dict | list):
            waiting.extend(found.values() if isinstance(found, dict) else found)
    return count > _EXPLAINED


def _explained(validator: Draft201909Validator, value: Any) -> str:
    # Not by iter_errors() or validate(): with one array of 20 000 wrong items they take seconds.
    broken: dict[str, list[str]] = {}  # place in the value: which keywords of which schemas
    for error in validator.evaluate(value).errors():
        keyword = error["absoluteKeywordLocation"] or error["schemaLocation"]
        broken.setdefault(error["instanceLocation"], []).append(keyword)
    reasons = [
        f"{place[:_LONGEST] or 'the message'} {_wrong(_at(value, place), broken[place])[:_LONGEST]}"
        for place in _deepest(broken)
    ]
    return "; ".join(reasons)


def _deepest(places: Iterable[str]) -> list[str]:
    """Without those that lie above another: they may be of an alternative that was not meant."""
    chosen: list[str] = []
    for place in sorted(places, key=lambda place: -place.count("/")):
        if not any(deeper.startswith(f"{place}/") for deeper in chosen):
            chosen.append(place)
        if len(chosen) == _PLACES:
            break
    return chosen


def _wrong(value: Any, keywords: Iterable[str]) -> str:
    """What the schemas' ``keywords`` (by their places) ask of ``value``, for people."""
    lacks: dict[str, None] = {}
    types: dict[str, None] = {}
    other: dict[str, None] = {}
    for keyword in keywords:
        rule = _rule(keyword)
        name = keyword.rpartition("/")[2]
        if alternative := _ALTERNATIVE.fullmatch(keyword):
            count = "exactly" if alternative[2] == "oneOf" else "at least"
            other[f"needs {count} one of {_required(_rule(alternative[1]))}"] = None
        elif name == "required":
            lacks.update(dict.fromkeys(key for key in rule if key not in value))
        elif name == "type":
            types[rule] = None
        else:
            other[_asks(name, rule)] = None
    said = []
    if lacks:
        said.append(f"lacks {', '.join(lacks)}")
    if types:
        said.append(f"must be of type {' or '.join(types)}")
    return ", ".join([*said, *other])


def _asks(keyword: str, rule: Any) -> str:
    match keyword:
        case "const":
            return f"must be {rule}"
        case "enum":
            return f"must be one of {', '.join(map(str, rule))}"
        case "minItems":
            return f"needs at least {rule} item"
        case "contains":
            return f"must contain {rule['const']}"
        case "pattern":
            return f"must match {rule}"
        case "not":
            return f"must not have {_required([rule])}"
        case "oneOf":
            return f"must have the form of only one of {_required(rule)}"
        case _:
            return f"breaks the schema's {keyword}"


def _required(alternatives: Iterable[Any]) -> str:
    """What tells them apart: the keys that they require, or their names."""
    names = (one.get("required") or [one["$ref"].rpartition("/")[2]] for one in alternatives)
    return ", ".join(name for keys in names for name in keys)


def _rule(keyword: str) -> Any:
    """What a schema says at a place such as ``https://…-schema.json#/definitions/Rule/required``."""
    schema, _, pointer = keyword.partition("#")
    return _at(_documents()[schema], pointer)


def _at(value: Any, pointer: str) -> Any:
    """RFC 6901."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@cache
def _documents() -> Mapping[str, Any]:
    """Every schema by its ``$id``, mended."""
    texts = (path.read_text("utf-8") for path in _schema_files(files(__package__) / "published"))
    schemas = [json.loads(text.replace(BROKEN_REF, MENDED_REF)) for text in texts]
    return {schema["$id"]: schema for schema in schemas}


def _schema_files(folder: Traversable) -> Iterator[Traversable]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir():
            yield from _schema_files(path)
        elif path.name.endswith("-schema.json"):
            yield path


@cache
def _validators() -> Mapping[str, Draft201909Validator]:
    """One for each kind, compiled (about 5 ms for all)."""
    documents = _documents()
    registry = Registry(list(documents.items()))
    return {
        kind: Draft201909Validator(
            documents[f"https://w3id.org/dspace/2025/1/{name}-schema.json"],
            registry=registry,
            offline=True,
            pattern_options=_LINEAR,
        )
        for kind, name in FILES.items()
    }
