"""The client library against a management socket: results, refusals, errors, retries."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

from connector import errors
from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.client import (
    NodeNotRunning,
    Refused,
    UseFailed,
    connect,
    connect_directory,
    connect_sync,
)
from tests.unit.fake_node import (
    AGREEMENT,
    DATASET,
    LEAF,
    STREAM,
    TABLE,
    TOKEN,
    TRANSFER,
    FakeNode,
    Fault,
    negotiation,
    refusal,
    running,
    summary,
    transfer,
)

SQL = "SELECT 1"


@pytest.fixture
def place() -> Iterator[tuple[Path, FakeNode]]:
    with running() as found:
        yield found


async def test_a_query_gives_the_table_and_its_receipt(place: tuple[Path, FakeNode]) -> None:
    data, fake = place
    async with connect(data) as node:
        result = await node.query(AGREEMENT, SQL, purpose="planning")
    assert result.table.equals(TABLE)
    assert (result.receipt.number, result.receipt.outcome) == (7, "allowed")
    assert result.receipt.quantities == {"groups_withheld": 1, "rows_returned": 2}
    (request,) = fake.asked_for("Query")
    assert (request.agreement_id, request.query, request.purpose) == (AGREEMENT, SQL, "planning")
    assert len(request.use_id) == 32


async def test_a_socket_path_is_as_good_as_a_folder(place: tuple[Path, FakeNode]) -> None:
    async with connect(place[0] / "run" / "connector.sock") as node:
        assert (await node.status()).state == "ready"


async def test_what_a_node_tells_is_heard_from_the_beginning(place: tuple[Path, FakeNode]) -> None:
    async with connect(place[0]) as node, node.events() as events:
        found = [event async for event in events]
    assert [(each.kind, each.number) for each in found] == [("negotiation", 1), ("transfer", 2)]
    with connect_sync(place[0]) as node, node.events() as heard:
        assert list(heard) == found


async def test_events_that_were_missed_are_an_error(place: tuple[Path, FakeNode]) -> None:
    place[1].on["FollowEvents"] = lambda _: [pb.FollowEventsResponse()]
    async with connect(place[0]) as node:
        async with node.events() as events:
            assert [event async for event in events] == []
        place[1].on["FollowEvents"] = []
        with pytest.raises(errors.Unavailable):
            async with node.events():
                pass

        def missed(_: object) -> None:
            raise Fault(grpc.StatusCode.NOT_FOUND, "events were missed", error_code="gone")

        place[1].on["FollowEvents"] = missed
        with pytest.raises(errors.Gone, match="missed"):
            async with node.events():
                pass


async def test_transfers_are_asked_for_listed_and_decided(place: tuple[Path, FakeNode]) -> None:
    data, fake = place
    states = []
    async with connect(data) as node:
        found = await node.request_transfer(AGREEMENT, on_change=lambda t: states.append(t.state))
        assert states == ["REQUESTED", "STARTED"]
        assert found.data_address is not None
        assert found.data_address.properties == {"authorization": TOKEN}
        assert TOKEN not in repr(found)
        (listed,) = await node.transfers(agreement_id=AGREEMENT, open_only=True)
        assert listed.data_address is None
        fake.on["FollowEvents"] = [pb.FollowEventsResponse()]
        fake.on["GetTransfer"] = pb.GetTransferResponse(transfer=transfer("REQUESTED"))
        assert (await node.request_transfer(AGREEMENT, follow_s=0.1)).state == "REQUESTED"
    with connect_sync(data) as sync:
        assert sync.transfers() == (listed,)
        assert sync.transfer(TRANSFER).state == "REQUESTED"
        assert sync.request_transfer(AGREEMENT, follow_s=0.1).state == "REQUESTED"
        assert sync.decide_transfer(TRANSFER, "suspend", reason="r").reason == "r"
    (asked,) = fake.asked_for("DecideTransfer")
    assert (asked.pid, asked.action, asked.reason) == (TRANSFER, "suspend", "r")


async def test_a_refusal_at_the_gate_carries_reasons_and_receipt(
    place: tuple[Path, FakeNode],
) -> None:
    data, fake = place
    reason = pb.Reason(term="purpose", observed="marketing", allowed="planning")
    fake.on["Query"] = [pb.QueryResponse(summary=summary("refused", reasons=[reason]))]
    async with connect(data) as node:
        with pytest.raises(Refused) as caught:
            await node.query(AGREEMENT, SQL, purpose="marketing")
    assert caught.value.reasons == (errors.Reason("purpose", "marketing", "planning"),)
    assert caught.value.receipt is not None
    assert caught.value.receipt.number == 7


async def test_a_refusal_before_the_gate_has_no_receipt(place: tuple[Path, FakeNode]) -> None:
    data, fake = place

    def refuse(_: object) -> None:
        raise refusal("agreement", "unknown", "one of the caller's")

    fake.on["Query"] = refuse
    async with connect(data) as node:
        with pytest.raises(Refused) as caught:
            await node.query(AGREEMENT, SQL, purpose="planning")
    assert caught.value.receipt is None
    assert caught.value.reasons[0].term == "agreement"


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_a_use_without_a_result_is_not_taken_for_an_empty_one(
    place: tuple[Path, FakeNode], outcome: str
) -> None:
    data, fake = place
    fake.on["Query"] = [pb.QueryResponse(summary=summary(outcome))]
    async with connect(data) as node:
        with pytest.raises(UseFailed) as caught:
            await node.query(AGREEMENT, SQL, purpose="planning")
    assert caught.value.receipt.outcome == outcome


HOSTILE_ANSWERS: dict[str, list[pb.QueryResponse]] = {
    "nothing": [],
    "no receipt": [pb.QueryResponse(chunk=STREAM)],
    "half a table": [pb.QueryResponse(summary=summary()), pb.QueryResponse(chunk=STREAM[:90])],
    "no table": [pb.QueryResponse(summary=summary())],
    "noise": [pb.QueryResponse(summary=summary()), pb.QueryResponse(chunk=b"\x00" * 64)],
}


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
async def test_an_answer_that_is_no_result_is_the_peers_fault(
    place: tuple[Path, FakeNode], answer: list[pb.QueryResponse]
) -> None:
    data, fake = place
    fake.on["Query"] = answer
    async with connect(data) as node:
        with pytest.raises(errors.PeerFault):
            await node.query(AGREEMENT, SQL, purpose="planning")


async def test_what_is_unavailable_is_tried_again_as_the_same_use(
    place: tuple[Path, FakeNode],
) -> None:
    data, fake = place
    good = fake.on["Query"]

    def answer(_: object) -> object:
        if len(fake.asked_for("Query")) < 3:
            raise Fault(grpc.StatusCode.UNAVAILABLE, "starting", error_code="unavailable")
        return good

    fake.on["Query"] = answer
    async with connect(data) as node:
        await node.query(AGREEMENT, SQL, purpose="planning")
    asked = fake.asked_for("Query")
    assert len(asked) == 3
    assert len({request.use_id for request in asked}) == 1


NOT_TRIED_AGAIN = [
    (grpc.StatusCode.INTERNAL, "internal", errors.InternalError),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited", errors.RateLimited),
    (grpc.StatusCode.ABORTED, "verification_failed", errors.VerificationFailed),
    (grpc.StatusCode.ABORTED, "peer_fault", errors.PeerFault),
    (grpc.StatusCode.NOT_FOUND, "not_found", errors.NotFound),
    (grpc.StatusCode.FAILED_PRECONDITION, "conflict", errors.Conflict),
    (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", errors.Unauthenticated),
    (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input", errors.InvalidInput),
    (grpc.StatusCode.INVALID_ARGUMENT, "config", errors.ConfigError),
]


@pytest.mark.parametrize(("status", "code", "kind"), NOT_TRIED_AGAIN)
async def test_errors_arrive_as_the_class_that_was_raised_and_are_final(
    place: tuple[Path, FakeNode],
    status: grpc.StatusCode,
    code: str,
    kind: type[errors.ConnectorError],
) -> None:
    data, fake = place

    def fail(_: object) -> None:
        raise Fault(status, "no", error_code=code, error_hint_bin="做别的".encode())

    fake.on["Query"] = fail
    async with connect(data) as node:
        with pytest.raises(errors.ConnectorError) as caught:
            await node.query(AGREEMENT, SQL, purpose="planning")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("no", "做别的")
    assert len(fake.asked_for("Query")) == 1


async def test_a_status_without_our_metadata_still_becomes_our_class(
    place: tuple[Path, FakeNode],
) -> None:
    data, fake = place

    def fail(_: object) -> None:
        raise Fault(grpc.StatusCode.PERMISSION_DENIED, "go away", error_reasons_bin=b"[[1]]")

    fake.on["EndAgreement"] = fail
    async with connect(data) as node:
        with pytest.raises(Refused, match="go away"):
            await node.end_agreement(AGREEMENT, reason="x")


async def test_a_directory_does_not_do_what_a_node_does() -> None:
    with running(directory=True) as (data, _):
        async with connect(data) as node:
            with pytest.raises(errors.Conflict) as caught:
                await node.agreements()
    assert "connector directory" in caught.value.hint


async def test_the_directorys_calls() -> None:
    with running(directory=True) as (data, fake):
        async with connect_directory(data) as directory:
            invited = await directory.invite("Airport", roles=["provider"], valid_s=60)
            members = await directory.members()
            event = await directory.set_membership(members[0].did, "suspended", reason="why")
    assert invited.invitation == "e30.e30.x"
    assert members[0].roles == ("provider",)
    assert event == 4
    assert fake.asked_for("SetMembership")[0].state == "suspended"


async def test_no_folder_no_socket_and_nobody_behind_it(tmp_path: Path) -> None:
    with running() as (data, _):
        pass
    with pytest.raises(errors.ConfigError):
        async with connect(tmp_path):
            pass
    with pytest.raises(NodeNotRunning):
        async with connect(tmp_path / "gone.sock"):
            pass
    left_behind = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left_behind))
    async with connect(left_behind) as node:
        with pytest.raises(NodeNotRunning, match="no node is running"):
            await node.status()
    assert not data.exists()


async def test_a_negotiation_tells_each_state(place: tuple[Path, FakeNode]) -> None:
    data, fake = place
    fake.on["Negotiate"] = [negotiation("REQUESTED"), negotiation("OFFERED", waiting=True)]
    heard: list[str] = []
    async with connect(data) as node:
        found = await node.negotiate(
            "did:web:airport.example",
            DATASET,
            terms={"permission": []},
            on_change=lambda change: heard.append(change.state),
        )
    assert heard == ["REQUESTED", "OFFERED"]
    assert (found.state, found.waiting) == ("OFFERED", True)
    assert fake.asked_for("Negotiate")[0].terms == b'{"permission": []}'


def test_the_sync_face_gives_the_same(place: tuple[Path, FakeNode]) -> None:
    data, _ = place
    with connect_sync(data) as node:
        assert node.status().space == "did:web:space.example"
        result = node.query(AGREEMENT, SQL, purpose="planning")
        assert result.table.column("n").to_pylist() == [3, 4]
        assert node.agreements()[0].terms["@type"] == "Offer"
        assert node.receipts(AGREEMENT).log_size == 12
        assert node.reconcile(AGREEMENT).agree
        assert node.search("航班").datasets[0]["@id"] == DATASET
        assert node.negotiations()[0].waiting
        assert node.receipt_proof(AGREEMENT, 1).leaf == LEAF
        assert node.export_evidence(AGREEMENT).startswith(b"{")
        assert node.end_agreement(AGREEMENT, reason="done") == 1
        assert node.diagnose()[0].ok


def test_a_result_without_pandas_says_so(
    place: tuple[Path, FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.client.types.find_spec", lambda _: None)
    with connect_sync(place[0]) as node:
        result = node.query(AGREEMENT, SQL, purpose="planning")
    with pytest.raises(errors.InvalidInput, match="pandas"):
        result.to_pandas()
    assert isinstance(result.table, pa.Table)


def test_the_example_in_the_readme_runs(
    place: tuple[Path, FakeNode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = Path(__file__).resolve().parents[3] / "README.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", readme.read_text(), re.M | re.S)
    (tmp_path / "connector-data").symlink_to(place[0])
    monkeypatch.chdir(tmp_path)
    exec(example, {})  # noqa: S102
    assert "'dest': 'LAX'" in capsys.readouterr().out
