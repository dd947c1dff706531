"""A process of its own that reports uses as fast as it can, and says what was acknowledged.

    python -m tests.fault.report_writer FOLDER RUN CORE ROWS

A line on standard output follows each acknowledgement: ``<run>-<writer>-<number> <first leaf>
<count> <size>``. Row ``r`` of it has the use id ``<run>-<writer>-<number>-<r>``. Every tenth
report repeats the one before it, every use of an agreement is held to a limit that is never
reached, and uses at the gate go on meanwhile.
"""

import asyncio
import itertools
import os
import sys
from contextlib import closing
from pathlib import Path

from connector.adapters.segments import SegmentLog
from connector.app import logs
from connector.core.choose import choose
from connector.metering.meter import Meter
from tests.logs import open_meter, use
from tests.reports import report

WRITERS = 4
SCOPES = [f"urn:uuid:agreement-{n}" for n in range(1, WRITERS + 1)]
LIMIT = 1 << 40


async def reporter(meter: Meter, name: str, scope: str, rows: int) -> None:
    for number in itertools.count():
        batch = f"{name}-{number}"
        sent = report([f"{batch}-{row}" for row in range(rows)], scope=scope, limit=LIMIT)
        (answer,) = await meter.report([sent])
        sys.stdout.write(f"{batch} {answer.first} {answer.count} {answer.size}\n")
        sys.stdout.flush()
        if number % 10 == 9:
            (again,) = await meter.report([sent])
            if again.count:
                sys.stdout.write(f"twice {batch}\n")


async def gate(meter: Meter, name: str) -> None:
    for number in itertools.count():
        await use(meter, f"{name}-use-{number}", scope=SCOPES[0])


async def main(folder: Path, run: str, core_name: str, rows: int) -> None:
    core = choose(core_name)
    with (
        closing(SegmentLog(folder, core=core, segment_bytes=4 << 20)) as storage,
        closing(core.open_keys(folder / "keys")) as keys,
    ):
        meter = await open_meter(storage, core=core, keys=keys, random=os.urandom)
        await meter.recover()
        async with asyncio.TaskGroup() as tasks:
            for number, scope in enumerate(SCOPES):
                tasks.create_task(reporter(meter, f"{run}-{number}", scope, rows))
            tasks.create_task(gate(meter, run))


if __name__ == "__main__":
    logs.configure("warning", "report_writer")  # to standard error
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
