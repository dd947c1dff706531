"""Negotiations, from the request to FINALIZED, over gRPC and over HTTPS.

``python -m bench.negotiations`` measures them alone (about half a minute), with what one costs in
processor time; as a part of ``bench.system`` they share its space. Every time is what a caller of
the client library sees: the consumer's management socket, its node, TLS, the provider's node, and
both disks.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from bench.figures import Figure, figure, save, table
from bench.market import (
    GET,
    RPC,
    empty_call,
    empty_request,
    flights,
    market,
    negotiate,
    publish,
)
from bench.timing import Call, alternate, processor_ms, rate, tail
from tests.e2e.space import Space

ONE_BY_ONE, AT_ONCE, ROUNDS = 100, 32, 6


async def measure(running: Space, dataset_id: str) -> list[Figure]:
    """Of a market, with a dataset whose first offer is agreed to at once."""
    async with empty_call(running) as call, empty_request(running) as request:
        return [
            *await _measure(running, "grpc", "consumer", dataset_id, call, RPC),
            *await _measure(running, "https", "remote", dataset_id, request, GET),
        ]


async def _measure(
    running: Space, name: str, consumer: str, dataset_id: str, empty: Call, what: str
) -> list[Figure]:
    many = "negotiations_per_s_32" if name == "grpc" else f"negotiations_{name}_per_s_32"
    pids = {
        "provider": running.members["provider"].pid,
        "consumer": running.members[consumer].pid,
    }
    async with running.node(consumer) as node:

        async def one() -> None:
            await negotiate(node, dataset_id)

        await rate(one, AT_ONCE, 1)  # streams and connections are open then
        times, baseline = await alternate(ONE_BY_ONE, one, empty)
        before = {who: processor_ms(pid) for who, pid in pids.items()}
        rates = await rate(one, AT_ONCE, ROUNDS)
        spent = {who: processor_ms(pid) - before[who] for who, pid in pids.items()}
        floor = statistics.median(await rate(empty, AT_ONCE, 10))
    return [
        *tail(f"negotiation_{name}", times, baseline, what),
        figure(many, "1/s", rates, baseline=(f"{what}, 32 at once", floor)),
        *(
            figure(f"negotiation_{name}_cpu_{who}_ms", "ms", [used / (AT_ONCE * ROUNDS)])
            for who, used in spent.items()
        ),
    ]


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        async with market(folder) as running:
            few = await publish(running, "few", flights(folder / "few.csv", 2_000))
            found = await measure(running, few.dataset_id)
    print(table(save(found)))


if __name__ == "__main__":
    asyncio.run(main())
