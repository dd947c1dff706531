"""Bytes that are no message: what a door answers, over a real connection, and what it logs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector.errors import Unauthenticated
from connector.transport.calls import OpenCalls
from connector.transport.grpc.guard import UNREADABLE, Guard
from connector.transport.grpc.server import Door
from tests.logs import ManualClock

SERVICE = "example.Service"
GOOD = pb.ReportUsesRequest(batch=7).SerializeToString()
BAD = b"\xff\xff\xff\xff"


async def unary(request: Any, context: Any) -> Any:
    return pb.ReportUsesResponse(batch=request.batch)


async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
    yield pb.ReportUsesResponse(batch=request.batch)


async def both(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield pb.ReportUsesResponse(batch=request.batch)


CODERS = {
    "request_deserializer": pb.ReportUsesRequest.FromString,
    "response_serializer": pb.ReportUsesResponse.SerializeToString,
}
HANDLERS = {
    "unary": grpc.unary_unary_rpc_method_handler(unary, **CODERS),
    "answers": grpc.unary_stream_rpc_method_handler(answers, **CODERS),
    "both": grpc.stream_stream_rpc_method_handler(both, **CODERS),
}


class Caller:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.observed: list[str] = []
        self.known = True

    async def send(self, method: str, *messages: bytes) -> list[int]:
        """The batches that were answered."""
        path, read = f"/{SERVICE}/{method}", pb.ReportUsesResponse.FromString
        if method == "unary":
            call = self.channel.unary_unary(path, response_deserializer=read)
            return [(await call(messages[0])).batch]
        if method == "answers":
            stream = self.channel.unary_stream(path, response_deserializer=read)(messages[0])
        else:
            stream = self.channel.stream_stream(path, response_deserializer=read)(iter(messages))
        return [answer.batch async for answer in stream]


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    socket = tmp_path / "s"
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        found = Caller(channel)

        def authenticate(context: Any) -> Any:
            if not found.known:
                raise Unauthenticated("nobody knows you")
            return type("Member", (), {"did": "did:web:a.example"})

        calls = OpenCalls()
        guard = Guard(
            authenticate, calls, ManualClock(), lambda *seen: found.observed.append(seen[1])
        )
        door = Door(guard, calls, 1 << 20)
        door.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, HANDLERS)]
        )
        await door.open_socket(socket)
        yield found
        await door.drain(0.1)


@pytest.mark.parametrize("method", HANDLERS)
async def test_bytes_that_are_no_message_are_the_caller_s_fault(
    caller: Caller, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with capture_logs() as logged:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.send(method, BAD)
        assert await caller.send(method, GOOD) == [7], "the door goes on"
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == UNREADABLE
    assert dict(refused.value.trailing_metadata() or ())["error-code"] == "invalid_input"
    assert caller.observed == ["invalid_input", "ok"]
    assert {line["log_level"] for line in logged} == {"debug"}
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.msg]


async def test_messages_before_it_were_answered(caller: Caller) -> None:
    stream = caller.channel.stream_stream(
        f"/{SERVICE}/both", response_deserializer=pb.ReportUsesResponse.FromString
    )()
    await stream.write(GOOD)
    answer: Any = await stream.read()
    assert answer.batch == 7
    await stream.write(BAD)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", HANDLERS)
async def test_whoever_is_not_known_is_told_that_first(caller: Caller, method: str) -> None:
    caller.known = False
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.send(method, BAD)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
