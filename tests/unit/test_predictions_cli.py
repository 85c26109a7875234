"""`python -m backend predictions`: what is known of every recording, written or sent."""

from __future__ import annotations

import csv
import io
import json

import pytest
from web_fixtures import CONFIG, LABELS, add_project, entry, make_settings, record, release

from backend.__main__ import main
from backend.cli import predictions
from backend.label_studio.predictions import LabelStudio
from backend.store import scores
from backend.store.projects import BESIDE, Projects
from backend.worker.ordering import Order, Orderer

VERSION, STORED = "after-s00003-n0004", "after-all-s00003-n0004"
SURE, UNSURE = (0.97, 0.01, 0.01, 0.01), (0.25, 0.25, 0.25, 0.25)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTER_DATA", str(tmp_path))
    return make_settings(tmp_path)


@pytest.fixture
def folder(settings):
    """Three tasks, one of which can't be read."""
    folder = add_project(settings)
    folder.save_tasks({key: record() for key in (1, 2, 3)})
    release(folder, "after-r00-n0000", {1: entry(*SURE), 2: entry(*UNSURE), 3: entry()})
    said = scores.read(folder.path)
    scores.write(folder.path, scores.PoolScores(VERSION, said.tasks, said.probs))
    return folder


def test_a_table_has_a_row_a_recording_and_question(folder, tmp_path, capsys):
    assert main(["predictions", "1", "--csv", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [(row["task"], row["question"], row["label"]) for row in rows] == [
        ("1", "emotion", "angry"), ("2", "emotion", "angry"),
    ]  # fmt: skip
    assert [float(row["score"]) for row in rows] == pytest.approx([0.88, 0.0], abs=0.01)
    assert json.loads(rows[0]["probabilities"]) == dict(zip(LABELS, SURE, strict=True))
    said = capsys.readouterr()
    assert "2 predictions" in said.err
    assert "1 tasks have none" in said.err


def test_standard_output_has_nothing_else(folder, capsys):
    assert main(["predictions", "1", "--json", "-"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [(e["task"], e["model_version"]) for e in written] == [(1, STORED), (2, STORED)]
    assert written[0]["result"][0]["value"] == {"choices": ["angry"]}
    assert main(["predictions", "1", "--csv", "-"]) == 0
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out)))) == 3


def test_without_a_model_there_are_none(settings, capsys):
    release(add_project(settings), tasks={1: entry()})
    assert main(["predictions", "1", "--csv", "-"]) == 1
    assert "no model yet" in capsys.readouterr().err


class Server(LabelStudio):
    """Keeps what it is sent."""

    def __init__(self, config=CONFIG):
        self.url, self.config, self.sent, self.cleared = "http://x", config, {}, []

    def project(self, _project_id):
        return type("Info", (), {"label_config": self.config})

    def push_beside(self, _project_id, version, found, progress):
        self.sent[version] = {p.task: p.score for p in found}
        progress(len(found), len(found))
        return len(found)

    def clear(self, _project_id, tasks):
        self.cleared += tasks


def push(settings, monkeypatch, server):
    monkeypatch.setattr(predictions, "LabelStudio", lambda *_: server)
    return predictions.run(settings, 1, push=True, csv_file=None, json_file=None)


def test_they_are_stored_under_a_version_of_their_own(folder, settings, monkeypatch):
    server = Server()
    assert STORED in push(settings, monkeypatch, server)
    assert list(server.sent) == [STORED]
    assert list(server.sent[STORED]) == [1, 2]


def test_labels_that_were_changed_are_not_sent(folder, settings, monkeypatch):
    server = Server(CONFIG.replace('"happy"', '"glad"'))
    with pytest.raises(ValueError, match="wait until the worker has followed"):
        push(settings, monkeypatch, server)
    assert not server.sent


def test_windows_are_cleared_with_care_from_then_on(folder, settings, monkeypatch):
    """Clearing a task's predictions takes those of everybody."""
    server, project = Server(), Projects(settings).get(1)
    orderer = Orderer(settings, None)
    monkeypatch.setattr("backend.worker.ordering.follows", lambda _: "steps 1")
    intake = type("Intake", (), {"finished": set(), "controls": (), "tasks": {1, 2, 3}})

    def advance():
        order = Order("after-s00003-n0004", "steps 1", frozenset({1}), stale={2}, foreign=False)
        orderer.advance(server, project, folder, intake, order, 0.0)
        return order.stale

    assert advance() == set()
    assert server.cleared == [2]
    push(settings, monkeypatch, server)
    assert folder.read(BESIDE, None) == {"version": STORED}
    assert advance() == {2}
    assert server.cleared == [2]
