"""Pulls: one process is one use, what leaves is accounted for before it does, and cut when it must.

The meter, the store and the file are real; the policy does as it is told.
"""

import asyncio
import dataclasses
import hashlib
import hmac
from contextlib import suppress
from pathlib import Path

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.errors import (
    Conflict,
    RateLimited,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.gate import accounts, flows, pulls, tokens
from connector.gate.flows import Flow
from connector.gate.pulls import Granted
from connector.model.receipt import Outcome, Quantity
from connector.model.transfer import PULL, TransferState
from tests.agreements import PURPOSE, SECRET, USES
from tests.logs import CONSUMER, PROVIDER, ManualClock, open_meter, until
from tests.pulls import AGREEMENT, DOCUMENT, SCOPE, Provider, process, prop

CONTENT = b"city,n\nWuhai,1\n" * 100
PID = "urn:uuid:1"


@pytest.fixture
async def provider(tmp_path: Path):
    clock = ManualClock()
    meter = await open_meter(MemoryLog(), clock)
    made = Provider(tmp_path, meter, clock)
    await made.publish(CONTENT)
    await made.open()
    yield made
    await made.close()
    await meter.close()


async def take(provider, granted: Granted, *amounts: int, rest: int = 0) -> None:
    async with provider.pulls.flow(granted, lambda: None) as flow:
        for amount in amounts:
            await flow.take(amount, rest)


async def begun(provider, pid: str = PID) -> str:
    return prop(await provider.start(pid), "authorization")


async def ended(provider, pid: str = PID, **more):
    await provider.pulls.end(pid, **more)
    return provider.observed[-1]


async def test_one_process_is_one_use_with_one_receipt(provider) -> None:
    token = await begun(provider)
    assert provider.uses() == (0, 1)
    for amount in (100, 20, 3):
        await take(provider, await provider.pulls.ask(PID, token), amount)
    provider.clock.advance(7)
    receipt = await ended(provider)
    assert (receipt.use_id, receipt.outcome, receipt.purpose) == (PID, Outcome.ALLOWED, PURPOSE)
    assert receipt.quantities == {
        Quantity.CALLS: 1,
        Quantity.BYTES_RETURNED: 123,
        Quantity.DURATION_MS: 7000,
    }
    assert receipt.reasons == ()
    assert receipt.agreement_digest == hashlib.sha256(DOCUMENT).digest()
    assert receipt.request_digest == hmac.digest(SECRET, PULL.encode(), "sha256")
    assert provider.uses() == (1, 0)
    await provider.pulls.end(PID)
    assert len(provider.observed) == 1, "again is the same as once"
    with pytest.raises(Conflict):
        await provider.start()


async def test_the_data_address(provider) -> None:
    address = await provider.start()
    endpoint = f"https://airport.example/dsp/data/{PID}"
    assert (address.endpoint_type, address.endpoint) == (pulls.ENDPOINT_TYPE, endpoint)
    names = dict(address.properties)
    assert names["authType"] == "bearer"
    assert names["authorization"] == names["https://w3id.org/edc/v0.0.1/ns/authorization"]
    assert names["https://w3id.org/edc/v0.0.1/ns/endpoint"] == endpoint
    assert names["https://w3id.org/tractusx/auth/refreshEndpoint"] == f"{endpoint}/token"
    assert names["https://w3id.org/tractusx/auth/refreshAudience"] == PROVIDER
    assert names["https://w3id.org/tractusx/auth/expiresIn"] == "300"
    assert names["authorization"] not in repr(address)


async def test_the_policy_sees_a_transfer_of_the_whole_dataset(provider) -> None:
    token = await begun(provider)
    await provider.pulls.ask(PID, token)
    first, again = provider.policy.documents
    assert first["request"]["whole"] is True
    assert [column["name"] for column in first["request"]["columns"]] == ["city", "n"]
    assert first["use"]["purpose"] == PURPOSE
    assert first["counters"] == again["counters"] == {"uses": 0, "reserved": 0}, "not its own"


async def test_nothing_pulled_gives_the_allowance_back(provider) -> None:
    await begun(provider)
    receipt = await ended(provider)
    assert (receipt.outcome, receipt.quantities) == (Outcome.INTERRUPTED, {})
    assert receipt.reasons == (pulls.NOTHING_MOVED,)
    assert provider.uses() == (0, 0)


async def test_why_it_was_terminated(provider) -> None:
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 5)
    receipt = await ended(provider, reason="no longer needed \ud800" + "x" * 1000)
    assert receipt.outcome is Outcome.ALLOWED
    (reason,) = receipt.reasons
    assert reason.term == "transfer"
    assert reason.observed.startswith("no longer needed ?x")


async def test_a_refusal_has_a_receipt_and_takes_nothing(provider) -> None:
    provider.policy.reasons = (Reason("tds:output", "the whole dataset", "aggregates only"),)
    with pytest.raises(Refused) as caught:
        await provider.start()
    assert caught.value.reasons == provider.policy.reasons
    (receipt,) = provider.observed
    assert (receipt.outcome, receipt.use_id) == (Outcome.REFUSED, PID)
    assert provider.uses() == (0, 0)
    provider.policy.reasons = ()
    with pytest.raises(Refused):
        await provider.start()
    assert len(provider.observed) == 1, "a process has one receipt, whatever is asked again"
    await provider.pulls.end(PID)


@pytest.mark.parametrize("what", ["down", "withdrawn", "suspended", "another's"])
async def test_what_else_refuses(provider, what: str) -> None:
    provider.policy.down = what == "down"
    provider.trouble = Unauthenticated("suspended") if what == "suspended" else None
    if what == "withdrawn":
        provider.published = None
    term = {"down": "policy", "withdrawn": "target", "suspended": "member"}.get(what, "agreement")
    with pytest.raises(Refused) as caught:
        await provider.start(peer="did:web:x.example" if what == "another's" else CONSUMER)
    assert [reason.term for reason in caught.value.reasons] == [term]
    assert provider.observed[0].outcome is Outcome.REFUSED


async def test_an_allowance_with_obligations_that_no_file_keeps_is_none(provider) -> None:
    provider.policy.row_cap = 500
    with pytest.raises(Refused) as caught:
        await provider.start()
    assert caught.value.reasons == (pulls.OBLIGED,)


async def test_a_stale_view_starts_nothing_and_leaves_nothing(provider) -> None:
    provider.trouble = Unavailable("too old")
    with pytest.raises(Unavailable):
        await provider.start()
    assert (provider.observed, provider.uses()) == ([], (0, 0))


async def test_processes_at_once_get_exactly_the_allowance(provider) -> None:
    answers = await asyncio.gather(
        *(provider.start(f"urn:uuid:{number}") for number in range(8)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(answers) - len(refused) == USES
    assert {reason.term for answer in refused for reason in answer.reasons} == {"count"}


async def test_start_again_before_it_was_saved_gives_a_new_token_for_the_same_use(provider) -> None:
    first = await begun(provider)
    second = await begun(provider)
    assert provider.uses() == (0, 1)
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, first)
    await provider.pulls.ask(PID, second)


async def test_a_start_that_could_not_be_stored_can_be_tried_again(provider) -> None:
    provider.store.down = True
    with pytest.raises(Unavailable):
        await provider.start()
    provider.store.down = False
    await provider.pulls.ask(PID, await begun(provider))
    assert provider.uses() == (0, 1)


@pytest.mark.parametrize("reserved", [False, True])
async def test_a_crash_while_it_starts(provider, monkeypatch, reserved: bool) -> None:
    """The start comes again, and is the same use, or the first."""

    async def crash(*_):
        raise Unavailable("crashed")

    with monkeypatch.context() as patched:
        if reserved:
            patched.setattr(provider.pulls, "_save", crash)
        else:
            patched.setattr(provider.meter, "reserve", crash)
        with pytest.raises(Unavailable):
            await provider.start()
    await provider.restart()
    assert provider.uses() == (0, int(reserved))
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 1)
    await ended(provider)
    assert provider.uses() == (1, 0)


async def test_tokens_are_of_their_process_alone_and_end(provider) -> None:
    mine, other = await begun(provider), await begun(provider, "urn:uuid:2")
    refresh = prop(await provider.start("urn:uuid:3"), "refreshToken")
    for pid, token in (
        (PID, other),
        ("urn:uuid:2", mine),
        ("urn:uuid:9", mine),
        ("urn:uuid:3", refresh),
        (PID, ""),
        (PID, "é" * 40),
    ):
        with pytest.raises(Unauthenticated):
            await provider.pulls.ask(pid, token)
    provider.clock.advance(299)
    await provider.pulls.ask(PID, mine)
    provider.clock.advance(1)
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, mine)


async def test_a_refresh_survives_a_lost_answer(provider) -> None:
    address = await provider.start()
    access, refresh = prop(address, "authorization"), prop(address, "refreshToken")
    first = await provider.pulls.refresh(PID, refresh)
    provider.clock.advance(200)
    again = await provider.pulls.refresh(PID, refresh)
    assert (again.access, again.refresh) == (first.access, first.refresh)
    await provider.restart()
    assert await provider.pulls.refresh(PID, refresh) == first, "after a restart too"
    await provider.pulls.ask(PID, access)
    provider.clock.advance(250)
    await provider.pulls.ask(PID, first.access)  # used: now the old ones are done with
    with pytest.raises(Unauthenticated):
        await provider.pulls.refresh(PID, refresh)
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, access)
    third = await provider.pulls.refresh(PID, first.refresh)
    assert third.access not in (first.access, access)


async def test_using_the_new_refresh_token_settles_too(provider) -> None:
    refresh = prop(await provider.start(), "refreshToken")
    second = await provider.pulls.refresh(PID, refresh)
    third = await provider.pulls.refresh(PID, second.refresh)
    with pytest.raises(Unauthenticated):
        await provider.pulls.refresh(PID, refresh)
    await provider.pulls.ask(PID, second.access)  # good until its own end
    await provider.pulls.ask(PID, third.access)


async def test_no_token_is_stored(provider) -> None:
    address = await provider.start()
    pair = await provider.pulls.refresh(PID, prop(address, "refreshToken"))
    kept = str(await provider.store.all())
    for token in (prop(address, "authorization"), prop(address, "refreshToken"), pair.access):
        assert token not in kept
        assert tokens.digest(token).hex() in kept


async def test_no_refresh_where_no_data_could_be_had(provider) -> None:
    refresh = prop(await provider.start(), "refreshToken")
    provider.trouble = Unauthenticated("suspended")
    with pytest.raises(Unauthenticated):
        await provider.pulls.refresh(PID, refresh)
    provider.trouble = None
    provider.policy.reasons = (Reason("dateTime", "late", "early"),)
    with pytest.raises(Refused):
        await provider.pulls.refresh(PID, refresh)


async def test_suspended_and_started_again_is_the_same_use(provider) -> None:
    address = await provider.start()
    token = prop(address, "authorization")
    await take(provider, await provider.pulls.ask(PID, token), 10)
    await provider.pulls.suspend(PID)
    await provider.pulls.suspend(PID)
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, token)
    with pytest.raises(Unauthenticated):
        await provider.pulls.refresh(PID, prop(address, "refreshToken"))
    await provider.restart()
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, token)
    token = prop(await provider.start(state=TransferState.SUSPENDED), "authorization")
    await take(provider, await provider.pulls.ask(PID, token), 10)
    receipt = await ended(provider)
    assert receipt.quantities[Quantity.BYTES_RETURNED] == 20
    assert provider.uses() == (1, 0)


async def test_a_suspension_that_was_not_saved_is_taken_back(provider) -> None:
    token = await begun(provider)
    await provider.pulls.suspend(PID)
    await provider.restart()
    started = process(state=TransferState.STARTED)
    await provider.pulls.resume([(AGREEMENT, started), (AGREEMENT, process("urn:uuid:gone"))])
    await provider.pulls.ask(PID, token)


async def test_a_start_that_was_not_saved_is_taken_back(provider) -> None:
    await begun(provider)
    await provider.pulls.suspend(PID)
    token = await begun(provider)
    await provider.restart()
    await provider.pulls.resume([(AGREEMENT, process(state=TransferState.SUSPENDED))])
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, token)


async def test_going_on_may_be_refused_and_the_use_stays_open(provider) -> None:
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 10)
    await provider.pulls.suspend(PID)
    provider.policy.reasons = (Reason("dateTime", "late", "early"),)
    with pytest.raises(Refused):
        await provider.start(state=TransferState.SUSPENDED)
    assert provider.observed == []
    assert (await ended(provider)).quantities[Quantity.BYTES_RETURNED] == 10


# What flows


class Reader:
    """A flow whose bytes nobody takes: it waits for ever, as a slow reader's does."""

    def __init__(self, provider, granted: Granted) -> None:
        self.cut = False
        self.flow: Flow | None = None
        self.left = False
        self._task = asyncio.create_task(self._run(provider, granted))

    async def _run(self, provider, granted: Granted) -> None:
        async with provider.pulls.flow(granted, self._cut) as self.flow:
            await self.flow.take(100, 1000)
            await asyncio.Event().wait()
        self.left = True

    def _cut(self) -> None:
        self.cut = True

    async def flows(self) -> None:
        await until(lambda: self.flow is not None and self.flow.account.moved >= 100)

    async def dies(self) -> None:
        """With the run that it belongs to, which is over."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, RuntimeError):
            await self._task

    async def gone(self) -> None:
        await asyncio.wait_for(self._task, 2)
        assert self.cut
        assert self.left, "a cut is no error"


async def reading(provider, token: str, pid: str = PID) -> Reader:
    reader = Reader(provider, await provider.pulls.ask(pid, token))
    await reader.flows()
    return reader


@pytest.mark.parametrize("how", ["suspend", "end", "stop"])
async def test_on_return_nothing_leaves(provider, how: str) -> None:
    token = await begun(provider)
    readers = [await reading(provider, token), await reading(provider, token)]
    if how == "suspend":
        await provider.pulls.suspend(PID)
    elif how == "end":
        await provider.pulls.end(PID, reason="enough")
    else:
        assert await provider.pulls.stop(SCOPE) == 1
    assert all(reader.cut for reader in readers)
    for reader in readers:
        await reader.gone()
    if how != "suspend":
        assert provider.observed[0].quantities[Quantity.BYTES_RETURNED] == 200
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, token)


async def test_stop_settles_what_is_suspended_too(provider) -> None:
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 1)
    await provider.pulls.suspend(PID)
    assert await provider.pulls.stop(SCOPE) == 1
    assert provider.observed[0].reasons[0].observed == pulls.AGREEMENT_ENDED
    assert provider.uses() == (1, 0)


async def test_a_start_that_an_end_of_the_agreement_overtakes(provider) -> None:
    waiting = asyncio.Event()
    real = provider.policy.evaluate

    async def evaluate(entry, document):
        answer = await real(entry, document)
        await waiting.wait()
        return answer

    provider.policy.evaluate = evaluate
    start = asyncio.create_task(provider.start())
    await until(lambda: provider.policy.documents != [])
    await provider.pulls.stop(SCOPE)
    waiting.set()
    with pytest.raises(Refused):
        await start
    assert provider.uses() == (0, 0)
    assert provider.observed[0].outcome is Outcome.INTERRUPTED


@pytest.mark.parametrize(
    "trouble", [Unauthenticated("suspended"), Unavailable("the view is too old")]
)
async def test_a_flow_is_cut_when_the_member_may_not_be_served(provider, trouble) -> None:
    token = await begun(provider)
    reader = await reading(provider, token)
    provider.trouble = trouble
    await reader.gone()
    with pytest.raises(type(trouble)):
        await provider.pulls.ask(PID, token)
    provider.trouble = None
    await provider.pulls.ask(PID, token)  # the process itself goes on


async def test_the_policy_is_asked_again_while_bytes_flow(provider) -> None:
    reader = await reading(provider, await begun(provider))
    asked = len(provider.policy.documents)
    await asyncio.sleep(2 * flows.TICK_S)
    assert len(provider.policy.documents) == asked
    provider.policy.reasons = (Reason("dateTime", "late", "early"),)
    provider.clock.advance(flows.AGAIN_S)
    await reader.gone()


async def test_a_watch_that_fails_lets_nothing_flow(provider) -> None:
    reader = await reading(provider, await begun(provider))
    provider.trouble = ZeroDivisionError()
    await reader.gone()
    provider.pulls._flows._watching = None  # its error is the test's own


async def test_so_many_at_once(provider) -> None:
    token = await begun(provider)
    granted = await provider.pulls.ask(PID, token)
    readers = [await reading(provider, token) for _ in range(flows.MOST_FLOWS)]
    with pytest.raises(RateLimited):
        await take(provider, granted, 1)
    await provider.pulls.suspend(PID)
    for reader in readers:
        await reader.gone()
    with pytest.raises(Unauthenticated):
        await take(provider, granted, 1)


async def test_one_consumer_does_not_take_all_places(provider, monkeypatch) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS_OF_ONE", 2)
    readers, tokens_of = [], {pid: await begun(provider, pid) for pid in (PID, "urn:uuid:3")}
    for pid, token in tokens_of.items():
        readers.append(await reading(provider, token, pid))
    theirs = process("urn:uuid:2", peer="did:web:harbour.example")
    agreement = dataclasses.replace(AGREEMENT, peer=theirs.peer)
    address = await provider.pulls.start(agreement, theirs)
    with pytest.raises(RateLimited):
        await take(provider, await provider.pulls.ask(PID, tokens_of[PID]), 1)
    await take(provider, await provider.pulls.ask(theirs.pid, prop(address, "authorization")), 1)
    for pid in tokens_of:
        await provider.pulls.suspend(pid)
    for reader in readers:
        await reader.gone()


async def test_a_caller_that_goes_away_is_no_cut(provider) -> None:
    reader = await reading(provider, await begun(provider))
    reader._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader._task
    assert not reader.cut
    (stored,) = await provider.store.all()
    assert stored.moved == 100, "what was covered ahead is given up"


# What is accounted for


async def test_nothing_leaves_that_is_not_on_the_disk(provider) -> None:
    token = await begun(provider)
    granted = await provider.pulls.ask(PID, token)
    async with provider.pulls.flow(granted, lambda: None) as flow:
        left = 0
        for _ in range(50):
            await flow.take(1 << 20, 100 << 20)
            left += 1 << 20
            (stored,) = await provider.store.all()
            assert stored.moved >= left
            assert stored.moved - left <= 2 * accounts.WINDOW
    (stored,) = await provider.store.all()
    assert stored.moved == left
    assert provider.store.moves < 20


async def test_no_more_is_covered_than_the_answer_has(provider) -> None:
    token = await begun(provider)
    async with provider.pulls.flow(await provider.pulls.ask(PID, token), lambda: None) as flow:
        await flow.take(100, 50)
        (stored,) = await provider.store.all()
        assert stored.moved == 150


async def test_a_full_disk_lets_nothing_leave(provider) -> None:
    token = await begun(provider)
    granted = await provider.pulls.ask(PID, token)
    provider.store.down = True
    with pytest.raises(Unavailable):
        await take(provider, granted, 100)
    provider.store.down = False
    await take(provider, granted, 7)
    assert (await ended(provider)).quantities[Quantity.BYTES_RETURNED] == 7


async def test_many_flows_share_their_writes(provider) -> None:
    token = await begun(provider)
    granted = await provider.pulls.ask(PID, token)

    async def one() -> None:
        await take(provider, granted, *[1 << 18] * 40, rest=1 << 30)

    await asyncio.gather(*(one() for _ in range(8)))
    receipt = await ended(provider)
    assert receipt.quantities[Quantity.BYTES_RETURNED] == 8 * 40 << 18


async def test_after_a_crash_the_use_goes_on_and_nothing_is_forgotten(provider) -> None:
    token = await begun(provider)
    reader = await reading(provider, token)
    await provider.restart()
    assert provider.uses() == (0, 1)
    (stored,) = await provider.store.all()
    assert stored.moved == 1100, "at least what left, at most what was covered"
    await take(provider, await provider.pulls.ask(PID, token), 10)
    receipt = await ended(provider)
    assert receipt.quantities[Quantity.BYTES_RETURNED] == 1110
    await reader.dies()


async def test_after_an_orderly_restart_the_account_is_exact(provider) -> None:
    reader = await reading(provider, await begun(provider))
    await provider.restart(crash=False)
    await reader.gone()
    assert (await ended(provider)).quantities[Quantity.BYTES_RETURNED] == 100


async def test_until_the_log_is_known_to_be_whole_nothing_is_served(provider) -> None:
    token = await begun(provider)
    provider.store.close()
    provider._open()
    await provider.pulls.open()
    assert provider.pulls.uses() == {(SCOPE, PID)}
    with pytest.raises(Unavailable):
        await provider.pulls.ask(PID, token)
    with pytest.raises(Unauthenticated):
        await provider.pulls.ask(PID, "another")
    await provider.pulls.take_up()
    await provider.pulls.ask(PID, token)


async def test_a_receipt_that_could_not_be_written_is_written_later(provider, monkeypatch) -> None:
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 9)

    async def fails(drafts):
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(provider.meter, "record", fails)
        with pytest.raises(Unavailable):
            await provider.pulls.end(PID, reason="enough")
        with pytest.raises(Unauthenticated):
            await provider.pulls.ask(PID, token)
    await provider.restart()
    (receipt,) = provider.observed
    assert (receipt.outcome, receipt.quantities[Quantity.BYTES_RETURNED]) == (Outcome.ALLOWED, 9)
    assert receipt.reasons[0].observed == "enough"
    assert await provider.store.all() == []


async def test_a_crash_between_the_receipt_and_the_store(provider, monkeypatch) -> None:
    token = await begun(provider)
    await take(provider, await provider.pulls.ask(PID, token), 9)

    async def crash(pid):
        raise Unavailable("crashed")

    monkeypatch.setattr(provider.store, "remove", crash)
    with pytest.raises(Unavailable):
        await provider.pulls.end(PID)
    await provider.restart()
    assert (len(provider.observed), provider.uses()) == (1, (1, 0))
    assert await provider.store.all() == []


# Which bytes


async def test_a_dataset_without_a_kept_file_is_exported_once(provider) -> None:
    await provider.publish(b"", keep=False)
    token = await begun(provider)
    answers = await asyncio.gather(*(provider.pulls.ask(PID, token) for _ in range(4)))
    assert provider.exports == [("city", "n")]
    (file,) = {granted.file for granted in answers}
    assert (file.media_type, file.name) == ("application/vnd.apache.parquet", "trips.parquet")
    await provider.restart()
    assert (await provider.pulls.ask(PID, token)).file == file
    assert len(provider.exports) == 1


async def test_the_export_is_prepared_for_a_transfer_that_may_start_alone(provider) -> None:
    await provider.publish(b"", keep=False)
    provider.policy.reasons = (Reason("count", "21", "20"),)
    await provider.pulls.prepare(AGREEMENT, process())
    await provider.pulls.prepare(AGREEMENT, process(peer="did:web:harbour.example"))
    assert (provider.exports, provider.observed, provider.uses()) == ([], [], (0, 0))
    provider.policy.reasons = ()
    await provider.pulls.prepare(AGREEMENT, process())
    await begun(provider)
    await provider.pulls.prepare(AGREEMENT, process())
    assert len(provider.exports) == 1
    assert provider.uses() == (0, 1)


async def test_a_new_version_has_another_tag(provider) -> None:
    token = await begun(provider)
    before = (await provider.pulls.ask(PID, token)).file
    assert before.etag == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert before.path.read_bytes() == CONTENT
    await provider.publish(CONTENT + b"more")
    after = (await provider.pulls.ask(PID, token)).file
    assert after.etag != before.etag
    assert (after.name, after.media_type, after.size) == (
        "trips.csv",
        "text/csv",
        len(CONTENT) + 4,
    )


async def test_without_a_door_there_is_no_format(tmp_path: Path, provider) -> None:
    (tmp_path / "other").mkdir()
    other = Provider(tmp_path / "other", provider.meter, provider.clock, base="")
    assert other.pulls.formats == ()
    assert process().format in provider.pulls.formats
    other.store.close()
