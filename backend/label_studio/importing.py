"""Whether predictions are imported cheaply, which decides how they are sent.

Label Studio 1.23's import recounts every task of the project, however little is imported, unless
it is started with IMPORT_FLAG. An import of nothing costs the same and leaves no trace, so that is
what is timed.
"""

from __future__ import annotations

import math
import threading
import time

from backend.label_studio.connection import LabelStudioError, LabelStudioUnavailable
from backend.label_studio.reading import Reading

IMPORT_FLAG = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short=true"
CHEAP_S = 1.0  # an import may take
TRIES = 3  # of which the quickest counts: others may be busy there
PATIENCE_S = 10.0
# A cheap import costs nothing to time again, and the project may have grown; one that recounts is
# not repeated for as long as Label Studio is unlikely to be another.
CHEAP_FOR_S, DEAR_FOR_S = 600.0, 86_400.0

_TIMED: dict[tuple[str, int], tuple[float, float]] = {}  # (address, project) -> when, seconds
_LOCK = threading.Lock()


class Importing(Reading):
    """Times imports into projects of one Label Studio."""

    def imports_are_cheap(self, project_id: int) -> bool:
        """Whether to import predictions instead of sending them one by one; remembered.

        Raises LabelStudioUnavailable.
        """
        with _LOCK:
            at, seconds = _TIMED.get((self.url, project_id), (-math.inf, 0.0))
        valid_s = CHEAP_FOR_S if seconds <= CHEAP_S else DEAR_FOR_S
        if time.monotonic() - at > valid_s:
            seconds = self.time_import(project_id)
        return seconds <= CHEAP_S

    def time_import(self, project_id: int) -> float:
        """The seconds that an import takes before its first prediction.

        Infinite where it isn't done in PATIENCE_S, or refused. Raises LabelStudioUnavailable.
        """
        seconds = math.inf
        for _ in range(TRIES):
            seconds = min(seconds, self._import_nothing(project_id))
            if seconds <= CHEAP_S or seconds > 2 * CHEAP_S:
                break
        with _LOCK:
            _TIMED[self.url, project_id] = time.monotonic(), seconds
        return seconds

    def _import_nothing(self, project_id: int) -> float:
        what = f"import no predictions into project {project_id}"
        path = f"api/projects/{project_id}/import/predictions"
        began = time.monotonic()
        try:
            self.request(what, "POST", path, json=[], timeout_s=PATIENCE_S)
        except LabelStudioUnavailable:
            if time.monotonic() - began < PATIENCE_S:
                raise
            return math.inf
        except LabelStudioError:
            return math.inf
        return time.monotonic() - began
