"""A process of its own that writes a log and seals and drops its segments without end.

    python -m tests.fault.sealing_writer FOLDER

A line on standard output follows each step: ``wrote <size>``, ``sealed <start>``, ``dropped
<start> <first leaf that is left>``.
"""

import sys
from itertools import count
from pathlib import Path

from connector.adapters.segments import SegmentLog
from connector.ports.segments import Form
from tests.logs import pack, seal

SEGMENT_BYTES = 30_000
LEFT = 6  # sealed segments; those before them are dropped


def leaf(number: int) -> bytes:
    return b"leaf %d " % number * (number % 9 + 1)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES)
    for turn in count():
        first = log.tip.size
        log.append([b"record"] * (turn % 2), pack([leaf(first + n) for n in range(50)]), seal)
        say("wrote", log.tip.size)
        if turn % 5 == 0:
            log.keep(log.mark(), b"state")
            for segment in log.segments():
                if segment.form is Form.COMPLETE:
                    log.seal(segment.start)
                    say("sealed", segment.start)
            sealed = [found for found in log.segments() if found.form is Form.SEALED and found.kept]
            for segment in sealed[:-LEFT]:
                log.drop(segment.start)
                say("dropped", segment.start, segment.first + segment.leaves)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
