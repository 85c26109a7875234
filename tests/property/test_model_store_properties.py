"""Any order of publishing, failing, rolling back, pruning and reopening, against a plain list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from after_model.model_store import ModelStore, ModelStoreError


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = ModelStore(self.folder)
        self.versions: list[str] = []
        self.current: str | None = None
        self.published = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(switch=st.booleans())
    def publish(self, switch: bool) -> None:
        self.published += 1
        version = f"v{self.published}"
        self.store.publish(
            version, lambda folder: (folder / "name").write_text(version) and None, {}, switch
        )
        self.versions.append(version)
        if switch:
            self.current = version

    @rule()
    def fail_to_publish(self) -> None:
        def write(folder: Path) -> None:
            (folder / "half").touch()
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space left"):
            self.store.publish("failed", write, {})

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        with pytest.raises(ModelStoreError):
            self.store.publish(data.draw(st.sampled_from(self.versions)), lambda _: None, {})

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        self.current = data.draw(st.sampled_from(self.versions))
        self.store.rollback(self.current)

    @rule(keep=st.integers(1, 4))
    def prune(self, keep: int) -> None:
        kept = [v for v in self.versions if v in self.versions[-keep:] or v == self.current]
        assert self.store.prune(keep) == [v for v in self.versions if v not in kept]
        self.versions = kept

    @rule()
    def reopen(self) -> None:
        self.store = ModelStore(self.folder)

    @invariant()
    def the_store_says_what_was_done(self) -> None:
        assert self.store.versions() == self.versions
        assert self.store.current() == self.current
        for version in self.versions:
            assert (self.store.path(version) / "name").read_text() == version
        assert {path.name for path in self.folder.iterdir()} <= {"versions", "current", "lock"}


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
