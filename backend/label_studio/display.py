"""What people see of the model in Label Studio: its choice while they label, and a tab.

What is seen first sways what is answered, so the choice is hidden until they have, unless it is
wished for. Label Studio 1.23 hides it where it says which task is next ("Label All Tasks"); a task
that is opened from a row of the Data Manager shows its prediction whatever is set.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backend.label_studio import registration as setup
from backend.label_studio.predictions import LabelStudio
from backend.label_studio.registration import View
from backend.settings import Settings
from backend.store.projects import Project

TAB = "AFTER: label next"
SCORE, CHOICE = "tasks:predictions_score", "tasks:predictions_results"  # columns of the tab
WIDTHS = {SCORE: 150, CHOICE: 330}  # pixels


def repair_guess(client: LabelStudio, settings: Settings, project: Project) -> str:
    """Show or hide the model's choice, as wished; a line that says which. The order stays."""
    info = client.project(project.id)
    wanted = project.shows_guess(settings)
    if info.show_predictions != wanted:
        setup.show_predictions(client, project.id, info.model_version, wanted)
    if wanted:
        return "people see the model's choice while they label; --no-show-guess hides it"
    return "people don't see the model's choice before they have answered; --show-guess shows it"


def repair_tab(client: LabelStudio, project: Project, audio_keys: Iterable[str]) -> str:
    """A tab of what is unlabelled, lowest score first; a line where it was made or changed."""
    found = [view for view in setup.views(client, project.id) if view.title == TAB]
    if not found:
        setup.add_view(client, project.id, _tab(client, project, audio_keys))
        return f"created the tab {TAB!r} in the Data Manager"
    if not all(_shows_everything(view) for view in found):
        return ""
    data = _tab(client, project, audio_keys)
    for view in found:
        setup.update_view(client, project.id, view, data)
    return f"the tab {TAB!r} shows the recording, the score and the model's choice"


def _tab(client: LabelStudio, project: Project, audio_keys: Iterable[str]) -> dict[str, Any]:
    audio = {f"tasks:data.{key}" for key in audio_keys}
    columns = set(setup.columns(client, project.id))
    unlabelled = {
        "filter": "filter:tasks:total_annotations",
        "operator": "equal",
        "value": 0,
        "type": "Number",
    }
    return {
        "title": TAB,
        "type": "list",
        "target": "tasks",
        "ordering": [SCORE],
        "filters": {"conjunction": "and", "items": [unlabelled]},
        "hiddenColumns": {
            "explore": sorted(columns - audio - {SCORE, CHOICE}),
            "labeling": sorted(columns - audio),  # beside a task that is open
        },
        "columnsWidth": WIDTHS,
    }


def _shows_everything(view: View) -> bool:
    """Whether it is as older releases made it; what somebody hid or showed there is theirs."""
    hidden = view.data.get("hiddenColumns") or {}
    return not any(hidden.get(name) for name in ("explore", "labeling"))
