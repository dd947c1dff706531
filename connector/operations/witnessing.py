"""Having our log witnessed by the directory (C2SP tlog-witness, the log's side).

At the start the log is compared with what the directory last cosigned: a log that is behind it,
or has another past, issues nothing. From then on the newest checkpoint is cosigned a moment
after the log has grown, and with it all before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from connector.errors import ConnectorError
from connector.metering.meter import Meter
from connector.metering.witness import cosigned_note, request_for
from connector.model.participant import Participant
from connector.ports.peers import DirectoryPeer
from connector.tlog.checkpoint import parse_checkpoint

log = structlog.get_logger()

GATHER_S = 0.1  # seconds in which further commits join one cosignature
PAUSE_S = 1.0  # seconds after the directory did not answer


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
            request = request_for(self._meter.log, self._size)
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
