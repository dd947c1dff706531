"""``ports.deliveries.DeliveryStore``: what was kept is there after a restart; the first stays."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from connector.adapters.delivery_store import SqliteDeliveryStore
from connector.ports.deliveries import Pulled
from connector.ports.peers import ReceiptProof

PROOF = ReceiptProof(b"leaf", 7, (bytes(32), b"x" * 32), b"note")


async def test_receipts_are_kept_in_order_and_the_first_stays(tmp_path: Path) -> None:
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        await store.keep("a", 2, replace(PROOF, index=9))
        await store.keep("a", 1, PROOF)
        await store.keep("b", 1, replace(PROOF, inclusion=()))
        await store.keep("a", 1, replace(PROOF, leaf=b"another"))
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        assert await store.of("a") == (PROOF, replace(PROOF, index=9))
        assert await store.of("b") == (replace(PROOF, inclusion=()),)
        assert await store.of("c") == ()


async def test_the_last_trusted_checkpoint_of_a_log_is_kept(tmp_path: Path) -> None:
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        assert await store.trusted("log") is None
        await store.trust("log", b"first")
        await store.trust("other", b"elsewhere")
        await store.trust("log", b"second")
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        assert await store.trusted("log") == b"second"


async def test_pulls_of_a_transfer_add_up_over_restarts(tmp_path: Path) -> None:
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        assert await store.pulled("t") is None
        await store.pull_began("t")
        await store.pull_began("t")
        await store.pull_ended("t", 2**40)
        await store.pull_began("other")
    with closing(SqliteDeliveryStore(tmp_path / "deliveries.db")) as store:
        assert await store.pulled("t") == Pulled(2**40, 1)
        await store.pull_ended("t", 1)
        assert await store.pulled("t") == Pulled(2**40 + 1, 0)
        await store.forget_pulled("t")
        assert await store.pulled("t") is None
        assert await store.pulled("other") == Pulled(0, 1)
