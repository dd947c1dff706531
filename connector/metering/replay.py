"""What the meter knew, found again at a start: from what was kept, and from the log."""

from __future__ import annotations

import structlog

from connector.core.interface import Core, Keys, RecordRun, key_of
from connector.errors import InvalidInput
from connector.metering.kept import decode_reservation, decode_state
from connector.metering.state import State
from connector.model import receipt as receipts
from connector.model.receipt import ActReceipt, Kind, UseReceipt
from connector.ports.receipts import CorruptLog, LogStorage, Replayed
from connector.tlog import merkle

log = structlog.get_logger()


def restored(storage: LogStorage, core: Core, keys: Keys) -> State:
    """The state kept last and what came after it; without keys that reach as far, the keys
    are made anew from the whole log. Raises ``CorruptLog``."""
    state = None
    if storage.kept is not None:
        size, data = storage.kept
        try:
            state = decode_state(data, keys)
        except InvalidInput as error:
            log.warning("the kept state of the log is not used", reason=error.message)
        else:
            if state.size != size:
                raise CorruptLog("the kept state is not of the log's mark")
    size = storage.tip.size
    if state is None or not state.size <= keys.covered <= size:
        keys.clear()
        commits = storage.replay(everything=True)
    else:
        commits = storage.replay()
    is_kept = state is not None
    state = state or State(keys)
    for commit in commits:
        _replay(commit, state, core, known=is_kept and commit.known)
        keys.settle()
        if keys.pending >= keys.freeze_at:
            keys.freeze(commit.first + commit.count)
    return state


def _replay(commit: Replayed, state: State, core: Core, *, known: bool) -> None:
    """``known``: the state has the commit already; only its keys are wanted."""
    if not known:
        for record in commit.records:
            state.reserve(decode_reservation(record))
    if commit.count and not commit.packed:
        if not known:
            raise CorruptLog(
                "receipts were dropped, and what they came to is not there any more",
                hint="restore the file kept of the log from its newest copy",
            )
        return
    index = commit.first
    try:
        for item in core.read_records(commit.packed, index, state.keys):
            if isinstance(item, RecordRun):
                if not known:
                    state.replayed(item)
                index += item.count
                continue
            receipt = receipts.decode(item)
            if not known:
                state.record(receipt, merkle.leaf_hash(item))
            elif not isinstance(receipt, ActReceipt):
                kind = Kind.USE if isinstance(receipt, UseReceipt) else Kind.DELIVERY
                state.keys.stage(key_of(kind, receipt.scope, receipt.use_id), index)
            index += 1
    except InvalidInput as error:
        raise CorruptLog("the log has a leaf that is no receipt") from error
