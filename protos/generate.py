"""Regenerates ``connector/_pb`` from ``protos/`` (``make proto``).

protoc names imports after the proto folder (``dataspace.usage.v1``); below ``connector._pb``
they have to be rewritten. With ``--check`` nothing is written, and a difference fails.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "connector" / "_pb"
PACKAGE = "connector._pb"


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
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
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


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*.py*")
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
