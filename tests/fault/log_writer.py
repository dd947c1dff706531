"""A process of its own that uses a meter without end, and says what was acknowledged.

    python -m tests.fault.log_writer FOLDER RUN [FILE SIZE LIMIT]

A line on standard output follows each acknowledgement: ``reserved <use>``, ``done <use> <leaf
hash>``, or ``full`` when the disk refuses (with a limit; the limit is then lifted, once).
"""

import asyncio
import itertools
import random
import resource
import sys
from pathlib import Path

from connector.adapters.segments import SegmentLog
from connector.errors import Unavailable
from connector.metering.meter import Meter
from connector.model.receipt import Outcome
from connector.tlog.merkle import leaf_hash
from tests.logs import open_meter, refusal, reservation

CALLERS = 8


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def caller(meter: Meter, name: str, count: int | None) -> None:
    dice = random.Random(name)
    for number in itertools.count() if count is None else range(count):
        use_id = f"{name}-{number}"
        if dice.random() < 0.3:
            (recorded,) = await meter.record([refusal(use_id)])
        else:
            item = reservation(use_id)
            await meter.reserve([item])
            say("reserved", use_id)
            outcome = Outcome.ALLOWED if dice.random() < 0.8 else Outcome.FAILED
            (recorded,) = await meter.record([item.settle(outcome)])
        say("done", use_id, leaf_hash(recorded.leaf).hex())


async def main(folder: Path, run: str, limit: int | None) -> None:
    storage = SegmentLog(folder, segment_bytes=20_000)
    meter = await open_meter(storage, random=random.SystemRandom().randbytes)
    say("recovered", str(await meter.recover()))
    if limit is None:
        await asyncio.gather(*(caller(meter, f"{run}-{n}", None) for n in range(CALLERS)))
        return
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        await caller(meter, f"{run}-before", None)
    except Unavailable:
        say("full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await caller(meter, f"{run}-after", 20)
    await meter.close()
    storage.close()


if __name__ == "__main__":
    asyncio.run(
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
    )
