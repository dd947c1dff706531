"""Key files after a crash, on a full disk, damaged, and read by many while one writes."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connector.core.keyfiles import HEADER_BYTES
from tests.keymaps import KINDS, fill, filled, freeze, key, open_keys, until

ROOT = Path(__file__).parents[2]
SIZES = [3_000, 4_000, 4_300]

pytestmark = pytest.mark.parametrize("kind", KINDS)


def start(kind: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    open_keys(kind, folder / "skips").close()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fault.keys_writer", kind, str(folder / "keys"), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_writer_leaves_what_it_said_was_durable(kind: str, tmp_path: Path) -> None:
    dice = random.Random(4)
    for _ in range(5):
        writer = start(kind, tmp_path)
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(dice.random() * 0.4)
        writer.send_signal(signal.SIGKILL)
        said = [first, *writer.stdout.readlines()]
        writer.wait()
        durable = int([line for line in said if line.endswith("\n")][-1])
        keys: Any = open_keys(kind, tmp_path / "keys")
        covered = keys.covered
        assert covered >= durable > 0
        assert keys.sound() == covered
        step = max(1, covered // 3_000)
        assert all(keys.find(key(i)) == i for i in range(0, covered, step))
        assert keys.find(key(covered)) is None
        assert not [path for path in (tmp_path / "keys").iterdir() if path.suffix == ".new"]
        keys.close()


def cut(path: Path, at: int) -> None:
    os.truncate(path, at)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def places(size: int) -> Iterator[tuple[Callable[[Path, int], None], int]]:
    """Every byte of the header; every length near the ends of parts, and some elsewhere."""
    for at in range(HEADER_BYTES):
        yield flip, at
    for at in (0, 1, HEADER_BYTES - 1, HEADER_BYTES, size // 2, size - 17, size - 16, size - 1):
        yield cut, at
    yield lambda path, _: path.write_bytes(path.read_bytes() + b"x"), 0
    yield lambda path, _: path.write_bytes(b""), 0
    yield lambda path, _: path.rename(path.with_name("000000000000000-000000000009999.keys")), 0
    yield lambda path, _: path.unlink(), 0


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_file_goes_with_those_after_it(kind: str, tmp_path: Path, which: int) -> None:
    made = tmp_path / "made"
    filled(kind, made, SIZES)
    files = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
    victim = list(files)[which]
    covered = (0, *SIZES)[which]
    folder = tmp_path / "keys"
    folder.mkdir()
    for damage, at in places(len(files[victim])):
        for name, data in files.items():
            (folder / name).write_bytes(data)
        damage(folder / victim, at)
        keys = open_keys(kind, folder)
        assert keys.covered == covered
        assert len(list(folder.iterdir())) == which
        if covered:
            assert (keys.find(key(0)), keys.find(key(covered - 1))) == (0, covered - 1)
        assert keys.find(key(covered)) is None
        keys.clear()


def test_damage_inside_is_found_and_does_no_harm(kind: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    filled(kind, made, SIZES)
    files = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
    victim = list(files)[1]
    folder = tmp_path / "keys"
    folder.mkdir()
    dice = random.Random(5)
    for _ in range(40):
        for name, data in files.items():
            (folder / name).write_bytes(data)
        data = bytearray(files[victim])
        for _ in range(dice.randrange(1, 200)):
            data[dice.randrange(HEADER_BYTES, len(data))] ^= dice.randrange(1, 256)
        (folder / victim).write_bytes(data)
        keys: Any = open_keys(kind, folder)
        assert (keys.covered, keys.sound()) == (SIZES[2], SIZES[0])
        for i in range(0, 6_000, 7):
            assert keys.find(key(i)) is None or i < SIZES[2]
        keys.clear()


def test_a_merge_notices_damage_and_opening_mends_it(kind: str, tmp_path: Path) -> None:
    filled(kind, tmp_path, SIZES[:2])
    victim = sorted(tmp_path.iterdir())[1]
    for at in (victim.stat().st_size - 40, HEADER_BYTES + 70):  # an entry, a line
        flip(victim, at)
    keys: Any = open_keys(kind, tmp_path)
    assert keys.covered == SIZES[1]
    fill(keys, SIZES[1], 30_000)
    freeze(keys, 30_000)
    until(lambda: keys.covered == SIZES[0])
    assert "damaged" in keys.trouble
    assert keys.find(key(29_000)) == 29_000
    fill(keys, 30_000, 30_100)
    freeze(keys, 30_100)
    assert "damaged" in keys.trouble
    keys.close()
    keys = open_keys(kind, tmp_path)
    assert (keys.covered, keys.sound(), keys.trouble) == (SIZES[0], SIZES[0], "")
    fill(keys, SIZES[0], 30_000)
    freeze(keys, 30_000)
    assert (keys.covered, keys.find(key(29_000))) == (30_000, 29_000)
    keys.close()


def test_what_others_left_in_the_folder_is_removed(kind: str, tmp_path: Path) -> None:
    filled(kind, tmp_path, SIZES)
    inside = tmp_path / "000000000000000-000000000003000.keys"
    (tmp_path / "inside").mkdir()
    filled(kind, tmp_path / "inside", [1_000, 2_000])
    for path in (tmp_path / "inside").iterdir():  # as a merge leaves them that was cut off
        path.rename(tmp_path / path.name)
    (tmp_path / "inside").rmdir()
    (tmp_path / f"{inside.name}.new").write_bytes(b"half of it")
    keys: Any = open_keys(kind, tmp_path)
    assert (keys.covered, keys.runs, len(list(tmp_path.iterdir()))) == (SIZES[2], 3, 3)
    keys.close()


def test_a_full_disk_loses_nothing(kind: str, tmp_path: Path) -> None:
    writer = start(kind, tmp_path, "200000")
    assert writer.stdout
    said = writer.stdout.read().split("\n")
    assert writer.wait() == 0
    assert said[0].startswith("trouble")
    assert said[1:4] == ["covered 0", "found", "covered 40000"]
    assert said[4] == "trouble "


def test_many_readers_beside_a_writer(kind: str, tmp_path: Path) -> None:
    """What is settled is found by all, at every moment, wherever it has moved."""
    keys: Any = open_keys(kind, tmp_path)
    known = [0]
    wrong: list[tuple[int, int | None]] = []
    done = threading.Event()

    def read(seed: int) -> None:
        dice = random.Random(seed)
        while not done.is_set():
            size = known[0]
            for _ in range(20):
                number = dice.randrange(size) if size else 0
                found = keys.find(key(number))
                if found != number and size:
                    wrong.append((number, found))
            if keys.find(key(10**9 + seed)) is not None:
                wrong.append((seed, -1))
            time.sleep(0.01)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(64)]
    for reader in readers:
        reader.start()
    for end in range(500, 10_001, 500):
        fill(keys, end - 500, end)
        known[0] = end
        keys.freeze(end)
    keys.wait()
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    keys.close()


def test_memory_does_not_grow_with_the_keys(kind: str, tmp_path: Path) -> None:
    rows, steps = (2_000, 12) if kind == "python" else (100_000, 24)
    limit = 12 << 20
    keys: Any = open_keys(kind, tmp_path)
    used = []
    for step in range(steps):
        fill(keys, step * rows, (step + 1) * rows)
        freeze(keys, (step + 1) * rows)
        used.append(anonymous())
    assert keys.trouble == ""
    assert max(used[steps // 2 :]) - max(used[: steps // 2]) < limit
    keys.close()


def anonymous() -> int:
    """Bytes of memory that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
