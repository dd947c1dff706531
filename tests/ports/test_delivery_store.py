"""``ports.deliveries.DeliveryStore``: what was kept is there after a restart; the first stays."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from connector.adapters.delivery_store import SqliteDeliveryStore
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
