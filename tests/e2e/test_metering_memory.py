"""Twenty seconds of reports: memory and open files do not run away.

Tables and caches still fill in so short a time, so only an absurd slope fails; ``bench.endurance``
measures ten minutes of full load.
"""

from pathlib import Path

import pytest

from bench.endurance import per_minute, watch
from bench.metering import Gateway
from tests.e2e.gateway import served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BATCHES_PER_S, SECONDS = 100, 20
ABSURD_MB, ABSURD_FILES = 300, 60  # a minute: 50 bytes for each receipt; a file a second


async def test_memory_and_files_do_not_run_away(tmp_path: Path) -> None:
    async with served(tmp_path, "auto") as node:
        gateway = Gateway(node, node.register("gateway"))
        samples, told = await watch(
            gateway, tmp_path, 1.0, rows=1000, seconds=SECONDS, rate=BATCHES_PER_S
        )
    assert told["total"] >= BATCHES_PER_S * SECONDS * 1000
    assert len(samples) >= SECONDS / 2
    assert per_minute(samples, "rss_anon") < ABSURD_MB
    assert per_minute(samples, "fds") < ABSURD_FILES
