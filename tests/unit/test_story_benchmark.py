"""The story benchmark's pure parts; the story itself takes a Label Studio and minutes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from benchmarks.story import outcome, truth
from benchmarks.story.annotator import Annotator, Order, Served, orders, waits
from benchmarks.story.errors import StoryError
from benchmarks.story.outcome import Outcome, Quality, quality
from benchmarks.story.services import idle, learnt


@pytest.mark.parametrize(
    ("letter", "label"),
    [
        ("W", "anger"), ("L", "boredom"), ("E", "disgust"), ("A", "fear"), ("F", "happiness"),
        ("T", "sadness"), ("N", "neutral"),
    ],
)  # fmt: skip
def test_letter_6_of_an_emodb_name_is_its_label(letter, label):
    assert truth.from_name(f"wav/03a01{letter}a.wav") == label


@pytest.mark.parametrize("name", ["03a01Xa.wav", "clip 1.wav", "03a01.wav", "a03a01Fa.wav"])
def test_other_names_have_no_label(name):
    assert truth.from_name(name) is None


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_recording_without_a_label_is_named(tmp_path):
    with pytest.raises(StoryError, match=r"1 of 2 recordings .*other\.wav"):
        truth.read(folder_of(tmp_path, "03a01Fa.wav", "other.wav"), None)


def test_table_gives_labels_by_relative_or_absolute_path(tmp_path):
    audio = folder_of(tmp_path / "audio", "a/1.wav", "a/2.wav")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\na/1.wav,joy\n{audio}/a/2.wav,fear\n")
    assert truth.read(audio, table) == {"a/1.wav": "joy", "a/2.wav": "fear"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,label\n1.wav,joy\n", "columns"),
        ("path,label\n1.wav,\n", "line 2"),
        ("path,label\n1.wav,joy\n1.wav,fear\n", "line 3"),
        ("", "columns"),
    ],
)
def test_table_that_cannot_be_followed_is_refused(tmp_path, content, says):
    table = tmp_path / "labels.csv"
    table.write_text(content)
    with pytest.raises(StoryError, match=says):
        truth.from_table(table, tmp_path)


def test_task_is_known_by_the_path_below_the_linked_folder():
    data = {"audio": "/data/local-files/?d=wav-2/a%20b/c%2Bd.wav"}
    assert truth.recording(data) == "a b/c+d.wav"


def test_budget_is_rounded_down_and_leaves_a_recording():
    labels = {str(i): "joy" for i in range(535)}
    assert truth.share(labels, 20) == 107
    assert truth.share(labels, 0.01) == 1
    assert truth.share(labels, 100) == 534


# --- orders --------------------------------------------------------------------------------------


def served(*versions: str) -> list[Served]:
    """A recording every 2 s, labelled 1 s after it was opened."""
    return [Served(i, v, 2.0 * i, 2.0 * i + 1, 0.1 * i) for i, v in enumerate(versions)]


def test_order_is_timed_from_the_newest_label_it_knows():
    given = served("", "after-r00-n0000", "after-r00-n0000", "after-r01-n0002", "after-x")
    assert orders(given) == [
        Order("after-r00-n0000", 0, 2, 2.0),
        Order("after-r01-n0002", 2, 1, 6.0 - 3.0),
        Order("after-x", None, 1, None),
    ]


def test_waiting_is_median_and_longest():
    assert waits(served("", "", "", "")) == pytest.approx((0.15, 0.3))
    assert waits([]) == (0.0, 0.0)


class FakeLabelStudio:
    """Serves tasks in a fixed order; `busy` submissions are refused first."""

    def __init__(self, tasks: list[int], busy: int = 0) -> None:
        self.left, self.busy = tasks, busy
        self.given: list[tuple[int, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/projects/3/":
            return httpx.Response(200, json={"model_version": "after-r00-n0000"})
        if path == "/api/projects/3/next":
            found = {"id": self.left[0]} if self.left else None
            return httpx.Response(200 if found else 404, json=found)
        if self.busy:
            self.busy -= 1
            return httpx.Response(500)
        task = self.left.pop(0)
        assert path == f"/api/tasks/{task}/annotations/"
        choice = json.loads(request.content)["result"][0]["value"]["choices"][0]
        self.given.append((task, choice))
        return httpx.Response(201, json={})


def annotator(server: FakeLabelStudio) -> Annotator:
    answers = {7: "joy", 5: "fear", 9: "joy"}
    result = Annotator("http://studio", "token", 3, answers)
    result._http = httpx.Client(base_url="http://studio", transport=httpx.MockTransport(server))
    return result


def test_oracle_labels_what_is_served_up_to_the_budget():
    server = FakeLabelStudio([7, 5, 9])
    heard: list[int] = []
    given = annotator(server).label(2, 0.0, lambda so_far: heard.append(len(so_far)))
    assert server.given == [(7, "joy"), (5, "fear")]
    assert [(one.task, one.version) for one in given] == [
        (7, "after-r00-n0000"),
        (5, "after-r00-n0000"),
    ]
    assert heard == [1, 2]


def test_oracle_ends_where_nothing_is_left():
    server = FakeLabelStudio([7, 5, 9])
    assert len(annotator(server).label(10, 0.0, lambda _: None)) == 3


def test_refused_label_is_tried_again_and_counted(monkeypatch):
    monkeypatch.setattr("benchmarks.story.annotator.PAUSE_S", 0.0)
    server = FakeLabelStudio([7], busy=2)
    oracle = annotator(server)
    assert len(oracle.label(1, 0.0, lambda _: None)) == 1
    assert oracle.failures == 2


def test_oracle_gives_up_on_a_label_studio_that_refuses_everything(monkeypatch):
    monkeypatch.setattr("benchmarks.story.annotator.PAUSE_S", 0.0)
    with pytest.raises(StoryError, match="refused"):
        annotator(FakeLabelStudio([7], busy=1000)).label(1, 0.0, lambda _: None)


# --- what is shown -------------------------------------------------------------------------------


def test_status_section_says_when_all_is_done():
    section = {"running": None, "queued": [], "versions": [{"labelled": 9}, {"labelled": 4}]}
    assert idle(section)
    assert not idle(section | {"queued": [{"project": 1}]})
    assert not idle(section | {"running": {"stage": "TAPT"}})
    assert learnt(section) == 9
    assert learnt({"versions": []}) == 0


def test_quality_counts_every_class_the_same_for_ua():
    found = quality(["joy", "joy", "joy", "fear"], ["joy", "joy", "joy", "joy"])
    assert found == Quality(ua=0.5, wa=0.75, count=4)


STORY = Outcome(
    recordings=535,
    labels=107,
    unordered=3,
    version="after-r05-n0107",
    serving=Quality(0.8123, 0.83, 428),
    alike=Quality(0.81, 0.82, 428),
    random=[Quality(0.70, 0.71, 428), Quality(0.74, 0.75, 428)],
    orders=[Order("after-r00-n0000", 0, 14, 0.0), Order("after-r01-n0014", 14, 90, 12.4)],
    waits_s=(0.21, 1.4),
    failures=0,
    unread=0,
    minutes={"labelling": 3.0, "in all": 8.5},
)


def test_table_shows_served_beside_the_spread_of_random():
    console = Console(width=100, record=True, file=io.StringIO(), highlight=False)
    outcome.show(STORY, console)
    text = console.export_text()
    rows = {line.strip().split("  ")[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["served, after-r05-n0107"][2:] == ["0.812", "0.830", "428"]
    assert rows["random, 2 choices"][3:] == [
        "0.720", "±", "0.028", "0.730", "±", "0.028", "0.700", "0.740", "428",
    ]  # fmt: skip
    assert rows["after-r01-n0014"][1:] == ["14", "90", "12"]
    assert "labels: 107 of 535 (20%), 3 of them before there was an order" in text
    assert "labelling 3.0, in all 8.5" in text


def test_trouble_is_told_only_where_there_was_some():
    assert not any("refused" in line or "no label" in line for line in outcome.facts(STORY))
    troubled = outcome.facts(replace(STORY, failures=2, unread=1))
    assert any("refused: 2" in line for line in troubled)
    assert any("no label: 1" in line for line in troubled)


def test_numbers_are_written(tmp_path):
    outcome.write(tmp_path / "results" / "story.json", STORY)
    written = json.loads((tmp_path / "results" / "story.json").read_text())
    assert written["random"][1]["ua"] == 0.74
    assert written["orders"][1] == {
        "version": "after-r01-n0014", "knows": 14, "served": 90, "delay_s": 12.4,
    }  # fmt: skip
