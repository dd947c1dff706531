"""What tests of logs and meters share."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.segments.disk import Disk
from connector.core.choose import choose
from connector.core.interface import Leaves
from connector.metering.meter import Meter
from connector.metering.types import ActDraft, Claim, DeliveryDraft, Recorded, Reservation, UseDraft
from connector.model.receipt import Outcome, Quantity
from connector.ports.receipts import LogStorage
from connector.tlog import merkle
from connector.tlog.checkpoint import sign_checkpoint, verify_checkpoint

ORIGIN = "airport.example/log"
SCOPE = "urn:uuid:agreement-1"
PROVIDER, CONSUMER = "did:web:airport.example", "did:web:tourism.example"


def test_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


test_key.__test__ = False  # type: ignore[attr-defined]

KEY = test_key("the log")
PUBLIC = KEY.public_key().public_bytes_raw()


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.ticks = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.ticks += seconds


def pack(leaves: Sequence[bytes]) -> Leaves:
    packed = b"".join(len(leaf).to_bytes(2) + leaf for leaf in leaves)
    return Leaves(packed, b"".join(map(merkle.leaf_hash, leaves)))


def seal(size: int, root: bytes) -> bytes:
    return sign_checkpoint(ORIGIN, size, root, KEY)


class MemoryKeys:
    """``core.interface.Keys`` that forget, for logs in memory."""

    freeze_at = 1 << 30
    trouble = ""
    covered = 0

    def __init__(self) -> None:
        self.settled: dict[bytes, int] = {}
        self.staged: dict[bytes, int] = {}
        self.sealed: list[dict[bytes, int]] = []

    @property
    def pending(self) -> int:
        return len(self.settled)

    def find(self, key: bytes) -> int | None:
        for keys in (self.settled, *self.sealed, self.staged):
            if key in keys:
                return keys[key]
        return None

    def stage(self, key: bytes, index: int) -> None:
        if self.find(key) is None:
            self.staged[key] = index

    def seal(self) -> None:
        self.sealed.append(self.staged)
        self.staged = {}

    def settle(self) -> None:
        self.settled |= self.sealed.pop(0) if self.sealed else self.staged
        if not self.sealed:
            self.staged = {key: at for key, at in self.staged.items() if key not in self.settled}

    def unstage(self) -> None:
        self.staged.clear()

    def discard(self) -> None:
        self.staged.clear()
        self.sealed.clear()

    def freeze(self, size: int) -> None:
        pass

    def wait(self) -> None:
        pass

    def clear(self) -> None:
        self.settled.clear()
        self.staged.clear()

    def close(self) -> None:
        pass


async def open_meter(storage: LogStorage, clock: ManualClock | None = None, **more: Any) -> Meter:
    return await Meter.open(
        storage,
        core=more.pop("core", None) or choose("python"),
        keys=more.pop("keys", None) or MemoryKeys(),
        origin=ORIGIN,
        key=KEY,
        clock=clock or ManualClock(),
        random=more.pop("random", random.Random(7).randbytes),
        **more,
    )


def reservation(use_id: str, *, scope: str = SCOPE, limit: int | None = None) -> Reservation:
    return Reservation(
        scope=scope,
        use_id=use_id,
        limit=limit,
        provider=PROVIDER,
        consumer=CONSUMER,
        purpose="tourism-planning",
        agreement_digest=bytes(32),
        policy_digest=b"p" * 32,
        request_digest=hashlib.sha256(use_id.encode()).digest(),
    )


def refusal(use_id: str, *, scope: str = SCOPE, **more: Any) -> UseDraft:
    return UseDraft(
        scope=scope,
        use_id=use_id,
        provider=PROVIDER,
        consumer=CONSUMER,
        outcome=more.pop("outcome", Outcome.REFUSED),
        purpose="tourism-planning",
        agreement_digest=bytes(32),
        policy_digest=b"p" * 32,
        request_digest=b"q" * 32,
        **more,
    )


def delivery(recorded: Recorded, *, rows: int = 1) -> DeliveryDraft:
    receipt = recorded.receipt
    return DeliveryDraft(
        scope=receipt.scope,
        use_id=getattr(receipt, "use_id"),  # noqa: B009 - not every receipt has one
        provider=PROVIDER,
        consumer=CONSUMER,
        outcome=getattr(receipt, "outcome"),  # noqa: B009
        origin=ORIGIN,
        leaf_hash=merkle.leaf_hash(recorded.leaf),
        leaf_index=recorded.index,
        tree_size=recorded.size,
        quantities={Quantity.CALLS: 1, Quantity.ROWS_RETURNED: rows},
    )


def act(scope: str = SCOPE, **more: Any) -> ActDraft:
    return ActDraft(scope=scope, actor=PROVIDER, act="agreement.ended", statement=b"e30", **more)


async def use(meter: Meter, use_id: str, *, rows: int = 1, **more: Any) -> Recorded | None:
    """One allowed use; None if the allowance has ended."""
    item = reservation(use_id, **more)
    (claimed,) = await meter.reserve([item])
    if claimed.claim is not Claim.GRANTED:
        return None
    quantities = {Quantity.CALLS: 1, Quantity.ROWS_RETURNED: rows}
    (recorded,) = await meter.record([item.settle(Outcome.ALLOWED, quantities=quantities)])
    return recorded


async def until(condition: Callable[[], bool]) -> None:
    """Wait, ten seconds at most, for what happens in the background."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


def verify(recorded: Recorded) -> None:
    """As a consumer does."""
    checkpoint = verify_checkpoint(recorded.checkpoint, ORIGIN, [PUBLIC])
    assert checkpoint.size == recorded.size
    merkle.verify_inclusion(
        merkle.leaf_hash(recorded.leaf),
        recorded.index,
        checkpoint.size,
        recorded.inclusion(),
        checkpoint.root,
    )


class FaultyDisk(Disk):
    """``fail`` sees each call's name beforehand, and may raise; ``after`` sees it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.calls: list[str] = []

    def _around(self, name: str, call: Callable[[], None]) -> None:
        self.calls.append(name)
        self.fail(name)
        call()
        self.after(name)

    def write(self, fd: int, data: bytes | Sequence[bytes], offset: int) -> None:
        self._around("write", lambda: super(FaultyDisk, self).write(fd, data, offset))

    def sync(self, fd: int) -> None:
        self._around("sync", lambda: super(FaultyDisk, self).sync(fd))

    def truncate(self, fd: int, size: int) -> None:
        self._around("truncate", lambda: super(FaultyDisk, self).truncate(fd, size))

    def sync_folder(self, path: Path) -> None:
        self._around("sync_folder", lambda: super(FaultyDisk, self).sync_folder(path))
