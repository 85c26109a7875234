"""Events counted while somebody waits for their acknowledgement.

Label Studio delivers an event inside the annotator's submit. So what is asked of the database is
little: who the projects are is remembered for a second, and events that come at once share one
transaction. An event is acknowledged once it is counted, never before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter

from backend.label_studio.versions import WINDOW
from backend.store.projects import Project, Projects, UnknownProject
from backend.web.bodies import ProjectReference

REMEMBERED_S = 1.0

Kind = tuple[int, bool]  # project, whether its tasks changed


class Events:
    """Counts events for every project; safe for several threads."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects
        self._known: dict[int, Project] = {}
        self._known_at = float("-inf")
        self._mutex = threading.Lock()  # of what follows; held for no longer than an addition
        self._waiting: Counter[Kind] = Counter()
        self._batch = 0  # of those that wait
        self._settings: dict[int, tuple[str, ...]] = {}  # of projects, as they were told last
        self._writing = threading.Lock()
        self._written = -1  # the newest batch that is counted

    def known(self, fresh: bool = False) -> dict[int, Project]:
        """The projects by id, as they were a second ago or later; fresh: as they are."""
        if fresh or time.monotonic() - self._known_at > REMEMBERED_S:
            at = time.monotonic()
            self._known = {project.id: project for project in self._projects.all()}
            self._known_at = at
        return self._known

    def is_news(self, told: ProjectReference) -> bool:
        """Whether an updated project tells more than that a window became its order.

        Every window updates the project, and reading it then would cost Label Studio's annotators
        as much as the window.
        """
        settings = tuple(map(str, (told.label_config, told.sampling, told.maximum_annotations)))
        before = self._settings.get(told.id)
        self._settings[told.id] = settings
        return before != settings or not str(told.model_version).startswith(WINDOW)

    def note(self, project_id: int, tasks_changed: bool) -> None:
        """Count an event, together with those that other threads bring meanwhile.

        Raises whatever keeps the database from counting; the next event then tries again.
        """
        with self._mutex:
            self._waiting[project_id, tasks_changed] += 1
            mine = self._batch
        with self._writing:
            if self._written >= mine:  # whoever was here before took it along
                return
            with self._mutex:
                taken, self._waiting = self._waiting, Counter()
                number = self._batch
                self._batch += 1
            try:
                self._write(taken)
            except BaseException:
                with self._mutex:
                    self._waiting.update(taken)
                raise
            self._written = number

    def _write(self, taken: Counter[Kind]) -> None:
        for kind in list(taken):
            project_id, tasks_changed = kind
            with contextlib.suppress(UnknownProject):  # disconnected a moment ago
                self._projects.note_event(project_id, tasks_changed, times=taken[kind])
            del taken[kind]  # what is counted is not counted again when another one fails
