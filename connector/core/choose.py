"""Which metering core runs: the native one where it was built, else the one in Python."""

from __future__ import annotations

import os
from functools import cache

from connector.core.interface import Core
from connector.core.reference import Reference
from connector.errors import ConfigError

VARIABLE = "TDS_CORE"
NAMES = ("auto", "python", "native")


def choose(name: str = "auto") -> Core:
    """``auto``: what the environment variable ``TDS_CORE`` names, or the fastest there is.

    Raises ``ConfigError`` for a name that is none, and for ``native`` where it was not built.
    """
    if name == "auto":
        name = os.environ.get(VARIABLE) or name
    if name not in NAMES:
        raise ConfigError(f"metering core: one of {', '.join(NAMES)}")
    return _core(name)


@cache
def _core(name: str) -> Core:
    if name == "python":
        return Reference("chosen")
    if name == "auto":
        try:
            return _core("native")
        except ConfigError:
            return Reference("no native core: built without Rust")
    try:
        from connector.core.native import Native
    except ImportError as error:
        raise ConfigError(
            "the native metering core is not there",
            hint="install Rust (cargo) and this program again, or choose another core",
        ) from error
    return Native()


def described(core: Core) -> str:
    """For people: ``core: native (SHA instructions)``."""
    return f"core: {core.name} ({core.detail})"
