"""Leaves from the middle of a log, by a place: over frames, commits and segments."""

from __future__ import annotations

from connector.adapters.segments.files import Files
from connector.adapters.segments.frames import (
    FRAME_HEAD,
    HEADER_BYTES,
    Broken,
    Type,
    read_head,
)

WINDOW = 16_384  # bytes read at a time


def packed_leaves(files: Files, position: int, offset: int, skip: int, count: int) -> bytes:
    """``count`` leaves, packed, after skipping ``skip``, from the frame at ``position`` of the log
    and ``offset`` in its payload on. Raises ``Broken`` and ``OSError``."""
    walk = _Walk(files, position)
    found: list[bytes] = []
    while count:
        type_, length = walk.frame()
        if type_ is Type.LEAF:
            leaf = walk.take(length)
            if skip:
                skip -= 1
            else:
                found.append(length.to_bytes(2) + leaf)
                count -= 1
        elif type_ is Type.BUNDLE:
            walk.skip(offset)
            left = length - offset
            while left and count:
                head = walk.take(2)
                size = int.from_bytes(head)
                left -= 2 + size
                if left < 0:
                    raise Broken
                if skip:
                    walk.skip(size)
                    skip -= 1
                else:
                    found.append(head + walk.take(size))
                    count -= 1
            walk.skip(left)
        else:
            walk.skip(length)
        offset = 0
    return b"".join(found)


class _Walk:
    """A reader that goes from segment to segment."""

    def __init__(self, files: Files, position: int) -> None:
        self._files = files
        self._segment = files.start_of(position)
        self._at = position - self._segment  # where the window's unread bytes begin
        self._window = b""
        self._read = 0  # bytes of the window that were taken

    def frame(self) -> tuple[Type, int]:
        """The next frame's type and length, in the next segment if this one is at its end."""
        if not self._fill(FRAME_HEAD):
            following = self._files.after(self._segment)
            if following != self._segment + self._at:
                raise Broken
            self._segment, self._at = following, HEADER_BYTES
            self._window, self._read = b"", 0
        return read_head(self.take(FRAME_HEAD))

    def take(self, count: int) -> bytes:
        if not self._fill(count):
            raise Broken
        data = self._window[self._read : self._read + count]
        self.skip(count)
        return data

    def skip(self, count: int) -> None:
        self._read += count
        self._at += count

    def _fill(self, count: int) -> bool:
        """Have ``count`` bytes in the window; False if the segment ends before."""
        if len(self._window) - self._read < count:
            self._window = self._files.read(self._segment, self._at, max(count, WINDOW))
            self._read = 0
        return len(self._window) - self._read >= count
