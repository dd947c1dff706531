"""The published schemas: the protocol's own examples pass, and what is spoilt does not."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from connector.errors import InvalidInput
from connector.transport.http.dsp import reading, schemas

VECTORS = Path(__file__).parents[2] / "vectors" / "dsp"
PUBLISHED = files("connector.transport.http.dsp") / "published"

# The one example that its own schema refuses, as published: the endpoint does not end in /catalog.
CONTRADICTS_ITS_SCHEMA = "dataservice-did-service"

REQUEST = json.loads((VECTORS / "negotiation/contract-request-message.json").read_text())
OFFER = json.loads((VECTORS / "negotiation/contract-offer-message_initial.json").read_text())
DATASET = json.loads((VECTORS / "catalog/dataset.json").read_text())


def kind_of(example: Path, message: Any) -> str:
    named = {"protocol-version": "VersionResponse"}
    if example.stem.endswith("did-service"):
        return "DidService"
    return named.get(example.stem) or str(message["@type"])


def examples() -> Iterator[Any]:
    for path in sorted(VECTORS.glob("*/*.json")):
        if path.stem != CONTRADICTS_ITS_SCHEMA:
            message = json.loads(path.read_text())
            yield pytest.param(kind_of(path, message), message, id=path.stem)


EXAMPLES = list(examples())


def paths(schema: Any, document: str) -> Iterator[tuple[str, str]]:
    """Every reference in a schema, with the document that it is in."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield document, schema["$ref"]
        for child in schema.values():
            yield from paths(child, document)
    elif isinstance(schema, list):
        for child in schema:
            yield from paths(child, document)


@pytest.mark.parametrize(("kind", "message"), EXAMPLES)
def test_an_official_example_is_valid(kind: str, message: Any) -> None:
    schemas.check(kind, message)
    assert reading.read(json.dumps(message).encode(), kind) == message


def test_every_kind_but_one_has_an_example() -> None:
    kinds = {param.values[0] for param in EXAMPLES}
    assert set(schemas.FILES) - kinds == {"DataAddress"}  # a part of TransferStartMessage


@pytest.mark.parametrize(("kind", "message"), EXAMPLES)
def test_an_example_that_lacks_what_is_required_is_refused(kind: str, message: Any) -> None:
    schema = json.loads((PUBLISHED / f"{schemas.FILES[kind]}-schema.json").read_text())
    required = {
        key
        for definition in schema["definitions"].values()
        for key in definition.get("required", [])
        if key in message and kind in definition_names(schema, definition)
    }
    assert required or kind in {"TransferSuspensionMessage", "TransferTerminationMessage"}
    for key in required:
        spoilt = {name: value for name, value in message.items() if name != key}
        with pytest.raises(InvalidInput, match=f"the message lacks .*{key}"):
            schemas.check(kind, spoilt)


def definition_names(schema: Any, definition: Any) -> set[str]:
    names = {name for name, found in schema["definitions"].items() if found is definition}
    return names | {name.removeprefix("Root") for name in names}


@pytest.mark.parametrize(("kind", "message"), EXAMPLES)
@pytest.mark.parametrize("other", [None, [], 5, "text", {}])
def test_something_else_is_refused(kind: str, message: Any, other: object) -> None:
    with pytest.raises(InvalidInput, match=f"^{kind}: the message "):
        schemas.check(kind, other)


@pytest.mark.parametrize(("kind", "message"), [e for e in EXAMPLES if "@type" in e.values[1]])
def test_an_example_in_another_context_or_of_another_type_is_refused(
    kind: str, message: Any
) -> None:
    context = message["@context"]
    for wrong in (context[0], [], ["https://elsewhere.example/"], [{}], None):
        with pytest.raises(InvalidInput, match=r"/@context"):
            schemas.check(kind, {**message, "@context": wrong})
    if kind != "Dataset":  # whose schema leaves the type open
        for wrong in ([message["@type"]], "Another", 1):
            with pytest.raises(InvalidInput, match=r"/@type must be"):
                schemas.check(kind, {**message, "@type": wrong})


def changed(message: Any, pointer: str, value: object) -> Any:
    message = copy.deepcopy(message)
    node = message
    *steps, last = pointer.split("/")[1:]
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[int(last) if isinstance(node, list) else last] = value
    return message


CONSTRAINT = "/offer/permission/0/constraint/0"


@pytest.mark.parametrize(
    ("kind", "message", "said"),
    [
        (
            "ContractRequestMessage",
            {**REQUEST, "callbackAddress": "https://a.example/", "providerPid": "P"},
            "the message must have the form of only one of callbackAddress, providerPid",
        ),
        (
            "ContractRequestMessage",
            {key: REQUEST[key] for key in ("@context", "@type", "consumerPid", "offer")},
            "the message needs exactly one of callbackAddress, providerPid",
        ),
        (
            "ContractOfferMessage",
            {**OFFER, "consumerPid": "C", "callbackAddress": "https://a.example/"},
            "the message must have the form of only one of callbackAddress, consumerPid",
        ),
        (
            "ContractRequestMessage",
            {**REQUEST, "offer": {}},
            "/offer lacks @type, @id, needs at least one of permission, prohibition",
        ),
        (
            "ContractRequestMessage",
            changed(REQUEST, "/offer/permission", []),
            "/offer/permission needs at least 1 item",
        ),
        (
            "ContractRequestMessage",
            changed(REQUEST, CONSTRAINT, {"leftOperand": "a", "operator": "eq"}),
            f"{CONSTRAINT} lacks rightOperand, needs exactly one of and, andSequence, or, xone",
        ),
        (
            "ContractRequestMessage",
            changed(
                REQUEST, CONSTRAINT, {"leftOperand": "a", "operator": "like", "rightOperand": "b"}
            ),
            f"{CONSTRAINT}/operator must be one of eq, gt, gteq,",
        ),
        (
            "ContractRequestMessage",
            changed(REQUEST, CONSTRAINT, {"leftOperand": "a", "operator": "eq", "rightOperand": 5}),
            f"{CONSTRAINT}/rightOperand must be of type string or object or array",
        ),
        (
            "ContractRequestMessage",
            changed(
                REQUEST,
                CONSTRAINT,
                {"leftOperand": "a", "operator": "eq", "rightOperand": "b", "and": []},
            ),
            f"{CONSTRAINT} must have the form of only one of LogicalConstraint, AtomicConstraint",
        ),
        (
            "ContractRequestMessage",
            {**REQUEST, "@context": []},
            f"/@context must contain {schemas.CONTEXT}",
        ),
        (
            "Dataset",
            changed(DATASET, "/hasPolicy/0/target", "elsewhere"),
            "/hasPolicy/0 must not have target",
        ),
        ("Dataset", changed(DATASET, "/distribution", []), "/distribution needs at least 1 item"),
    ],
)
def test_a_refusal_says_where_and_what_is_wrong(kind: str, message: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        schemas.check(kind, message)
    assert str(refused.value).startswith(f"{kind}: {said}")


def test_a_refusal_names_three_places_at_most_and_repeats_nothing() -> None:
    secret = "s3cret" * 1000
    wrong = [{"leftOperand": secret, "operator": secret, "rightOperand": secret}] * 50
    with pytest.raises(InvalidInput) as refused:
        schemas.check("ContractRequestMessage", changed(REQUEST, CONSTRAINT[:-2], wrong))
    assert str(refused.value).count("must be one of") == 3
    assert "s3cret" not in str(refused.value)
    assert len(str(refused.value)) < 1300


def test_a_message_full_of_mistakes_is_refused_at_once() -> None:
    many = changed(REQUEST, CONSTRAINT, {"and": [{"leftOperand": 1}] * 12_000})
    body = json.dumps(many).encode()
    assert len(body) > reading.MAX_MESSAGE_BYTES * 0.9
    start = time.perf_counter()
    with pytest.raises(InvalidInput):
        schemas.check("ContractRequestMessage", many)
    assert time.perf_counter() - start < 2  # it takes about 0.1 s; other ways take 10 s


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([{"and": [{"or": [{}] * 10}]}] * 4000, "/constraint/0/and/0/or/0 lacks rightOperand"),
        ([{"or": [{"or": [{"or": [{"or": [{}] * 9}] * 9}] * 9}] * 9}] * 2, "or/0/or/0 lacks"),
        (
            [REQUEST["offer"]["permission"][0]["constraint"][0]] * 2000 + [{}],
            "too deep to be named",
        ),
    ],
)
def test_a_large_message_is_looked_through_for_its_first_mistakes_alone(
    wrong: Any, said: str
) -> None:
    message = changed(REQUEST, CONSTRAINT[:-2], wrong)
    start = time.process_time()
    with pytest.raises(InvalidInput, match=said):
        schemas.check("ContractRequestMessage", message)
    assert time.process_time() - start < 0.5  # everything in them takes seconds


def test_three_published_references_are_broken_and_no_other() -> None:
    texts = [
        path.read_text()
        for folder in PUBLISHED.iterdir()
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.endswith("-schema.json")
    ]
    assert sum(text.count(schemas.BROKEN_REF) for text in texts) == 3
    documents = schemas._documents()
    for document, schema in documents.items():
        for base, reference in paths(schema, document):
            found, _, pointer = reference.partition("#")
            assert schemas._at(documents[found or base], pointer) is not None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"@type": 1, "@type": 2}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": 9007199254740992}', "not valid JSON"),
        (b'{"a": -9007199254740992}', "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 33 + b"]" * 33, "deeper than 32"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (reading.MAX_MESSAGE_BYTES + 1), "larger than"),
        (b"[]", "must be an object"),
        (b'{"a": 9007199254740991}', "lacks @context"),
    ],
)
def test_bytes_that_are_no_message_are_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        reading.read(body, "TransferStartMessage")
