"""``connector log fsck``: what is wrong is named, what is computed is mended, and that is all."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from connector.adapters.segments import SegmentLog
from connector.adapters.segments.fsck import Finding, fsck
from connector.cli.commands import run
from connector.core.choose import choose
from connector.errors import Conflict, Unavailable
from connector.ports.receipts import CorruptLog
from connector.ports.segments import Form
from connector.tlog.checkpoint import parse_checkpoint
from tests.fault.sealing_writer import leaf
from tests.fault.test_log_sealing import flip, seal_all, without_marks, written
from tests.logs import ORIGIN, open_meter, pack, seal, use

OLD = Path(__file__).parent / "folders" / "log-0.1"


def everything(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(params=["plain", "sealed", "dropped"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    log = written(tmp_path / "log")
    if request.param != "plain":
        seal_all(log)
    if request.param == "dropped":
        log.drop(log.segments()[0].start)
    log.close()
    return tmp_path / "log"


def test_a_sound_log_is_said_to_be(folder: Path) -> None:
    before = everything(folder)
    for mend in (False, True):
        told: list[tuple[int, int]] = []
        found = fsck(folder, choose(), mend=mend, progress=lambda *at, to=told: to.append(at))
        assert found.findings == []
        assert found.sound
        assert (found.origin, found.size) == (ORIGIN, 301)
        assert found.segments == len(list((folder / "segments").iterdir()))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] > 20_000
    assert everything(folder) == before


def test_an_empty_log(tmp_path: Path) -> None:
    SegmentLog(tmp_path).close()
    found = fsck(tmp_path, choose())
    assert (found.sound, found.size, found.segments) == (True, 0, 1)


def test_a_changed_leaf_is_named(tmp_path: Path) -> None:
    log = written(tmp_path)
    segments = log.segments()
    log.close()
    for number, segment in enumerate(segments):
        path = sorted((tmp_path / "segments").iterdir())[number]
        data = path.read_bytes()
        for index in (segment.first, segment.first + segment.leaves - 1):
            at = data.index(leaf(index))
            path.write_bytes(flip(data, at + 3))
            (finding,) = fsck(tmp_path, choose()).findings
            assert (finding.segment, finding.leaf) == (segment.start, index)
            assert "leaf" in finding.what
            with pytest.raises(CorruptLog):
                without_mark(tmp_path)
        path.write_bytes(data)
    assert fsck(tmp_path, choose()).findings == []


def without_mark(folder: Path) -> None:
    """Opens a copy that has to be read from the first byte."""
    other = folder.parent / "copy"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other)
    without_marks(other)
    SegmentLog(other).close()


def test_every_changed_byte_below_the_last_commit_is_found(tmp_path: Path) -> None:
    log = written(tmp_path, 60)
    segments = log.segments()
    log.close()
    for path, segment in zip(sorted((tmp_path / "segments").iterdir()), segments, strict=True):
        data = path.read_bytes()
        last = 700 if segment.form is Form.OPEN else 0  # that commit may look like a crash
        for at in range(0, len(data) - last, 7):
            path.write_bytes(flip(data, at))
            found = fsck(tmp_path, choose())
            assert not found.sound, at
            assert found.findings[0].segment == segment.start
        path.write_bytes(data)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    log = written(tmp_path)
    seal_all(log)
    segments = log.segments()
    log.close()
    paths = sorted((tmp_path / "segments").iterdir())
    paths[1].write_bytes(flip(paths[1].read_bytes(), 50))  # a block
    paths[2].write_bytes(b"")
    data = paths[-1].read_bytes()
    wrong = segments[-1].first + 2
    paths[-1].write_bytes(data.replace(leaf(wrong), leaf(wrong).upper(), 1))
    found = [(finding.segment, finding.leaf) for finding in fsck(tmp_path, choose()).findings]
    assert found == [
        (segments[1].start, segments[1].first),
        (segments[2].start, None),
        (segments[-1].start, wrong),
    ]


DERIVED: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "long": lambda path: path.write_bytes(path.read_bytes() + bytes(100)),
    "wrong": lambda path: path.write_bytes(flip(path.read_bytes(), 10)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("how", DERIVED)
@pytest.mark.parametrize("name", ["places16", "hashes/0", "hashes/1"])
def test_what_is_computed_is_mended(tmp_path: Path, name: str, how: str) -> None:
    log = written(tmp_path)
    seal_all(log)
    log.close()
    before = everything(tmp_path)
    DERIVED[how](tmp_path / name)
    damaged = everything(tmp_path)
    (finding,) = fsck(tmp_path, choose()).findings
    assert name in finding.what
    assert finding.damage is (how != "long")
    assert everything(tmp_path) == damaged
    found = fsck(tmp_path, choose(), mend=True)
    assert found.sound
    assert [finding.mended for finding in found.findings] == [True]
    assert everything(tmp_path) == before
    assert fsck(tmp_path, choose()).findings == []


def test_hashes_are_not_cut_while_receipts_are_damaged(tmp_path: Path) -> None:
    """They may be all that is left of some."""
    log = written(tmp_path)
    log.close()
    path = sorted((tmp_path / "segments").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:200])
    before = everything(tmp_path)
    assert not fsck(tmp_path, choose(), mend=True).sound
    assert everything(tmp_path) == before


REMARKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unfinished commit": (
        lambda folder: append(sorted((folder / "segments").iterdir())[-1], b"\x04\0\0\1\0half"),
        "unfinished commit",
    ),
    "a segment that was never begun": (
        lambda folder: next_segment(folder).write_bytes(b"tdslog1\n"),
        "never begun",
    ),
    "a new form that was never complete": (
        lambda folder: (folder / "segments" / f"{0:020d}.new").write_bytes(b"half"),
        "interrupted",
    ),
    "hashes of what was never synced": (
        lambda folder: append(folder / "hashes" / "0", b"more" * 8),
        "longer",
    ),
    "a damaged mark": (
        lambda folder: (folder / "kept").write_bytes(b"damaged"),
        "kept",
    ),
    "a key file that is none": (
        lambda folder: key_file(folder).write_bytes(b"damaged"),
        "makes keys",
    ),
}


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def next_segment(folder: Path) -> Path:
    last = sorted((folder / "segments").iterdir())[-1]
    return last.with_name(f"{int(last.name) + last.stat().st_size:020d}")


def key_file(folder: Path) -> Path:
    (folder / "keys").mkdir()
    return folder / "keys" / f"{0:015d}-{9:015d}.keys"


@pytest.mark.parametrize("name", REMARKS)
def test_what_the_next_opening_mends_is_a_remark(tmp_path: Path, name: str) -> None:
    written(tmp_path).close()
    change, word = REMARKS[name]
    change(tmp_path)
    found = fsck(tmp_path, choose())
    assert found.sound
    assert [finding.damage for finding in found.findings] == [False]
    assert word in found.findings[0].what
    log = SegmentLog(tmp_path)
    assert log.tip.size == 301
    log.close()


def test_commits_that_the_mark_knows_and_the_log_does_not(tmp_path: Path) -> None:
    written(tmp_path).close()
    path = sorted((tmp_path / "segments").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-10])
    found = fsck(tmp_path, choose())
    assert not found.sound
    assert Finding("the file kept knows more commits than there are", leaf=294) in found.findings


def test_a_log_that_a_node_has_open(tmp_path: Path) -> None:
    log = written(tmp_path / "log")
    with pytest.raises(Conflict) as error:
        fsck(tmp_path / "log", choose())
    assert error.value.hint
    assert run(["log", "fsck", "--data", str(tmp_path)]) == 4
    log.close()
    assert run(["log", "fsck", "--data", str(tmp_path)]) == 0


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        fsck(tmp_path, choose())


def test_the_command_says_it_in_words_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["log", "fsck", "--data", str(tmp_path)]
    assert run(command) == 2
    assert "no log" in capsys.readouterr().err
    written(tmp_path / "log").close()
    assert run(command) == 0
    assert "the log is sound" in capsys.readouterr().out
    path = tmp_path / "log" / "hashes" / "0"
    path.write_bytes(flip(path.read_bytes(), 100))
    assert run([*command, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] is False
    assert told["checked"]["findings"][0]["leaf"] == 3
    assert run(command) == 1
    assert "DAMAGED" in capsys.readouterr().out
    assert run([*command, "--mend"]) == 0
    assert "mended" in capsys.readouterr().out
    assert run([*command]) == 0


async def test_a_folder_of_version_0_1(tmp_path: Path) -> None:
    """It is sound, opens, is what it was, goes on, is sealed and is still the same."""
    folder = Path(shutil.copytree(OLD, tmp_path / "log"))
    for name in ("cosigned", "hashes", "segments"):
        (folder / name).mkdir(exist_ok=True)
    found = fsck(folder, choose())
    assert found.sound
    assert (found.origin, found.size) == (ORIGIN, 121)
    log = SegmentLog(folder)
    leaves, checkpoint = log.leaves(0, 121), log.tip.checkpoint
    assert log.mark().size == parse_checkpoint(checkpoint).size == 121
    meter = await open_meter(log)
    scope = meter.scopes()[0]
    numbers = [item.receipt.number for item in meter.receipts(scope, 1, 1000)]
    assert numbers == list(range(1, len(numbers) + 1))
    await meter.recover()
    assert await use(meter, "of version 0.2")
    size = meter.checkpoint().size
    for segment in log.segments()[:-1]:
        assert log.seal(segment.start).form is Form.SEALED
    assert log.leaves(0, 121) == leaves
    await meter.close()
    log.close()
    assert fsck(folder, choose()).findings == []
    log = SegmentLog(folder)
    assert log.leaves(0, 121) == leaves
    log.append([], pack([b"one more"]), seal)
    assert log.tip.size == size + 1
    log.close()


def test_what_a_killed_node_had_not_written_is_no_damage(tmp_path: Path) -> None:
    """A hash above leaves on both sides of the mark is written after it."""
    with closing(SegmentLog(tmp_path / "log")) as log:
        for count in (300, 400):
            first = log.tip.size
            log.append((), pack([leaf(first + n) for n in range(count)]), seal)
            if not first:
                log.keep(log.mark(), b"state")
        shutil.copytree(tmp_path / "log", tmp_path / "left")
    hashes = tmp_path / "left" / "hashes" / "1"
    hashes.write_bytes(hashes.read_bytes()[:32])
    found = fsck(tmp_path / "left", choose()).findings
    assert [(each.leaf, each.damage) for each in found if "hashes/1" in each.what] == [(256, False)]
    assert not [each for each in found if each.damage]
    hashes.write_bytes(flip(hashes.read_bytes(), 3))
    assert [each.leaf for each in fsck(tmp_path / "left", choose()).findings if each.damage] == [0]
