"""Where the time of uses and negotiations goes: a whole space with each process under cProfile.

``python -m bench.profiled uses`` (or ``negotiations``, or ``https`` for those over HTTPS) runs 240
of them, 16 at once, and prints for each process its dearest functions: those of the main thread,
where the event loop is. The profiler itself makes everything slower; what it shows is how costs
compare.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import tempfile
from pathlib import Path

from bench.market import flights, market, negotiate, publish
from bench.system import TRIVIAL
from connector.cli import main
from tests.e2e import space as spaces

ROUNDS, AT_ONCE, SHOWN = 15, 16, 25
CHILD = "--one-process"


async def _run(what: str, folder: Path) -> None:
    async with market(folder) as running:
        few = await publish(running, "few", flights(folder / "few.csv", 2_000))
        async with running.node("remote" if what == "https" else "consumer") as node:
            for _ in range(ROUNDS):
                calls = [
                    node.query(few.agreement, TRIVIAL, purpose=spaces.PURPOSE)
                    if what == "uses"
                    else negotiate(node, few.dataset_id)
                    for _ in range(AT_ONCE)
                ]
                await asyncio.gather(*calls)


def _parent(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        spaces.CONNECTOR[:] = [sys.executable, "-m", "bench.profiled", CHILD, name]
        asyncio.run(_run(what, folder))
        for report in sorted(folder.glob("*.profile")):
            print(f"\n{report.stem}")
            pstats.Stats(str(report)).sort_stats("cumulative").print_stats("connector/", SHOWN)


def _child(folder: str) -> None:
    """One process of the program; its profile is written at its end."""
    profile = cProfile.Profile()
    try:
        profile.runcall(main)
    finally:
        if "serve" in sys.argv:
            profile.dump_stats(Path(folder) / f"{Path(sys.argv[-1]).name}.profile")


if __name__ == "__main__":
    if sys.argv[1] == CHILD:
        _, _, folder, *arguments = sys.argv
        sys.argv[1:] = arguments
        _child(folder)
    else:
        _parent(sys.argv[1])
