"""One process of the program under cProfile: what ``bench.profile_uses`` starts in its place.

``python -m bench.profiled REPORT ARGUMENTS...`` runs ``connector ARGUMENTS...``; the profile of
the main thread, which is where the event loop is, is written to REPORT at the end.
"""

from __future__ import annotations

import cProfile
import sys

from connector.cli import main

if __name__ == "__main__":
    report, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    profile = cProfile.Profile()
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(report)
