"""Offers, agreements, datasets, participants and their JSON: good ones and hostile tables."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.catalog import (
    Classification,
    Column,
    Dataset,
    Role,
    dataset_json,
    parse_dataset,
)
from connector.model.participant import (
    b64url,
    host_label,
    key_id,
    parse_did,
    parse_participant,
    participant_json,
    unb64url,
)
from connector.model.terms import (
    Offer,
    agreement_document,
    offer_json,
    parse_agreement,
    parse_offer,
    parse_sections,
)
from tests.vectors import scenario

OFFER = Offer("urn:uuid:offer", "urn:uuid:dataset", "did:web:airport.example", scenario.TERMS)
DATASET = Dataset(
    id="urn:uuid:dataset",
    title="航班",
    description="",
    keywords=("flights", "旅游"),
    publisher="did:web:airport.example",
    classification=Classification.IMPORTANT,
    table="flights",
    columns=(
        Column("dest", "VARCHAR", Role.DIMENSION),
        Column("arr_delay", "BIGINT", Role.MEASURE),
        Column("tailnum", "VARCHAR", Role.UNIT),
    ),
    offers=(OFFER,),
)
AGREEMENT = agreement_document(
    id="urn:uuid:agreement",
    offer=OFFER,
    assignee="did:web:tourism.example",
    timestamp=datetime(2026, 11, 23, tzinfo=UTC),
    space="did:web:space.example",
    classification="important",
    secret_commitment="ab" * 32,
    provider_log="airport.example/log",
    consumer_log="tourism.example/log",
)


def test_an_offer_survives_its_json() -> None:
    assert parse_offer(fields.encode_json(offer_json(OFFER))) == OFFER


def test_a_dataset_survives_its_json() -> None:
    assert parse_dataset(fields.encode_json(dataset_json(DATASET))) == DATASET
    assert DATASET.privacy_unit == "tailnum"


def test_an_agreement_keeps_its_exact_bytes() -> None:
    agreement = parse_agreement(AGREEMENT)
    assert agreement.document == AGREEMENT
    assert (agreement.id, agreement.assigner, agreement.assignee) == (
        "urn:uuid:agreement",
        "did:web:airport.example",
        "did:web:tourism.example",
    )
    assert agreement.terms == OFFER.terms
    spaced = AGREEMENT.replace(b",", b", ")
    assert parse_agreement(spaced).document == spaced


def test_terms_are_found_by_left_operand() -> None:
    assert [c.right for c in OFFER.terms.find("count")] == [3]
    assert OFFER.terms.find("nothing") == ()


def exchanged(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> bytes:
    result = json.loads(json.dumps(document))
    target = result
    for step in path[:-1]:
        target = target[step]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return json.dumps(result).encode()


RULE = ("permission", 0)
FIRST = (*RULE, "constraint", 0)
BAD_AGREEMENTS = {
    "an offer": (("@type",), "Offer"),
    "no type": (("@type",), None),
    "no id": (("@id",), None),
    "an empty id": (("@id",), ""),
    "a long id": (("@id",), "x" * 257),
    "an unknown key": (("comment",), "x"),
    "no zone": (("timestamp",), "2026-11-23T00:00:00"),
    "no date": (("timestamp",), "yesterday"),
    "before the calendar": (("timestamp",), "0001-01-01T00:00:00+23:59"),
    "a permission that is an object": (("permission",), {}),
    "17 permissions": (("permission",), [{"action": "use"}] * 17),
    "a rule that is a text": (RULE, "use"),
    "a rule without an action": ((*RULE, "action"), None),
    "a rule with an unknown key": ((*RULE, "duty"), []),
    "65 constraints": (
        (*RULE, "constraint"),
        [{"leftOperand": "a", "operator": "eq", "rightOperand": 1}] * 65,
    ),
    "a constraint without a left operand": ((*FIRST, "leftOperand"), None),
    "a constraint without a right operand": ((*FIRST, "rightOperand"), None),
    "a right operand that is a float": ((*FIRST, "rightOperand"), 1.5),
    "a right operand that is true": ((*FIRST, "rightOperand"), True),
    "a right operand that is negative": ((*FIRST, "rightOperand"), -1),
    "a right operand beyond 2^53": ((*FIRST, "rightOperand"), 2**53 + 1),
    "a right operand that is an object": ((*FIRST, "rightOperand"), {"@id": "x"}),
    "a list with a number": ((*FIRST, "rightOperand"), ["a", 1]),
    "a logical constraint": (FIRST, {"or": []}),
    "half a surrogate pair": (("@id",), "\ud800"),
}


@pytest.mark.parametrize("case", BAD_AGREEMENTS.values(), ids=BAD_AGREEMENTS.keys())
def test_a_bad_agreement_is_refused(case: tuple[tuple[Any, ...], Any]) -> None:
    with pytest.raises(InvalidInput):
        parse_agreement(exchanged(json.loads(AGREEMENT), *case))


def test_an_agreement_beyond_its_size_is_refused() -> None:
    with pytest.raises(InvalidInput):
        parse_agreement(AGREEMENT + b" " * 32_768)


BAD_DATASETS = {
    "an offer": (("@type",), "Offer"),
    "no columns": (("tds:columns",), []),
    "2001 columns": (
        ("tds:columns",),
        [{"name": f"c{n}", "type": "INT", "role": "measure"} for n in range(2001)],
    ),
    "one name in two cases": (
        ("tds:columns", 1),
        {"name": "DEST", "type": "INT", "role": "measure"},
    ),
    "two privacy units": (("tds:columns", 0, "role"), "unit"),
    "an unknown role": (("tds:columns", 0, "role"), "key"),
    "an unknown class": (("tds:classification",), "secret"),
    "another's offer": (("hasPolicy", 0, "assigner"), "did:web:tourism.example"),
    "an offer of another dataset": (("hasPolicy", 0, "target"), "urn:uuid:other"),
    "17 offers": (("hasPolicy",), [offer_json(OFFER)] * 17),
    "33 keywords": (("keyword",), ["k"] * 33),
    "a keyword that is empty": (("keyword",), [""]),
    "an unknown key": (("tds:price",), 1),
}


@pytest.mark.parametrize("case", BAD_DATASETS.values(), ids=BAD_DATASETS.keys())
def test_a_bad_dataset_is_refused(case: tuple[tuple[Any, ...], Any]) -> None:
    with pytest.raises(InvalidInput):
        parse_dataset(exchanged(dataset_json(DATASET), *case))


DIDS = [
    "did:web:airport.example",
    "did:web:a",
    "did:web:localhost%3A8443",
    "did:web:xn--fiqs8s.example:orgs:1",
    "did:web:127.0.0.1%3A9",
]
BAD_DIDS = [
    "",
    "did:key:z6Mk",
    "did:web:",
    "did:web:Airport.example",
    "did:web:a..b",
    "did:web:-a",
    "did:web:a-",
    "did:web:a:",
    "did:web:a:8443/x",
    "did:web:a%3a8443",
    "did:web:a%3A",
    "did:web:a b",
    "did:web:a\n",
    "did:web:机场.example",
    "did:web:" + "a" * 64,
    "did:web:" + "a.b" * 100,
    "did:web:a#key",
]


@pytest.mark.parametrize("did", DIDS)
def test_dids(did: str) -> None:
    assert parse_did(did) == did


@pytest.mark.parametrize("did", BAD_DIDS)
def test_a_bad_did_is_refused(did: str) -> None:
    with pytest.raises(InvalidInput):
        parse_did(did)


def test_a_host_label_is_one_label_for_one_did() -> None:
    labels = {host_label(did) for did in DIDS}
    assert len(labels) == len(DIDS)
    for label in labels:
        assert len(label.split(".", 1)[0]) == 52
        assert label.endswith(".member.dataspace.invalid")


def test_key_ids_are_rfc_7638_thumbprints() -> None:
    """The key and thumbprint of RFC 8037, appendix A.3."""
    key = unb64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert key_id(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("value", ["AA==", "AA=", "A", "AB", "A A", "+/8", "AAé", "\ud800", "AA\n"])
def test_base64url_has_one_spelling(value: str) -> None:
    with pytest.raises(InvalidInput):
        unb64url(value)


def test_base64url_of_the_wrong_length_is_refused() -> None:
    assert unb64url(b64url(bytes(32)), 32) == bytes(32)
    with pytest.raises(InvalidInput):
        unb64url(b64url(bytes(31)), 32)


RECORD = {
    "did": "did:web:airport.example",
    "name": "机场",
    "roles": ["member"],
    "state": "active",
    "signingKeys": [b64url(bytes(32))],
    "endpoint": "airport.example:9443",
    "logOrigin": "airport.example/log",
    "revision": 2,
}
BAD_RECORDS = {
    "no keys": (("signingKeys",), []),
    "nine keys": (("signingKeys",), [b64url(bytes(32))] * 9),
    "a short key": (("signingKeys",), [b64url(bytes(31))]),
    "an unknown state": (("state",), "gone"),
    "a bad DID": (("did",), "did:key:x"),
    "no log": (("logOrigin",), None),
    "a revision that is a text": (("revision",), "2"),
    "an endpoint without a port": (("endpoint",), "airport.example"),
    "an unknown key": (("admin",), "yes"),
}


def test_a_participant_survives_its_json() -> None:
    assert participant_json(parse_participant(RECORD)) == RECORD


@pytest.mark.parametrize("case", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_a_bad_participant_is_refused(case: tuple[tuple[Any, ...], Any]) -> None:
    with pytest.raises(InvalidInput):
        parse_participant(fields.parse_json(exchanged(RECORD, *case)))


BAD_JSON = {
    "nothing": b"",
    "no UTF-8": b'"\xff"',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, inside": b'[{"a": 1, "a": 2}]',
    "NaN": b"NaN",
    "infinity": b"[-Infinity]",
    "two values": b"1 2",
    "too deep": b"[" * 40 + b"]" * 40,
    "far too deep": b"[" * 200_000,
    "a number of a million digits": b"1" * 1_000_000,
    "half a surrogate pair": b'"\\uD800"',
    "half a surrogate pair in a key": b'{"\\udfff": 1}',
    "a byte order mark": b"\xef\xbb\xbf1",
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        fields.parse_json(data)


def test_a_whole_surrogate_pair_is_text() -> None:
    assert fields.parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


TIMES = {
    "2026-12-31T00:00:00Z": "2026-12-31T00:00:00.000Z",
    "2026-12-31T08:00:00+08:00": "2026-12-31T00:00:00.000Z",
    "2026-12-31T00:00:00.123456Z": "2026-12-31T00:00:00.123Z",
}


@pytest.mark.parametrize("value", TIMES)
def test_times(value: str) -> None:
    assert fields.format_time(fields.parse_time(value)) == TIMES[value]


def test_milliseconds_are_exact() -> None:
    for millis in (0, 1, 999, 1_795_420_800_001, 253_402_300_799_999):
        time = fields.parse_time(fields.format_millis(millis))
        since = time - datetime(1970, 1, 1, tzinfo=UTC)
        assert since == timedelta(milliseconds=millis)


def test_a_peers_own_terms_are_kept_where_they_may_be() -> None:
    duty = {"action": "use", "duty": [{"action": "acme:pay"}]}
    text = fields.encode_json({"permission": [duty, {"action": "use"}], "acme:fee": 5})
    with pytest.raises(InvalidInput):
        parse_sections(text)
    terms = parse_sections(text, strict=False)
    assert [key for key, _ in terms.others] == ["permission", "acme:fee"]
    assert len(terms.permissions) == 1
