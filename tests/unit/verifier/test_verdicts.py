"""Every evidence file of tests/vectors, as it is and changed, gets the verdict it should."""

import base64
import json
from typing import Any

import pytest

from connector.errors import InvalidInput
from connector.model.participant import unb64url
from connector.verifier.evidence import parse_evidence, write_evidence
from connector.verifier.verdict import Verdict
from connector.verifier.verify import verify, verify_file
from tests.vectors import generate, scenario

FOUND = json.loads((generate.FOLDER / "verdicts.json").read_text())
SPACE_KEY = unb64url(FOUND["spaceKey"])
FILES = {path.name: path.read_bytes() for path in (generate.FOLDER / "evidence").iterdir()}


def changed(case: dict[str, Any]) -> bytes:
    if not case["changes"]:
        return FILES[case["file"]]
    return json.dumps(generate.apply(json.loads(FILES[case["file"]]), case["changes"])).encode()


def said(verdict: Verdict) -> list[str]:
    lines = list(verdict.assurance)
    for step in verdict.steps:
        lines += [step.detail, *step.failures, *step.warnings]
    return lines


@pytest.mark.parametrize("case", FOUND["verdicts"], ids=lambda case: case["name"])
def test_verdict(case: dict[str, Any]) -> None:
    if case.get("unusable"):
        with pytest.raises(InvalidInput):
            verify_file(changed(case), SPACE_KEY)
        return
    verdict = verify_file(changed(case), SPACE_KEY)
    assert [step.number for step in verdict.steps if not step.ok] == case["failed"]
    assert verdict.valid is (not case["failed"])
    assert any(case["says"] in line for line in said(verdict)), said(verdict)


def test_the_vectors_are_what_their_generator_writes() -> None:
    for name, data in generate.files().items():
        assert (generate.FOLDER / name).read_bytes() == data, name
    assert len(FILES) == len([name for name in generate.files() if name.startswith("evidence/")])


def test_a_valid_file_shows_every_step_and_the_totals() -> None:
    verdict = verify_file(FILES["consumer.json"], SPACE_KEY)
    assert [step.number for step in verdict.steps] == list(range(1, 15))
    assert {side: sums["allowed"] for side, sums in verdict.totals.items()} == {
        "consumer": 3,
        "provider": 3,
    }
    assert verdict.totals["provider"]["bytes_returned"] == 3 * 1_024
    assert verdict.as_json()["valid"] is True
    assert json.loads(json.dumps(verdict.as_json()))["steps"][7]["number"] == 8


def test_another_space_s_key_proves_nothing() -> None:
    verdict = verify_file(FILES["provider.json"], scenario.public_bytes(scenario.STRANGER.key))
    assert not verdict.valid
    assert [step.ok for step in verdict.steps][:2] == [False, False]


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInput):
        verify_file(FILES["provider.json"], SPACE_KEY[:31])


def test_every_byte_of_every_receipt_counts() -> None:
    """One bit in each leaf, at a place that moves: always found, and the right receipt named."""
    base = json.loads(FILES["provider.json"])
    for place, entry in enumerate(base["logs"][0]["entries"]):
        leaf = base64.b64decode(entry["leaf"])
        for at in range(place % 7, len(leaf), max(1, len(leaf) // 8)):
            broken = leaf[:at] + bytes([leaf[at] ^ 0x10]) + leaf[at + 1 :]
            edit = {
                "path": ["logs", 0, "entries", place, "leaf"],
                "set": base64.b64encode(broken).decode(),
            }
            verdict = verify_file(json.dumps(generate.apply(base, [edit])).encode(), SPACE_KEY)
            assert verdict.steps[5].failures == (
                f"receipt {place + 1} of the provider's log: its bytes changed: its leaf hash is "
                "not in the log under the checkpoint (inclusion proof: does not lead to the root)",
            )


def test_any_byte_of_the_file_changed_is_never_taken_for_the_same() -> None:
    """A changed byte makes the file unusable or not valid, or changes nothing that was said."""
    data = FILES["provider.json"]
    whole = parse_evidence(data)
    for at in range(0, len(data), 61):
        broken = data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
        try:
            evidence = parse_evidence(broken)
        except InvalidInput:
            continue
        if verify(evidence, SPACE_KEY).valid:
            assert evidence == whole, f"byte {at}"


def test_all_failures_are_collected() -> None:
    base = json.loads(FILES["provider.json"])
    edits = [
        {"path": ["logs", 0, "entries", place, "leaf"], "set": generate.flipped(leaf["leaf"])}
        for place, leaf in enumerate(base["logs"][0]["entries"])
        if place in (2, 6)
    ]
    edits.append({"path": ["logs", 0, "entries", 4]})
    verdict = verify_file(json.dumps(generate.apply(base, edits)).encode(), SPACE_KEY)
    assert [line[:35] for line in verdict.steps[5].failures] == [
        "receipt 3 of the provider's log: it",
        "receipt 7 of the provider's log: it",
    ]
    assert "receipt 5 of the provider's log is missing" in verdict.steps[7].failures[0]


def test_what_is_written_is_what_is_read() -> None:
    for evidence in (scenario.provider_export(), scenario.consumer_export()):
        assert parse_evidence(write_evidence(evidence)) == evidence


def test_parse_errors_say_where() -> None:
    data = FILES["provider.json"]
    line = data[: data.index(b'"index": 7')].count(b"\n") + 1
    with pytest.raises(InvalidInput, match=f"at line {line}, column"):
        parse_evidence(data.replace(b'"index": 7', b'"index" 7'))
    with pytest.raises(InvalidInput, match=r"logs\[0\]: entries\[5\]: index"):
        parse_evidence(data.replace(b'"index": 7', b'"index": "7"'))
    with pytest.raises(InvalidInput, match="no UTF-8 at byte 100"):
        parse_evidence(data[:100] + b"\xff" + data[101:])


BAD_BYTES = {
    "nothing": b"",
    "no object": b"[]",
    "a key twice": b'{"format": "tds-evidence/1", "format": "tds-evidence/1"}',
    "not a number": b'{"format": NaN}',
    "deep": b"[" * 100_000,
    "half a surrogate pair": b'{"format": "\\ud800"}',
}


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_what_is_no_evidence_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_evidence(data)
