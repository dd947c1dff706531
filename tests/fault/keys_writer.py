"""A process of its own that writes key files.

    python -m tests.fault.keys_writer KIND FOLDER [FILE SIZE LIMIT]

Without a limit: key i for leaf i, without end, from where the files end; a line on standard
output says up to which leaf they are durable. With one: 40,000 keys are frozen while no file may
be larger, and again when they may.
"""

import resource
import sys
from pathlib import Path
from typing import Any

from tests.keymaps import fill, freeze, key, open_keys

ROWS = 2_000


def say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def endless(keys: Any) -> None:
    size = keys.covered
    while True:
        fill(keys, size, size + ROWS)
        size += ROWS
        keys.freeze(size)
        if covered := keys.covered:
            say(covered)


def limited(keys: Any, limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    fill(keys, 0, 30_000)
    freeze(keys, 30_000)
    say(f"trouble {keys.trouble}")
    say(f"covered {keys.covered}")
    fill(keys, 30_000, 40_000)
    freeze(keys, 40_000)
    say("found" if all(keys.find(key(i)) == i for i in range(40_000)) else "lost")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    freeze(keys, 40_000)
    say(f"covered {keys.covered}")
    say(f"trouble {keys.trouble}")
    keys.close()


if __name__ == "__main__":
    opened = open_keys(sys.argv[1], Path(sys.argv[2]))
    if len(sys.argv) > 3:
        limited(opened, int(sys.argv[3]))
    else:
        endless(opened)
