"""Pulls: whole datasets that leave over HTTP, one transfer process at a time (DSP 2025-1, format
``HttpData-PULL``).

    start: decide -> reserve -> open       request: token -> decide -> account -> bytes -> ...
    end: cut -> record

* One transfer process is one use, with the process id as its use id. It is reserved when it
  starts and has one receipt, when it ends; what moved in all its answers, ranges and repetitions
  too, is counted in that. If nothing moved at all, the allowance gets it back.
* Bytes leave before the receipt does. So they are accounted for before they leave, durably
  (``accounts``), and after a crash the use goes on where it was.
* The policy is asked when the process starts, for each answer, for each new pair of tokens, and
  again while bytes flow. What it sees is a transfer of the whole dataset.

What flows and is cut is ``flows``'s; what the transfer's state is, and what the peers tell each
other, ``negotiation``'s; HTTP is ``transport.http.dsp.pull``'s. Everything fails closed: no fresh
view of the directory, no policy answer, no account, no bytes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn
from urllib.parse import quote

import structlog

from connector.errors import (
    Conflict,
    ConnectorError,
    NotFound,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.gate import tokens
from connector.gate.accounts import Account, Accounts
from connector.gate.deciding import (
    NOT_OFFERED,
    UNKNOWN_AGREEMENT,
    decide,
    exhausted,
    reservation_of,
)
from connector.gate.flows import Answers, Flow, Flows
from connector.gate.tokens import Pair, Tokens
from connector.metering.meter import Meter
from connector.metering.refusals import RefusalLimiter
from connector.metering.types import Claim, Reservation
from connector.model.negotiation import Party, StoredAgreement
from connector.model.participant import Participant
from connector.model.receipt import MAX_TEXT, Outcome, Quantity, UseReceipt
from connector.model.transfer import PULL, DataAddress, TransferProcess, TransferState
from connector.model.use import Counters
from connector.policy import inputs
from connector.policy.constraints import only_purpose, whole
from connector.ports.clock import Clock
from connector.ports.datasets import DatasetStore
from connector.ports.policy import PolicyEngine
from connector.ports.pulls import DatasetFiles, PullState, PullStore, ServedFile, StoredPull

log = structlog.get_logger()

ENDPOINT_TYPE = "https://w3id.org/idsa/v4.1/HTTP"
EDC = "https://w3id.org/edc/v0.0.1/ns/"
TRACTUSX = "https://w3id.org/tractusx/auth/"

AGREEMENT_ENDED = "the agreement ended"
ENDED = Reason("agreement", "ended while the transfer ran", "an agreement in force")
NOTHING_MOVED = Reason("transfer", "ended before any data was pulled", "a transfer that is pulled")
OBLIGED = Reason("policy", "obligations that a whole dataset cannot keep", "none of a result")
NOT_ACTIVE = Reason("member", "not an active member", "active")


@dataclass(eq=False, slots=True)
class _Pull:
    """A process that runs. ``turn``: one change of it at a time."""

    stored: StoredPull
    tokens: Tokens | None
    answers: Answers
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_open(self) -> bool:
        return self.stored.state is PullState.OPEN and self.tokens is not None


@dataclass(frozen=True, slots=True)
class Granted:
    """An answer that may be given: which file, of which process."""

    pid: str
    file: ServedFile


class Pulls:
    """``ports.dataplane.DataPlane``; for one event loop.

    ``base`` is the public base URL of the HTTPS door, empty if there is none: nothing can be
    started then. ``agreement`` raises ``NotFound``; ``member`` gives the record of an active
    participant, by a fresh view of the directory, or raises ``Unauthenticated`` or
    ``Unavailable``. ``random(n)`` gives n random bytes; ``observe`` is told of each receipt.

    ``open`` MUST be awaited first, then ``take_up`` once the log is known to be whole; until then
    it answers ``Unavailable``.
    """

    def __init__(
        self,
        *,
        did: str,
        base: str,
        agreement: Callable[[str], Awaitable[StoredAgreement]],
        datasets: DatasetStore,
        files: DatasetFiles,
        engine: PolicyEngine,
        meter: Meter,
        refusals: RefusalLimiter,
        store: PullStore,
        clock: Clock,
        random: Callable[[int], bytes],
        member: Callable[[str], Participant],
        observe: Callable[[UseReceipt], None],
    ) -> None:
        self.formats = (PULL,) if base else ()
        self._did = did
        self._base = base.rstrip("/")
        self._agreement = agreement
        self._datasets = datasets
        self._files = files
        self._engine = engine
        self._meter = meter
        self._refusals = refusals
        self._store = store
        self._clock = clock
        self._random = random
        self._member = member
        self._observe = observe
        self._flows = Flows(Accounts(store), clock, member)
        self._pulls: dict[str, _Pull] = {}
        self._by_digest: dict[bytes, _Pull] = {}
        self._starting: dict[str, set[str]] = {}  # agreement: processes whose start is under way
        self._ready = False

    # Beginning and end

    async def open(self) -> None:
        """Take up what an earlier run left. Raises ``Unavailable``, ``InvalidInput``."""
        for stored in await self._store.all():
            account = Account(stored.pid, covered=stored.moved, moved=stored.moved)
            self._put(_Pull(stored, _known(stored), self._answers(stored, account)))

    def uses(self) -> set[tuple[str, str]]:
        """(agreement, use id) of what runs: ``Meter.recover`` leaves them open."""
        return {(pull.stored.agreement_id, pid) for pid, pull in self._pulls.items()}

    async def take_up(self) -> None:
        """After ``Meter.recover(uses())``: write the receipts that an earlier run could not write,
        and begin to serve. Raises ``Unavailable``."""
        for pull in list(self._pulls.values()):
            scope, pid = pull.stored.agreement_id, pull.stored.pid
            if self._meter.reservation(scope, pid) is None:  # settled, or never there
                await self._forget(pull)
            elif pull.stored.state is PullState.ENDED:
                async with pull.turn:
                    await self._settle(pull)
        self._ready = True

    async def close(self) -> None:
        """Cut every flow; the processes stay as they are."""
        self._ready = False
        for pull in list(self._pulls.values()):
            await self._flows.cut(pull.answers)
        await self._flows.close()

    # What the control plane calls

    async def prepare(self, agreement: StoredAgreement, process: TransferProcess) -> None:
        """See the port: a dataset's file, which may have to be exported."""
        if self._ready and (agreement.party, agreement.peer) == (Party.PROVIDER, process.peer):
            reserved = self._meter.reservation(agreement.terms.id, process.pid) is not None
            with suppress(ConnectorError):
                await self._judge(agreement, process.peer, running=int(reserved))

    async def start(self, agreement: StoredAgreement, process: TransferProcess) -> DataAddress:
        """See the port. A refusal of a process that was not started before leaves a receipt."""
        self._require_ready()
        scope = agreement.terms.id
        starting = self._starting.setdefault(scope, set())
        starting.add(process.pid)
        try:
            pull = self._pulls.get(process.pid)
            if pull is None:
                pull = await self._begin(agreement, process)
            else:
                await self._judge(agreement, process.peer, running=1)
            if process.pid not in starting:  # ``stop`` was here
                await self._end(pull, AGREEMENT_ENDED)
                raise Refused((ENDED,))
            async with pull.turn:
                if pull.stored.state is PullState.ENDED:
                    raise Conflict("the transfer has ended")
                known, pair = tokens.first(self._random(2 * tokens.TOKEN_BYTES), self._now_ms())
                await self._save(pull, PullState.OPEN, known)
            return self._address(process.pid, pair)
        finally:
            starting.discard(process.pid)
            if not starting and self._starting.get(scope) is starting:
                del self._starting[scope]

    async def suspend(self, pid: str) -> None:
        """See the port."""
        pull = self._pulls.get(pid)
        if pull is None:
            return
        async with pull.turn:
            if pull.stored.state is not PullState.ENDED:
                self._retire(pull, PullState.SUSPENDED)
                await self._flows.cut(pull.answers)
                await self._store.save(pull.stored)

    async def resume(self, processes: Sequence[tuple[StoredAgreement, TransferProcess]]) -> None:
        """See the port. What was suspended here, and there is still started, goes on with the
        tokens that its consumer has; what was started here, and there is still suspended, has
        tokens that nobody has."""
        for _, process in processes:
            pull = self._pulls.get(process.pid)
            if pull is None:
                log.warning("a transfer's data has ended already", process=process.pid)
            elif process.state is TransferState.SUSPENDED:
                await self.suspend(process.pid)
            elif pull.stored.state is PullState.SUSPENDED:
                async with pull.turn:
                    stored = replace(pull.stored, state=PullState.OPEN)
                    await self._store.save(stored)
                    pull.stored, pull.tokens = stored, _known(stored)
                    self._put(pull)

    async def end(self, pid: str, *, reason: str = "") -> None:
        """See the port."""
        pull = self._pulls.get(pid)
        if pull is not None:
            await self._end(pull, _readable(reason))

    async def stop(self, agreement_id: str) -> int:
        """The agreement ends: cut and settle all its transfers; how many there were.

        On return each has its receipt. One that is being started will not be.
        """
        self._starting.pop(agreement_id, set()).clear()
        found = [pull for pull in self._pulls.values() if pull.stored.agreement_id == agreement_id]
        for pull in found:
            await self._end(pull, AGREEMENT_ENDED)
        return len(found)

    # What a consumer calls

    async def ask(self, pid: str, token: str) -> Granted:
        """Whether the holder of this access token may have data of the process now.

        Raises ``Unauthenticated`` for whatever is not such a token now; ``Refused``,
        ``Unavailable`` for who holds one.
        """
        shown = tokens.digest(token)
        pull = self._of_token(pid, shown)
        known = self._tokens_of(pull).used(shown, self._now_ms())
        self._require_ready()
        file = await self._permitted(pull.stored)
        if known != pull.tokens:
            async with pull.turn:
                known = self._tokens_of(pull).used(shown, self._now_ms())
                if known != pull.tokens:
                    await self._save(pull, PullState.OPEN, known)
        return Granted(pid, file)

    @asynccontextmanager
    async def flow(self, granted: Granted, cut: Callable[[], None]) -> AsyncIterator[Flow]:
        """As ``Flows.flow``; raises ``Unauthenticated`` if the process does not run any more."""
        pull = self._pulls.get(granted.pid)
        if pull is None or not pull.is_open:
            raise Unauthenticated("not a token for this")
        async with self._flows.flow(pull.answers, cut) as flow:
            yield flow

    async def refresh(self, pid: str, token: str) -> Pair:
        """A new pair for a refresh token. Raises as ``ask``."""
        pull = self._of_token(pid, tokens.digest(token))
        salt = self._random(tokens.TOKEN_BYTES)
        self._tokens_of(pull).refreshed(token, self._now_ms(), salt)
        self._require_ready()
        await self._permitted(pull.stored)
        async with pull.turn:
            known, pair = self._tokens_of(pull).refreshed(token, self._now_ms(), salt)
            await self._save(pull, PullState.OPEN, known)
        return pair

    # How

    async def _begin(self, agreement: StoredAgreement, process: TransferProcess) -> _Pull:
        """Decide and reserve, each once. Raises ``Refused``, ``Unavailable``, ``Conflict``."""
        mine = (agreement.party, agreement.peer) == (Party.PROVIDER, process.peer)
        reservation = reservation_of(
            agreement if mine else None,
            use_id=process.pid,
            provider=self._did,
            consumer=process.peer,
            purpose=only_purpose(agreement.terms.terms),
            request=PULL.encode(),
            policy_digest=self._engine.digest,
        )
        if not mine:
            await self._refuse(reservation, (UNKNOWN_AGREEMENT,))
        earlier = self._meter.find(reservation.scope, process.pid)
        if earlier is not None:
            receipt = earlier.receipt
            if isinstance(receipt, UseReceipt) and receipt.outcome is Outcome.REFUSED:
                raise Refused(receipt.reasons)
            raise Conflict("the transfer has ended")
        reserved = self._meter.reservation(reservation.scope, process.pid) is not None
        try:
            await self._judge(agreement, process.peer, running=int(reserved))
        except Refused as refusal:
            if reserved:
                raise
            await self._refuse(reservation, refusal.reasons)
        stored = StoredPull(
            pid=process.pid,
            agreement_id=reservation.scope,
            consumer=process.peer,
            started_ms=self._now_ms(),
        )
        await self._store.save(stored)  # first: a crash from here on leaves the use open
        claimed = (await self._meter.reserve([reservation]))[0]
        if claimed.claim is Claim.EXHAUSTED:
            await self._store.remove(process.pid)
            await self._refuse(reservation, (exhausted(reservation, claimed.counters),))
        pull = _Pull(stored, None, self._answers(stored, Account(process.pid)))
        self._pulls[process.pid] = pull  # from here on it can be ended, whatever becomes of us
        return pull

    async def _refuse(self, reservation: Reservation, reasons: tuple[Reason, ...]) -> NoReturn:
        """A receipt for a refusal that reserved nothing. Raises ``Refused``, or why there is no
        receipt."""
        self._refusals.take(reservation.consumer)
        draft = replace(reservation.settle(Outcome.REFUSED, reasons=reasons), settles=False)
        recorded = (await self._meter.record([draft]))[0]
        if isinstance(recorded.receipt, UseReceipt):
            self._observe(recorded.receipt)
        raise Refused(reasons)

    async def _judge(
        self, agreement: StoredAgreement, consumer: str, *, running: int
    ) -> ServedFile:
        """The dataset's file, if it may leave under the agreement now. Raises ``Refused``,
        ``Unavailable``.

        ``running``: 1 if the use is reserved already, and so among the counters.
        """
        published = await self._datasets.get(agreement.terms.target)
        if published is None:
            raise Refused((NOT_OFFERED,))
        try:
            member = self._member(consumer)
        except Unauthenticated as error:
            raise Refused((NOT_ACTIVE,)) from error
        counters = self._meter.counters(agreement.terms.id)
        document = inputs.usage_input(
            now=self._clock.now(),
            agreement=agreement.terms,
            state=agreement.state.value,
            provider=self._did,
            consumer=member,
            dataset=published.dataset,
            purpose=only_purpose(agreement.terms.terms),
            description=whole(published.dataset),
            counters=Counters(counters.uses, counters.reserved - running),
        )
        decision = await decide(self._engine, document)
        if not decision.allow:
            raise Refused(decision.reasons)
        if any(dataclasses.astuple(decision.obligations)):
            raise Refused((OBLIGED,))
        return await self._files.of(published)

    async def _permitted(self, stored: StoredPull) -> ServedFile:
        """The file as it is now. Raises ``Unauthenticated``, ``Refused``, ``Unavailable``."""
        self._member(stored.consumer)
        try:
            agreement = await self._agreement(stored.agreement_id)
        except NotFound as error:
            raise Unauthenticated("not a token for this") from error
        return await self._judge(agreement, stored.consumer, running=1)

    def _answers(self, stored: StoredPull, account: Account) -> Answers:
        return Answers(stored.consumer, account, partial(self._permitted, stored))

    async def _end(self, pull: _Pull, reason: str) -> None:
        async with pull.turn:
            if self._pulls.get(pull.stored.pid) is not pull:
                return  # settled while we waited
            if pull.stored.state is not PullState.ENDED:
                self._retire(pull, PullState.ENDED)
                pull.stored = replace(pull.stored, reason=reason)
                await self._flows.cut(pull.answers)
            await self._store.save(pull.stored)
            await self._settle(pull)

    async def _settle(self, pull: _Pull) -> None:
        """The receipt of a pull that was cut for good, once. Raises ``Unavailable``: later."""
        stored, moved = pull.stored, pull.answers.account.moved
        reservation = self._meter.reservation(stored.agreement_id, stored.pid)
        if reservation is not None:
            reasons: tuple[Reason, ...] = ()
            if stored.reason:
                reasons = (Reason("transfer", stored.reason, "a transfer that is completed"),)
            draft = reservation.settle(
                Outcome.ALLOWED if moved else Outcome.INTERRUPTED,
                quantities={
                    Quantity.CALLS: 1,
                    Quantity.BYTES_RETURNED: moved,
                    Quantity.DURATION_MS: max(0, self._now_ms() - stored.started_ms),
                }
                if moved
                else None,
                reasons=reasons if moved else (reasons or (NOTHING_MOVED,)),
            )
            recorded = (await self._meter.record([draft]))[0]
            if isinstance(recorded.receipt, UseReceipt):
                self._observe(recorded.receipt)
        await self._forget(pull)

    async def _forget(self, pull: _Pull) -> None:
        self._unlist(pull)
        self._pulls.pop(pull.stored.pid, None)
        await self._store.remove(pull.stored.pid)

    async def _save(self, pull: _Pull, state: PullState, known: Tokens) -> None:
        stored = replace(pull.stored, state=state, tokens=tokens.encode(known))
        await self._store.save(stored)
        self._unlist(pull)
        pull.stored, pull.tokens = stored, known
        self._put(pull)

    def _retire(self, pull: _Pull, state: PullState) -> None:
        """From now on its tokens are worth nothing, whatever is stored."""
        self._unlist(pull)
        pull.tokens = None
        pull.stored = replace(pull.stored, state=state)

    def _put(self, pull: _Pull) -> None:
        self._pulls[pull.stored.pid] = pull
        if pull.tokens is not None:
            self._by_digest |= dict.fromkeys(pull.tokens.digests(), pull)

    def _unlist(self, pull: _Pull) -> None:
        for digest in pull.tokens.digests() if pull.tokens is not None else ():
            self._by_digest.pop(digest, None)

    def _of_token(self, pid: str, digest: bytes) -> _Pull:
        pull = self._by_digest.get(digest)
        if pull is None or pull.stored.pid != pid:
            raise Unauthenticated("not a token for this")
        return pull

    def _tokens_of(self, pull: _Pull) -> Tokens:
        if not pull.is_open or pull.tokens is None:
            raise Unauthenticated("not a token for this")
        return pull.tokens

    def _address(self, pid: str, pair: Pair) -> DataAddress:
        """The names are DSP's, then EDC's, which reads no ``endpoint`` but a property of that
        name, then those of Tractus-X for a refresh (docs/dsp.md)."""
        endpoint = f"{self._base}/data/{quote(pid, safe=':')}"
        return DataAddress(
            endpoint_type=ENDPOINT_TYPE,
            endpoint=endpoint,
            properties=(
                ("authorization", pair.access),
                ("authType", "bearer"),
                (f"{EDC}endpoint", endpoint),
                (f"{EDC}endpointType", ENDPOINT_TYPE),
                (f"{EDC}authorization", pair.access),
                (f"{EDC}authType", "bearer"),
                (f"{TRACTUSX}refreshToken", pair.refresh),
                (f"{TRACTUSX}refreshEndpoint", f"{endpoint}/token"),
                (f"{TRACTUSX}refreshAudience", self._did),
                (f"{TRACTUSX}expiresIn", str(pair.life_s)),
            ),
        )

    def _require_ready(self) -> None:
        if not self._ready:
            raise Unavailable("the node is not ready yet", hint="try again in a moment")

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _known(stored: StoredPull) -> Tokens | None:
    """Those that are good. Suspended ones are kept in case that the suspension was not saved."""
    usable = stored.state is PullState.OPEN and stored.tokens
    return tokens.decode(stored.tokens) if usable else None


def _readable(reason: str) -> str:
    """A peer's words, as a receipt can hold them."""
    return reason.encode("utf-8", "replace").decode()[:MAX_TEXT]
