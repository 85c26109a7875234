"""Who speaks, and what people see of the model, against a real Label Studio and in a browser."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from playwright import sync_api as playwright

from backend.cli.doctor import doctor
from backend.label_studio import importing, labeling
from backend.label_studio import registration as setup
from backend.label_studio.connect import Wishes, connect
from backend.label_studio.display import CHOICE, SCORE, TAB
from backend.label_studio.predictions import LabelStudio, Prediction
from backend.label_studio.speakers import NOBODY, SpeakerError, rule
from backend.store.projects import Projects, TaskRecord
from tests.integration.conftest import EMAIL, EMOTION, PASSWORD
from tests.integration.web import web_service

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VERSION = "after-s00002-n0004"
GUESS = "happy"


@pytest.fixture
def spoken(label_studio, clips, tmp_path):
    """Eight uploads by two speakers, their names as EmoDB's."""
    names = [f"{speaker}a0{i}Wa.wav" for speaker in ("03", "08") for i in range(1, 5)]
    copies = [
        Path(shutil.copy(clip, tmp_path / name)) for clip, name in zip(clips, names, strict=True)
    ]
    return label_studio.project(clips=copies)


@pytest.fixture
def client(label_studio):
    return LabelStudio(label_studio.url, label_studio.legacy_token)


def push(client, project, tasks=None):
    """Predictions in the reverse of the tasks' order, all with one choice."""
    (control,) = labeling.controls(EMOTION)
    result = [labeling.result(control, [0.1, 0.7, 0.1, 0.1])]
    tasks = project.tasks if tasks is None else tasks
    predictions = [Prediction(t, 0.9 - 0.1 * i, result) for i, t in enumerate(tasks)]
    client.push_window(project.id, VERSION, predictions)


def kept(settings, project):
    return Projects(settings).get(project.id)


# --- who speaks ----------------------------------------------------------------------------------


def test_connecting_proposes_speakers_and_does_not_use_them(join, settings, spoken):
    said = str(join(spoken))
    assert "2 speakers, 4 recordings each: 03, 08" in said
    assert "not used" in said
    assert kept(settings, spoken).speaker_pattern == ""


def test_what_is_found_is_used_where_that_is_wished_and_can_be_left_out(join, settings, spoken):
    assert "used, --speaker-pattern" in str(join(spoken, use_speakers=True))
    assert kept(settings, spoken).speaker_pattern
    assert "who speaks" in str(join(spoken))  # stays, and says so
    assert kept(settings, spoken).speaker_pattern
    join(spoken, speaker=rule(pattern=NOBODY))
    assert "not used" in str(join(spoken, use_speakers=True))
    assert kept(settings, spoken).speaker_pattern == NOBODY


def test_a_field_of_the_data_says_who_speaks_in_tasks_that_are_known(
    join, settings, label_studio, project
):
    label_studio.patch(f"/api/tasks/{project.tasks[0]}/", {"data": {"audio": "x", "who": "anna"}})
    folder = Projects(settings).folder(project.id)
    folder.save_tasks({task: TaskRecord({"audio": "x"}, {}) for task in project.tasks})
    said = str(join(project, speaker=rule(key="who")))
    assert "1 speaker, 1 recording each: anna" in said
    assert "of 2 recordings nobody knows" in said
    assert [task.speaker for task in folder.tasks().values()] == ["anna", "", ""]


def test_a_pattern_that_names_nobody_is_refused_with_what_there_is(join, settings, project):
    with pytest.raises(SpeakerError, match=r"has audio.*clip_0\.wav"):
        join(project, speaker=rule(pattern=r"(\d\d)b"))
    assert Projects(settings).all() == []


# --- the guess -----------------------------------------------------------------------------------


def served(label_studio, project):
    """What `next` gives, labelled one after another: (tasks, choices shown)."""
    tasks, shown = [], []
    for _ in project.tasks:
        task = label_studio.get(f"/api/projects/{project.id}/next")
        tasks.append(task["id"])
        shown += [p["result"][0]["value"]["choices"][0] for p in task["predictions"]]
        label_studio.annotate(task["id"], "sad")
    return tasks, shown


def test_the_guess_is_hidden_and_the_order_holds(join, client, label_studio, project):
    join(project)
    push(client, project)
    assert served(label_studio, project) == (project.tasks[::-1], [])


def test_the_guess_is_shown_where_that_is_wished(join, client, label_studio, project):
    join(project, show_guess=True)
    push(client, project)
    assert served(label_studio, project) == (project.tasks[::-1], [GUESS] * 3)


def test_hiding_the_guess_later_keeps_the_version_that_serves(join, client, label_studio, project):
    join(project, show_guess=True)
    push(client, project)
    join(project, show_guess=False)
    assert client.project(project.id).model_version == VERSION
    assert served(label_studio, project) == (project.tasks[::-1], [])


def test_the_setting_holds_where_nothing_was_said_of_the_project(
    tmp_path, client, label_studio, project
):
    with web_service(tmp_path, show_guess=True) as showing:
        token = label_studio.legacy_token
        connect(showing, label_studio.url, token, project.id)
        assert client.project(project.id).show_predictions
        connect(showing, label_studio.url, token, project.id, wishes=Wishes(show_guess=False))
        connect(showing, label_studio.url, token, project.id)
        assert not client.project(project.id).show_predictions


def test_a_project_that_label_studios_pages_connected_hides_it_too(join, settings, client, project):
    join(project)
    info = client.project(project.id)
    setup.show_predictions(client, project.id, info.model_version, True)
    Projects(settings).save(replace(kept(settings, project), adopted=True))
    join(project)  # as the worker does
    assert not client.project(project.id).show_predictions


def test_doctor_finds_a_guess_that_is_shown(join, settings, client, project):
    join(project)
    name = f"project {project.id}, guess"
    assert {c.name: c.ok for c in doctor(settings)}[name]
    setup.show_predictions(client, project.id, client.project(project.id).model_version, True)
    (check,) = [c for c in doctor(settings) if c.name == name]
    assert not check.ok
    assert "--show-guess" in check.fix


def test_opening_a_task_without_a_prediction_asks_the_backend_for_none(
    join, settings, label_studio, client, project, monkeypatch
):
    join(project)
    push(client, project, project.tasks[:2])
    label_studio.get(f"/api/tasks/{project.tasks[2]}?project={project.id}")
    assert [p["task"] for p in label_studio.predictions(project.id)] == project.tasks[:2]


# --- imports -------------------------------------------------------------------------------------


def test_imports_into_a_small_project_are_cheap_and_timing_them_leaves_nothing(
    client, label_studio, project
):
    before = label_studio.get(f"/api/projects/{project.id}/")
    assert client.imports_are_cheap(project.id)
    assert label_studio.get(f"/api/projects/{project.id}/") == before
    assert label_studio.predictions(project.id) == []


def test_imports_that_take_long_are_not_cheap_and_are_timed_once(client, project, monkeypatch):
    monkeypatch.setattr(importing, "_TIMED", {})
    monkeypatch.setattr(importing, "CHEAP_S", 0.0)
    assert not client.imports_are_cheap(project.id)
    monkeypatch.setattr(importing.Importing, "time_import", None)
    assert not client.imports_are_cheap(project.id)


# --- the tab -------------------------------------------------------------------------------------


def tab_of(client, project):
    (tab,) = [view for view in setup.views(client, project.id) if view.title == TAB]
    return tab


def test_the_tab_shows_the_recording_the_score_and_the_choice_alone(join, client, project):
    join(project)
    hidden = tab_of(client, project).data["hiddenColumns"]["explore"]
    assert {*setup.columns(client, project.id)} - {*hidden} == {"tasks:data.audio", SCORE, CHOICE}


def test_a_tab_of_an_older_release_is_changed_and_one_that_somebody_changed_is_not(
    join, client, project
):
    join(project)
    tab = tab_of(client, project)
    old = tab.data | {"hiddenColumns": {"explore": [], "labeling": []}}
    setup.update_view(client, project.id, tab, old)
    assert "shows the recording" in str(join(project))
    assert tab_of(client, project).data == tab.data
    theirs = tab.data | {"hiddenColumns": {"explore": [SCORE], "labeling": []}}
    setup.update_view(client, project.id, tab, theirs)
    join(project)
    assert tab_of(client, project).data["hiddenColumns"]["explore"] == [SCORE]


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(label_studio):
    """A page of somebody who is logged in; nothing is asked of other hosts."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        page.set_default_timeout(120_000)
        page.route(lambda url: not url.startswith(label_studio.url), lambda r: r.abort())
        page.goto(f"{label_studio.url}/user/login/", wait_until="domcontentloaded")
        page.fill("input[name=email]", EMAIL)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url("**/", wait_until="domcontentloaded")
        yield page
        browser.close()


@pytest.fixture
def shot(tmp_path):
    """shot(page, name) leaves a picture; AFTER_SCREENSHOTS names where, to look at it."""
    folder = Path(os.environ.get("AFTER_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png")


@pytest.mark.parametrize("shown", [False, True], ids=["hidden", "shown"])
def test_what_is_chosen_when_the_next_recording_comes(
    join, client, label_studio, project, page, shot, shown
):
    join(project, show_guess=shown)
    push(client, project)
    tab = tab_of(client, project)
    page.goto(
        f"{label_studio.url}/projects/{project.id}/data?tab={tab.id}&labeling=1",
        wait_until="domcontentloaded",
    )
    page.wait_for_selector(f"text={GUESS}")
    page.wait_for_timeout(1000)  # whatever comes up by itself has come
    shot(page, f"label-stream-{'shown' if shown else 'hidden'}")
    boxes = page.locator("input[type=checkbox], input[type=radio]")
    assert boxes.count() >= 4
    assert len([box for box in boxes.all() if box.is_checked()]) == (1 if shown else 0)
    assert page.get_by_text(VERSION).count() == 0


def test_the_tab_as_people_see_it(join, client, label_studio, project, page, shot):
    join(project)
    push(client, project)
    tab = tab_of(client, project)
    page.goto(
        f"{label_studio.url}/projects/{project.id}/data?tab={tab.id}",
        wait_until="domcontentloaded",
    )
    page.wait_for_selector("text=Click to load")
    shot(page, "tab")
    for column in ("Prediction score", "Prediction results", "audio"):
        assert page.get_by_text(column, exact=True).count() >= 1
    for column in ("Annotated by", "Completed", "Cancelled", "ID"):
        assert page.get_by_text(column, exact=True).count() == 0
    assert page.get_by_text(f"choices: [{GUESS}]").count() == 3
