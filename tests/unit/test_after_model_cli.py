"""python -m after_model: predict, export and adapt as a user types them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from after_model import __main__ as cli
from after_model import predicting
from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.audio import Utterance
from after_model.classifier import EmotionClassifier
from after_model.labels import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
LABELS = LabelSpace(("hum", "hiss"))


@pytest.fixture(scope="module")
def learner(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, recordings: list[Utterance]
) -> ActiveLearner:
    """One that has learnt from all sixteen recordings; hums are even."""
    config = LearnerConfig(backbone=str(tiny_backbone), budget_share=1.0, rounds=1)
    made = ActiveLearner(recordings, LABELS, config, tmp_path_factory.mktemp("learner"))
    made.adapt()
    made.tell({u.id: "hiss" if int(u.id) % 2 else "hum" for u in recordings})
    made.train()
    return made


@pytest.fixture
def folder(tmp_path: Path, recordings: list[Utterance]) -> Path:
    """Recordings below a folder, one of them damaged, and a file that is no recording."""
    (tmp_path / "audio" / "deep").mkdir(parents=True)
    for i, utterance in enumerate(recordings[:4]):
        place = tmp_path / "audio" / ("deep" if i > 1 else "")
        (place / utterance.path.name).write_bytes(utterance.path.read_bytes())
    (tmp_path / "audio" / "damaged.wav").write_bytes(b"RIFF")
    (tmp_path / "audio" / "notes.txt").write_text("not a recording")
    return tmp_path / "audio"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_becomes_a_table_and_what_is_damaged_is_said(
    learner: ActiveLearner, folder: Path, capsys
) -> None:
    code, out, err = run(capsys, "predict", learner.folder, folder)
    found = rows(out)
    assert code == cli.UNREADABLE
    assert [Path(row["file"]).name for row in found] == ["00.wav", "01.wav", "02.wav", "03.wav"]
    assert [row["emotion"] for row in found] == ["hum", "hiss", "hum", "hiss"]
    for row in found:
        assert float(row["hum"]) + float(row["hiss"]) == pytest.approx(1, abs=2e-6)
        assert row["emotion"] == max(LABELS.names, key=lambda name: float(row[name]))
    assert "damaged.wav" in err
    assert "4 of 5 recordings" in err
    assert "notes.txt" not in out + err


def test_the_table_says_what_the_learner_says(
    learner: ActiveLearner, recordings: list[Utterance], capsys
) -> None:
    code, out, _ = run(capsys, "predict", learner.folder, *[u.path for u in recordings])
    found = [[float(row[name]) for name in LABELS.names] for row in rows(out)]
    assert code == 0
    # the learner reads its features in half precision
    np.testing.assert_allclose(found, learner.predict(recordings).probs, atol=5e-3)


def test_json_has_the_same_and_the_reasons(learner: ActiveLearner, folder: Path, capsys) -> None:
    _, table, _ = run(capsys, "predict", learner.folder, folder)
    code, out, _ = run(capsys, "predict", learner.folder, folder, "--format", "json")
    told = json.loads(out)
    assert code == cli.UNREADABLE
    assert [{"file": p["file"], "emotion": p["emotion"]} for p in told["predictions"]] == [
        {"file": row["file"], "emotion": row["emotion"]} for row in rows(table)
    ]
    assert told["predictions"][0]["probabilities"].keys() == set(LABELS.names)
    (lost,) = told["unreadable"]
    assert Path(lost["file"]).name == "damaged.wav"
    assert lost["reason"]
    assert lost["fix"]


def test_patterns_and_files_are_found_once_each(folder: Path) -> None:
    named = [str(folder / "deep" / "*.wav"), str(folder / "deep" / "02.wav"), str(folder)]
    found = [path.name for path in predicting.find(named)]
    assert found == ["02.wav", "03.wav", "00.wav", "01.wav", "damaged.wav"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (tmp_path / "take[1].wav").touch()
    assert predicting.find([str(tmp_path / "take[1].wav")]) == [tmp_path / "take[1].wav"]


def test_a_file_that_is_not_there_is_reported_like_any_other(
    learner: ActiveLearner, recordings: list[Utterance], capsys
) -> None:
    code, out, err = run(capsys, "predict", learner.folder, recordings[0].path, "gone.wav")
    assert (code, len(rows(out))) == (cli.UNREADABLE, 1)
    assert "gone.wav: does not exist" in err


@pytest.mark.parametrize("given", ["empty", "empty/*.flac"])
def test_nothing_to_predict_is_an_error(
    given: str, learner: ActiveLearner, tmp_path: Path, capsys
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(capsys, "predict", learner.folder, tmp_path / given)
    assert (code, out) == (1, "")
    assert "no recording there" in err


def test_a_folder_without_a_model_says_which_would_do(tmp_path: Path, capsys) -> None:
    code, _, err = run(capsys, "predict", tmp_path, "x.wav")
    assert code == 1
    assert "holds no classifier.json" in err
    code, _, err = run(capsys, "predict", tmp_path / "gone", "x.wav")
    assert "does not exist" in err
    assert not list(tmp_path.iterdir())


def test_long_recordings_are_left_out_or_heard_as_one_likes(
    learner: ActiveLearner, tmp_path: Path, capsys
) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.random.default_rng(0).normal(size=16_000 * 5) * 0.1, 16_000)
    code, _, err = run(capsys, "predict", learner.folder, long, "--max-seconds", 4)
    assert code == cli.UNREADABLE
    assert "lasts 5.0 s, more than 4 s" in err
    assert run(capsys, "predict", learner.folder, long, "--max-seconds", 6)[0] == 0


def test_a_class_called_like_a_column_has_one_of_its_own(
    learner: ActiveLearner, recordings: list[Utterance], tmp_path: Path, capsys
) -> None:
    model, _ = predicting.load(learner.folder)
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model", LabelSpace(("emotion", "file")))
    _, out, _ = run(capsys, "predict", tmp_path / "model", recordings[0].path)
    assert out.splitlines()[0] == "file,emotion,emotion (probability),file (probability)"


def test_an_exported_folder_predicts_the_same_and_says_what_it_is(
    learner: ActiveLearner, folder: Path, tmp_path: Path, capsys
) -> None:
    code, out, _ = run(capsys, "export", learner.folder, "--to", tmp_path / "out", "--no-onnx",
                       "--licence", "Made here.")  # fmt: skip
    assert code == 0
    assert "README.md" in out
    assert run(capsys, "predict", tmp_path / "out", folder) == run(
        capsys, "predict", learner.folder, folder
    )
    said = (tmp_path / "out" / "README.md").read_text()
    assert "From 16 labels of 16 recordings" in said
    assert "Made here." in said
    assert "hum, hiss" in said
    assert "95 % interval" in said


def test_every_place_of_a_model_is_understood(learner: ActiveLearner) -> None:
    version = learner.models.path(learner.models.current() or "")
    places = [learner.folder, learner.models.folder, version]
    assert {predicting.model_folder(place) for place in places} == {version}
    assert isinstance(predicting.load(version)[0], EmotionClassifier)


def as_typed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [sys.executable, "-m", "after_model", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_as_a_program_it_keeps_the_table_apart_from_what_it_says(
    learner: ActiveLearner, folder: Path, tmp_path: Path
) -> None:
    done = as_typed("predict", learner.folder, folder, "--out", tmp_path / "table.csv")
    assert done.returncode == cli.UNREADABLE
    assert done.stdout == ""
    assert len(rows((tmp_path / "table.csv").read_text())) == 4
    assert "Traceback" not in done.stderr


def test_help_teaches_every_command() -> None:
    done = as_typed("--help")
    for command in ("predict", "export", "adapt"):
        assert f"after_model {command}" in done.stdout


def test_adapt_is_the_same_door(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["adapt", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "usage: python -m after_model adapt" in said
    assert "--hold-out" in said
