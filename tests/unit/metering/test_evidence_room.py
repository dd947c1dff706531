"""Very many receipts: an evidence file that could not hold them is refused before it is begun."""

from types import SimpleNamespace
from typing import Any

import pytest

from connector.errors import Conflict
from connector.metering.statement import MAX_RECEIPTS, Room, collect, require_room
from connector.verifier.evidence import MAX_EVIDENCE_BYTES, Entry, Evidence, write_evidence
from tests.vectors import scenario


class Busy:
    """A meter of which nothing may be read but how many receipts a scope has."""

    def __init__(self, receipts: int) -> None:
        self._receipts = receipts

    def last(self, scope: str) -> tuple[int, bytes]:
        return self._receipts, bytes(32)


def busy(receipts: int) -> Any:
    return Busy(receipts)


def test_a_scope_of_millions_is_refused_before_it_is_read() -> None:
    for refused in (require_room, collect):
        with pytest.raises(Conflict) as raised:
            refused(busy(100_000_000), "urn:uuid:1")
        assert "connector log export" in raised.value.hint
        assert "connector-verify log" in raised.value.hint
    require_room(busy(MAX_RECEIPTS), "urn:uuid:1")


class Endless:
    """A meter whose receipts do not end, which counts those that it gave."""

    def __init__(self) -> None:
        self.given = 0
        self._leaf = scenario.reported()[0].leaves[1]

    def last(self, scope: str) -> tuple[int, bytes]:
        return MAX_RECEIPTS, bytes(32)

    def checkpoint(self) -> SimpleNamespace:
        log = scenario.reported()[0].export()
        return SimpleNamespace(checkpoint=log.checkpoint, size=6)

    def receipts(self, scope: str, first: int, limit: int) -> list[SimpleNamespace]:
        self.given += limit
        return [SimpleNamespace(index=0, leaf=self._leaf)] * limit

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return [bytes(32)] * 27


def test_collecting_ends_when_the_file_is_full() -> None:
    meter: Any = Endless()
    with pytest.raises(Conflict):
        collect(meter, "urn:uuid:1")
    assert 30_000 < meter.given < 60_000


def test_what_there_is_room_for_fits() -> None:
    """The count of bytes is never above what the file has."""
    log = scenario.story()[0].export()
    room = Room()
    for entry in log.entries:
        room.take(entry)
    evidence: Evidence = scenario.evidence(scenario.PROVIDER, scenario.agreement(), log)
    written = write_evidence(evidence)
    entries = b"".join(line for line in written.splitlines() if b'"inclusion"' in line)
    assert MAX_EVIDENCE_BYTES - room._left <= len(entries)
    large = Entry(0, bytes(65_535), ())
    with pytest.raises(Conflict):
        for _ in range(MAX_EVIDENCE_BYTES // 65_535):
            room.take(large)
