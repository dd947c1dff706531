"""``ports.receipts.LogStorage`` on append-only files: see ``log``; for the bytes, ``frames``."""

from connector.adapters.segments.log import SegmentLog

__all__ = ["SegmentLog"]
