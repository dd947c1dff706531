"""The witness's memory: compare and swap, durable."""

import asyncio
from pathlib import Path

from connector.adapters.witness_store import SqliteWitnessStore
from connector.ports.witnesses import Witnessed

ONE, TWO = Witnessed(1, b"1" * 32, b"note one"), Witnessed(2, b"2" * 32, b"note two")


async def test_the_last_one_stays(tmp_path: Path) -> None:
    store = SqliteWitnessStore(tmp_path / "witness.db")
    assert await store.last("a.example/log") is None
    assert await store.replace("a.example/log", None, ONE)
    assert await store.replace("a.example/log", ONE, TWO)
    assert await store.last("b.example/log") is None
    store.close()
    store = SqliteWitnessStore(tmp_path / "witness.db")
    assert await store.last("a.example/log") == TWO
    store.close()


async def test_somebody_came_first(tmp_path: Path) -> None:
    store = SqliteWitnessStore(tmp_path / "witness.db")
    assert await store.replace("a.example/log", None, ONE)
    assert not await store.replace("a.example/log", None, TWO)
    assert not await store.replace("a.example/log", TWO, TWO)
    assert await store.last("a.example/log") == ONE
    won = await asyncio.gather(*(store.replace("a.example/log", ONE, TWO) for _ in range(5)))
    assert sum(won) == 1
    store.close()
