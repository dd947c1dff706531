"""A meter's log, as it is served, read by tlog-scales."""

from pathlib import Path

from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader

from connector.adapters.segments import SegmentLog
from connector.tlog import tiles
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.tiles import Tile
from tests.logs import open_meter, refusal

SIZE = 700


async def test_it_reads_what_a_meter_serves(tmp_path: Path) -> None:
    storage = SegmentLog(tmp_path / "log", segment_bytes=50_000)
    meter = await open_meter(storage)
    for first in range(0, SIZE, 70):
        await meter.record([refusal(str(number)) for number in range(first, first + 70)])
    served = tmp_path / "served"
    for level in (None, 0, 1):
        index = 0
        while width := tiles.width_at(level or 0, index, SIZE):
            path = Tile(level, index, width).path()
            (served / path).parent.mkdir(parents=True, exist_ok=True)
            read = meter.log.bundle if level is None else meter.log.tile
            (served / path).write_bytes(read(path))
            index += 1
    theirs = TilesReader(LocalBackend(served))
    theirs.set_size(SIZE)
    checkpoint = parse_checkpoint(meter.checkpoint().checkpoint)
    assert checkpoint.size == SIZE
    assert theirs.calculate_root_hash() == checkpoint.root
    await meter.close()
    storage.close()
