"""Regenerates ``connector/_pb`` from ``protos/`` (``make proto``).

protoc names imports after the proto folder (``dataspace.usage.v1``); below ``connector._pb``
they have to be rewritten. The comments of the management API, which generated code does not
have at run time, go into ``comments.json`` by the full name of what they are about: its OpenAPI
document is made of them.
With ``--check`` nothing is written, and a difference fails.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "connector" / "_pb"
PACKAGE = "connector._pb"
COMMENTS = "comments.json"
DOCUMENTED = "dataspace.management.v1"  # the package that is offered with an OpenAPI document


def generate(out: Path) -> None:
    # protoc looks for its plugins in PATH; they are installed beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sources = sorted(str(path) for path in ROOT.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        "--include_source_info",
        f"--descriptor_set_out={out / 'descriptors'}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    described = FileDescriptorSet.FromString((out / "descriptors").read_bytes())
    (out / "descriptors").unlink()
    (documented,) = (file for file in described.file if file.package == DOCUMENTED)
    (out / COMMENTS).write_text(json.dumps(comments(documented), indent=1, sort_keys=True) + "\n")
    for folder in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    for path in out.rglob("*.py*"):
        text = path.read_text()
        text = re.sub(r"^from dataspace\.", f"from {PACKAGE}.dataspace.", text, flags=re.M)
        text = re.sub(r"^import dataspace\.", f"import {PACKAGE}.dataspace.", text, flags=re.M)
        text = re.sub(
            r"(?<![\w.\"'/])dataspace\.(\w+\.v1\.\w+_pb2)", rf"{PACKAGE}.dataspace.\1", text
        )
        path.write_text(text)


def comments(file: FileDescriptorProto) -> dict[str, str]:
    """The comments of a file, each in one line."""
    found = {}
    for location in file.source_code_info.location:
        if text := " ".join(location.leading_comments.split()):
            found[full_name(file, list(location.path))] = text
    return found


def full_name(file: FileDescriptorProto, path: list[int]) -> str:
    """What a location's path leads to: field numbers and indices, from the file on."""
    at, name = file, file.package
    while len(path) >= 2:
        field = at.DESCRIPTOR.fields_by_number[path.pop(0)]
        at = getattr(at, field.name)[path.pop(0)]
        name = f"{name}.{at.name}"
    return name


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in (*folder.rglob("*.py*"), *folder.rglob(COMMENTS))
        if "__pycache__" not in path.parts
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        generate(out)
        new, old = contents(out), contents(TARGET)
        if "--check" in sys.argv[1:]:
            changed = sorted(
                name for name in new.keys() | old.keys() if new.get(name) != old.get(name)
            )
            if changed:
                raise SystemExit(
                    f"connector/_pb differs from protos/: {', '.join(changed)}; run make proto"
                )
            return
        for name in old.keys() - new.keys():
            (TARGET / name).unlink()
        for name, text in new.items():
            (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
            (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
