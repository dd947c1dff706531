"""A log's folder after crashes, bit rot, cuts, rewriting and old copies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog, frames
from connector.errors import Conflict
from connector.ports.receipts import CorruptLog
from connector.tlog import merkle
from connector.tlog.checkpoint import parse_checkpoint, sign_checkpoint
from connector.tlog.cosignature import add_line, cosign
from tests.logs import ORIGIN, SCOPE, open_meter, pack, refusal, seal, test_key, use

WITNESS = test_key("the witness")


def leaf(number: int) -> bytes:
    return b"leaf %d " % number * (number % 9 + 1)


def segment(folder: Path, at: int = -1) -> Path:
    return sorted((folder / "segments").iterdir())[at]


def written(folder: Path, commits: int, **more: int) -> list[tuple[int, int]]:
    """A log with ``commits`` commits; where each ended in the last segment, and its size."""
    log = SegmentLog(folder, **more)
    ends = []
    for number in range(commits):
        first = log.tip.size
        records = [b"record"] * (number % 3)
        log.append(records, pack([leaf(first + n) for n in range(number % 4)]), seal)
        ends.append((segment(folder).stat().st_size, log.tip.size))
    log.close()
    return ends


def check(folder: Path, size: int) -> None:
    """It opens by itself with exactly ``size`` leaves, reads them, and goes on."""
    log = SegmentLog(folder)
    try:
        assert log.tip.size == size
        assert log.leaves(0, size) == [leaf(number) for number in range(size)]
        hashes = b"".join(merkle.leaf_hash(leaf(number)) for number in range(size))
        assert log.hashes(0, 0, size) == hashes
        log.append([], pack([leaf(size)]), seal)
        assert log.leaves(size, 1) == [leaf(size)]
    finally:
        log.close()


def copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def test_cut_at_every_byte(tmp_path: Path) -> None:
    ends = written(tmp_path / "log", 12)
    data = segment(tmp_path / "log").read_bytes()
    for cut in range(ends[8][0], len(data) + 1):
        folder = copy(tmp_path / "log", tmp_path / "copy")
        segment(folder).write_bytes(data[:cut])
        check(folder, max(size for end, size in ends if end <= cut))


def test_cut_in_the_first_header(tmp_path: Path) -> None:
    written(tmp_path / "log", 1)
    data = segment(tmp_path / "log").read_bytes()
    for cut in range(frames.HEADER_BYTES + 1):
        folder = copy(tmp_path / "log", tmp_path / "copy")
        segment(folder).write_bytes(data[:cut])
        check(folder, 0)


def test_a_new_segment_cut_in_its_header(tmp_path: Path) -> None:
    written(tmp_path / "log", 20, segment_bytes=1500)
    log = SegmentLog(tmp_path / "log")
    size = log.tip.size
    log.close()
    last = segment(tmp_path / "log")
    position = int(last.name) + last.stat().st_size
    for left in (b"", b"tdslog1\n", bytes(frames.HEADER_BYTES), bytes(40)):
        folder = copy(tmp_path / "log", tmp_path / "copy")
        (folder / "segments" / f"{position:020d}").write_bytes(left)
        check(folder, size)


GARBAGE = {
    "zeros": bytes(5000),
    "noise": bytes(range(256)) * 8,
    "a huge length": b"\x01\xff\xff\xff\xff" + bytes(100),
    "an empty commit": frames.frame(frames.Type.COMMIT, b""),
    "an empty seal": frames.frame(frames.Type.SEAL, b""),
    "an empty bundle": frames.frame(frames.Type.BUNDLE, b""),
    "a bundle without a seal": frames.frame(frames.Type.BUNDLE, b"\x00\x04leaf"),
    "a leaf without a commit": frames.frame(frames.Type.LEAF, b"leaf"),
    "one byte": b"\x03",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_a_crash_may_leave_behind(tmp_path: Path, name: str) -> None:
    ends = written(tmp_path, 8)
    with segment(tmp_path).open("ab") as file:
        file.write(GARBAGE[name])
    check(tmp_path, ends[-1][1])


def test_a_commit_written_but_for_a_sector_in_its_middle(tmp_path: Path) -> None:
    """A power cut may persist the end of a write and not its middle."""
    ends = written(tmp_path, 8)
    log = SegmentLog(tmp_path)
    log.append([], pack([b"x" * 3000]), seal)
    log.close()
    data = bytearray(segment(tmp_path).read_bytes())
    hole = (ends[-1][0] + 1023) // 512 * 512
    data[hole : hole + 512] = bytes(512)
    segment(tmp_path).write_bytes(data)
    check(tmp_path, ends[-1][1])


def test_a_changed_byte_before_the_last_commit_is_never_accepted(tmp_path: Path) -> None:
    ends = written(tmp_path / "log", 10)
    data = segment(tmp_path / "log").read_bytes()
    for at in range(0, ends[-2][0], 5):
        folder = copy(tmp_path / "log", tmp_path / "copy")
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        segment(folder).write_bytes(changed)
        with pytest.raises(CorruptLog):
            SegmentLog(folder)
        assert segment(folder).read_bytes() == changed  # nothing was touched


def test_a_changed_byte_in_the_last_commit_never_shows_false_leaves(tmp_path: Path) -> None:
    ends = written(tmp_path / "log", 12)
    data = segment(tmp_path / "log").read_bytes()
    for at in range(ends[-2][0], len(data)):
        folder = copy(tmp_path / "log", tmp_path / "copy")
        changed = bytearray(data)
        changed[at] ^= 0x10
        segment(folder).write_bytes(changed)
        try:
            SegmentLog(folder).close()
        except CorruptLog:
            continue
        check(folder, ends[-2][1])


def test_zeros_in_the_middle_are_damage(tmp_path: Path) -> None:
    ends = written(tmp_path, 40)
    data = bytearray(segment(tmp_path).read_bytes())
    hole = (ends[5][0] + 511) // 512 * 512
    data[hole : hole + 512] = bytes(512)
    segment(tmp_path).write_bytes(data)
    with pytest.raises(CorruptLog):
        SegmentLog(tmp_path)


def remove_first(folder: Path) -> None:
    segment(folder, 0).unlink()


def remove_middle(folder: Path) -> None:
    segment(folder, 1).unlink()


def shorten_middle(folder: Path) -> None:
    path = segment(folder, 1)
    path.write_bytes(path.read_bytes()[:-10])


def swap(folder: Path) -> None:
    one, two = segment(folder, 0), segment(folder, 1)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def another_file(folder: Path) -> None:
    (folder / "segments" / "notes.txt").write_text("hello")


def another_logs_segment(folder: Path) -> None:
    written(folder.parent / "other", 20, segment_bytes=1500)
    shutil.copy(segment(folder.parent / "other", 1), segment(folder, 1))


def empty_middle(folder: Path) -> None:
    segment(folder, 1).write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        remove_first,
        remove_middle,
        shorten_middle,
        swap,
        another_file,
        another_logs_segment,
        empty_middle,
    ],
)
def test_segments_that_do_not_fit(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "log"
    written(folder, 20, segment_bytes=1500)
    assert len(list((folder / "segments").iterdir())) > 2
    damage(folder)
    with pytest.raises(CorruptLog):
        SegmentLog(folder)
    with pytest.raises(CorruptLog):  # and the lock was let go
        SegmentLog(folder)


def rebuilt(folder: Path, change: Callable[[list[bytes]], list[bytes]], signer: str) -> None:
    """What somebody can do who has the folder and knows this code: all is consistent again."""
    log = SegmentLog(folder)
    leaves = change(log.leaves(0, log.tip.size))
    log.close()
    key = test_key(signer)
    shutil.rmtree(folder / "segments")
    forged = SegmentLog(folder)
    forged.append([], pack(leaves), lambda size, root: sign_checkpoint(ORIGIN, size, root, key))
    forged.close()


def test_a_rewritten_frame_with_a_mended_chain_does_not_match_its_checkpoint(
    tmp_path: Path,
) -> None:
    written(tmp_path, 10)
    path = segment(tmp_path)
    with path.open("rb") as file:
        header = frames.parse_header(file.read(frames.HEADER_BYTES))
        batches = list(
            frames.read_batches(file, header.log_id, header.chain, 0, frames.HEADER_BYTES)
        )
    data, chain = bytearray(header.encode()), header.chain
    for batch in batches:
        body = b"".join(frames.frame(frames.Type.RECORD, record) for record in batch.records)
        commit = frames.seal_frame(header.log_id, chain, body, batch.size, batch.note)
        chain = frames.chain_of(commit)
        if batch.packed:
            body += frames.frame(frames.Type.BUNDLE, batch.packed.replace(b"leaf 5", b"LEAF 5"))
        data += body + commit
    path.write_bytes(data)
    with pytest.raises(CorruptLog):
        SegmentLog(tmp_path)


async def test_a_log_signed_anew_by_somebody_else(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    meter = await open_meter(log)
    await use(meter, "u1")
    await meter.close()
    log.close()
    rebuilt(tmp_path, lambda leaves: leaves, "thief")
    log = SegmentLog(tmp_path)
    with pytest.raises(Conflict):
        await open_meter(log)
    log.close()


async def seen(folder: Path) -> bytes:
    """A log with three receipts that a witness cosigned; its cosigned note."""
    log = SegmentLog(folder)
    meter = await open_meter(log)
    for number in range(3):
        await use(meter, f"u{number}")
    note = meter.checkpoint().checkpoint
    note = add_line(note, cosign(note, "space.example", WITNESS, 1))
    await meter.add_cosignature(note, "space.example", [WITNESS.public_key().public_bytes_raw()])
    await meter.close()
    log.close()
    return note


async def refuses(folder: Path, note: bytes | None) -> None:
    log = SegmentLog(folder)
    meter = await open_meter(log, await_witness=True)
    if note:
        with pytest.raises(Conflict):
            meter.require_not_behind(parse_checkpoint(note).size, note)
    with pytest.raises(Conflict):
        await use(meter, "again")
    with pytest.raises(Conflict):
        await meter.record([refusal("again")])
    await meter.close()
    log.close()


async def test_yesterdays_copy(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "log")
    meter = await open_meter(log)
    await use(meter, "early")
    await meter.close()
    log.close()
    copy(tmp_path / "log", tmp_path / "yesterday")
    note = await seen(tmp_path / "log")
    await refuses(tmp_path / "yesterday", note)  # its own memory is of yesterday too


async def test_a_cut_tail_is_known_from_its_own_cosignatures(tmp_path: Path) -> None:
    await seen(tmp_path)
    path = segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    await refuses(tmp_path, None)


async def test_a_log_that_lost_everything(tmp_path: Path) -> None:
    await seen(tmp_path)
    shutil.rmtree(tmp_path / "segments")
    await refuses(tmp_path, None)


async def test_a_past_rewritten_with_the_nodes_own_key(tmp_path: Path) -> None:
    note = await seen(tmp_path)
    shutil.rmtree(tmp_path / "cosigned")
    shutil.rmtree(tmp_path / "segments")
    log = SegmentLog(tmp_path)
    meter = await open_meter(log)
    for number in range(5):
        await use(meter, f"v{number}")
    await meter.close()
    log.close()
    await refuses(tmp_path, note)


DERIVED: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-33]),
    "long": lambda path: path.write_bytes(path.read_bytes() + b"more" * 100),
    "wrong": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("how", DERIVED)
def test_derived_files_are_mended(tmp_path: Path, how: str) -> None:
    log = SegmentLog(tmp_path)
    log.append([], pack([leaf(number) for number in range(600)]), seal)
    log.close()
    good = {path: path.read_bytes() for path in (tmp_path / "hashes").iterdir()}
    good[tmp_path / "places16"] = (tmp_path / "places16").read_bytes()
    assert len(good) == 3
    for path in good:
        DERIVED[how](path)
    (tmp_path / "hashes" / "7").write_bytes(b"a level that the tree does not have")
    SegmentLog(tmp_path).close()
    for path, data in good.items():
        assert path.read_bytes() == data
    assert (tmp_path / "hashes" / "7").read_bytes() == b""
    check(tmp_path, 600)


def test_one_writer(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    with pytest.raises(Conflict) as error:
        SegmentLog(tmp_path)
    assert "another process" in error.value.message
    assert error.value.hint
    log.close()
    SegmentLog(tmp_path).close()


def test_a_leaf_that_looks_like_a_commit_is_a_leaf(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    fake = frames.seal_frame(bytes(16), frames.FIRST_CHAIN, b"", 7, b"note")
    log.append([], pack([fake, frames.MAGIC * 40]), seal)
    log.append([], pack([b"after"]), seal)
    log.close()
    data = segment(tmp_path).read_bytes()
    segment(tmp_path).write_bytes(data[:-5])
    log = SegmentLog(tmp_path)
    assert log.leaves(0, 2) == [fake, frames.MAGIC * 40]
    log.close()


async def test_the_folder_is_nobody_elses(tmp_path: Path) -> None:
    await seen(tmp_path / "log")
    for path in (tmp_path / "log").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    log = SegmentLog(tmp_path / "log")
    meter = await open_meter(log)
    assert [item.receipt.number for item in meter.receipts(SCOPE)] == [1, 2, 3]
    await meter.close()
    log.close()
