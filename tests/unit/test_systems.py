"""What every system keeps to: it learns from training recordings and asked labels alone, the same
seed gives the same stages, and its name holds every value.

A new system is held to all of it by being in its folder; EXAMPLES may make it small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import CLASSES, PARTS, tones
from small_systems import EXTRA, SMALL

from after_model.active_learning import LearnerConfig
from after_model.classifier.finetuning import TrainingConfig
from after_model.tapt import TaptConfig
from simulate import systems
from simulate.cache import Cache
from simulate.data import Corpus
from simulate.identity import digest
from simulate.protocols import Protocol, folds_of
from simulate.runs.plan import Arm, Run
from simulate.runs.specification import Content, Place
from simulate.systems import Context, System
from simulate.systems.after import After
from simulate.systems.probe import RandomProbe
from simulate.task import opened

PROTOCOL = Protocol("official", validation_share=0.2)


def paper(backbone: str) -> After:
    learner = LearnerConfig.preset("paper", backbone=backbone)
    tapt = TaptConfig(epochs=1, batch_seconds=4.0)
    return After(replace(learner, training=TrainingConfig(epochs=1), tapt=tapt))


EXAMPLES: dict[str, Callable[[str], System]] = {
    "after": lambda backbone: After(LearnerConfig(backbone=backbone, speakers="off")),
    "after with TAPT and fine-tuning": paper,
    "probe": RandomProbe,
    **SMALL,
}
EVERY = sorted({*EXAMPLES, *systems.names()})


@pytest.fixture(params=EVERY)
def system(request: pytest.FixtureRequest, tiny_backbone: Path) -> System:
    if request.param in EXTRA:
        pytest.importorskip("opensmile")
    make = EXAMPLES.get(request.param)
    found = make(str(tiny_backbone)) if make else systems.get(request.param)()
    return found.resolved("cpu")


@dataclass(frozen=True)
class Learnt:
    """What a run did and what its models say of what they may know."""

    asked: tuple[str, ...]
    shares: list[float]
    models: list[np.ndarray]
    tested: list[np.ndarray]


def drive(system: System, corpus: Corpus, folder: Path, seed: int = 0) -> Learnt:
    """All that a runner does for a run."""
    (fold,) = folds_of(PROTOCOL, corpus)
    view, evaluator = opened(corpus, fold)
    cache = Cache(folder / "cache")
    context = Context((0.4, 0.7), seed, folder / "run", folder / "prepared", cache)
    system.encode(corpus.utterances, replace(context, folder=folder / "encode"))
    if system.preparation(seed) is not None:
        system.prepare(view.items, replace(context, folder=folder / "prepare"))
    shares, models, tested = [], [], []
    for stage in system.run(view, context):
        tested.append(evaluator.test(stage.predict).probs)
        models.append(stage.predict(view.items).probs)
        shares.append(stage.share)
    return Learnt(view.asked, shares, models, tested)


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_what_is_tested_changes_nothing_that_is_learnt(system: System, tmp_path: Path) -> None:
    one = drive(system, tones(tmp_path / "a"), tmp_path / "one")
    other = tones(tmp_path / "b", test_pitch=37.0, other_labels=True)
    two = drive(system, other, tmp_path / "two")
    assert (one.asked, one.shares) == (two.asked, two.shares)
    assert same(one.models, two.models)
    assert not same(one.tested, two.tested)  # otherwise the test part was not another


def test_stages_come_at_the_shares_that_were_asked_for(system: System, tmp_path: Path) -> None:
    learnt = drive(system, tones(tmp_path / "a"), tmp_path / "one")
    assert learnt.shares == [0.4, 0.7]
    assert len(learnt.asked) == int(0.7 * PARTS["train"])


def test_the_same_seed_gives_the_same_run(system: System, tmp_path: Path) -> None:
    corpus = tones(tmp_path / "a")
    one, two = (drive(system, corpus, tmp_path / name) for name in ("one", "two"))
    assert one.asked == two.asked
    assert same(one.tested, two.tested)


def test_every_value_of_a_system_is_in_its_name(system: System) -> None:
    assert digest(system.values()) == digest(replace(system).values())
    assert {field for field in vars(system)} == set(system.values())


@pytest.mark.parametrize("name", systems.names())
def test_a_system_is_found_by_its_name(name: str) -> None:
    assert systems.get(name).name == name


def test_an_unknown_system_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"known: after.*, probe"):
        systems.get("oracle")


def test_what_a_recording_is_encoded_to_does_not_depend_on_the_others(
    system: System, tmp_path: Path
) -> None:
    """encode() may be given test recordings: whatever it made of them, training is the same."""
    corpus = tones(tmp_path / "a")
    (fold,) = folds_of(PROTOCOL, corpus)
    alone = drive(system, corpus, tmp_path / "one")
    context = Context((0.4,), 0, tmp_path / "e", tmp_path / "p", Cache(tmp_path / "two" / "cache"))
    system.encode(corpus.pick(fold.train)[::-1], context)
    assert drive(system, corpus, tmp_path / "two").asked == alone.asked


def test_shares_too_near_for_the_training_part_are_refused(system: System) -> None:
    with pytest.raises(ValueError, match="further apart"):
        system.check((0.01, 0.02, 0.03), 40, 2)


def test_a_backbone_goes_by_its_weights_and_not_by_where_it_lies(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / tiny_backbone.name
    copy.mkdir(parents=True)
    for file in tiny_backbone.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    one, two = (EXAMPLES["after"](str(folder)) for folder in (tiny_backbone, copy))
    assert (one.values(), one.weights()) == (two.values(), two.weights())


def test_a_run_s_seed_and_shares_are_not_the_system_s() -> None:
    config = LearnerConfig(tapt=TaptConfig())
    seeded = replace(config, seed=3, shares=(0.5,), tapt=replace(TaptConfig(), seed=3))
    assert After(config).values() == After(seeded).values()


def test_arms_are_apart_by_what_they_do_and_not_by_how_they_are_called() -> None:
    def run(**changes: Any) -> str:
        content = Content("a", "b", "c", "d", (1, 1, 1, 0))
        arm = Arm("one", After(), (0.1, 0.2))
        place = Place("cpu", (("torch", "1"),), "code")
        whole = Run("tones", CLASSES, PROTOCOL, 0, arm, 0, content, place, "weights")
        return replace(whole, **changes).run_id

    assert run(arm=Arm("other name", After(), (0.1, 0.2))) == run(corpus="other name") == run()
    others = [
        run(arm=Arm("one", After(LearnerConfig(strategy="entropy")), (0.1, 0.2))),
        run(arm=Arm("one", RandomProbe(), (0.1, 0.2))),
        run(arm=Arm("one", After(), (0.1, 0.3))),
        run(seed=1),
        run(weights="others"),
        run(classes=CLASSES[::-1]),
        run(protocol=replace(PROTOCOL, transductive=True)),
    ]
    assert len({run(), *others}) == 1 + len(others)
