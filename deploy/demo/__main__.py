"""``python -m deploy.demo``: tells the story and exits 0, or 1 if anything was not as told."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from deploy.demo import flights, joining, proving, using
from deploy.demo.auditor import Auditor
from deploy.demo.cast import Cast
from deploy.demo.space import remove, stop_all
from deploy.demo.tell import StoryBroken, Teller

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = float(os.environ.get("DEMO_LIMIT_S", "60"))  # seconds that the story may take
STEPS = (
    joining.found_the_space,
    joining.publish,
    joining.agree,
    using.use,
    using.end,
    proving.audit,
    proving.close,
)


def main() -> int:
    options = argparse.ArgumentParser(prog="demo", description=__doc__)
    options.add_argument("--keep", action="store_true", help="keep the data folders")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tell = Teller()
    begun = time.monotonic()
    # A Unix socket's path may have 107 bytes at most, so not below a deep working folder.
    work = Path(tempfile.mkdtemp(prefix="tds-", dir="/tmp"))
    tell.title("From nothing to a verified receipt: two enterprises, one directory, one auditor")
    try:
        with tell.busy("unpacking the flights"):
            csv = flights.unpack(ROOT / ".cache")
        told = _tell(Cast(tell, work, csv, Auditor(ROOT / ".venv-auditor")))
    except flights.NoData as error:
        tell.say(str(error))
        return 1
    finally:
        if given.keep:
            tell.say(f"kept: {work}")
        else:
            remove(work)
    took = time.monotonic() - begun
    tell.say()
    tell.check(took < LIMIT_S, f"the story took {took:.0f} s")
    if told and not tell.failed:
        tell.title(f"Done: {tell.checks} claims, all so.")
        return 0
    tell.title(f"FAILED: {len(tell.failed)} of {tell.checks} claims were not so:")
    for claim in tell.failed:
        tell.say(f"- {claim}")
    return 1


def _tell(cast: Cast) -> bool:
    tell = cast.tell
    if not cast.auditor.ready:
        tell.say("the auditor's environment is missing: run make setup")
        return False
    told = False
    try:
        for step in STEPS:
            step(cast)
        told = True
    except StoryBroken as broken:
        tell.say(f"the story breaks here: {broken}")
    finally:
        codes = stop_all(cast.everybody)
        tell.check(
            all(code == 0 for code in codes.values()),
            f"on SIGTERM all processes drain and leave with 0: {', '.join(codes)}"
            if all(code == 0 for code in codes.values())
            else f"on SIGTERM all processes drain and leave with 0: {codes}",
        )
        if not told or tell.failed:
            for each in cast.everybody:
                tell.say(f"last lines of {each.nick}'s log:")
                tell.aside(each.tail())
    return told


if __name__ == "__main__":
    sys.exit(main())
