"""Writes our own vectors: ``python -m tests.vectors.generate`` from the repository's root.

* ``receipts.json``: each kind of receipt in hexadecimal and field by field, and encodings that a
  parser must refuse;
* ``evidence/*.json``: evidence files as docs/evidence.md describes them;
* ``verdicts.json``: what a verifier must find in each file, and in each after some changes. A
  change sets (or removes, where ``set`` is absent) what ``path`` leads to. ``failed`` are the
  numbers of the steps that fail; ``says`` is in one of our verifier's messages; ``unusable``
  stands where there is no verdict at all.

All of it is the same at every run: a test compares it with what is committed. The other files in
this folder are third parties' and name their sources.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connector.model import cbor
from connector.verifier.evidence import write_evidence
from tests.vectors import liars, reporters, scenario

FOLDER = Path(__file__).parent
MISSING = object()


def receipt_vectors() -> dict[str, Any]:
    provider, consumer = scenario.story()
    record = scenario.reported()[0].leaves[1]
    kinds = {
        "act": provider.leaves[1],
        "use, allowed": provider.leaves[2],
        "use, refused": provider.leaves[5],
        "delivery": consumer.leaves[1],
        "record": record,
    }
    return {
        "note": 'fields are by CBOR map key; byte strings are {"hex": ...}',
        "receipts": [
            {"name": name, "hex": leaf.hex(), "fields": shown(cbor.decode(leaf))}
            for name, leaf in kinds.items()
        ],
        "refused": [
            {"name": name, "hex": data.hex()}
            for name, data in bad_receipts(kinds["use, refused"], kinds["delivery"], record)
        ],
    }


def shown(value: cbor.Value) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    return value


def bad_receipts(use: bytes, delivery: bytes, record: bytes) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "cut short", use[:-1]
    yield "a byte after the end", use + b"\x00"
    yield "an array", b"\x80"
    yield "an empty map", b"\xa0"
    yield "indefinite map", b"\xbf" + use[1:] + b"\xff"
    yield (
        "number not in its shortest form",
        use.replace(b"\x00\x01\x01\x01", b"\x00\x18\x01\x01\x01", 1),
    )
    yield "length not in its shortest form", use.replace(b"\x02\x50", b"\x02\x58\x10", 1)
    yield "version as text", use.replace(b"\x00\x01\x01\x01", b"\x00\x611\x01\x01", 1)
    yield "version as true", use.replace(b"\x00\x01\x01\x01", b"\x00\xf5\x01\x01", 1)
    yield "version as a float", use.replace(b"\x00\x01\x01\x01", b"\x00\xf9\x3c\x00\x01\x01", 1)
    yield "a tag", b"\xd9\xd9\xf7" + use
    yield "keys out of order", use.replace(b"\x00\x01\x01\x01", b"\x01\x01\x00\x01", 1)
    yield "a key twice", use.replace(b"\x00\x01\x01\x01", b"\x00\x01\x00\x01", 1)
    yield "text that is not UTF-8", use.replace(b"did:web:airport", b"did:web:a\xffrport", 1)
    yield "nested too deep", b"\xa1\x00" + b"\x81" * 100 + b"\x00"
    yield "a length of 2^64 - 1", b"\x5b" + b"\xff" * 8
    yield "an array of 2^32 items", b"\x9a\xff\xff\xff\xff"
    yield "larger than an entry", b"\x5a\x00\x01\x00\x00" + bytes(65_536)
    changes: tuple[tuple[str, int, Any], ...] = (
        ("version 2", 0, 2),
        ("kind 2", 1, 2),
        ("salt of 15 bytes", 2, bytes(15)),
        ("empty scope", 3, ""),
        ("scope of 513 characters", 3, "a" * 513),
        ("number 0", 4, 0),
        ("number 1 with a predecessor", 4, 1),
        ("number above 2^53", 4, 2**53 + 1),
        ("time in the year 10000", 5, 253_402_300_800_000),
        ("previous of 31 bytes", 6, bytes(31)),
        ("no predecessor, but number 5", 6, bytes(32)),
        ("outcome 0", 13, 0),
        ("outcome 5", 13, 5),
        ("agreement digest of 31 bytes", 15, bytes(31)),
        ("policy digest empty", 16, b""),
        ("request digest empty", 17, b""),
        ("result digest of 20 bytes", 18, bytes(20)),
        ("quantities as a list", 19, []),
        ("quantity 0", 19, {0: 1}),
        ("quantity 99", 19, {99: 1}),
        ("quantity above 2^53", 19, {1: 2**53 + 1}),
        ("17 reasons", 20, [["a", "b", "c"]] * 17),
        ("a reason of two", 20, [["a", "b"]]),
        ("a reason without a term", 20, [["", "b", "c"]]),
        ("field missing", 14, MISSING),
        ("field too many", 21, 0),
        ("field of another kind", 30, "did:web:airport.example"),
    )
    for name, key, value in changes:
        yield name, changed(use, key, value)
    yield "leaf outside its tree", changed(delivery, 43, 2)
    yield "delivery without an origin", changed(delivery, 40, "")
    of_records: tuple[tuple[str, int, Any], ...] = (
        ("without calls", 19, {4: 65_536}),
        ("of no calls", 19, {1: 0}),
        ("of more calls than 2^53", 19, {1: 2**53 + 1}),
        ("with a quantity of 2^53 + 1", 19, {1: 1, 4: 2**53 + 1}),
        ("with an empty use id", 10, ""),
        ("with a use id of 65 characters", 10, "u" * 65),
        ("with a space in its use id", 10, "gw 7"),
        ("with a line feed in its use id", 10, "gw\n7"),
        ("with DEL in its use id", 10, "gw\x7f7"),
        ("with a use id beyond ASCII", 10, "gw-é"),
        ("with a purpose of 513 characters", 14, "p" * 513),
        ("without a reporter", 21, MISSING),
        ("with an empty reporter", 21, ""),
        ("with a reporter of 65 characters", 21, "r" * 65),
        ("with a reporter as bytes", 21, b"gateway"),
        ("without a time of service", 22, MISSING),
        ("served in the year 10000", 22, 253_402_300_800_000),
        ("with an outcome", 13, 1),
        ("with reasons", 20, []),
        ("as a use", 1, 1),
        ("as an act", 1, 3),
    )
    for name, key, value in of_records:
        yield f"a record {name}", changed(record, key, value)


def changed(leaf: bytes, key: int, value: Any) -> bytes:
    fields = cbor.decode(leaf)
    assert isinstance(fields, dict)
    if value is MISSING:
        del fields[key]
    else:
        fields[key] = value
    return cbor.encode(fields)


def flipped(value: str, place: int = 20) -> str:
    """The base64 of the same bytes with one bit changed."""
    data = bytearray(base64.b64decode(value))
    data[place] ^= 1
    return base64.b64encode(data).decode()


def changes(provider: dict[str, Any], consumer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Changes to a valid file, by somebody without keys."""
    entries = provider["logs"][0]["entries"]
    note: str = provider["logs"][0]["checkpoint"]
    body, lines = note.split("\n\n")
    own, witness = lines.splitlines(keepends=True)

    def case(
        name: str, failed: tuple[int, ...], says: str, *edits: Any, file: str = "provider"
    ) -> Any:
        return {
            "name": name,
            "file": f"{file}.json",
            "changes": [
                {"path": path} if value is MISSING else {"path": path, "set": value}
                for path, value in edits
            ],
            "failed": list(failed),
            "says": says,
        }

    def entry(place: int, *rest: Any) -> list[Any]:
        return ["logs", 0, "entries", place, *rest]

    def without(*places: int) -> list[tuple[list[Any], Any]]:
        return [(entry(place), MISSING) for place in sorted(places, reverse=True)]

    leaf = flipped(entries[6]["leaf"])
    proof = flipped(entries[6]["inclusion"][1])
    yield case("nothing changed", (), "was witnessed by did:web:space.example")
    yield case(
        "a byte of receipt 7",
        (6, 10),
        "receipt 7 of the provider's log: its bytes changed",
        (entry(6, "leaf"), leaf),
    )
    yield case(
        "a byte of the proof of receipt 7",
        (6, 10),
        "receipt 7 of the provider's log: its proof or the checkpoint changed",
        (entry(6, "inclusion", 1), proof),
    )
    yield case(
        "the index of receipt 7",
        (6, 8, 10),
        "receipt 7 of the provider's log: its proof",
        (entry(6, "index"), 0),
    )
    yield case(
        "a byte of the statement",
        (6, 10),
        "receipt 10 of the provider's log should be the statement",
        (entry(9, "leaf"), flipped(entries[9]["leaf"])),
    )
    yield case(
        "receipt 5 removed",
        (8, 10),
        "receipt 5 of the provider's log is missing: numbers go from 4 to 6",
        *without(4),
    )
    yield case(
        "receipts 3 to 5 removed",
        (8, 10),
        "receipts 3 to 5 of the provider's log are missing: numbers go from 2 to 6",
        *without(2, 3, 4),
    )
    yield case(
        "the first receipt removed",
        (8,),
        "receipt 1 of the provider's log is missing: numbers begin at 2",
        *without(0),
    )
    yield case(
        "the statement removed",
        (10,),
        "receipts at the end of the provider's log are missing",
        *without(9),
    )
    yield case(
        "the last two removed",
        (10,),
        "receipts at the end of the provider's log are missing",
        *without(8, 9),
    )
    yield case(
        "all receipts removed",
        (8,),
        "the provider's log has no receipts",
        (["logs", 0, "entries"], []),
    )
    yield case(
        "two receipts swapped",
        (8,),
        "receipt 4 of the provider's log is there twice, or out of order",
        (entry(3), entries[4]),
        (entry(4), entries[3]),
    )
    yield case(
        "receipt 3 twice",
        (8, 10, 11),
        "receipt 3 of the provider's log is there twice",
        (entry(3), entries[2]),
    )
    yield case(
        "the checkpoint's size",
        (4, 5, 6, 10),
        "the signature does not verify",
        (["logs", 0, "checkpoint"], note.replace("\n12\n", "\n13\n")),
    )
    yield case(
        "the checkpoint is no note",
        (4, 6, 10),
        "receipt 1 of the provider's log: not checked",
        (["logs", 0, "checkpoint"], "x"),
    )
    yield case(
        "the owner's signature removed",
        (4,),
        "no signature by the expected key",
        (["logs", 0, "checkpoint"], f"{body}\n\n{witness}"),
    )
    yield case(
        "the cosignature removed",
        (),
        "the provider's log was witnessed by nobody",
        (["logs", 0, "checkpoint"], f"{body}\n\n{own}"),
    )
    yield case(
        "a byte of the cosignature",
        (5,),
        "witness did:web:space.example",
        (
            ["logs", 0, "checkpoint"],
            f"{body}\n\n{own}{witness.rsplit(' ', 1)[0]} {flipped(witness.split()[-1], 30)}\n",
        ),
    )
    yield case(
        "another exporter",
        (4,),
        "the exporter's own log is not in the file",
        (["exporter"], scenario.CONSUMER.did),
    )
    yield case(
        "an exporter who is no party",
        (2, 4),
        "the exporter is not a party",
        (["exporter"], scenario.STRANGER.did),
    )
    yield case(
        "another space", (1, 2), "the file names another space", (["space"], scenario.STRANGER.did)
    )
    yield case(
        "the provider's membership removed",
        (2, 4, 9, 10),
        "no signed membership event names the provider",
        (["members", 1], MISSING),
    )
    yield case(
        "the consumer's membership removed",
        (2,),
        "no signed membership event names the consumer",
        (["members", 2], MISSING),
    )
    yield case(
        "the provider's membership by its own hand",
        (1, 2, 4, 9, 10),
        "members[1]: membership: signed with a key",
        (["members", 1], scenario.membership_by(scenario.PROVIDER)),
    )
    yield case(
        "a byte of the agreement",
        (2, 9, 11),
        "the provider's signature",
        (
            ["agreement", "document"],
            base64.b64encode(
                base64.b64decode(provider["agreement"]["document"]).replace(
                    b"tourism-planning", b"tourism-plannint"
                )
            ).decode(),
        ),
    )
    yield case(
        "the agreement cannot be read",
        (2,),
        "the agreement cannot be read",
        (["agreement", "document"], "e30="),
    )
    yield case(
        "the consumer did not sign",
        (2,),
        "the consumer's signature",
        (["agreement", "consumerSignature"], provider["agreement"]["providerSignature"]),
    )
    yield case(
        "a log that nobody named",
        (4,),
        "logs[0]: not a log that the agreement names",
        (["logs", 0, "origin"], "elsewhere.example/log"),
    )
    yield case("no logs", (4,), "the exporter's own log is not in the file", (["logs"], []))
    yield case("nothing changed in both sides' file", (), "7 of 7", file="consumer")
    yield case(
        "another secret",
        (3, 12),
        "another secret than the agreement's",
        (["secret"], base64.b64encode(bytes(32)).decode()),
        file="consumer",
    )
    yield case(
        "the secret removed",
        (12,),
        "requests without the secret",
        (["secret"], MISSING),
        file="consumer",
    )
    yield case(
        "another request",
        (12,),
        "request 2: another request than the receipt's",
        (["requests", 0, "query"], "SELECT 1"),
        file="consumer",
    )
    yield case(
        "a request of no use",
        (12,),
        "request 1: there is no such use",
        (["requests", 0, "number"], 1),
        file="consumer",
    )
    yield case(
        "the provider's last receipt removed",
        (13,),
        "does not hold the receipt that the consumer was given",
        (["logs", 1, "entries", 8], MISSING),
        file="consumer",
    )
    yield case(
        "a delivery removed",
        (8, 10),
        "receipt 4 of the consumer's log is missing",
        (["logs", 0, "entries", 3], MISSING),
        file="consumer",
    )
    yield case(
        "the provider's log removed",
        (),
        "the provider's log is not in this file",
        (["logs", 1], MISSING),
        (["requests"], MISSING),
        file="consumer",
    )


def changes_of_reports(reported: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Changes to a file with reported records; the provider's log is the second one in it."""
    entries = reported["logs"][1]["entries"]
    cases: tuple[tuple[str, tuple[int, ...], str, list[tuple[list[Any], Any]]], ...] = (
        (
            "nothing changed in a file with records",
            (),
            "the provider's word: 6 uses in 2 records were reported by its system api-gateway",
            [],
        ),
        (
            "a byte of a record",
            (6,),
            "receipt 2 of the provider's log: its bytes changed",
            [(["logs", 1, "entries", 1, "leaf"], flipped(entries[1]["leaf"]))],
        ),
        (
            "a record removed",
            (8,),
            "receipt 4 of the provider's log is missing: numbers go from 3 to 5",
            [(["logs", 1, "entries", 3], MISSING)],
        ),
        (
            "a record in the place of another",
            (6,),
            "receipt 4 of the provider's log",
            [(["logs", 1, "entries", 3, "leaf"], entries[1]["leaf"])],
        ),
    )
    for name, failed, says, edits in cases:
        yield {
            "name": name,
            "file": "reported.json",
            "changes": [
                {"path": path} if value is MISSING else {"path": path, "set": value}
                for path, value in edits
            ],
            "failed": list(failed),
            "says": says,
        }


def unusable(provider: dict[str, Any]) -> Iterator[dict[str, Any]]:
    leaf = provider["logs"][0]["entries"][6]["leaf"]
    for name, path, value in (
        ("another format", ["format"], "tds-evidence/2"),
        ("an unknown key", ["comment"], "hello"),
        ("a key missing", ["agreement"], MISSING),
        ("a leaf cut inside base64", ["logs", 0, "entries", 6, "leaf"], leaf[:-3]),
        ("a leaf with a space", ["logs", 0, "entries", 6, "leaf"], f" {leaf}"),
        ("a negative index", ["logs", 0, "entries", 6, "index"], -1),
        ("an index that is true", ["logs", 0, "entries", 6, "index"], True),
        ("an index that is 6.0", ["logs", 0, "entries", 6, "index"], 6.0),
        ("a proof of 65 hashes", ["logs", 0, "entries", 6, "inclusion"], [""] * 65),
        ("one log twice", ["logs"], provider["logs"] * 2),
        ("three logs", ["logs"], provider["logs"] * 3),
        ("a secret of 31 bytes", ["secret"], base64.b64encode(bytes(31)).decode()),
        ("a secret of nothing", ["secret"], ""),
        ("entries as an object", ["logs", 0, "entries"], {}),
        ("members as a text", ["members"], "x"),
        ("a member that is a number", ["members", 0], 1),
    ):
        change = {"path": path} if value is MISSING else {"path": path, "set": value}
        yield {"name": name, "file": "provider.json", "changes": [change], "unusable": True}


def apply(value: dict[str, Any], edits: list[dict[str, Any]]) -> dict[str, Any]:
    """The file's JSON after the changes of one case."""
    result = copy.deepcopy(value)
    for edit in edits:
        *path, last = edit["path"]
        target: Any = result
        for step in path:
            target = target[step]
        if "set" in edit:
            target[last] = edit["set"]
        else:
            del target[last]
    return result


def files() -> dict[str, bytes]:
    """Every file by its path below this folder."""
    whole = {
        "provider.json": write_evidence(scenario.provider_export()),
        "consumer.json": write_evidence(scenario.consumer_export()),
        "reported.json": write_evidence(scenario.reported_export()),
    }
    provider, consumer, reported = (json.loads(data) for data in whole.values())
    verdicts = [
        *changes(provider, consumer),
        *changes_of_reports(reported),
        *unusable(provider),
    ]
    for case in (*liars.CASES, *reporters.CASES):
        name = case.make.__name__
        whole[f"{name}.json"] = write_evidence(case.make())
        verdicts.append(
            {
                "name": name.replace("_", " "),
                "file": f"{name}.json",
                "changes": [],
                "failed": list(case.failed),
                "says": case.says,
            }
        )
    found = {"spaceKey": space_key(), "verdicts": verdicts}
    return {
        "receipts.json": written(receipt_vectors()),
        "verdicts.json": written(found),
        **{f"evidence/{name}": data for name, data in whole.items()},
    }


def space_key() -> str:
    return base64.urlsafe_b64encode(scenario.SPACE_KEY).decode().rstrip("=")


def written(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def main() -> None:
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
