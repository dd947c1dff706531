"""An exported log on disk: a folder as C2SP tlog-tiles lays one out. Reads, and judges nothing.

``checkpoint``, ``tile/<L>/<N>[.p/<W>]`` and ``tile/entries/<N>[.p/<W>]``. Every read is bounded,
whatever the folder holds.
"""

from __future__ import annotations

import os
from pathlib import Path

from connector.errors import InvalidInput
from connector.tlog import merkle, note
from connector.tlog.tiles import MAX_ENTRY_BYTES, Tile

CHECKPOINT = "checkpoint"


class LogFolder:
    """Any thread may read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def checkpoint(self) -> bytes:
        """The signed note. Raises ``InvalidInput`` if there is none."""
        data = self._read(CHECKPOINT, note.MAX_NOTE_BYTES)
        if data is None:
            raise InvalidInput(f"{CHECKPOINT}: there is no such file in the folder")
        return data

    def size(self, tile: Tile) -> int:
        """Of the file, in bytes; 0 if it is not there."""
        try:
            return (self._path / tile.path()).stat().st_size
        except OSError:
            return 0

    def read(self, tile: Tile) -> bytes | None:
        """The file, or None if it is not there. Raises ``InvalidInput`` if it is larger than such
        a tile can be, or cannot be read."""
        each = merkle.HASH_BYTES if tile.level is not None else MAX_ENTRY_BYTES + 2
        return self._read(tile.path(), each * tile.width)

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be read: {error.strerror}") from error
        if len(data) > most:
            raise InvalidInput(f"{name}: larger than such a file can be")
        return data
