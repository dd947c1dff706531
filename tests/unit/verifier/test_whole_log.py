"""A whole exported log: what is right, and every way in which a file can be wrong."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.core.choose import choose
from connector.core.interface import MAX_RECORDS, Columns, Core, Place
from connector.errors import InvalidInput
from connector.model import receipt as receipts
from connector.model.receipt import ActReceipt, Quantity
from connector.tlog import merkle
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.tiles import Tile, encode_bundle, parse_bundle
from connector.verifier import batches
from connector.verifier.folder import LogFolder
from connector.verifier.wholelog import LogVerdict, verify_log
from tests.exported import VKEY, Leaves, put, records, witness_key, write_folder
from tests.vectors import scenario
from tests.vectors.scenario import PROVIDER, SPACE, STRANGER

SIZE = 600  # two whole bundles and 88 leaves more


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "log"
    return write_folder(folder, records(SIZE), cosigners=[SPACE])


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that a test may damage."""
    copy = tmp_path / "log"
    shutil.copytree(whole, copy)
    yield copy


@pytest.fixture
def verdict(core: Core, tmp_path: Path) -> Callable[..., LogVerdict]:
    def verified(
        folder: Path, *, keys=(VKEY,), witnesses=(), allow_dropped: bool = False, threads: int = 2
    ) -> LogVerdict:
        uses = core.open_keys(tmp_path / "uses")
        try:
            return verify_log(
                LogFolder(folder),
                keys,
                witnesses,
                core=core,
                uses=uses,
                allow_dropped=allow_dropped,
                threads=threads,
            )
        finally:
            uses.close()
            shutil.rmtree(tmp_path / "uses")

    return verified


def failed(verdict: LogVerdict) -> dict[int, tuple[str, ...]]:
    return {step.number: step.failures for step in verdict.steps if not step.ok}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513])
def test_every_size(size: int, tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    found = verdict(write_folder(tmp_path / "log", records(size)))
    assert failed(found) == {}
    assert found.size == size
    assert sum(counts["receipts"] for counts in found.scopes.values()) == size
    calls = sum(place % 3 + 1 for place in range(size))
    assert sum(counts["allowed"] for counts in found.scopes.values()) == calls


def test_batches_of_every_width(
    whole: Path, monkeypatch: pytest.MonkeyPatch, verdict: Callable[..., LogVerdict]
) -> None:
    for most in (1, 2, 4):
        monkeypatch.setattr(batches, "MOST_BUNDLES", most)
        for most_bytes in (1, 60_000, 1 << 20):
            monkeypatch.setattr(batches, "MOST_BYTES", most_bytes)
            for threads in (1, 3):
                assert failed(verdict(whole, threads=threads)) == {}


def test_the_plan_keeps_to_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch begins at a multiple of its own width, whatever the sizes of the files."""

    class Folder:
        def size(self, tile: Tile) -> int:
            return tile.index * 7919 % 5

    monkeypatch.setattr(batches, "MOST_BYTES", 9)
    for bundles in (1, 63, 64, 65, 300):
        at = 0
        for first, count in batches.plan(Folder(), bundles * 256 - 1):  # type: ignore[arg-type]
            assert first == at
            assert first % (1 << (count - 1).bit_length()) == 0
            at += count
        assert at == bundles


def many_records(core: Core, count: int, uses: Path) -> bytes:
    """Packed leaves of one agreement, as reports of 10,000 make them."""
    keys, packed, head, number = core.open_keys(uses), b"", bytes(32), 0
    for first in range(0, count, MAX_RECORDS):
        rows = min(MAX_RECORDS, count - first)
        columns = Columns(
            purpose="",
            use_ids=b"\n".join(b"use-%d" % place for place in range(first, first + rows)),
            served=(1_795_420_800_000).to_bytes(8, "little") * rows,
            amounts=((Quantity.CALLS, (2).to_bytes(8, "little") * rows),),
        )
        place = Place(
            scope="urn:uuid:a",
            reporter="api-gateway",
            number=number,
            head=head,
            left=None,
            first_ms=0,
            last_ms=2**53,
            running=frozenset(),
            time_ms=1_795_420_800_000,
            index=first,
            salts=bytes(16 * rows),
        )
        made = core.make_records(columns, place, keys)
        keys.settle()
        packed, head, number = packed + made.leaves.packed, made.head, number + rows
    keys.close()
    return packed


def test_two_levels_of_tiles(tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    """65,536 leaves and more: a tile of level 2, and a lie in it."""
    size = 66_000
    core = choose("python")
    packed = many_records(core, size, tmp_path / "made")
    hashes = core.leaf_hashes(packed)
    subtrees, levels = core.extend(0, (), hashes)
    folder = tmp_path / "log"
    for level, data in levels.items():
        for at in range(0, len(data), 8_192):
            part = data[at : at + 8_192]
            put(folder, Tile(level, at // 8_192, len(part) // 32), part)
    begins = [*core.offsets(packed, 0, 256), len(packed)]
    for place, (begin, end) in enumerate(itertools.pairwise(begins)):
        put(folder, Tile(None, place, min(256, size - 256 * place)), packed[begin:end])
    root = subtrees[-1]
    for subtree in reversed(subtrees[:-1]):
        root = merkle.node_hash(subtree, root)
    (folder / "checkpoint").write_bytes(sign_checkpoint(PROVIDER.origin, size, root, PROVIDER.key))
    found = verdict(folder)
    assert failed(found) == {}
    assert found.scopes["urn:uuid:a"]["reported"] == 2 * size
    shutil.rmtree(folder / "tile/entries")  # hashes alone are quick to check
    assert failed(verdict(folder, allow_dropped=True)) == {}
    put(folder, Tile(2, 0, 1), bytes(32))
    assert failed(verdict(folder, allow_dropped=True)) == {
        4: ("tile/2/000.p/1: its hash of tile/1/000 does not follow from the leaves",)
    }
    (folder / "tile/2/000.p/1").unlink()
    lacking = failed(verdict(folder, allow_dropped=True))
    assert lacking == {4: ("tile/2/000.p/1: there is no such file",)}


def test_findings_are_bounded(tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    leaves = [b""] * 1_100
    found = failed(verdict(write_folder(tmp_path / "log", leaves)))
    assert list(found) == [5]
    assert len(found[5]) == 1_001
    assert found[5][-1] == "and 100 more"


def test_witnesses(whole: Path, verdict: Callable[..., LogVerdict]) -> None:
    found = verdict(whole, witnesses=[witness_key(SPACE)])
    assert found.valid
    assert found.cosigned == {SPACE.origin: 1_795_420_900}
    lacking = failed(verdict(whole, witnesses=[witness_key(SPACE), witness_key(STRANGER)]))
    assert list(lacking) == [2]
    assert STRANGER.origin in lacking[2][0]


def test_another_key(whole: Path, verdict: Callable[..., LogVerdict]) -> None:
    other = type(VKEY)(VKEY.name, STRANGER.key.public_key().public_bytes_raw())
    assert list(failed(verdict(whole, keys=[other]))) == [1]
    assert failed(verdict(whole, keys=[other, VKEY])) == {}
    with pytest.raises(InvalidInput):
        verdict(whole, keys=[witness_key(SPACE)])
    with pytest.raises(InvalidInput):
        verdict(whole, witnesses=[VKEY])


def flip(path: str, at: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / path).read_bytes())
        data[at] ^= 1
        (folder / path).write_bytes(data)

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def write(path: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        (folder / path).write_bytes(data)

    return change


def resize(path: str, by: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data + bytes(by) if by > 0 else data[:by])

    return change


def swap(one: str, other: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return change


def shift_a_leaf(folder: Path) -> None:
    """The first bundle loses its last leaf to the second: together they hold the right leaves."""
    one, other = folder / "tile/entries/000", folder / "tile/entries/001"
    first, second = parse_bundle(one.read_bytes(), 256), parse_bundle(other.read_bytes(), 256)
    one.write_bytes(encode_bundle(first[:-1]))
    other.write_bytes(encode_bundle(first[-1:]) + encode_bundle(second))


def as_folder(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).unlink()
        (folder / path).mkdir()

    return change


LAST, LAST_HASHES, LEVEL_1 = "tile/entries/002.p/88", "tile/0/002.p/88", "tile/1/000.p/2"
# What is done, which steps fail, and how the first finding of the first of them begins.
DAMAGE: dict[str, tuple[Callable[[Path], None], list[int], str]] = {
    "a byte of a leaf": (
        flip("tile/entries/001", 30_000),
        [3],
        "tile/entries/001: leaf 4",
    ),
    "a byte of the last leaf": (flip(LAST, -1), [3], f"{LAST}: leaf 599 is not the one"),
    "a length in a bundle": (flip("tile/entries/000", 1), [3], "tile/entries/000: "),
    "a bundle cut short": (resize("tile/entries/000", -1), [3], "tile/entries/000: does not end"),
    "a bundle of nothing": (write(LAST, b""), [3], f"{LAST}: holds 0 entries, and should hold 88"),
    "a leaf too many": (resize(LAST, 2), [3], f"{LAST}: holds 89 entries"),
    "a bundle missing": (remove("tile/entries/001"), [3], "tile/entries/001: there is no such"),
    "the last bundle missing": (remove(LAST), [3], f"{LAST}: there is no such file"),
    "two bundles swapped": (
        swap("tile/entries/000", "tile/entries/001"),
        [3],
        "tile/entries/000: leaf 0 is not the one",
    ),
    "a leaf in its neighbour's bundle": (
        shift_a_leaf,
        [3],
        "tile/entries/000: holds 255 entries, and should hold 256",
    ),
    "a bundle that is a folder": (as_folder(LAST), [3], f"{LAST}: cannot be read"),
    "a hash of a full tile": (
        flip("tile/0/000", 32 * 7),
        [3],
        "tile/0/000: the hash of leaf 7 is not of the leaf in tile/entries/000",
    ),
    "a hash of the last tile": (
        flip(LAST_HASHES, 0),
        [3, 4],
        f"{LAST}: leaf 512 is not the one that {LAST_HASHES} has the hash of",
    ),
    "a hash tile missing": (remove("tile/0/001"), [3], "tile/0/001: there is no such file"),
    "a hash tile cut short": (resize("tile/0/001", -1), [3], "tile/0/001: has 8191 bytes"),
    "a hash tile too long": (resize("tile/0/001", 1), [3], "tile/0/001: larger than"),
    "a hash tile and its bundle missing": (
        lambda folder: (remove("tile/0/001")(folder), remove("tile/entries/001")(folder)),
        [3, 4],
        "tile/",
    ),
    "a hash of level 1": (flip(LEVEL_1, 32), [4], f"{LEVEL_1}: its hash of tile/0/001 does not"),
    "level 1 missing": (remove(LEVEL_1), [4], f"{LEVEL_1}: there is no such file"),
    "level 1 too short": (resize(LEVEL_1, -32), [4], f"{LEVEL_1}: has 32 bytes"),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_by_its_file(
    case: tuple[Callable[[Path], None], list[int], str],
    folder: Path,
    verdict: Callable[..., LogVerdict],
) -> None:
    change, steps, says = case
    change(folder)
    found = failed(verdict(folder))
    assert list(found) == steps
    assert found[steps[0]][0].startswith(says), found
    # What is not there or not believed does not make the receipts after it wrong.
    assert not {5, 6, 7} & found.keys()


UNUSABLE = {
    "no folder": lambda folder: shutil.rmtree(folder),
    "no checkpoint": remove("checkpoint"),
    "a checkpoint that is none": write("checkpoint", b"hello\n"),
    "a checkpoint of other bytes": write("checkpoint", os.urandom(300)),
    "a checkpoint too large": write("checkpoint", b"a" * 200_000),
    "a checkpoint that is a folder": as_folder("checkpoint"),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_without_a_checkpoint_there_is_no_verdict(
    change: Callable[[Path], None], folder: Path, verdict: Callable[..., LogVerdict]
) -> None:
    change(folder)
    with pytest.raises(InvalidInput, match="checkpoint"):
        verdict(folder)


def test_a_checkpoint_of_another_root_or_size(
    folder: Path, verdict: Callable[..., LogVerdict]
) -> None:
    note = sign_checkpoint(PROVIDER.origin, SIZE, bytes(32), PROVIDER.key)
    (folder / "checkpoint").write_bytes(note)
    assert failed(verdict(folder)) == {4: ("checkpoint: its root does not follow from the leaves",)}


def test_a_checkpoint_of_a_larger_tree_stops_at_what_is_not_there(
    folder: Path, verdict: Callable[..., LogVerdict]
) -> None:
    for size in (100_000, 2**62):
        note = sign_checkpoint(PROVIDER.origin, size, bytes(32), PROVIDER.key)
        (folder / "checkpoint").write_bytes(note)
        found = failed(verdict(folder))
        assert list(found) == [3, 4]
        assert found[3][-1] == "nothing was read from leaf 16,384 on"
        assert len(found[3]) < 300


def dropped_bundles(folder: Path) -> None:
    for path in ("tile/entries/000", "tile/entries/001"):
        (folder / path).unlink()


def test_dropped_bundles_are_told_from_missing_ones(
    folder: Path, verdict: Callable[..., LogVerdict]
) -> None:
    dropped_bundles(folder)
    assert list(failed(verdict(folder))) == [3]
    found = verdict(folder, allow_dropped=True)
    assert failed(found) == {}
    assert found.dropped == 512
    assert sum(counts["receipts"] for counts in found.scopes.values()) == SIZE - 512
    assert sum(counts["unseen"] for counts in found.scopes.values()) == 512
    (folder / "tile/0/000").unlink()  # hashes may not be dropped
    assert list(failed(verdict(folder, allow_dropped=True))) == [3, 4]


def test_a_dropped_bundle_does_not_hide_a_lie_behind_it(
    folder: Path, verdict: Callable[..., LogVerdict]
) -> None:
    dropped_bundles(folder)
    flip(LAST, -1)(folder)
    assert list(failed(verdict(folder, allow_dropped=True))) == [3]


def of_two_kinds(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.append(scenario.story()[0].leaves[2])  # a use, whose scope begins at number 2


def one_use_twice(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.record("urn:uuid:b", "use-1")  # of another agreement: another use
    leaves.record("urn:uuid:a", "use-1")


def use_and_record(leaves: Leaves) -> None:
    log = scenario.Log(PROVIDER, scenario.agreement())
    log.conclude()
    log.use("use-1")
    log.report("use-1")
    leaves.extend(log.leaves)


def record_and_use(leaves: Leaves) -> None:
    log = scenario.Log(PROVIDER, scenario.agreement())
    log.conclude()
    log.report("use-1")
    log.use("use-1")
    leaves.extend(log.leaves)


def refused_twice(leaves: Leaves) -> None:
    log = scenario.Log(PROVIDER, scenario.agreement())
    log.conclude()
    log.use("use-1", scenario.Outcome.REFUSED)
    log.use("use-1", scenario.Outcome.REFUSED)
    leaves.extend(log.leaves)


def not_a_receipt(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.append(b"not a receipt")
    leaves.record("urn:uuid:a", "use-2")


def nearly_a_record(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves[0] = leaves[0].replace(b"use-1", b"use\n1")


def skipped(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.record("urn:uuid:a", "use-2", number=4)


def begins_late(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1", number=2, previous=b"\7" * 32)


def numbered_twice(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.record("urn:uuid:a", "use-2")
    leaves.record("urn:uuid:a", "use-3", number=2)


def unchained(leaves: Leaves) -> None:
    leaves.record("urn:uuid:a", "use-1")
    leaves.record("urn:uuid:a", "use-2", previous=b"\7" * 32)
    leaves.record("urn:uuid:a", "use-3")


P = "tile/entries/000.p/"
LIARS: dict[str, tuple[Callable[[Leaves], None], int, str]] = {
    "begins with number 2": (of_two_kinds, 6, f"{P}2: leaf 1: receipt 2 of "),
    "one use twice": (
        one_use_twice,
        7,
        f"{P}3: leaf 2: receipt 2 of urn:uuid:a is of a use that leaf 0 is of",
    ),
    "a use and a record of it": (use_and_record, 7, f"{P}3: leaf "),
    "a record and a use of it": (record_and_use, 7, f"{P}3: leaf "),
    "one use refused twice": (refused_twice, 7, f"{P}3: leaf 2: receipt 3 of "),
    "not a receipt": (not_a_receipt, 5, f"{P}3: leaf 1: receipt: "),
    "nearly a record": (nearly_a_record, 5, f"{P}1: leaf 0: receipt: field 10"),
    "a number skipped": (
        skipped,
        6,
        f"{P}2: leaf 1: receipt 4 of urn:uuid:a has no receipt 2 to 3 before it",
    ),
    "a scope that begins late": (
        begins_late,
        6,
        f"{P}1: leaf 0: receipt 2 of urn:uuid:a has no receipt 1 before it",
    ),
    "a number twice": (numbered_twice, 6, f"{P}3: leaf 2: receipt 2 of urn:uuid:a is there twice"),
    "a broken chain": (
        unchained,
        6,
        f"{P}3: leaf 1: receipt 2 of urn:uuid:a names another leaf hash",
    ),
}


@pytest.mark.parametrize("case", LIARS.values(), ids=LIARS.keys())
def test_a_log_whose_hashes_all_hold_and_that_lies(
    case: tuple[Callable[[Leaves], None], int, str],
    tmp_path: Path,
    verdict: Callable[..., LogVerdict],
) -> None:
    change, step, says = case
    leaves = Leaves()
    change(leaves)
    found = failed(verdict(write_folder(tmp_path / "log", leaves)))
    assert list(found) == [step]
    assert len(found[step]) == 1, found
    assert found[step][0].startswith(says)


def test_a_twin_in_another_bundle(tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    leaves = records(300)
    leaves.record("urn:uuid:0", "use-0")
    found = failed(verdict(write_folder(tmp_path / "log", leaves)))
    assert list(found) == [7]
    assert "is of a use that leaf 0 is of" in found[7][0]


def test_both_parties_logs_of_a_story(tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    provider, _ = scenario.story()
    found = verdict(write_folder(tmp_path / "log", provider.leaves))
    assert failed(found) == {}
    counts = found.scopes[scenario.AGREEMENT_ID]
    assert (counts["allowed"], counts["refused"], counts["failed"], counts["interrupted"]) == (
        3,
        2,
        1,
        1,
    )
    assert counts["acts"] == 2
    reported, consumer = scenario.reported()
    found = verdict(write_folder(tmp_path / "reported", reported.leaves))
    counts = found.scopes[scenario.AGREEMENT_ID]
    assert (counts["records"], counts["reported"], counts["allowed"]) == (3, 46, 47)
    found = verdict(write_folder(tmp_path / "consumer", consumer.leaves))
    assert found.scopes[scenario.AGREEMENT_ID]["deliveries"] == 2


def test_acts_are_not_uses(tmp_path: Path, verdict: Callable[..., LogVerdict]) -> None:
    leaves = Leaves()
    for _ in range(2):
        leaves.put(ActReceipt, "urn:uuid:a", actor="did:web:a", act="a", statement=b"x")
    assert failed(verdict(write_folder(tmp_path / "log", leaves))) == {}
    assert receipts.decode(leaves[0]) != receipts.decode(leaves[1])
