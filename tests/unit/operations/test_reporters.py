"""The list of reporters: what is durable, what holds at once, what happens when the disk fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connector.adapters.reporter_store import SqliteReporterStore
from connector.errors import Conflict, InvalidInput, NotFound, Unauthenticated, Unavailable
from connector.identity.certificates import make_tls_key
from connector.identity.reporters import make_certificate, pem_thumbprint
from connector.operations import reporters as module
from connector.operations.reporters import Reporters
from tests.logs import ManualClock

DOOR = b"the door's certificate\n"


class Failing(SqliteReporterStore):
    """``fail`` names a call that raises; ``done`` it all the same."""

    fail = ""
    done = False

    async def add(self, reporter):
        if self.fail != "add" or self.done:
            await super().add(reporter)
        self._raise("add")

    async def remove(self, name):
        if self.fail != "remove" or self.done:
            await super().remove(name)
        self._raise("remove")

    def _raise(self, name):
        if self.fail == name:
            raise Unavailable("the disk is full")


class Place:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = Failing(folder / "reporters.db")
        self.cut: list[str] = []
        self.reporters = self.made()

    def made(self, endpoint: str = "h.example:1") -> Reporters:
        def cut(name: str) -> int:
            self.cut.append(name)
            return 2

        return Reporters(self.store, self.clock, endpoint=endpoint, door=DOOR, cut=cut)

    def certificate(self, name: str) -> bytes:
        return make_certificate(make_tls_key(), name, self.clock.now(), 10)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.reporters.open()
    yield place
    place.store.close()


async def test_who_was_added_is_known_and_stays(place: Place) -> None:
    pem = place.certificate("b")
    added = await place.reporters.add("b", pem)
    await place.reporters.add("a", place.certificate("a"))
    again = place.made()
    await again.open()
    for found in (place.reporters, again):
        assert found.known(pem_thumbprint(pem)) == added
        assert [one.name for one in found.listed()] == ["a", "b"]
        assert found.roots().startswith(DOOR)
        assert pem in found.roots()


async def test_who_was_removed_is_gone_and_cut(place: Place) -> None:
    pem = place.certificate("a")
    await place.reporters.add("a", pem)
    assert await place.reporters.remove("a") == 2
    assert place.cut == ["a"]
    assert place.reporters.roots() == DOOR
    with pytest.raises(Unauthenticated):
        place.reporters.known(pem_thumbprint(pem))
    with pytest.raises(NotFound):
        await place.reporters.remove("a")
    await place.reporters.add("a", place.certificate("a"))


async def test_names_and_certificates_are_used_once(place: Place) -> None:
    pem = place.certificate("a")
    await place.reporters.add("a", pem)
    for name, other in (("a", place.certificate("a")), ("b", pem)):
        with pytest.raises(Conflict):
            await place.reporters.add(name, other)
    assert [one.name for one in place.reporters.listed()] == ["a"]


async def test_the_list_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPORTERS", 1)
    await place.reporters.add("a", place.certificate("a"))
    with pytest.raises(Conflict):
        await place.reporters.add("b", place.certificate("b"))


async def test_without_a_door_nobody_is_added(place: Place) -> None:
    with pytest.raises(Conflict, match="no reporters' door"):
        await place.made(endpoint="").add("a", place.certificate("a"))


async def test_what_is_no_certificate(place: Place) -> None:
    with pytest.raises(InvalidInput):
        await place.reporters.add("a", b"x")


async def test_a_certificate_that_has_ended(place: Place) -> None:
    pem = place.certificate("a")
    await place.reporters.add("a", pem)
    place.clock.advance(10 * 86_400)
    with pytest.raises(Unauthenticated, match="expired"):
        place.reporters.known(pem_thumbprint(pem))


@pytest.mark.parametrize("done", [False, True])
async def test_adding_that_failed_is_known_if_it_happened(place: Place, done: bool) -> None:
    pem = place.certificate("a")
    place.store.fail, place.store.done = "add", done
    with pytest.raises(Unavailable):
        await place.reporters.add("a", pem)
    assert [one.name for one in place.reporters.listed()] == ["a"] * done


@pytest.mark.parametrize("done", [False, True])
async def test_removing_that_failed_shuts_out_and_can_be_repeated(place: Place, done: bool) -> None:
    pem = place.certificate("a")
    await place.reporters.add("a", pem)
    place.store.fail, place.store.done = "remove", done
    with pytest.raises(Unavailable):
        await place.reporters.remove("a")
    with pytest.raises(Unauthenticated):
        place.reporters.known(pem_thumbprint(pem))
    place.store.fail = ""
    await place.reporters.remove("a")
    assert place.reporters.listed() == ()
    again = place.made()
    await again.open()
    assert again.listed() == ()
