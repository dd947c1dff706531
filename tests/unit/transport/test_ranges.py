"""Ranges and conditions of a GET, read by RFC 9110."""

import pytest

from connector.transport.http.dsp.ranges import Part, part_of

TAG = '"abc"'
SIZE = 1000
WHOLE = Part(200, 0, SIZE)
NOT_THERE = Part(416, 0, 0)


def part(size: int = SIZE, **headers: str) -> Part:
    return part_of({name.replace("_", "-"): v for name, v in headers.items()}, size, TAG)


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=0-5000", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("Bytes = 3-4", 3, 5),
        ("bytes=999-9999999999999999999", 999, 1000),
    ],
)
def test_one_range(asked: str, first: int, end: int) -> None:
    assert part(range=asked) == Part(206, first, end)


@pytest.mark.parametrize(
    "asked",
    [
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=-0",
        "bytes=1000-",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=0-0,0-0,0-0",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=１-２",
        "bytes=0x1-2",
        "bytes=" + "9" * 20 + "-",
        "bytes=0-" + "9" * 5000,
        "bytes==1-2",
        "bytes=1-2;q=1",
        "bytes=1-2\n3-4",
    ],
)
def test_ranges_that_are_refused(asked: str) -> None:
    assert part(range=asked) == NOT_THERE


@pytest.mark.parametrize("asked", ["", "items=0-1", "0-1", "seconds=1-"])
def test_other_units_are_ignored(asked: str) -> None:
    assert part(range=asked) == WHOLE


def test_a_head_has_no_range() -> None:
    assert part_of({"range": "bytes=0-1"}, SIZE, TAG, ranges=False) == WHOLE


def test_an_empty_file() -> None:
    assert part(size=0) == Part(200, 0, 0)
    assert part(size=0, range="bytes=0-") == NOT_THERE
    assert part(size=0, range="bytes=-1") == NOT_THERE


@pytest.mark.parametrize("value", ['"other"', 'W/"abc"', "Tue, 15 Nov 1994 12:45:26 GMT", '"'])
def test_a_range_of_another_version_gives_the_whole_new_one(value: str) -> None:
    assert part(range="bytes=0-1", if_range=value) == WHOLE


def test_a_range_of_this_version() -> None:
    assert part(range="bytes=0-1", if_range=TAG) == Part(206, 0, 2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": TAG}, 200),
        ({"if_match": f'"x", {TAG}'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"other"'}, 412),
        ({"if_match": f"W/{TAG}"}, 412),
        ({"if_match": TAG + "," * 5000}, 412),
        ({"if_none_match": TAG}, 304),
        ({"if_none_match": f"W/{TAG}"}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"other"'}, 200),
        ({"if_match": '"other"', "range": "bytes=0-1"}, 412),
        ({"if_none_match": TAG, "range": "bytes=0-1"}, 304),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    assert part(**headers).status == status
