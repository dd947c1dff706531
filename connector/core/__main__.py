"""Say which metering core runs here; loudly, if it is not the native one (make setup)."""

from __future__ import annotations

import sys

from connector.core.choose import choose, described


def main() -> None:
    core = choose()
    line = described(core)
    if core.name != "native":
        line = f"*** {line}: reports take several times as long; see docs/operations.md ***"
    sys.stdout.write(f"{line}\n")


main()
