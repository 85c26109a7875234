"""When a window is due, how large it is, and what it leaves to be cleared away."""

from __future__ import annotations

import pytest
from web_fixtures import add_project, make_settings

from backend.compute.orders import at_random
from backend.label_studio.predictions import LabelStudio
from backend.store import scores
from backend.store.projects import FOLLOWS, ORDER, POOL, Projects
from backend.worker.intake import Intake
from backend.worker.ordering import FEWEST, IDLE_S, MOST, QUIET_S, Order, Orderer, follows
from tests.unit.test_intake import CONTROLS

STEPS = "steps 1"


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def order(**values) -> Order:
    return Order(version="after-s00001-n0000", follows=STEPS, window=frozenset(range(64)), **values)


def test_a_step_is_due_after_a_few_labels(settings):
    waiting = order()
    waiting.note({1}, 100.0)
    assert not waiting.due(settings, STEPS, step=2, left=63, now_s=100.1)
    waiting.note({2}, 100.2)
    assert waiting.due(settings, STEPS, step=2, left=62, now_s=100.3)


def test_fewer_labels_are_due_after_some_seconds(settings):
    waiting = order()
    waiting.note({1}, 100.0)
    assert not waiting.due(settings, STEPS, 7, 63, 100.0 + settings.step_s - 0.1)
    assert waiting.due(settings, STEPS, 7, 63, 100.0 + settings.step_s)


def test_a_model_that_was_not_judged_is_when_labelling_stops(settings):
    """The quality that the page shows must not stay that of a model before."""
    left = order(judged=False, last_change=100.0)
    assert not left.due(settings, STEPS, 7, 63, 100.0 + IDLE_S - 0.1)
    assert left.due(settings, STEPS, 7, 63, 100.0 + IDLE_S + 0.1)
    left.judged = True
    assert not left.due(settings, STEPS, 7, 63, 100.0 + IDLE_S + 0.1)


def test_a_window_is_refilled_at_half(settings):
    assert not order().due(settings, STEPS, 7, 32, 0)
    assert order().due(settings, STEPS, 7, 31, 0)


def test_other_recordings_or_another_model_make_a_window_due(settings):
    assert order().due(settings, "steps 2", 7, 64, 0)
    assert order().due(settings, "fixed after-r01-n0004 1", 7, 64, 0)


def test_labels_change_nothing_of_a_fixed_order(settings):
    fixed = order()
    fixed.follows = "fixed a 1"
    fixed.note(range(20), 0)
    assert not fixed.due(settings, "fixed a 1", 7, 44, 100)


def test_windows_grow_with_what_is_labelled(settings):
    busy = order()
    assert busy.size(settings) == FEWEST
    for second in range(200):
        busy.note({second}, float(second))
    assert busy.size(settings) == 400
    for second in range(200, 900):
        busy.note({second}, float(second))
    assert busy.size(settings) == MOST
    assert busy.size(settings.model_copy(update={"window": 12})) == 12


def test_what_the_order_follows(settings):
    folder = add_project(settings)
    assert follows(folder) == ""
    folder.write(POOL, {"mark": "7"})
    assert follows(folder) == "steps 7"
    folder.write(FOLLOWS, {"release": "after-r01-n0004", "at": 3.0})
    assert follows(folder) == "fixed after-r01-n0004 3.000"


class Client(LabelStudio):
    def __init__(self) -> None:
        super().__init__("http://localhost:1", "k")
        self.pushed: list[tuple[str, list[int]]] = []
        self.cleared: list[int] = []

    def push_window(self, project_id, version, predictions):
        self.pushed.append((version, [p.task for p in predictions]))

    def clear(self, project_id, tasks):
        self.cleared += tasks

    def prediction_counts(self, project_id):
        return dict.fromkeys(self.versions, 1)

    versions: tuple[str, ...] = ()


class Warm:
    def __init__(self, tasks):
        self.tasks = tasks

    def ask(self, request):
        wanted = [t for t in self.tasks if t not in request["finished"]][: request["count"]]
        return {
            "window": [
                {"task": t, "score": i / 100, "why": "chosen", "probs": {"emotion": [0.5, 0.5]}}
                for i, t in enumerate(wanted)
            ]
        }


def test_windows_follow_labels_and_leave_nothing_behind(settings):
    """Each under a version of its own; of tasks that left the window all predictions go."""
    settings = settings.model_copy(update={"window": 4, "step_size": 2})
    folder = add_project(settings)
    folder.write(POOL, {"mark": "7"})
    project, client = Projects(settings).get(1), Client()
    intake = Intake(controls=CONTROLS, tasks=set(range(100)))
    state = Order(foreign=False)
    orderer = Orderer(settings, Warm(list(range(100))))

    def advance(now_s):
        orderer.advance(client, project, folder, intake, state, now_s)

    advance(0.0)
    assert client.pushed == [("after-s00001-n0000", [0, 1, 2, 3])]
    advance(0.1)
    assert len(client.pushed) == 1
    for task in (0, 1):
        intake.finished.add(task)
        intake.votes.setdefault("emotion", {})[str(task)] = [["joy"]]
    state.note({0, 1}, 1.0)
    advance(1.0)
    assert client.pushed[1:] == [("after-s00002-n0002", [2, 3, 4, 5])]
    assert not state.changed
    advance(1.1)
    assert client.cleared == []  # somebody labels: deleting would hold them up
    advance(1.0 + QUIET_S + 0.1)
    assert client.cleared == [0, 1]
    assert folder.read(ORDER, {})["version"] == "after-s00002-n0002"


def test_a_task_that_was_deleted_is_not_pushed(settings):
    folder = add_project(settings)
    folder.write(POOL, {"mark": "7"})
    client = Client()
    intake = Intake(controls=CONTROLS, tasks={1, 3})
    Orderer(settings, Warm([1, 2, 3])).advance(
        client, Projects(settings).get(1), folder, intake, Order(), 0.0
    )
    assert client.pushed[0][1] == [1, 3]


def test_predictions_of_somebody_else_are_not_cleared_away(settings):
    """A task's predictions can only be deleted together."""
    settings = settings.model_copy(update={"window": 2, "step_size": 1})
    folder = add_project(settings)
    folder.write(POOL, {"mark": "7"})
    client = Client()
    client.versions = ("another-model",)
    intake = Intake(controls=CONTROLS, tasks=set(range(10)))
    state = Order()
    orderer = Orderer(settings, Warm(list(range(10))))
    for now_s in range(5):
        orderer.advance(client, Projects(settings).get(1), folder, intake, state, float(now_s))
        intake.finished.add(now_s)
        state.note({now_s}, float(now_s))
    assert len(client.pushed) > 2
    assert client.cleared == []


def test_where_rounds_fine_tune_features_alone_make_no_order(tmp_path):
    """Between the features and the start a step would be an order that the method doesn't have."""
    settings = make_settings(tmp_path, preset="paper")
    folder = add_project(settings)
    folder.write(POOL, {"mark": "7"})
    client = Client()
    intake = Intake(controls=CONTROLS, tasks={1, 2, 3})
    orderer = Orderer(settings, Warm([1, 2, 3]))
    orderer.advance(client, Projects(settings).get(1), folder, intake, Order(), 0.0)
    assert client.pushed == []
    scores.write(folder.path, at_random(0, "after-r00-n0000", [1, 2, 3]), scores.FIXED)
    folder.write(FOLLOWS, {"release": "after-r00-n0000", "at": 1.0})
    orderer.advance(client, Projects(settings).get(1), folder, intake, Order(), 1.0)
    assert sorted(client.pushed[0][1]) == [1, 2, 3]


def test_when_nothing_is_left_the_last_order_stays(settings):
    folder = add_project(settings)
    folder.write(POOL, {"mark": "7"})
    client, state = Client(), Order()
    intake = Intake(controls=CONTROLS, tasks={1})
    orderer = Orderer(settings, Warm([1]))
    orderer.advance(client, Projects(settings).get(1), folder, intake, state, 0.0)
    intake.finished.add(1)
    state.note({1}, 1.0)
    for now_s in (20.0, 40.0):
        orderer.advance(client, Projects(settings).get(1), folder, intake, state, now_s)
    assert len(client.pushed) == 1
    assert folder.read(ORDER, {})["version"] == client.pushed[0][0]
