"""The policy bundle: a flat folder of Rego v1 modules and one ``data.json``.

Both engines load the same bundle. Its digest names exactly what was loaded and goes into every
decision: SHA-256 over the lines that ``sha256sum`` prints for the files, in the order of their
names. Tests (``*_test.rego``) are part of neither.

The bundle that ships with the program is ``policies/`` at the top of the source tree, installed
as ``connector/_policies``. Left out: signatures over bundles (docs/decisions).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import connector
from connector.errors import ConfigError, InvalidInput
from connector.model import fields

DATA = "data.json"
TEST_SUFFIX = "_test.rego"
MAX_FILES = 64
MAX_FILE_BYTES = 1 << 18
_MODULE = re.compile(r"[a-z][a-z0-9_]{0,63}\.rego")


@dataclass(frozen=True, slots=True)
class Bundle:
    """``modules``: file name to Rego text. ``data``: the document at ``data``, and in it
    ``dataspace.bundle.digest``, the hex form of ``digest`` (32 bytes)."""

    modules: Mapping[str, str]
    data: Mapping[str, Any]
    digest: bytes


def default_folder() -> Path:
    """Where the bundle that ships with the program is."""
    return Path(next(iter(connector.__path__))) / "_policies"


def load_bundle(folder: Path | None = None) -> Bundle:
    """The bundle in ``folder``, or the one that ships with the program.

    Raises ``ConfigError`` for anything in the folder that is not part of a bundle: what was meant
    to be a policy and is not loaded would be a rule that silently does not hold.
    """
    files = _read(folder if folder is not None else default_folder())
    digest = hashlib.sha256(manifest(files)).digest()
    try:
        data = fields.as_object(fields.parse_json(files.pop(DATA), what=DATA), DATA)
    except KeyError as error:
        raise ConfigError(f"policy bundle: there is no {DATA}") from error
    except InvalidInput as error:
        raise ConfigError(f"policy bundle: {error.message}") from error
    if "dataspace" in data:
        raise ConfigError(f"policy bundle: {DATA}: dataspace is where the policies are")
    if not all(isinstance(value, dict) for value in data.values()):
        raise ConfigError(f"policy bundle: {DATA}: every top value must be an object")
    try:
        modules = {name: content.decode() for name, content in sorted(files.items())}
    except UnicodeDecodeError as error:
        raise ConfigError("policy bundle: a module is not UTF-8") from error
    if not modules:
        raise ConfigError("policy bundle: there is no module")
    named = {**data, "dataspace": {"bundle": {"digest": digest.hex()}}}
    return Bundle(modules=modules, data=named, digest=digest)


def manifest(files: Mapping[str, bytes]) -> bytes:
    """What the digest is over: ``<sha256 in hex>  <name>`` and a line feed for each file."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return "".join(lines).encode()


def export_bundle(bundle: Bundle) -> bytes:
    """The bundle as an OPA bundle file (``.tar.gz``), the same bytes each time, for an OPA server
    that fetches its bundles itself. The manifest's revision is the digest in hex."""
    own = {
        ".manifest": {
            "revision": bundle.digest.hex(),
            "roots": sorted(bundle.data),
            "rego_version": 1,
        },
        DATA: dict(bundle.data),
    }
    files = {name: json.dumps(value, sort_keys=True).encode() for name, value in own.items()}
    files |= {name: text.encode() for name, text in bundle.modules.items()}
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))
    return packed.getvalue()


def _read(folder: Path) -> dict[str, bytes]:
    """Every file of the bundle, tests aside."""
    try:
        entries = sorted(folder.iterdir())
        if len(entries) > MAX_FILES:
            raise ConfigError(f"policy bundle: more than {MAX_FILES} files")
        return {
            entry.name: _content(entry)
            for entry in entries
            if _is_part(entry) and not entry.name.endswith(TEST_SUFFIX)
        }
    except OSError as error:
        raise ConfigError(f"policy bundle: {folder} cannot be read: {error.strerror}") from error


def _is_part(entry: Path) -> bool:
    if entry.is_symlink() or not entry.is_file():
        raise ConfigError(f"policy bundle: {entry.name!r} is not a plain file")
    if entry.name != DATA and not _MODULE.fullmatch(entry.name):
        raise ConfigError(f"policy bundle: {entry.name!r} is neither {DATA} nor a module")
    return True


def _content(entry: Path) -> bytes:
    if entry.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"policy bundle: {entry.name!r} is larger than {MAX_FILE_BYTES} bytes")
    return entry.read_bytes()
