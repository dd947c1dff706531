"""A node's certificate is renewed before it ends, and renewal is tried again when it fails."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from connector.app import membership
from connector.errors import Unavailable
from connector.identity import certificates

DID = "did:web:node.example"
START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


class Directory:
    """Certifies for 30 days, after it failed ``failures`` times."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.failures = 0
        self.asked = 0
        self.key = certificates.make_tls_key()
        self.authority = certificates.make_authority(self.key, "Space", clock.now())

    async def renew(self, request: bytes) -> bytes:
        self.asked += 1
        if self.asked <= self.failures:
            raise Unavailable("not now")
        return certificates.issue_member_certificate(
            self.authority,
            self.key,
            request,
            did=DID,
            name="Node",
            now=self.clock.now(),
            days=30,
        )


async def renewed_after(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, directory: Directory, failures: int = 0
) -> list[datetime]:
    """Run until a certificate was saved, after that many ``failures``; when the node woke."""
    woke: list[datetime] = []
    tls_key = certificates.make_tls_key()
    chain = await directory.renew(certificates.make_csr(tls_key))
    directory.asked, directory.failures = 0, failures
    saved = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if saved.is_set():
            await asyncio.Event().wait()
        clock.time += timedelta(seconds=seconds)
        woke.append(clock.time)

    def save(new: bytes) -> None:
        nonlocal chain
        chain = new
        saved.set()

    monkeypatch.setattr(membership.asyncio, "sleep", sleep)
    task = asyncio.create_task(
        membership.renew_certificate(directory, lambda: chain, save, tls_key, clock)
    )
    await saved.wait()
    task.cancel()
    assert certificates.read_chain(chain).not_after > START + timedelta(days=45)
    return woke


async def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    woke = await renewed_after(monkeypatch, clock, Directory(clock))
    assert timedelta(days=19) < woke[-1] - START < timedelta(days=21)


async def test_a_failed_renewal_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    directory = Directory(clock)
    await renewed_after(monkeypatch, clock, directory, failures=3)
    assert directory.asked == 4
