"""Where corpora lie, what counts as their labels, and what their loaders are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fake_runs
import layouts
import pytest

from simulate import run
from simulate.command import roots
from simulate.command.request import parse
from simulate.command.values import UsageError
from simulate.runs.store import Store

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """write(text) -> the file of roots, in the folder that commands are given in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(roots.VARIABLE, raising=False)
    for name in ("EmoDB", "RAVDESS"):
        (tmp_path / name).mkdir()

    def call(text: str) -> Path:
        return layouts.write(tmp_path / roots.FILE, text)

    return call


BOTH = '[roots]\nemodb = "EmoDB"\nravdess = "RAVDESS"\n'


def test_a_root_that_is_not_given_is_the_files(write: Write, tmp_path: Path) -> None:
    write(BOTH)
    assert parse(["--corpus", "emodb"]).root == Path("EmoDB")
    assert parse(["--corpus", "emodb", "--root", "RAVDESS"]).root == Path("RAVDESS")


def test_a_merge_finds_the_roots_of_all_its_members(write: Write) -> None:
    write(BOTH)
    found = parse(["--corpus", "emodb+ravdess"]).root
    assert found == {"emodb": Path("EmoDB"), "ravdess": Path("RAVDESS")}


def test_paths_are_relative_to_the_file_and_know_the_home(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = layouts.write(tmp_path / "below/mine.toml", '[roots]\nemodb = "../EmoDB"\n')
    file.write_text(file.read_text() + 'ravdess = "~/RAVDESS"\n')
    found = roots.find(file)
    assert found.paths["emodb"].resolve() == (tmp_path / "EmoDB").resolve()
    assert found.paths["ravdess"] == tmp_path / "RAVDESS"


def test_the_option_goes_before_the_environment_and_that_before_the_folders_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write(BOTH)
    assert roots.find(None).file == Path(local.name)
    named = layouts.write(tmp_path / "named.toml", "[roots]\n")
    monkeypatch.setenv(roots.VARIABLE, str(named))
    assert roots.find(None).file == named
    assert roots.find(local).file == local


@pytest.mark.parametrize(
    ("text", "corpus", "words"),
    [
        ('[roots]\nemodb = "EmoDB"\n', "ravdess", ["after.toml", "ravdess = ", "--root"]),
        ('[roots]\nemodb = "EmoDB"\n', "emodb+ravdess", ["after.toml", "has no ravdess"]),
        ('[roots]\nemodb = "Nowhere"\n', "emodb", ["after.toml", "emodb", "Nowhere", "mend"]),
        ('[roots]\nemodbb = "EmoDB"\n', "emodb", ["after.toml", "no corpus 'emodbb'"]),
        ("[roots]\nemodb = 3\n", "emodb", ["after.toml", "emodb", "3 is no path"]),
        ('[roots]\nmerged = "EmoDB"\n', "emodb", ["merged", "its members"]),
        ('emodb = "EmoDB"\n', "emodb", ["after.toml", "no [roots]"]),
        ('[roots]\n[rots]\nemodb = "EmoDB"\n', "emodb", ["after.toml", "rots"]),
        ("[roots\n", "emodb", ["after.toml", "no TOML"]),
    ],
)
def test_what_the_file_lacks_is_told_with_file_key_and_fix(
    text: str, corpus: str, words: list[str], write: Write
) -> None:
    write(text)
    with pytest.raises(UsageError) as caught:
        parse(["--corpus", corpus])
    assert not [word for word in words if word not in str(caught.value)]


def test_a_named_file_that_is_not_there_is_told(write: Write) -> None:
    with pytest.raises(UsageError, match=r"--roots .*no such file"):
        parse(["--corpus", "emodb", "--roots", "elsewhere.toml"])


# --- labels and the loaders' options


def test_options_of_a_loader_are_what_the_loader_takes() -> None:
    given = ["--option", "utterances=12", "--option", "demo.seed=3", "--option", "cremad.votes=x"]
    assert parse(given).loading == {"utterances": 12, "seed": 3}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("modality", "KEY=VALUE"),
        ("modality=face", "it has utterances, seed"),
        ("progress=silent", "it has utterances, seed"),
        ("utterances=many", "whole number"),
        ("kremad.votes=x", "no corpus 'kremad'"),
    ],
)
def test_options_that_no_loader_takes_are_refused(option: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(["--option", option])


def test_a_label_policy_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="there are release, majority"):
        parse(["--labels", "mean"])
    assert parse(["--labels", "rater:E2"]).labels == "rater:E2"


@pytest.fixture
def rated(tmp_path: Path, write_wav: Callable[..., Path]) -> Path:
    """The tiny corpus by three raters, of whom the third says anger of every third recording."""
    manifest = fake_runs.tiny_corpus(tmp_path, write_wav)
    lines = ["path,label,speaker,rater"]
    for number, line in enumerate(manifest.read_text().splitlines()[1:]):
        path, label, speaker = line.split(",")
        third = "anger" if number % 3 == 0 else label
        lines += [f"{path},{label},{speaker},{rater}" for rater in ("r1", "r2")]
        lines.append(f"{path},{third},{speaker},r3")
    return layouts.write(manifest, "\n".join(lines) + "\n")


@pytest.mark.parametrize("labels", ["soft", "majority", "rater:r3"])
def test_runs_learn_by_the_chosen_labels_and_the_report_names_them(
    labels: str, rated: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulate.runs import running

    asked = []
    real = running.opened

    def opened(*arguments: object) -> object:
        view, evaluator = real(*arguments)  # type: ignore[arg-type]
        asked.append(view)
        return view, evaluator

    monkeypatch.setattr(running, "opened", opened)
    monkeypatch.setattr(run, "execute", fake_runs.execute_here)
    where = ["--root", str(rated), "--store", str(tmp_path / "runs"), "--workers", "1"]
    small = ["--folds", "2", "--shares", "50", "--backbone", str(tiny_backbone)]
    assert run.main([*where, *small, "--labels", labels], running.work) == 0
    assert len(Store(tmp_path / "runs/rows").ids()) == 4
    weights = {str(view.ask([view.items[0].id]).popitem()[1]) for view in asked}
    assert any("{" in one for one in weights) == (labels == "soft")
    page = (tmp_path / "runs/manifest-demo/report.html").read_text()
    assert f"labels by the policy &#39;{labels}&#39;" in page
