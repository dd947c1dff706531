"""Maps of keys against a dictionary: whatever is done to them in whatever order."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from connector.core.interface import Keys
from tests.keymaps import KINDS, key, open_keys

UNIVERSE = 400
# Most keys are spread as hashes are; some lie as close to each other as keys can.
SOME_KEYS = [key(i) for i in range(UNIVERSE)] + [b"close to " + bytes((i,)) for i in range(40)]
numbers = st.integers(0, len(SOME_KEYS) - 1)


class Maps(RuleBasedStateMachine):
    """The log's leaves are counted here, as the meter counts them; each has a key or none."""

    kinds = KINDS

    @initialize(kind=st.sampled_from(KINDS))
    def open(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kind = kind
        self.size = 0  # of the log
        self.settled: dict[bytes, int] = {}
        self.staged: dict[bytes, int] = {}
        self.frozen: list[tuple[int, dict[bytes, int]]] = [(0, {})]
        self.keys: Keys = open_keys(kind, self.folder)

    @rule(chosen=st.lists(numbers, max_size=60), without=st.integers(0, 3))
    def stage(self, chosen: list[int], without: int) -> None:
        index = self.size + len(self.staged)
        for number in chosen:
            found = SOME_KEYS[number]
            known = self.settled.get(found, self.staged.get(found))
            assert self.keys.find(found) == known
            self.keys.stage(found, index)
            if known is None:
                self.staged[found] = index
            index += 1
        self.end = index + without

    @rule(commit=st.booleans())
    def decide(self, commit: bool) -> None:
        if commit:
            self.keys.settle()
            self.settled.update(self.staged)
            self.size = max(self.size, getattr(self, "end", 0))
        else:
            self.keys.discard()
        self.staged.clear()

    @rule(wait=st.booleans())
    def freeze(self, wait: bool) -> None:
        if self.staged:
            self.decide(True)
        self.keys.freeze(self.size)
        self.frozen.append((self.size, dict(self.settled)))
        if wait:
            self.keys.wait()
            assert self.keys.covered == self.size
            assert self.keys.pending == 0

    @rule(kind=st.sampled_from(KINDS))
    def reopen(self, kind: str) -> None:
        """What was frozen is there; the log is replayed from where the files end."""
        self.keys.close()
        self.keys = open_keys(kind, self.folder)
        covered = self.keys.covered
        assert covered == self.frozen[-1][0]
        self.settled = dict(self.frozen[-1][1])
        self.staged.clear()
        self.size = max(self.size, covered)

    @rule()
    def clear(self) -> None:
        self.keys.clear()
        self.settled, self.staged, self.frozen = {}, {}, [(0, {})]

    @rule(chosen=st.lists(numbers, max_size=30))
    def find(self, chosen: list[int]) -> None:
        for number in chosen:
            found = SOME_KEYS[number]
            assert self.keys.find(found) == self.settled.get(found, self.staged.get(found))

    @invariant()
    def is_counted(self) -> None:
        keys: Any = self.keys
        assert keys.trouble == ""
        assert 0 <= keys.pending <= UNIVERSE * 60
        assert keys.runs <= 20

    def teardown(self) -> None:
        for found in SOME_KEYS:
            assert self.keys.find(found) == self.settled.get(found, self.staged.get(found))
        self.keys.close()
        shutil.rmtree(self.folder)


def test_maps_of_keys_are_as_a_dictionary(tmp_path: Path) -> None:
    for kind in KINDS:
        try:
            open_keys(kind, tmp_path / kind).close()
        except pytest.skip.Exception:
            pytest.skip("compares both cores; the native one was not built")
    run_state_machine_as_test(Maps, settings=settings(stateful_step_count=30, max_examples=60))
