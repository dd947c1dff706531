"""One suite for every ``LogStorage``, with the fault "it failed, but it was persisted"."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.adapters.segments import SegmentLog
from connector.core.interface import NO_LEAVES
from connector.errors import InvalidInput, Unavailable
from connector.ports.receipts import MAX_RECORD_BYTES, LogStorage, Replayed, Tip
from connector.ports.segments import Form
from connector.tlog import merkle, tiles
from tests.logs import FaultyDisk, open_meter, pack, refusal, reservation, seal, use


class _Lossy(MemoryLog):
    """Memory whose next commit fails, persisted or not."""

    def __init__(self) -> None:
        super().__init__()
        self.persist: bool | None = None
        self.shown = self._tip

    @property
    def tip(self) -> Tip:
        return self.shown

    def append(self, records, leaves, seal):  # type: ignore[no-untyped-def]
        if self.persist is False:
            raise Unavailable("lost")
        tip = super().append(records, leaves, seal)
        if self.persist is True:
            self.persist = False
            raise Unavailable("persisted, and nobody knows")
        self.shown = tip
        return tip

    def replay(self, *, everything: bool = False) -> Iterator[Replayed]:
        return (
            commit
            for commit in super().replay(everything=everything)
            if commit.first + commit.count <= self.shown.size
        )


class Memory:
    """How the suite makes a storage, opens it again, and lets the next commit fail."""

    def __init__(self, _: Path) -> None:
        self.log = _Lossy()

    def fail(self, *, persisted: bool) -> None:
        self.log.persist = persisted

    def open(self) -> LogStorage:
        self.log.persist = None
        self.log.shown = self.log._tip
        return self.log


class Segments:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = FaultyDisk()
        self.log: SegmentLog | None = None

    def fail(self, *, persisted: bool) -> None:
        def fault(name: str) -> None:
            if name == ("sync" if persisted else "write"):
                raise OSError(5, "injected")

        self.disk.fail = fault

    def open(self) -> LogStorage:
        self.disk.fail = lambda name: None
        if self.log:
            self.log.close()
        self.log = SegmentLog(self.folder, disk=self.disk, segment_bytes=4096)
        return self.log


class SealedSegments(Segments):
    """Every segment that is complete is sealed when the log is opened, and read like that."""

    def open(self) -> LogStorage:
        super().open()
        assert self.log is not None
        for segment in self.log.segments()[:-1]:
            assert self.log.seal(segment.start).form is Form.SEALED
        return super().open()


@pytest.fixture(params=[Memory, Segments, SealedSegments])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memory | Segments]:
    make: Callable[[Path], Memory | Segments] = request.param
    made = make(tmp_path)
    yield made
    if made.log:
        made.log.close()


def leaves(first: int, count: int) -> list[bytes]:
    return [f"leaf {number} ".encode() * (number % 7 + 1) for number in range(first, first + count)]


def check(log: LogStorage, expected: list[bytes]) -> None:
    """Everything that can be read says the same."""
    size = len(expected)
    assert log.tip.size == size
    assert log.leaves(0, size) == expected
    hashes = [merkle.leaf_hash(leaf) for leaf in expected]
    assert log.hashes(0, 0, size) == b"".join(hashes)
    root = merkle.tree_root(size, tiles.stored_hashes(log.hashes))
    assert root == merkle.root_of(hashes)
    if log.tip.checkpoint:
        assert log.tip.checkpoint == seal(size, root)
    commits = list(log.replay(everything=True))
    assert expected == [
        leaf for commit in commits for leaf in tiles.parse_bundle(commit.packed, commit.count)
    ]


def test_an_empty_log(backend: Memory | Segments) -> None:
    log = backend.open()
    assert log.tip == Tip(0, b"")
    assert log.leaves(0, 0) == []
    assert log.hashes(0, 0, 0) == b""
    assert list(log.replay()) == []
    assert log.cosigned() == []


def test_commits_of_all_sizes(backend: Memory | Segments) -> None:
    log = backend.open()
    written: list[bytes] = []
    for count in (1, 2, 255, 1, 256, 300, 3):
        more = leaves(len(written), count)
        tip = log.append([b"record"], pack(more), seal)
        written += more
        assert tip == log.tip
        check(log, written)
    assert log.hashes(1, 0, 3) == b"".join(
        merkle.root_of([merkle.leaf_hash(leaf) for leaf in written[at : at + 256]])
        for at in (0, 256, 512)
    )
    check(backend.open(), written)


def test_a_commit_without_leaves_keeps_the_checkpoint(backend: Memory | Segments) -> None:
    log = backend.open()
    first = log.append([b"a"], NO_LEAVES, seal)
    assert first == Tip(0, seal(0, merkle.EMPTY_ROOT))
    log.append([], pack(leaves(0, 3)), seal)
    before = log.tip

    def never(size: int, root: bytes) -> bytes:
        raise AssertionError("nothing to seal")

    assert log.append([b"b", b"c"], NO_LEAVES, never) == before
    log = backend.open()
    assert log.tip == before
    commits = list(log.replay())
    assert [commit.records for commit in commits] == [(b"a",), (), (b"b", b"c")]
    assert [commit.first for commit in commits] == [0, 0, 3]


def test_ranges_outside_the_tip(backend: Memory | Segments) -> None:
    log = backend.open()
    log.append([], pack(leaves(0, 300)), seal)
    for start, count in ((0, 301), (300, 1), (-1, 2), (5, -1), (10**9, 1)):
        with pytest.raises(InvalidInput):
            log.leaves(start, count)
        with pytest.raises(InvalidInput):
            log.hashes(0, start, count)
    for level, start, count in ((1, 0, 2), (1, 1, 1), (2, 0, 1), (-1, 0, 1), (64, 0, 1)):
        with pytest.raises(InvalidInput):
            log.hashes(level, start, count)


def test_a_seal_that_fails_changes_nothing(backend: Memory | Segments) -> None:
    log = backend.open()
    log.append([], pack(leaves(0, 2)), seal)

    def refuse(size: int, root: bytes) -> bytes:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        log.append([b"x"], pack(leaves(2, 2)), refuse)
    check(log, leaves(0, 2))
    log.append([], pack(leaves(2, 1)), seal)
    check(backend.open(), leaves(0, 3))


@pytest.mark.parametrize("persisted", [True, False])
def test_it_failed(backend: Memory | Segments, persisted: bool) -> None:
    log = backend.open()
    log.append([], pack(leaves(0, 5)), seal)
    backend.fail(persisted=persisted)
    with pytest.raises(Unavailable):
        log.append([b"r"], pack(leaves(5, 300)), seal)
    check(log, leaves(0, 5))
    log = backend.open()
    check(log, leaves(0, 305 if persisted else 5))
    size = log.tip.size
    log.append([], pack(leaves(size, 2)), seal)
    check(backend.open(), leaves(0, size + 2))


@pytest.mark.parametrize("persisted", [True, False])
async def test_it_failed_under_a_meter(backend: Memory | Segments, persisted: bool) -> None:
    meter = await open_meter(backend.open())
    await use(meter, "u1", limit=3)
    await meter.reserve([reservation("u2", limit=3)])
    backend.fail(persisted=persisted)
    with pytest.raises(Unavailable):
        await meter.record([refusal("u3")])
    with pytest.raises(Unavailable):
        await meter.reserve([reservation("u4", limit=3)])
    assert meter.counters(reservation("").scope).uses == 1
    assert meter.find(reservation("").scope, "u3") is None
    await meter.close()
    meter = await open_meter(backend.open())
    assert (meter.find(reservation("").scope, "u3") is not None) is persisted
    await meter.recover()
    (again,) = await meter.record([refusal("u3")])
    assert again.fresh is not persisted
    assert meter.counters(reservation("").scope).uses == 1
    assert meter.counters(reservation("").scope).reserved == 0
    numbers = [item.receipt.number for item in meter.receipts(reservation("").scope)]
    assert numbers == list(range(1, len(numbers) + 1))
    await meter.close()


def test_cosigned_notes(backend: Memory | Segments) -> None:
    log = backend.open()
    log.keep_cosigned("directory.example", b"one")
    log.keep_cosigned("tourism.example/log", b"two")
    log.keep_cosigned("directory.example", b"three")
    assert sorted(log.cosigned()) == [b"three", b"two"]
    assert sorted(backend.open().cosigned()) == [b"three", b"two"]


def test_a_mark_in_the_middle_is_where_the_next_opening_begins(
    backend: Memory | Segments,
) -> None:
    log = backend.open()
    written: list[bytes] = []
    for count in (1, 0, 300, 17):
        log.append([b"record"], pack(leaves(len(written), count)), seal)
        written += leaves(len(written), count)
    mark = log.mark()
    log.append([b"after", b"the mark"], NO_LEAVES, seal)
    log.append([], pack(leaves(len(written), 40)), seal)
    log.keep(mark, b"what it came to")
    log = backend.open()
    assert mark.size == len(written) == 318
    assert log.kept == (318, b"what it came to")
    after = list(log.replay())
    assert [(commit.first, commit.count, commit.known) for commit in after] == [
        (318, 0, False),
        (318, 40, False),
    ]
    assert after[0].records == (b"after", b"the mark")
    every = list(log.replay(everything=True))
    assert [commit.known for commit in every] == [True] * 4 + [False] * 2
    check(log, leaves(0, 358))
    log.append([], pack(leaves(358, 3)), seal)
    check(backend.open(), leaves(0, 361))


def test_sizes_that_fit_nowhere(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    with pytest.raises(InvalidInput):
        log.append([bytes(MAX_RECORD_BYTES + 1)], NO_LEAVES, seal)
    log.append([bytes(MAX_RECORD_BYTES)], pack([bytes(65_535)]), seal)
    log.close()
    log = SegmentLog(tmp_path)
    assert log.leaves(0, 1) == [bytes(65_535)]
    log.close()
