"""python -m backend export: labels as tables and audformat, and the model that serves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from web_fixtures import add_project, described, make_settings

from after_model import predicting
from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.audio import Utterance
from after_model.labels import LabelSpace
from backend.cli import export, labelled
from backend.label_studio import labeling
from backend.settings import Settings
from backend.store.projects import ProjectFolder, TaskRecord

CONFIG = """\
<View><Audio name="audio" value="$audio"/>
  <Choices name="emotion" toName="audio"><Choice value="hum"/><Choice value="hiss"/></Choices>
  <Choices name="what" toName="audio" choice="multiple">
    <Choice value="laughs" alias="laugh"/><Choice value="cries"/></Choices>
</View>"""


def annotation(who: int, emotion: str | None = None, *what: str, **values: Any) -> dict[str, Any]:
    """As Label Studio gives it."""
    given = {"emotion": [emotion] if emotion else [], "what": list(what)}
    return {
        "completed_by": who,
        "result": [
            {"from_name": name, "value": {"choices": chosen}}
            for name, chosen in given.items()
            if chosen
        ],
        "was_cancelled": False,
        "updated_at": f"2026-11-25T00:00:{who:02d}Z",
    } | values


ANNOTATED = [
    {"id": 1, "annotations": [annotation(1, "hum"), annotation(2, "hum"), annotation(3, "hiss")]},
    {"id": 2, "annotations": [annotation(1, "hiss", "laugh", "cries"), annotation(2, "hum")]},
    {"id": 3, "annotations": [annotation(1, was_cancelled=True)]},
    {"id": 4, "annotations": [annotation(1, "hum"),
                              annotation(1, "hiss", updated_at="2026-11-26T00:00:00Z")]},
    {"id": 9, "annotations": [annotation(2, "hum")]},  # imported since the backend looked
]  # fmt: skip
TASKS = {
    i: TaskRecord({"audio": f"/data/upload/1/clip {i}.wav"}, {"audio": f"audio/{i}-abcd.wav"})
    for i in range(1, 6)
}


@pytest.fixture(autouse=True)
def _label_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project's Label Studio would answer."""

    class Project:
        label_config = CONFIG

    class Client:
        def __init__(self, url: str, api_key: str) -> None:
            assert (url, api_key) == ("http://localhost:8080", "k" * 40)

        def project(self, _project_id: int) -> Project:
            return Project()

        def annotated(self, _project_id: int) -> list[dict[str, Any]]:
            return ANNOTATED

    monkeypatch.setattr(export, "LabelStudio", Client)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return make_settings(tmp_path / "data")


@pytest.fixture
def folder(settings: Settings) -> ProjectFolder:
    """A project whose tasks were read and whose recordings are there, all but one."""
    made = add_project(settings, title="Call centre")
    made.audio.mkdir(parents=True)
    made.save_tasks(TASKS)
    for i in (1, 2, 5):
        (made.audio / f"{i}-abcd.wav").write_bytes(b"RIFF")
    return made


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_labels_are_as_training_counts_them(settings: Settings, folder, tmp_path: Path) -> None:
    said = export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    rows = {(r["task"], r["question"]): r for r in table(tmp_path / "out" / "labels.csv")}
    assert rows.keys() == {("1", "emotion"), ("2", "emotion"), ("4", "emotion"), ("9", "emotion"),
                           ("2", "what")}  # fmt: skip
    first = rows["1", "emotion"]
    assert first["label"] == "hum"
    assert json.loads(first["shares"]) == {"hum": 0.666667, "hiss": 0.333333}
    assert json.loads(first["votes"]) == [["hum"], ["hum"], ["hiss"]]
    assert first["audio"] == "/data/upload/1/clip 1.wav"
    assert first["file"] == "audio/1-abcd.wav"
    assert rows["2", "emotion"]["label"] == "hum|hiss"
    assert rows["2", "what"]["label"] == "laugh|cries"
    assert rows["4", "emotion"]["label"] == "hiss"  # the newer of an annotator's two
    assert rows["9", "emotion"]["file"] == rows["9", "emotion"]["audio"] == ""
    assert "no model" in said
    assert not (tmp_path / "out" / "models").exists()


def test_every_annotation_has_a_row_skipped_ones_too(
    settings: Settings, folder, tmp_path: Path
) -> None:
    export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    rows = [r for r in table(tmp_path / "out" / "annotations.csv") if r["question"] == "emotion"]
    assert [(r["task"], r["annotator"], r["choices"], r["skipped"]) for r in rows] == [
        ("1", "user-1", '["hum"]', "no"),
        ("1", "user-2", '["hum"]', "no"),
        ("1", "user-3", '["hiss"]', "no"),
        ("2", "user-1", '["hiss"]', "no"),
        ("2", "user-2", '["hum"]', "no"),
        ("3", "user-1", "[]", "yes"),
        ("4", "user-1", '["hum"]', "no"),
        ("4", "user-1", '["hiss"]', "no"),
        ("9", "user-2", '["hum"]', "no"),
    ]


def test_audio_is_copied_where_it_is_asked_for_and_there(
    settings: Settings, folder, tmp_path: Path
) -> None:
    said = export.run(settings, 1, tmp_path / "out", audio=True, onnx=False)
    copied = sorted(p.name for p in (tmp_path / "out" / "audio").iterdir())
    assert copied == ["1-abcd.wav", "2-abcd.wav"]  # of the labelled ones
    assert "2 of 3 recordings" in said


def test_audformat_reads_what_people_said(settings: Settings, folder, tmp_path: Path) -> None:
    import audformat

    export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    database = audformat.Database.load(str(tmp_path / "out" / "audformat"))
    assert set(database.tables) == {"files", "emotion", "emotion.votes", "what", "what.votes"}
    assert database.schemes["emotion"].labels == ["hum", "hiss"]
    emotion = database["emotion"].get()
    assert list(emotion.index) == [f"audio/{i}-abcd.wav" for i in (1, 2, 4)]
    assert emotion["label"].tolist()[::2] == ["hum", "hiss"]
    assert emotion["label"].isna().tolist() == [False, True, False]  # even votes
    assert emotion["share.hum"].tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    votes = database["emotion.votes"].get()
    assert votes["user-1"].tolist() == ["hum", "hiss", "hiss"]
    assert votes["user-3"].isna().tolist() == [False, True, True]
    assert database["files"].get()["task"].tolist() == [1, 2, 4]
    assert set(database.raters) == {"user-1", "user-2", "user-3", "votes"}


def test_without_audformat_the_fix_is_named(
    settings: Settings, folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    assert "requirements-export.txt" in said
    assert not (tmp_path / "out" / "audformat").exists()


def test_nothing_is_left_where_it_fails(
    settings: Settings, folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(labelled, "write_csv", fails)
    with pytest.raises(OSError, match="no space"):
        export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_the_serving_model_goes_along_with_its_history(
    settings: Settings, folder: ProjectFolder, tmp_path: Path, tiny_backbone: Path,
    recordings: list[Utterance],
) -> None:  # fmt: skip
    space = LabelSpace(("hum", "hiss"))
    control = described(labels=list(space.names))
    config = LearnerConfig(backbone=str(tiny_backbone), budget_share=1.0, rounds=1)
    learner = ActiveLearner(recordings, space, config, folder.learners / control["learner"])
    learner.tell({u.id: "hiss" if int(u.id) % 2 else "hum" for u in recordings})
    record = learner.train()
    result = vars(record) | {"learner": control["learner"], "promoted": True}
    models = {"emotion": (control["learner"], record.version)}
    folder.releases.publish("after-r00-n0016", models, 16)
    folder.add_history({
        "version": "after-r00-n0016", "created": "2026-11-25T00:00:00+00:00", "labelled": 16,
        "pool": 16, "controls": {"emotion": result},
    })  # fmt: skip
    export.run(settings, 1, tmp_path / "out", audio=False, onnx=False)
    exported = tmp_path / "out" / "models" / "emotion"
    model, names = predicting.load(exported)
    (found,) = predicting.predict(model, [recordings[0].path])
    assert names == space
    assert found.probs is not None
    assert names.names[found.probs.argmax()] == "hum"
    card = (exported / "README.md").read_text()
    assert "'Call centre'" in card
    assert "4 recordings have an answer" in card
    (row,) = table(tmp_path / "out" / "rounds.csv")
    assert (row["labels"], row["promoted"]) == ("16", "yes")
    right = round(record.validation["wa"] * 16)
    assert float(row["accuracy"]) == pytest.approx(right / 16, abs=1e-4)
    assert float(row["accuracy_low"]) < right / 16 <= float(row["accuracy_high"]) <= 1


def test_what_no_question_of_the_config_knows_is_no_answer() -> None:
    controls = labeling.controls(CONFIG)
    other = [{"id": 1, "annotations": [annotation(1, "roars")]}]
    assert list(labelled.labelled(controls, other, TASKS)) == []
    assert list(labelled.answers(controls, other)) == []
