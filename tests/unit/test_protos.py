"""The protos as readers of another language need them: complete comments, stable names.

Messages named Request or Response are described by the comment of the RPC they belong to. What
``buf lint`` would check further is in ``protos/buf.yaml``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "protos"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
AREAS = ("catalog", "directory", "management", "metering", "negotiation", "usage")

_DECLARED = re.compile(
    r"\s*(?:(?P<kind>message|service|enum|oneof|rpc) (?P<name>\w+)"
    r"|(?:repeated |optional )?(?:map<\w+, [\w.]+>|[\w.]+) (?P<field>\w+) = (?P<number>\d+))"
)
_CONSTANT = re.compile(r"\s*(?P<field>[A-Z][A-Z0-9_]*) = (?P<number>\d+)")


@dataclass(frozen=True)
class Declared:
    kind: str
    name: str
    documented: bool


def declared(text: str) -> Iterator[Declared]:
    before = ""
    for line in text.split("\n"):
        if line.strip() and not line.strip().startswith(("//", "syntax", "package", "import")):
            found = _DECLARED.match(line) or _CONSTANT.match(line)
            if found:
                names = found.groupdict()
                documented = before.strip().startswith("// ")
                kind = names.get("kind") or "field"
                yield Declared(kind, names.get("name") or names["field"], documented)
        before = line


def test_the_reader_of_this_test_sees_what_is_there() -> None:
    text = (
        "// Says.\nmessage A {\n  // B.\n  repeated x.Y b = 1;\n  map<string, uint64> c = 2;\n}\n"
    )
    assert [(one.kind, one.name, one.documented) for one in declared(text)] == [
        ("message", "A", True),
        ("field", "b", True),
        ("field", "c", False),
    ]


def test_every_area_has_its_package() -> None:
    assert [f"dataspace/{area}/v1/{area}.proto" for area in AREAS] == FILES


@pytest.mark.parametrize("file", FILES)
def test_everything_is_documented(file: str) -> None:
    found = list(declared((ROOT / file).read_text()))
    calls = {one.name for one in found if one.kind == "rpc"}
    missing = [
        f"{one.kind} {one.name}"
        for one in found
        if not one.documented
        and not (
            one.kind == "message"
            and one.name.endswith(("Request", "Response"))
            and one.name.removesuffix("Request").removesuffix("Response") in calls
        )
    ]
    assert missing == []


@pytest.mark.parametrize("file", FILES)
def test_packages_and_names_are_as_buf_wants_them(file: str) -> None:
    text = (ROOT / file).read_text()
    assert f"package {file.rpartition('/')[0].replace('/', '.')};" in text
    for one in declared(text):
        if one.kind == "service":
            assert one.name.endswith("Service")
        elif one.kind in ("message", "rpc"):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", one.name)
        elif one.kind == "field":
            assert re.fullmatch(r"[a-z][a-z0-9_]*|[A-Z][A-Z0-9_]*", one.name)


@pytest.mark.parametrize("area", AREAS)
def test_each_call_has_its_own_messages_and_is_answered(area: str) -> None:
    """A request or response shared by two calls could not grow for one of them alone."""
    stubs = importlib.import_module(f"connector._pb.dataspace.{area}.v1.{area}_pb2")
    calls = [
        (service.name, call)
        for service in stubs.DESCRIPTOR.services_by_name.values()
        for call in service.methods
    ]
    assert calls
    answered = "".join(path.read_text() for path in (ROOT.parent / "connector").rglob("*.py"))
    for service, call in calls:
        assert call.input_type.name == f"{call.name}Request"
        assert call.output_type.name == f"{call.name}Response"
        assert re.search(rf"class \w+\([a-z0-9_]+\.{service}Servicer\)", answered)
        assert f"async def {call.name}(" in answered
