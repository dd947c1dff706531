"""Results that are kept for a repeated use: for how long, and how many bytes."""

from connector.gate.results import KeptResults


def kept(seconds: float = 10, capacity: int = 10) -> KeptResults:
    return KeptResults(seconds, capacity)


def test_a_result_is_there_until_its_time_is_over() -> None:
    results = kept()
    results.keep("a", "u1", b"rows", 0)
    assert results.find("a", "u1", 10) == b"rows"
    assert results.find("a", "u1", 10.1) is None
    assert results.find("a", "u1", 0) is None, "what was dropped does not come back"


def test_a_result_belongs_to_its_agreement_and_use() -> None:
    results = kept()
    results.keep("a", "u1", b"rows", 0)
    assert results.find("b", "u1", 0) is None
    assert results.find("a", "u2", 0) is None


def test_the_oldest_make_room() -> None:
    results = kept()
    for number, result in enumerate((b"1111", b"2222", b"3333")):
        results.keep("a", f"u{number}", result, number)
    assert [results.find("a", f"u{number}", 2) for number in range(3)] == [None, b"2222", b"3333"]


def test_a_result_larger_than_the_whole_room_is_not_kept_and_drops_nothing() -> None:
    results = kept()
    results.keep("a", "u1", b"1234567890", 0)
    results.keep("a", "u2", b"12345678901", 0)
    assert results.find("a", "u1", 0) == b"1234567890"
    assert results.find("a", "u2", 0) is None


def test_an_empty_result_is_a_result() -> None:
    results = kept(capacity=0)
    results.keep("a", "u1", b"", 0)
    assert results.find("a", "u1", 0) == b""


def test_room_is_given_back() -> None:
    results = kept(seconds=1)
    for time in range(0, 100, 2):
        results.keep("a", f"u{time}", b"1234567890", time)
        assert results.find("a", f"u{time}", time) == b"1234567890"
