"""A reporter under full load, a process of its own: ``python -m bench.load FILE JSON``.

``FILE`` is a reporter's file as ``connector reporters add`` writes it; ``JSON`` an object of
``Load``'s fields. It speaks gRPC over mutual TLS to the reporters' door, counts what is
acknowledged, and says so in one line of JSON. Anything refused, and any leaf acknowledged twice,
ends it with an error.

With ``rate`` it is an open loop: batches are due at fixed times, sent then or as soon after as the
stream takes them, and a latency counts from the time due. Without, ``window`` batches are in
flight on each stream all the time.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from bench.rows import PURPOSE, Batches
from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.adapters.clock import SystemClock
from tests.e2e.gateway import channel_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """``rows``: records in a batch; ``rate``: batches a second, 0 for as many as go;
    ``warm_s``: not counted, before ``seconds``; ``samples``: latencies are told one by one."""

    agreement: str
    rows: int
    seconds: float
    warm_s: float = 1.0
    streams: int = 2
    window: int = 4
    rate: float = 0.0
    samples: bool = False


@dataclass(slots=True)
class Told:
    """What came back: acknowledged receipts in the counted time, and all of them."""

    receipts: int = 0
    seconds: float = 0.0
    total: int = 0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


class Reporter:
    def __init__(self, load: Load, channel: grpc.aio.Channel) -> None:
        self._load = load
        self._stub = rpc.MeteringServiceStub(channel)
        run = secrets.token_urlsafe(6)[:6]
        now = SystemClock().now()
        self._batches = Batches(run, load.rows, int(now.timestamp() * 1000))
        self._amounts = [pb.Amounts(unit=pb.QUANTITY_CALLS, values=self._batches.calls)]
        self._next = 0
        self._due: dict[int, float] = {}
        self._leaves: list[tuple[int, int]] = []
        self._told = Told()

    async def run(self) -> Told:
        load, told = self._load, self._told
        self._began = time.perf_counter() + 0.2
        self._from = self._began + load.warm_s
        self._until = self._from + load.seconds
        cpu = time.process_time()
        await asyncio.gather(*(self._stream(number) for number in range(load.streams)))
        told.cpu_s = time.process_time() - cpu
        told.seconds = load.seconds
        told.total = sum(count for _, count in self._leaves)
        self._require_each_once()
        return told

    async def _stream(self, number: int) -> None:
        window = asyncio.Semaphore(self._load.window)

        async def send() -> AsyncIterator[pb.ReportUsesRequest]:
            while True:
                if self._load.rate:
                    due = self._began + self._next / self._load.rate
                else:
                    await window.acquire()
                    due = max(time.perf_counter(), self._began)
                if due >= self._until:
                    return
                batch = self._next
                self._next += 1
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                self._due[batch] = due
                yield self._request(batch)

        async for answer in self._stub.ReportUses(send()):
            now = time.perf_counter()
            due = self._due.pop(answer.batch)
            (result,) = answer.results
            if answer.HasField("refusal") or result.refused or result.count != self._load.rows:
                raise RuntimeError(f"refused: {answer.refusal} {result.refusal} {result.refused}")
            self._leaves.append((result.first, result.count))
            if self._load.rate and self._from <= due < self._until:
                self._told.latencies_ms.append((now - due) * 1000)
            if self._from <= now < self._until:
                self._told.receipts += result.count
                if not self._load.rate:
                    self._told.latencies_ms.append((now - due) * 1000)
            window.release()

    def _request(self, batch: int) -> pb.ReportUsesRequest:
        report = pb.UseReport(
            agreement_id=self._load.agreement,
            purpose=PURPOSE,
            use_ids=self._batches.use_ids(batch),
            served_ms=self._batches.served,
            amounts=self._amounts,
        )
        return pb.ReportUsesRequest(batch=batch, reports=[report])

    def _require_each_once(self) -> None:
        """No leaf was acknowledged to two batches, and no batch is without an answer."""
        end = 0
        for first, count in sorted(self._leaves):
            if first < end:
                raise RuntimeError("a leaf was acknowledged twice")
            end = first + count
        if self._due:
            raise RuntimeError(f"{len(self._due)} batches were not answered")


async def main(file: Path, load: Load) -> None:
    async with channel_of(file) as channel:
        told = await Reporter(load, channel).run()
    if not load.samples:
        told.latencies_ms = sorted(told.latencies_ms)[:: max(len(told.latencies_ms) // 1000, 1)]
    print(json.dumps(asdict(told)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Load(**json.loads(sys.argv[2]))))
