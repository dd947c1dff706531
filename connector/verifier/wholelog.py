"""A whole exported log to a verdict: the seven steps of docs/evidence.md, section 7.2.

1. the checkpoint is signed by the log's key
2. every named witness cosigned it
3. every entry bundle is there, and is what its hash tile says        ``batches``
4. every tile follows from those below it, the root from them all     ``batches``, here
5. every leaf is a receipt                                            ``chains``
6. the receipts of each scope are numbered and chained                ``chains``
7. no use has two receipts                                            ``chains``

Everything that is wrong is listed with the path of the file it is in, up to a thousand findings a
step. Leaves are read in batches by several threads and by the metering core; memory grows with
the number of scopes and not with that of leaves.

What the caller MUST still do: get the log's key from somewhere it trusts; compare the checkpoint
with what others were shown; and check, with evidence files, what needs the agreement: signatures
of acts, statements, and that uses keep to the terms. None of that is looked at here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from connector.core.interface import Core, Keys
from connector.errors import ConnectorError, InvalidInput
from connector.tlog import merkle
from connector.tlog.checkpoint import Checkpoint, parse_checkpoint
from connector.tlog.note import VerifierKey
from connector.tlog.proof import verify_cosigned, verify_signed
from connector.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, width_at
from connector.verifier.batches import Batch, hash_tile, plan, read_batch
from connector.verifier.chains import Chains, Scope
from connector.verifier.folder import LogFolder
from connector.verifier.verdict import Check, Step

MOST_FINDINGS = 1_000  # of one step
_TITLES = (
    "the checkpoint is signed by the log's key",
    "every named witness cosigned it",
    "every entry bundle is there, and is what its hash tile says",
    "every tile follows from those below it, and the root from them all",
    "every leaf is a receipt",
    "the receipts of each scope are numbered without gaps, and each follows the one before it",
    "no use has two receipts",
)
_SHOWN = (
    "receipts",
    "unseen",
    "allowed",
    "refused",
    "failed",
    "interrupted",
    "records",
    "reported",
    "deliveries",
    "acts",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerdict:
    """``dropped``: leaves whose bundles are not there and need not be. ``scopes``: counts by
    scope; ``allowed`` are uses, ``reported`` those of them that records count."""

    valid: bool
    origin: str
    size: int
    root: bytes
    dropped: int
    steps: tuple[Step, ...]
    cosigned: Mapping[str, int]
    scopes: Mapping[str, Mapping[str, int]]
    core: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"root": self.root.hex()}


def verify_log(
    folder: LogFolder,
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    *,
    core: Core,
    uses: Keys,
    allow_dropped: bool = False,
    threads: int = 2,
) -> LogVerdict:
    """The verdict on an exported log.

    ``keys``: the log's Ed25519 keys; ``witnesses``: cosignature/v1 keys, all of which must have
    cosigned. ``uses``: empty, and of no use afterwards. ``allow_dropped``: a bundle that is not
    there is no failure, as long as its hash tile is. Raises ``InvalidInput`` if there is no
    checkpoint to start from, or for a key of another type; as ``uses`` does.
    """
    note = folder.checkpoint()
    try:
        checkpoint = parse_checkpoint(note)
    except InvalidInput as error:
        raise InvalidInput(f"checkpoint: cannot be read: {error.message}") from error
    checks = [_Check(number, title) for number, title in enumerate(_TITLES, 1)]
    signed = _signed(checks[0], note, keys)
    cosigned = _cosigned(checks[1], note, witnesses)
    tree = _Tree(folder, checkpoint.size, checks[3])
    chains = Chains(
        core, uses, checkpoint.size, lambda said, message: checks[said - 1].fail(message)
    )
    dropped = 0
    for batch in _batches(folder, core, checkpoint.size, allow_dropped, threads):
        for part, message in batch.found:
            checks[part - 1].fail(message)
        tree.add(batch)
        if batch.absent:
            checks[2].fail(f"nothing was read from leaf {batch.start:,} on")
            break
        dropped += batch.dropped
        _tell(chains, batch)
    tree.compare(checkpoint)
    counted = sum(scope.receipts for scope in chains.scopes.values())
    details = (
        f"{checkpoint.origin} at {checkpoint.size:,} leaves" if signed else "",
        _names(cosigned),
        f"{dropped:,} leaves were dropped, and only their hashes are here" if dropped else "",
        "",
        f"{counted:,} of {checkpoint.size:,} leaves were read",
        f"{len(chains.scopes):,} scopes",
        "",
    )
    steps = tuple(check.close(detail) for check, detail in zip(checks, details, strict=True))
    return LogVerdict(
        valid=all(step.ok for step in steps),
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        dropped=dropped,
        steps=steps,
        cosigned=cosigned,
        scopes={name: _shown(scope) for name, scope in chains.scopes.items()},
        core=core.name,
    )


class _Check(Check):
    """Keeps the first findings and counts the others."""

    more = 0

    def fail(self, message: str) -> None:
        if len(self.failures) < MOST_FINDINGS:
            self.failures.append(message)
        else:
            self.more += 1

    def close(self, detail: str) -> Step:
        if self.more:
            self.failures.append(f"and {self.more:,} more")
        return self.done(detail)


def _signed(check: Check, note: bytes, keys: Sequence[VerifierKey]) -> bool:
    try:
        verify_signed(note, keys)
    except InvalidInput:
        raise
    except ConnectorError as error:
        check.fail(f"checkpoint: {error.message}")
        return False
    return True


def _cosigned(check: Check, note: bytes, witnesses: Sequence[VerifierKey]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in dict.fromkeys(witness.name for witness in witnesses):
        try:
            found |= verify_cosigned(note, [key for key in witnesses if key.name == name])
        except InvalidInput:
            raise
        except ConnectorError as error:
            check.fail(f"checkpoint: {name}: {error.message}")
    return found


def _names(cosigned: Mapping[str, int]) -> str:
    return ", ".join(cosigned) or "none was named: its owner could show others another log"


def _batches(
    folder: LogFolder, core: Core, size: int, allow_dropped: bool, threads: int
) -> Iterator[Batch]:
    """In order; at most one more than there are threads at a time."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for first, count in plan(folder, size):
                waiting.append(
                    pool.submit(read_batch, folder, core, size, first, count, allow_dropped)
                )
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _tell(chains: Chains, batch: Batch) -> None:
    """The batch's believed leaves, in order."""
    at = batch.start
    for piece in batch.pieces:
        if piece.index != at:
            chains.skip(piece.index)
        chains.read(piece)
        at = piece.index + piece.count
    if at < batch.start + batch.count:
        chains.skip(batch.start + batch.count)


class _Tree:
    """The tree over all batches, and the tiles of level 2 and above."""

    def __init__(self, folder: LogFolder, size: int, check: Check) -> None:
        self._folder = folder
        self._size = size
        self._check = check
        self._leaves = 0
        self._whole = True
        self._subtrees: list[bytes] = []  # complete ones, the largest first
        self._tiles: dict[int, tuple[int, bytes | None]] = {}  # by level: index and content

    def add(self, batch: Batch) -> None:
        self._whole = self._whole and bool(batch.subtrees)
        if not self._whole:
            return
        left = batch.count
        for subtree in batch.subtrees:
            height = left.bit_length() - 1
            left -= 1 << height
            self._push(subtree, height)

    def _push(self, joined: bytes, height: int) -> None:
        level = height
        while self._leaves >> level & 1:
            joined = merkle.node_hash(self._subtrees.pop(), joined)
            level += 1
            if level % TILE_HEIGHT == 0 and level > TILE_HEIGHT:
                self._compare(level // TILE_HEIGHT, self._leaves >> level, joined)
        self._subtrees.append(joined)
        self._leaves += 1 << height

    def _compare(self, tile_level: int, place: int, joined: bytes) -> None:
        index, offset = divmod(place, TILE_WIDTH)
        tile = Tile(tile_level, index, width_at(tile_level, index, self._size))
        if self._tiles.get(tile_level, (-1, None))[0] != index:
            try:
                self._tiles[tile_level] = (index, hash_tile(self._folder, tile))
            except InvalidInput as error:
                self._check.fail(error.message)
                self._tiles[tile_level] = (index, None)
        content = self._tiles[tile_level][1]
        at = offset * merkle.HASH_BYTES
        if content is not None and content[at : at + merkle.HASH_BYTES] != joined:
            below = Tile(tile_level - 1, place).path()
            self._check.fail(f"{tile.path()}: its hash of {below} does not follow from the leaves")

    def compare(self, checkpoint: Checkpoint) -> None:
        """The root, at the end."""
        if not self._whole:
            self._check.fail("checkpoint: its root was not checked, as hashes are missing")
            return
        root = self._subtrees[-1] if self._subtrees else merkle.EMPTY_ROOT
        for subtree in reversed(self._subtrees[:-1]):
            root = merkle.node_hash(subtree, root)
        if root != checkpoint.root:
            self._check.fail("checkpoint: its root does not follow from the leaves")


def _shown(scope: Scope) -> dict[str, int]:
    return {name: getattr(scope, name) for name in _SHOWN}
