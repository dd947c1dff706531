"""A log as files, as C2SP tlog-tiles names them: for an archive, or for any static web server.

Files come in pieces of about ``PIECE_BYTES``, so that the memory is the same for any log.

Leaves out: where the files go (``client.log``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from connector.errors import Gone, InvalidInput
from connector.metering.reader import LogReader
from connector.tlog import tiles
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.tiles import TILE_WIDTH, Tile

PIECE_BYTES = 1 << 20
ENTRIES = -1  # the level of bundles of entries, where numbers stand for levels


@dataclass(frozen=True, slots=True)
class ExportFile:
    """``path`` below the log's prefix. ``content`` is empty where the entries were dropped."""

    path: str
    content: bytes


def choose_checkpoint(log: LogReader, cosigned: bytes | None, size: int) -> tuple[bytes, int]:
    """The note to export under, and its size: the newest cosigned one, else the newest of all.

    ``size`` other than 0 asks for one of the two by its size. Raises ``InvalidInput`` if there is
    no checkpoint of this size: the log signs no old trees again.
    """
    tip = log.tip
    known = {tip.size: tip.checkpoint}
    if cosigned is not None:
        known[parse_checkpoint(cosigned).size] = cosigned
    wanted = size or (parse_checkpoint(cosigned).size if cosigned is not None else tip.size)
    if wanted not in known or not known[wanted]:
        there = " or ".join(str(one) for one in sorted(known))
        raise InvalidInput(f"export: there is no checkpoint of this size; there is one of {there}")
    return known[wanted], wanted


def pieces(
    log: LogReader, size: int, held: Mapping[int, int], *, hashes_only: bool
) -> Iterator[Sequence[ExportFile]]:
    """The tiles of the tree of ``size`` leaves, a bundle before the tile of its hashes.

    ``held``: for a level (``ENTRIES`` for bundles) how many full tiles are there already and are
    left out. Blocking; raises as ``LogReader`` does.
    """
    piece: list[ExportFile] = []
    weight = 0
    for file in _files(log, size, held, hashes_only):
        piece.append(file)
        weight += len(file.content)
        if weight >= PIECE_BYTES:
            yield piece
            piece, weight = [], 0
    if piece:
        yield piece


def _files(
    log: LogReader, size: int, held: Mapping[int, int], hashes_only: bool
) -> Iterator[ExportFile]:
    if not hashes_only:
        for tile in _tiles(ENTRIES, size, held):
            try:
                yield ExportFile(tile.path(), log.bundle(tile.path()))
            except Gone:
                yield ExportFile(tile.path(), b"")
    level = 0
    while size >> tiles.TILE_HEIGHT * level:
        for tile in _tiles(level, size, held):
            yield ExportFile(tile.path(), log.tile(tile.path()))
        level += 1


def _tiles(level: int, size: int, held: Mapping[int, int]) -> Iterator[Tile]:
    height = max(level, 0)
    index = min(held.get(level, 0), (size >> tiles.TILE_HEIGHT * height) // TILE_WIDTH)
    while width := tiles.width_at(height, index, size):
        yield Tile(None if level == ENTRIES else level, index, width)
        index += 1
