"""Which use has which leaf: both maps of keys promise the same, and read the same files."""

from pathlib import Path
from typing import Any

import pytest

from connector.core.keyfiles import HEADER_BYTES, LINE_BYTES, MAX_INDEX, Run
from connector.core.keys import first_due
from connector.errors import ConnectorError, Unavailable
from tests.keymaps import KINDS, fill, filled, freeze, key, open_keys, until

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_a_staged_key_is_found_and_vanishes_or_stays(kind: str, tmp_path: Path) -> None:
    keys = open_keys(kind, tmp_path / "keys")
    assert keys.find(key(1)) is None
    keys.stage(key(1), 1)
    assert (keys.find(key(1)), keys.pending) == (1, 0)
    keys.discard()
    assert keys.find(key(1)) is None
    keys.stage(key(1), 2)
    keys.settle()
    keys.discard()
    assert (keys.find(key(1)), keys.pending) == (2, 1)
    keys.close()


def test_what_was_frozen_is_there_after_opening_again(kind: str, tmp_path: Path) -> None:
    keys = open_keys(kind, tmp_path)
    fill(keys, 0, 500)
    assert (keys.covered, keys.pending) == (0, 500)
    freeze(keys, 500)
    assert (keys.covered, keys.pending) == (500, 0)
    fill(keys, 500, 600)
    keys.close()
    keys.close()
    keys = open_keys(kind, tmp_path)
    assert (keys.covered, keys.pending) == (500, 0)
    assert [keys.find(key(i)) for i in range(600)] == [*range(500), *[None] * 100]
    keys.close()


def test_of_two_leaves_with_one_key_the_first_is_found(kind: str, tmp_path: Path) -> None:
    keys = open_keys(kind, tmp_path)
    keys.stage(key(1), 1)
    keys.stage(key(1), 2)
    assert keys.find(key(1)) == 1
    keys.settle()
    for size in range(10, 70, 10):  # the later ones come to lie in later runs, and meet in a merge
        keys.stage(key(1), size - 1)
        keys.settle()
        freeze(keys, size)
        assert keys.find(key(1)) == 1
    keys.close()
    assert open_keys(kind, tmp_path).find(key(1)) == 1


def test_leaves_without_keys_are_covered_too(kind: str, tmp_path: Path) -> None:
    keys = open_keys(kind, tmp_path)
    freeze(keys, 7)
    freeze(keys, 7)
    assert keys.covered == 7
    fill(keys, 7, 8)
    freeze(keys, 9)
    keys.close()
    keys = open_keys(kind, tmp_path)
    assert (keys.covered, keys.find(key(7)), keys.find(key(6))) == (9, 7, None)
    keys.close()


def test_a_freeze_is_not_waited_for_before_there_is_much_more(kind: str, tmp_path: Path) -> None:
    keys = open_keys(kind, tmp_path)
    usual = keys.freeze_at
    fill(keys, 0, 100_000)
    keys.freeze(100_000)
    seen = {keys.freeze_at}
    while keys.covered < 100_000:
        seen.add(keys.freeze_at)
    keys.wait()
    assert usual < max(seen) <= 3 * usual
    assert keys.freeze_at == usual
    keys.close()


@pytest.mark.parametrize(
    "number",
    [
        bytes(10),
        b"\xff" * 10,
        bytes(9) + b"\x01",
        b"\x00" * 8 + b"\xff\xff",
        b"\xff" * 8 + bytes(2),
    ],
)
@pytest.mark.parametrize("index", [0, MAX_INDEX])
def test_the_outermost_keys_and_leaves(
    kind: str, tmp_path: Path, number: bytes, index: int
) -> None:
    keys = open_keys(kind, tmp_path)
    keys.stage(number, index)
    keys.settle()
    assert keys.find(number) == index
    freeze(keys, MAX_INDEX + 1)
    assert keys.find(number) == index
    assert keys.find(bytes((number[0] ^ 1,)) + number[1:]) is None
    keys.close()


@pytest.mark.parametrize(
    "stage", [(b"short", 1), (b"eleven bytes", 1), (key(1), MAX_INDEX + 1)], ids=str
)
def test_what_cannot_be_staged(kind: str, tmp_path: Path, stage: tuple[bytes, int]) -> None:
    keys = open_keys(kind, tmp_path)
    with pytest.raises(ConnectorError):
        keys.stage(*stage)
    keys.stage(key(1), 1)
    with pytest.raises(ConnectorError):
        keys.freeze(2)
    keys.discard()
    assert keys.pending == 0
    keys.close()


def test_clear_forgets_everything(kind: str, tmp_path: Path) -> None:
    filled(kind, tmp_path, [100, 200])
    keys = open_keys(kind, tmp_path)
    fill(keys, 200, 210)
    keys.stage(key(210), 210)
    keys.clear()
    assert [keys.find(key(i)) for i in (0, 150, 205, 210)] == [None] * 4
    assert (keys.covered, keys.pending, list(tmp_path.iterdir())) == (0, 0, [])
    fill(keys, 0, 50)
    freeze(keys, 50)
    assert (keys.covered, keys.find(key(20))) == (50, 20)
    keys.close()


def test_runs_are_merged_so_that_there_are_few(kind: str, tmp_path: Path) -> None:
    keys: Any = open_keys(kind, tmp_path)
    for end in range(100, 6_500, 100):
        fill(keys, end - 100, end)
        freeze(keys, end)
    until(lambda: keys.runs <= 9)
    assert [keys.find(key(i)) for i in range(6_400)] == list(range(6_400))
    assert [keys.find(key(i)) for i in range(6_400, 9_000)] == [None] * 2_600
    assert keys.sound() == keys.covered == 6_400
    keys.close()
    assert len(list(tmp_path.iterdir())) <= 9, "files that were merged are gone"
    assert keys.trouble == ""


def test_each_reads_what_the_other_wrote(kind: str, tmp_path: Path) -> None:
    other = KINDS[1 - KINDS.index(kind)]
    open_keys(other, tmp_path).close()
    filled(kind, tmp_path, [1_000, 1_300, 1_310])
    keys: Any = open_keys(other, tmp_path)
    assert (keys.covered, keys.sound(), keys.runs) == (1_310, 1_310, 3)
    assert [keys.find(key(i)) for i in range(1_500)] == [*range(1_310), *[None] * 190]
    keys.close()


def test_both_write_the_same_bytes(kind: str, tmp_path: Path) -> None:
    other = KINDS[1 - KINDS.index(kind)]
    sizes = [200, 400, 600, 800]
    for name in (kind, other):
        keys: Any = open_keys(name, tmp_path / name)
        for first, end in zip((0, *sizes), sizes, strict=False):
            fill(keys, first, end)
            freeze(keys, end)
        until(lambda: len(list((tmp_path / name).iterdir())) == 1)  # noqa: B023
        keys.close()
    (one,), (two,) = (tmp_path / kind).iterdir(), (tmp_path / other).iterdir()
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())


def test_a_filter_is_seldom_wrong(kind: str, tmp_path: Path) -> None:
    filled(kind, tmp_path, [20_000])
    (path,) = tmp_path.iterdir()
    run = Run(path)
    assert path.stat().st_size < 18.8 * 20_000
    data, wrong = path.read_bytes(), 0
    for i in range(20_000, 60_000):
        number = int.from_bytes(key(i), "big")
        line = HEADER_BYTES + ((number >> 16) * run.lines >> 64) * LINE_BYTES
        words = [data[line + 8 * word : line + 8 * word + 8] for word in range(1, 8)]
        bits = [number >> 6 * word & 63 for word in range(7)]
        wrong += all(
            int.from_bytes(word, "little") >> bit & 1 for word, bit in zip(words, bits, strict=True)
        )
    assert wrong < 60


def test_a_folder_that_cannot_be(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    open_keys(kind, tmp_path / "other").close()
    with pytest.raises(Unavailable):
        open_keys(kind, tmp_path / "file" / "keys")


def test_merges_are_due_when_newer_runs_have_three_times_as_much(kind: str) -> None:
    due = {
        (): 0,
        (1,): 1,
        (9, 9, 9): 3,
        (9, 9, 9, 9): 0,
        (100, 9, 9, 9, 9): 1,
        (36, 36, 36, 9, 9, 9, 9): 0,  # and what that makes due
        (99, 0, 99): 1,
    }
    assert {counts: first_due(counts) for counts in due} == due
    counts: list[int] = []
    for _ in range(5_000):
        counts.append(1)
        start = first_due(counts)
        counts[start:] = [sum(counts[start:])] if start < len(counts) else []
        assert len(counts) <= 21
