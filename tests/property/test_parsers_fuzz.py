"""Every parser of hostile bytes: it accepts, or raises our own error, and never anything else.

Three kinds of input: bytes from nowhere, valid inputs with bytes changed, and JSON documents with
values exchanged.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ConnectorError
from connector.identity import acts, membership, statements
from connector.model import cbor, fields, participant, receipt, terms
from connector.model.catalog import (
    Classification,
    Column,
    Dataset,
    Role,
    dataset_json,
    parse_dataset,
)
from connector.tlog import checkpoint, cosignature, note, tiles, witness
from connector.transport.http.dsp import reading
from connector.verifier import evidence, verify
from tests.vectors import scenario

PROVIDER, _ = scenario.story()
LOG = PROVIDER.export(scenario.SPACE)
KEYS = [scenario.public_bytes(scenario.PROVIDER.key)]
DATASET = Dataset(
    id=scenario.DATASET,
    title="航班 flights",
    description="",
    keywords=("flights",),
    publisher=scenario.PROVIDER.did,
    classification=Classification.IMPORTANT,
    table="flights",
    columns=(Column("dest", "VARCHAR", Role.DIMENSION), Column("tailnum", "VARCHAR", Role.UNIT)),
    offers=(),
)
ACT = PROVIDER.act("agreement.ended").encode()
VKEY = note.VerifierKey(scenario.PROVIDER.origin, KEYS[0]).encode().encode()
SIGNED = scenario.sign_agreement(PROVIDER.document)
DSP = Path(__file__).parents[1] / "vectors" / "dsp"
EVIDENCE = evidence.write_evidence(scenario.consumer_export())


def as_text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """What is not UTF-8 becomes halves of surrogate pairs, which are hostile too."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


PARSERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "cbor": (cbor.decode, PROVIDER.leaves[2]),
    "receipt": (receipt.decode, PROVIDER.leaves[2]),
    "note": (note.parse, LOG.checkpoint),
    "signature line": (as_text(note.parse_signature), LOG.checkpoint.splitlines()[-1]),
    "verifier key": (as_text(note.parse_verifier_key), VKEY),
    "checkpoint": (checkpoint.parse_checkpoint, LOG.checkpoint),
    "signed checkpoint": (
        lambda data: checkpoint.verify_checkpoint(data, scenario.PROVIDER.origin, KEYS),
        LOG.checkpoint,
    ),
    "cosigned checkpoint": (
        lambda data: cosignature.cosignature_time(
            data, scenario.SPACE.origin, [scenario.SPACE_KEY]
        ),
        LOG.checkpoint,
    ),
    "witness request": (
        witness.parse_request,
        witness.encode_request(witness.CheckpointRequest(5, (bytes(32),), LOG.checkpoint)),
    ),
    "witness answer": (
        witness.parse_cosignatures,
        LOG.checkpoint.splitlines(keepends=True)[-1],
    ),
    "witness size": (witness.parse_size, b"1234"),
    "tile path": (as_text(tiles.parse_path), b"tile/0/x001/x234/067.p/12"),
    "entry bundle": (lambda data: tiles.parse_bundle(data, 2), b"\x00\x01a\x00\x02bc"),
    "json": (fields.parse_json, PROVIDER.document),
    "time": (as_text(fields.parse_time), b"2026-12-31T00:00:00Z"),
    "agreement": (terms.parse_agreement, PROVIDER.document),
    "offer": (terms.parse_offer, fields.encode_json({"@type": "Offer", "@id": "x"})),
    "dataset": (parse_dataset, fields.encode_json(dataset_json(DATASET))),
    "contract request": (
        lambda data: reading.read(data, "ContractRequestMessage"),
        (DSP / "negotiation/contract-request-message.json").read_bytes(),
    ),
    "catalog": (
        lambda data: reading.read(data, "Catalog"),
        (DSP / "catalog/catalog.json").read_bytes(),
    ),
    "did": (as_text(participant.parse_did), b"did:web:airport.example%3A8443:data"),
    "base64url": (as_text(participant.unb64url), b"AAECAw"),
    "statement": (as_text(lambda value: statements.read_statement(value, "act", KEYS)), ACT),
    "unverified statement": (
        as_text(lambda value: statements.peek_statement(value, "act")),
        ACT,
    ),
    "act": (as_text(lambda value: acts.read_act(value, KEYS)), ACT),
    "membership event": (
        as_text(lambda value: membership.read_membership_event(value, scenario.SPACE_KEY)),
        scenario.MEMBERS[1].encode(),
    ),
    "detached signature": (
        as_text(
            lambda value: statements.verify_document(value, "agreement", PROVIDER.document, KEYS)
        ),
        SIGNED.provider_signature.encode(),
    ),
    "evidence": (evidence.parse_evidence, EVIDENCE),
    "verdict": (lambda data: verify.verify_file(data, scenario.SPACE_KEY), EVIDENCE),
}
BYTES = st.binary(max_size=200) | st.text(max_size=100).map(lambda value: value.encode())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "did:web:a.example", "2026-12-31T00:00:00Z", "9999-12-31T23:59:59-23:59"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def accepts_or_refuses(parse: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(ConnectorError):
        parse(data)


def test_the_samples_are_accepted_by_most() -> None:
    """The fuzzer starts from inputs that get past the first check."""
    for name, (parse, sample) in PARSERS.items():
        if name != "offer":  # a stump, to be filled by chance
            parse(sample)


@pytest.mark.parametrize("name", PARSERS)
def test_bytes_from_nowhere(name: str) -> None:
    parse, _ = PARSERS[name]

    @given(BYTES)
    def run(data: bytes) -> None:
        accepts_or_refuses(parse, data)

    run()


@pytest.mark.parametrize("name", PARSERS)
def test_changed_bytes(name: str) -> None:
    parse, sample = PARSERS[name]

    @given(st.integers(0, len(sample) - 1), st.integers(0, 8), st.binary(max_size=8))
    def run(at: int, cut: int, new: bytes) -> None:
        accepts_or_refuses(parse, sample[:at] + new + sample[at + cut :])

    run()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found += places(item, (*path, key))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "agreement",
        "dataset",
        "contract request",
        "catalog",
        "evidence",
        "verdict",
    ],
)
def test_exchanged_values(name: str) -> None:
    parse, sample = PARSERS[name]
    paths = places(json.loads(sample))

    @given(st.sampled_from(paths), JSON)
    def run(path: tuple[Any, ...], new: Any) -> None:
        document = json.loads(sample)
        target = document
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = new
        accepts_or_refuses(parse, json.dumps(document).encode())

    run()


def test_signed_rubbish() -> None:
    """A member that signs a payload of any shape."""

    @given(st.dictionaries(st.text(max_size=8), JSON))
    def run(payload: dict[str, Any]) -> None:
        statement = statements.sign_statement(scenario.PROVIDER.key, "act", payload)
        event = statements.sign_statement(scenario.SPACE.key, "membership", payload)
        accepts_or_refuses(lambda _: acts.read_act(statement, KEYS), b"")
        accepts_or_refuses(
            lambda _: membership.read_membership_event(event, scenario.SPACE_KEY), b""
        )

    run()


@given(st.dictionaries(st.integers(0, 45), st.integers() | st.binary() | st.text(), max_size=20))
def test_receipts_of_any_map(fields_: dict[int, Any]) -> None:
    leaf = cbor.decode(PROVIDER.leaves[2])
    assert isinstance(leaf, dict)
    with contextlib.suppress(ValueError):  # what has no encoding
        data = cbor.encode({**leaf, **fields_})
        accepts_or_refuses(receipt.decode, data)
