"""Maps of keys for tests: both kinds, over folders of their own."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from connector.core.choose import choose
from connector.core.interface import Keys
from connector.errors import ConfigError

KINDS = ("python", "native")


def open_keys(kind: str, folder: Path) -> Keys:
    """Skips the test where the native core was not built."""
    try:
        return choose(kind).open_keys(folder)
    except ConfigError as error:
        pytest.skip(error.message)


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()[:10]


def fill(keys: Keys, first: int, end: int) -> None:
    """Key i for leaf i; settled."""
    for index in range(first, end):
        keys.stage(key(index), index)
    keys.settle()


def freeze(keys: Keys, size: int) -> None:
    """To the end."""
    keys.freeze(size)
    keys.wait()


def filled(kind: str, folder: Path, sizes: Sequence[int]) -> None:
    """Files of key i for leaf i, each run to one of the sizes; closed."""
    keys = open_keys(kind, folder)
    for first, end in zip((0, *sizes), sizes, strict=False):
        fill(keys, first, end)
        freeze(keys, end)
    assert keys.covered == sizes[-1]
    keys.close()


def until(met: Callable[[], bool]) -> None:
    """Wait for background work."""
    for _ in range(2_000):
        if met():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen in ten seconds")
