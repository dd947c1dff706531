"""A transfer's data to a file: what is there already is gone on with, and nothing is mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.cli.commands import run
from connector.client import connect_sync
from connector.errors import InvalidInput, PeerFault, Unavailable
from tests.unit.fake_node import TRANSFER, FakeNode, Fault, running

DATA = bytes(range(256)) * 400


@pytest.fixture
def place() -> Iterator[tuple[Path, FakeNode]]:
    with running() as (data, node):
        node.on["PullTransfer"] = provider()
        yield data, node


def provider(
    data: bytes = DATA, *, etag: str = '"v1"', cut: int = 0, size: int | None = None
) -> Callable[[Any], Iterator[pb.PullTransferResponse]]:
    def answer(request: pb.PullTransferRequest) -> Iterator[pb.PullTransferResponse]:
        offset = request.offset if request.etag == etag else 0
        total = len(data) if size is None else size
        yield pb.PullTransferResponse(
            start=pb.PullStart(offset=offset, size=total, etag=etag, media_type="text/csv")
        )
        end = offset + cut if cut else len(data)
        for at in range(offset, end, 10_000):
            yield pb.PullTransferResponse(chunk=data[at : min(at + 10_000, end)])
        if cut:
            raise Fault(grpc.StatusCode.UNAVAILABLE, "broke off", error_code="unavailable")

    return answer


def pull(
    data: Path,
    file: Path,
    seen: list[tuple[int, int]] | None = None,
    most: int | None = None,
) -> Any:
    with connect_sync(data) as node:
        heard = None if seen is None else lambda there, size: seen.append((there, size))
        return node.pull_to(TRANSFER, file, max_bytes=most, on_progress=heard)


def test_all_of_it(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    file, seen = tmp_path / "flights.csv", []
    found = pull(place[0], file, seen)
    assert file.read_bytes() == DATA
    assert (found.path, found.size, found.resumed_from) == (file, len(DATA), 0)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [each.name for each in tmp_path.iterdir()] == ["flights.csv"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_broke_off_goes_on(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    data, node = place
    file = tmp_path / "flights.csv"
    node.on["PullTransfer"] = provider(cut=30_000)
    for _ in range(2):
        with pytest.raises(Unavailable):
            pull(data, file)
    assert not file.exists()
    node.on["PullTransfer"] = provider()
    assert pull(data, file).resumed_from == 60_000
    assert file.read_bytes() == DATA
    asked = [(each.offset, each.etag) for each in node.asked_for("PullTransfer")]
    assert asked == [(0, ""), (30_000, '"v1"'), (60_000, '"v1"')]


def test_another_version_begins_anew(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    data, node = place
    file = tmp_path / "flights.csv"
    node.on["PullTransfer"] = provider(cut=30_000)
    with pytest.raises(Unavailable):
        pull(data, file)
    node.on["PullTransfer"] = provider(b"other", etag='"v2"')
    assert pull(data, file).resumed_from == 0
    assert file.read_bytes() == b"other"


@pytest.mark.parametrize(
    "about",
    [
        None,
        b"",
        b"{}",
        json.dumps({"format": "tds-pull/1", "pid": "another", "etag": '"v1"'}).encode(),
        json.dumps({"format": "tds-pull/1", "pid": TRANSFER, "etag": ""}).encode(),
        json.dumps({"format": "tds-pull/2", "pid": TRANSFER, "etag": '"v1"'}).encode(),
    ],
)
def test_a_part_of_something_else(
    place: tuple[Path, FakeNode], tmp_path: Path, about: bytes | None
) -> None:
    file = tmp_path / "flights.csv"
    (tmp_path / "flights.csv.part").write_bytes(b"something else")
    if about is not None:
        (tmp_path / "flights.csv.part.json").write_bytes(about)
    assert pull(place[0], file).resumed_from == 0
    assert file.read_bytes() == DATA


def test_a_file_that_is_there_stays(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    file = tmp_path / "flights.csv"
    file.write_bytes(b"mine")
    with pytest.raises(InvalidInput):
        pull(place[0], file)
    with pytest.raises(InvalidInput):
        pull(place[0], tmp_path / "nowhere" / "flights.csv")
    assert file.read_bytes() == b"mine"
    assert not place[1].asked_for("PullTransfer")


def test_data_that_ends_too_early(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    data, node = place
    node.on["PullTransfer"] = provider(size=len(DATA) + 1)
    with pytest.raises(Unavailable):
        pull(data, tmp_path / "flights.csv")
    assert not (tmp_path / "flights.csv").exists()
    node.on["PullTransfer"] = [pb.PullTransferResponse(chunk=b"x")]
    with pytest.raises(PeerFault):
        pull(data, tmp_path / "other.csv")


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_more_than_is_wanted(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    data, node = place
    file = tmp_path / "flights.csv"
    with pytest.raises(InvalidInput, match="at most 102,399"):
        pull(data, file, most=len(DATA) - 1)
    assert names(tmp_path) == set(), "refused before any was taken"
    node.on["PullTransfer"] = provider(size=-1)
    with pytest.raises(InvalidInput, match="at most 25,000"):
        pull(data, file, most=25_000)
    assert names(tmp_path) == {"flights.csv.part", "flights.csv.part.json"}
    with pytest.raises(InvalidInput):
        pull(data, file, most=15_000)
    assert (tmp_path / "flights.csv.part").stat().st_size == 20_000
    assert pull(data, file, most=len(DATA)).resumed_from == 20_000
    assert file.read_bytes() == DATA


def test_more_than_the_disk_has_room_for(
    place: tuple[Path, FakeNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, node = place
    file = tmp_path / "flights.csv"
    node.on["PullTransfer"] = provider(cut=30_000)
    with pytest.raises(Unavailable):
        pull(data, file)
    node.on["PullTransfer"] = provider()
    usage = shutil.disk_usage(tmp_path)
    free = len(DATA) - 30_001
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(InvalidInput, match="room for"):
        pull(data, file)
    free += 1  # what is there already needs none
    assert pull(data, file).resumed_from == 30_000


def test_more_than_was_said(place: tuple[Path, FakeNode], tmp_path: Path) -> None:
    data, node = place
    node.on["PullTransfer"] = provider(size=15_000)
    with pytest.raises(PeerFault, match="more than it said"):
        pull(data, tmp_path / "flights.csv")
    assert (tmp_path / "flights.csv.part").stat().st_size == 10_000


def test_the_command(
    place: tuple[Path, FakeNode], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, node = place
    file = tmp_path / "flights.csv"
    words = ["transfer", "pull", TRANSFER, "--to", str(file), "--data", str(data)]
    node.on["PullTransfer"] = provider(cut=30_000)
    assert run(words) == 1
    node.on["PullTransfer"] = provider()
    assert run([*words, "--max-size", "1"]) == 0
    said = capsys.readouterr()
    assert "102,400 bytes" in said.out
    assert "30,000" in said.err
    assert run(words) == 2
    file.unlink()
    assert run([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["bytes"] == len(DATA)
