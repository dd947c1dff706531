"""Exported logs for tests: leaves to a C2SP tlog-tiles folder, without the node's own export."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connector.core.reference import Reference
from connector.model import receipt as receipts
from connector.model.receipt import NO_PREVIOUS, Quantity, RecordReceipt
from connector.tlog import merkle, note
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.cosignature import add_line, cosign
from connector.tlog.tiles import TILE_WIDTH, Tile, encode_bundle, width_at
from tests.vectors.scenario import PROVIDER, Party

VKEY = note.VerifierKey(PROVIDER.origin, PROVIDER.key.public_key().public_bytes_raw())


def witness_key(party: Party) -> note.VerifierKey:
    public = party.key.public_key().public_bytes_raw()
    return note.VerifierKey(party.origin, public, note.COSIGNATURE_V1)


class Leaves(list[bytes]):
    """A log's leaves, numbered and chained by scope as they are added."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, tuple[int, bytes]] = {}

    def record(self, scope: str, use_id: str, calls: int = 1, **changes: Any) -> None:
        self.put(
            RecordReceipt,
            scope,
            use_id=use_id,
            purpose="",
            quantities={Quantity.CALLS: calls},
            reporter="api-gateway",
            served_ms=1_795_420_800_000,
            **changes,
        )

    def put(self, kind: type, scope: str, **values: Any) -> None:
        number, head = self._last.get(scope, (0, NO_PREVIOUS))
        common = {
            "salt": hashlib.sha256(str(len(self)).encode()).digest()[:16],
            "scope": scope,
            "number": number + 1,
            "time_ms": 1_795_420_800_000,
            "previous": head,
        }
        leaf = receipts.encode(kind(**(common | values)))
        self._last[scope] = (number + 1, merkle.leaf_hash(leaf))
        self.append(leaf)


def records(count: int, scopes: int = 3) -> Leaves:
    """Records of several agreements, in turns of five."""
    leaves = Leaves()
    for place in range(count):
        leaves.record(f"urn:uuid:{place // 5 % scopes}", f"use-{place}", place % 3 + 1)
    return leaves


def write_folder(
    folder: Path,
    leaves: Sequence[bytes],
    *,
    owner: Party = PROVIDER,
    cosigners: Sequence[Party] = (),
) -> Path:
    """``checkpoint``, hash tiles and entry bundles."""
    hashes = b"".join(merkle.leaf_hash(leaf) for leaf in leaves)
    subtrees, levels = Reference().extend(0, [], hashes)
    for level, row in levels.items():
        for index in range(-(-len(row) // (32 * TILE_WIDTH))):
            tile = Tile(level, index, width_at(level, index, len(leaves)))
            put(folder, tile, row[32 * tile.start : 32 * (tile.start + tile.width)])
    for index in range(-(-len(leaves) // TILE_WIDTH)):
        tile = Tile(None, index, width_at(0, index, len(leaves)))
        put(folder, tile, encode_bundle(leaves[tile.start : tile.start + tile.width]))
    root = merkle.root_of_subtrees(subtrees)
    checkpoint = sign_checkpoint(owner.origin, len(leaves), root, owner.key)
    for cosigner in cosigners:
        line = cosign(checkpoint, cosigner.origin, cosigner.key, 1_795_420_900)
        checkpoint = add_line(checkpoint, line)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint").write_bytes(checkpoint)
    return folder


def put(folder: Path, tile: Tile, data: bytes) -> None:
    path = folder / tile.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
