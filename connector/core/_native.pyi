"""The Rust crate in ``rust/``: what ``native`` gives to it, and what comes back."""

from collections.abc import Sequence
from pathlib import Path

from connector.core.interface import Claim, Keys

def detail() -> str: ...
def make_records(
    keys: Keys,
    use_ids: bytes,
    served: bytes,
    amounts: Sequence[tuple[int, bytes]],
    salts: bytes,
    names: tuple[str, str, str],  # scope, purpose, reporter
    head: bytes,
    number: int,
    time_ms: int,
    index: int,
    window: tuple[int, int],  # first and last millisecond
    left: int | None,
    running: Sequence[bytes],
) -> tuple[bytes, bytes, int, bytes, list[tuple[int, int]]]: ...
def leaf_hashes(packed: bytes) -> bytes: ...
def offsets(packed: bytes, skip: int, step: int) -> list[int]: ...
def extend(
    size: int, subtrees: Sequence[bytes], hashes: bytes
) -> tuple[list[bytes], dict[int, bytes]]: ...
def read_records(
    keys: Keys, packed: bytes, index: int
) -> list[tuple[str, int, int, bytes, bytes, int, int] | bytes]: ...
def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None: ...
def verify_inclusions(claims: Sequence[Claim]) -> None: ...
def open_keys(folder: Path) -> Keys: ...
