"""README and docs/: their Python runs, links lead somewhere, every setting and option is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import tones

from after_model import acquisition, initialization
from after_model.active_learning import LearnerConfig
from after_model.audio import Utterance
from backend.settings import Settings
from simulate import data, systems
from simulate.cache import Cache
from simulate.command import cli
from simulate.data import policies
from simulate.data.loaders import manifest
from simulate.efficiency import __main__ as efficiency
from simulate.protocols import Protocol, folds_of
from simulate.systems import Context
from simulate.task import opened

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    """The Python of a page."""
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_readme_links_every_page_and_names_how_to_begin() -> None:
    readme = text("README.md")
    assert not [p.name for p in (ROOT / "docs").glob("*.md") if f"(docs/{p.name})" not in readme]
    for command in ("make run", "make test", "simulate/run.py", "docker compose"):
        assert command in readme


def test_settings_page_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"\bAFTER_[A-Z_]*[A-Z]\b", text("docs/settings.md")))
    assert named - {"AFTER_LABEL_STUDIO_VENV"} == {
        f"AFTER_{n.upper()}" for n in Settings.model_fields
    }


def test_simulation_page_names_every_option_and_no_other() -> None:
    parsers = [cli.parser(), efficiency._parser()]
    options = {o for p in parsers for action in p._actions for o in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text("docs/simulation.md")))
    assert named | {"--help", "-h"} == options


def test_corpora_page_names_every_corpus_policy_option_and_column_of_a_manifest() -> None:
    page = text("docs/corpora.md")
    names, own = data.names(), {"allow_partial", "progress"}
    options = {o for name in names for o in data.options(name)} - own
    wanted = [*names, *policies.names(), *manifest.COLUMNS, *options]
    assert not [name for name in wanted if f"`{name}`" not in page]


def test_method_page_names_every_strategy_start_and_field_that_the_presets_differ_in() -> None:
    page = text("docs/method.md")
    default, paper = LearnerConfig.preset("default"), LearnerConfig.preset("paper")
    fields = [n for n, value in vars(default).items() if value != getattr(paper, n)]
    names = [*acquisition.names(), *initialization.names(), *fields]
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_readmes_python_labels_a_pool(
    recordings: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "folder": recordings[0].path.parent,
        "answer": lambda name: "joy" if int(name) % 2 else "anger",
        "path": recordings[0].path,
    }
    for block in blocks("README.md"):
        exec(block, names)
    assert names["probs"].shape == (len(names["pool"]), 3)
    np.testing.assert_allclose(names["probs"].sum(axis=1), 1, atol=1e-5)
    assert "after-r00" in capsys.readouterr().out
    assert len(names["learner"].step(10).wanted) == 10


def test_the_example_of_a_strategy_is_found_by_its_file_and_asks_for_the_even_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, _ = blocks("docs/extending.md")
    (tmp_path / "even_split.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(acquisition, "__path__", [*acquisition.__path__, str(tmp_path)])
    pool = acquisition.Pool(probs=np.array([[0.9, 0.1, 0], [0.4, 0.4, 0.2], [0.5, 0.3, 0.2]]))
    strategy = acquisition.get("even-split")
    assert strategy.select(pool, 2, np.random.default_rng(0)).tolist() == [1, 2]


def test_the_example_of_a_system_is_found_by_its_file_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, example = blocks("docs/extending.md")
    (tmp_path / "mean_mfcc.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, str(tmp_path)])
    corpus = tones(tmp_path / "corpus")
    (fold,) = folds_of(Protocol("official"), corpus)
    view, evaluator = opened(corpus, fold)
    context = Context((1.0,), 0, tmp_path / "run", tmp_path / "prepared", Cache(tmp_path / "cache"))
    (stage,) = systems.get("mean-mfcc")().run(view, context)
    assert evaluator.test(stage.predict).scores["ua"] > 0.9
