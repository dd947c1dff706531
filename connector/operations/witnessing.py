"""Having our log witnessed (C2SP tlog-witness, the log's side), by the directory and by others.

At the start the log is compared with what the directory last cosigned: a log that is behind it,
or has another past, issues nothing. From then on the newest checkpoint is cosigned a moment
after the log has grown, and with it all before it.

What further witnesses saw is compared too, but nothing waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import NoReturn

import structlog

from connector.errors import ConnectorError, PeerFault, VerificationFailed
from connector.metering.meter import Meter
from connector.metering.witness import StaleSize, cosigned_note, request_for
from connector.model.participant import Participant
from connector.ports.peers import DirectoryPeer
from connector.ports.witnesses import WitnessPeer
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.cosignature import add_line
from connector.tlog.note import VerifierKey, parse

log = structlog.get_logger()

GATHER_S = 0.1  # seconds in which further commits join one cosignature
PAUSE_S = 1.0  # seconds after the directory did not answer
EVERY_S = 1.0  # seconds between two requests to a further witness
AGAIN_S = 3600.0  # seconds after which a log that does not grow is cosigned again
MAX_PAUSE_S = 60.0  # seconds, the most between two attempts at a witness that fails
_ATTEMPTS = 4


class Witnessing:
    """``record`` gives the directory's participant record."""

    def __init__(
        self, meter: Meter, directory: DirectoryPeer, record: Callable[[], Participant]
    ) -> None:
        self._meter = meter
        self._directory = directory
        self._record = record
        self._turn = asyncio.Lock()
        self._size: int | None = None  # last cosigned, as far as we know
        self.compared = asyncio.Event()  # the log was found whole since the start
        self.problem = "the directory was not yet asked"  # empty while all is well

    async def run(self) -> None:
        """Keep the log witnessed, for ever."""
        while True:
            try:
                await self.catch_up()
                self.problem = ""
                await self._meter.grown_beyond(self._size or 0)
                await asyncio.sleep(GATHER_S)
            except ConnectorError as error:
                log.warning("the log is not witnessed", code=error.code, reason=error.message)
                self.problem = error.message
                self._size = None
                await asyncio.sleep(PAUSE_S)

    async def catch_up(self) -> None:
        """Have the newest checkpoint cosigned. Raises ``Conflict`` for a log that lost receipts,
        and what the directory answers with."""
        async with self._turn:
            if self._size is None:
                size, note = await self._directory.witnessed()
                self._meter.require_not_behind(size, note)
                self._size = size
                self.compared.set()
            if self._meter.checkpoint().size == self._size:
                return
            request = await asyncio.to_thread(request_for, self._meter.log, self._size)
            line = await self._directory.cosign(
                request.old_size, request.consistency, request.checkpoint
            )
            witness = self._record()
            await self._meter.add_cosignature(
                cosigned_note(request, line.decode("utf-8", "replace")),
                witness.log_origin,
                witness.signing_keys,
            )
            self._size = parse_checkpoint(request.checkpoint).size


class FurtherWitnessing:
    """Having the log cosigned by one more witness, which is known by its key.

    Nothing waits for it: while it is away the log goes on, and ``problem`` says why there is no
    newer cosignature. ``jitter(n)`` gives a random number from 0 to n.
    """

    def __init__(
        self, meter: Meter, peer: WitnessPeer, key: VerifierKey, jitter: Callable[[float], float]
    ) -> None:
        self.name = key.name
        self.problem = "the witness was not yet asked"  # empty while all is well
        self._meter = meter
        self._peer = peer
        self._key = key
        self._jitter = jitter
        note = meter.latest_cosigned(key.name)
        self._size = parse_checkpoint(note).size if note is not None else 0

    async def run(self) -> None:
        """Keep the log witnessed, for ever: at most one checkpoint in ``EVERY_S`` seconds, and the
        newest one again after ``AGAIN_S`` seconds in which it did not grow."""
        pause = EVERY_S
        while True:
            try:
                await self.catch_up()
                self.problem = ""
                pause = EVERY_S
                await asyncio.sleep(EVERY_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._meter.grown_beyond(self._size), AGAIN_S)
            except ConnectorError as error:
                log.warning("a witness did not cosign", witness=self.name, reason=error.message)
                self.problem = error.message
                await asyncio.sleep(pause + self._jitter(pause))
                pause = min(2 * pause, MAX_PAUSE_S)

    async def catch_up(self) -> None:
        """Have the newest checkpoint cosigned. Raises what the witness answers with, and
        ``Conflict`` if it can show that the log lost receipts; the meter is barred then."""
        for _ in range(_ATTEMPTS):
            if self._size > self._meter.checkpoint().size:
                await self._require_past()
            request = await asyncio.to_thread(request_for, self._meter.log, self._size)
            try:
                signatures = await self._peer.add_checkpoint(request)
            except StaleSize as error:
                self._size = error.size
                continue
            except VerificationFailed:
                await self._require_past()
            ours = [one for one in signatures if self._key.matches(one)]
            if not ours:
                raise VerificationFailed("the witness's answer is not by its key")
            note = add_line(request.checkpoint, ours[0].line())
            await self._meter.add_cosignature(note, self.name, [self._key.public_key])
            self._size = parse_checkpoint(request.checkpoint).size
            return
        raise PeerFault("the witness says another size each time")

    async def _require_past(self) -> NoReturn:
        """The witness says that it saw another log: worth something if it shows what it saw."""
        self._size = 0
        note = await self._peer.last(parse_checkpoint(self._meter.checkpoint().checkpoint).origin)
        await self._meter.add_cosignature(note, self.name, [self._key.public_key])
        raise PeerFault("what the witness shows of this log does not explain its answer")


def cosignature_age(meter: Meter, witness: str, now: datetime) -> float:
    """Seconds since the newest cosignature that is kept of this witness; infinite if none is."""
    note = meter.latest_cosigned(witness)
    if note is None:
        return float("inf")
    lines = [one for one in parse(note).signatures if one.name == witness]
    return now.timestamp() - max(int.from_bytes(one.data[:8]) for one in lines)
