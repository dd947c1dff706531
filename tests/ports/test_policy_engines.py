"""One suite for every policy engine: the same cases, the same answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.adapters.bundle import Bundle, default_folder, export_bundle, load_bundle
from connector.adapters.opa import OpaEngine
from connector.adapters.rego import RegoEngine
from connector.errors import InvalidInput, Unavailable
from connector.policy import decisions
from connector.policy.constraints import millis
from connector.ports.policy import PolicyEngine
from tests import opa_server
from tests.policy_cases import (
    CASES,
    Case,
    admission,
    changed,
    check,
    listing,
    metering,
    negotiation,
    usage,
)

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    with opa_server.running() as url:
        yield url


@pytest.fixture(params=["embedded", "opa"])
async def engine(request: pytest.FixtureRequest, bundle: Bundle) -> AsyncIterator[PolicyEngine]:
    if request.param == "embedded":
        yield RegoEngine(bundle)
        return
    server = OpaEngine(bundle, request.getfixturevalue("opa_url"), TIMEOUT_S)
    await server.open()
    yield server
    await server.close()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_cases(engine: PolicyEngine, case: Case) -> None:
    check(case, await engine.evaluate(case.entry, case.document))


async def test_obligations(engine: PolicyEngine) -> None:
    answer = await engine.evaluate(decisions.USAGE, usage())
    decision = decisions.read_usage(answer, engine.digest)
    assert decision.allow
    assert decision.obligations.minimum_group == 10
    assert decision.obligations.privacy_unit == "tailnum"
    assert decision.obligations.row_cap == 500
    assert decision.obligations.hidden_columns == ("flight", "hour")
    assert decision.policy_digest == load_bundle().digest


async def test_what_reported_records_are_held_to(engine: PolicyEngine) -> None:
    """Before the days of the prohibition, while these are to come."""
    answer = await engine.evaluate(decisions.METERING, metering())
    held = decisions.read_metering(answer)
    assert held == decisions.Reportable((), 0, millis("2026-12-23T23:59:59.999Z"), 1_000_000)
    after = changed(metering(), "now_ms", millis("2026-12-27T00:00:00Z"))
    held = decisions.read_metering(await engine.evaluate(decisions.METERING, after))
    assert (held.first_ms, held.last_ms) == (
        millis("2026-12-26T00:00:00Z"),
        millis("2026-12-30T23:59:59.999Z"),
    )


@pytest.mark.parametrize(
    "entry", ["dataspace/nothing/decision", "nothing", "", "a/../b", "é/x/decision"]
)
async def test_no_such_rule(engine: PolicyEngine, entry: str) -> None:
    with pytest.raises(Unavailable):
        await engine.evaluate(entry, {})


def _deep(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"x": document}
    return document


HOSTILE: dict[str, dict[str, Any]] = {
    "deep": _deep(500),
    "large": {"x": "y" * (1 << 21)},
    "half a surrogate pair": {"x": "\ud800"},
    "a float": {"x": 0.5},
    "not a number": {"x": float("nan")},
    "an integer that JSON readers round": {"x": 2**53 + 1},
    "null": {"x": None},
    "bytes": {"x": b"y"},
    "a key that is not text": {"x": {1: 2}},
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_documents_never_reach_the_engine(
    engine: PolicyEngine, document: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await engine.evaluate(decisions.USAGE, document)


async def test_calls_overlap(engine: PolicyEngine) -> None:
    allowed, refused = usage(), changed(usage(), "use/purpose", "x")
    answers = await asyncio.gather(
        *(engine.evaluate(decisions.USAGE, (allowed, refused)[n % 2]) for n in range(40))
    )
    assert [answer["allow"] for answer in answers] == [n % 2 == 0 for n in range(40)]


# Parity: what the tables do not think of. Values of a good document are replaced at random.

WORDS = ["", "use", "active", "rows", "aggregate", "core", "general", "important", "tailnum"]
WORDS += ["purpose", "dateTime", "count", "tds:output", "tds:minimumGroup", "tds:hiddenColumns"]
WORDS += ["tds:rowCap", "eq", "lt", "lteq", "gt", "gteq", "isAnyOf", "isNoneOf", "group", "max"]
WORDS += ["provider", "consumer", "unit", "hidden", "measure", "distribute", "sell", "attribute"]
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.sampled_from(WORDS),
    st.text(max_size=4),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["left", "right", "action"]), SCALARS, max_size=2),
)


def _paths(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    found = [at] if at else []
    for key, child in children:
        found += _paths(child, (*at, key))
    return found


GOOD = (
    (decisions.USAGE, usage()),
    (decisions.METERING, metering()),
    (decisions.NEGOTIATION, negotiation()),
    (decisions.LISTING, listing()),
    (decisions.ADMISSION, admission()),
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    entry, good = draw(st.sampled_from(GOOD))
    document = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(_paths(document)))
        node = document
        for key in path[:-1]:
            node = node[key]
        change = draw(st.sampled_from(["replace", "remove", "again"]))
        if change == "remove":
            del node[path[-1]]
        elif change == "again" and isinstance(node, list):
            node.append(json.loads(json.dumps(node[path[-1]])))
        else:
            same = {bool: st.booleans(), int: st.integers(-3, 30), str: st.sampled_from(WORDS)}
            alike = same.get(type(node[path[-1]]), VALUES)
            node[path[-1]] = draw(st.one_of(alike, alike, VALUES))
        if not document:
            break
    return entry, document


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def both(
    bundle: Bundle, opa_url: str, loop: asyncio.AbstractEventLoop
) -> Iterator[tuple[RegoEngine, OpaEngine]]:
    server = OpaEngine(bundle, opa_url, TIMEOUT_S)
    loop.run_until_complete(server.open())
    yield RegoEngine(bundle), server
    loop.run_until_complete(server.close())


async def _answer(engine: PolicyEngine, entry: str, document: dict[str, Any]) -> Any:
    try:
        return await engine.evaluate(entry, document)
    except Unavailable:
        return "no answer"


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(question=questions())
def test_engines_agree(
    question: tuple[str, dict[str, Any]],
    both: tuple[RegoEngine, OpaEngine],
    loop: asyncio.AbstractEventLoop,
) -> None:
    entry, document = question
    embedded, server = both

    async def ask() -> tuple[Any, Any]:
        return (
            await _answer(embedded, entry, document),
            await _answer(server, entry, document),
        )

    ours, theirs = loop.run_until_complete(ask())
    assert ours == theirs
    assert ours != "no answer"


# What only an OPA server can do.


async def test_opa_is_not_there(bundle: Bundle) -> None:
    engine = OpaEngine(bundle, "http://127.0.0.1:9", 1.0)
    with pytest.raises(Unavailable):
        await engine.open()


async def test_opa_that_lost_part_of_the_bundle(bundle: Bundle) -> None:
    with opa_server.running() as url:
        engine = OpaEngine(bundle, url, TIMEOUT_S)
        await engine.open()
        await engine._client.delete_data("dataspace/bundle")
        await engine._client.delete_policy("answer.rego")
        answer = await engine.evaluate(decisions.USAGE, usage())
        await engine.close()
    assert answer["allow"] is True


async def test_opa_with_a_changed_policy(bundle: Bundle) -> None:
    """Another bundle's digest on the server: noticed, set right, and answered with ours."""
    with opa_server.running() as url:
        engine = OpaEngine(bundle, url, TIMEOUT_S)
        await engine.open()
        lax = bundle.modules["usage.rego"].replace('"allow": false', '"allow": true')
        await engine._client.update_policy_from_string(lax, "usage.rego", rego_compat=False)
        await engine._client.update_or_create_data({"digest": "00"}, "dataspace/bundle")
        answer = await engine.evaluate(decisions.USAGE, changed(usage(), "use/purpose", "x"))
        await engine.close()
    assert answer["allow"] is False


async def test_opa_with_a_module_more(bundle: Bundle) -> None:
    """Another module in our packages could add a rule: such a server is not used."""
    with opa_server.running() as url:
        engine = OpaEngine(bundle, url, TIMEOUT_S)
        await engine.open()
        more = 'package dataspace.space\nrefusals contains ["x", "y", "z"]'
        await engine._client.update_policy_from_string(more, "more.rego", rego_compat=False)
        await engine.close()
        with pytest.raises(Unavailable, match="another policy bundle"):
            await engine.open()


async def test_opa_that_has_its_own_bundle(bundle: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    archive.write_bytes(export_bundle(bundle))
    other = load_bundle(_copy(tmp_path / "other", minimum_group=7))
    with opa_server.running("--bundle", str(archive)) as url:
        engine = OpaEngine(bundle, url, TIMEOUT_S)
        await engine.open()
        answer = await engine.evaluate(decisions.USAGE, usage())
        await engine.close()
        with pytest.raises(Unavailable, match="another policy bundle"):
            await OpaEngine(other, url, TIMEOUT_S).open()
    assert answer["allow"] is True


def _copy(folder: Path, *, minimum_group: int) -> Path:
    folder.mkdir()
    for path in default_folder().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = json.loads((folder / "data.json").read_text())
    data["space"]["minimum_group"] = minimum_group
    (folder / "data.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("command", [("check", "--strict"), ("fmt", "--fail", "--list"), ("test",)])
def test_opa_says(command: tuple[str, ...]) -> None:
    """``opa check``, ``opa fmt`` and ``opa test`` on the bundle with its tests."""
    opa = opa_server.require_binary()
    result = subprocess.run(
        [str(opa), *command, str(default_folder().resolve())],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
