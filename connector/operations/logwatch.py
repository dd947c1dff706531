"""Watching the logs of those whose data we use: that they only grow."""

from __future__ import annotations

import asyncio

import structlog

from connector.errors import ConnectorError, InvalidInput, VerificationFailed
from connector.identity.ourselves import Ourselves
from connector.model.participant import Participant
from connector.ports.clock import Clock
from connector.ports.deliveries import DeliveryStore
from connector.ports.peers import ProviderPeer
from connector.tlog import merkle
from connector.tlog.checkpoint import parse_checkpoint, verify_checkpoint
from connector.tlog.cosignature import add_line, cosign

log = structlog.get_logger()

GATHER_S = 0.1  # seconds in which further checkpoints of a log join one check


class LogWatch:
    """That each provider's log only grows, seen over all its checkpoints that reached us.

    Checked in the background, one check at a time for each provider and not for every checkpoint,
    so that it costs a use next to nothing. The last checkpoint that held is kept over restarts. A
    provider whose log forked is not used any more until this node starts again, which compares
    with that same checkpoint; both checkpoints are in the operations log as proof.
    """

    def __init__(
        self,
        ourselves: Ourselves,
        providers: ProviderPeer,
        deliveries: DeliveryStore,
        clock: Clock,
    ) -> None:
        self._ourselves = ourselves
        self._providers = providers
        self._deliveries = deliveries
        self._clock = clock
        self._newest: dict[str, bytes] = {}
        self._forked: dict[str, str] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}

    def require_trusted(self, provider: str) -> None:
        if provider in self._forked:
            raise VerificationFailed(
                "the provider's log was seen to change its past",
                hint="keep both checkpoints (they are in this node's log) and tell the directory",
            )

    def saw(self, provider: Participant, note: bytes) -> None:
        """A verified checkpoint of the provider's log."""
        self._newest[provider.did] = note
        running = self._checks.get(provider.did)
        if running is None or running.done():
            self._checks[provider.did] = asyncio.create_task(self._check(provider))

    async def close(self) -> None:
        for task in self._checks.values():
            task.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)

    async def _check(self, provider: Participant) -> None:
        while provider.did in self._newest:
            await asyncio.sleep(GATHER_S)
            note = self._newest.pop(provider.did)
            trusted = await self._deliveries.trusted(provider.log_origin)
            try:
                grown = await self._compare(provider, trusted, note)
            except (VerificationFailed, InvalidInput) as error:
                self._forked[provider.did] = error.message
                log.error(
                    "a provider's log changed its past",
                    provider=provider.did,
                    trusted=(trusted or b"").decode(),
                    offered=note.decode(),
                )
                return
            except ConnectorError as error:
                log.info("a provider's log could not be compared", reason=error.message)
                return
            if grown:
                await self._deliveries.trust(provider.log_origin, note)
            await self._cosign(provider, note)

    async def _compare(self, provider: Participant, trusted: bytes | None, note: bytes) -> bool:
        """Whether the new checkpoint is the larger one. Raises if the two do not fit together."""
        new = verify_checkpoint(note, provider.log_origin, provider.signing_keys)
        if trusted is None:
            return True
        old = parse_checkpoint(trusted)  # it was verified before it was kept
        small, large = sorted((old, new), key=lambda checkpoint: checkpoint.size)
        proof: tuple[bytes, ...] = ()
        if small.size != large.size:
            proof = await self._providers.consistency(provider.did, small.size, large.size)
        merkle.verify_consistency(small.size, small.root, large.size, large.root, proof)
        return new.size > old.size

    async def _cosign(self, provider: Participant, note: bytes) -> None:
        line = cosign(
            note,
            self._ourselves.log_origin,
            self._ourselves.signing_key,
            int(self._clock.now().timestamp()),
        )
        try:
            await self._providers.add_cosignature(provider.did, add_line(note, line))
        except ConnectorError as error:
            log.info("a cosignature was not taken", provider=provider.did, reason=error.message)
