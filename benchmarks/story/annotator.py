"""The oracle: it labels what Label Studio serves, as a person does through the labeling page."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from backend.label_studio.versions import OWN
from benchmarks.story.errors import StoryError

TIMEOUT_S = 120.0
FAILURES = 20  # in a row, before it gives up
PAUSE_S = 1.0  # after one


@dataclass(frozen=True)
class Served:
    """A recording that was served and labelled; times in seconds since labelling began.

    version: whose order it came from, "" before there was any. waited_s: for Label Studio, to open
    the recording and to save its label.
    """

    task: int
    version: str
    opened_s: float
    labelled_s: float
    waited_s: float


@dataclass(frozen=True)
class Order:
    """What a version of the model served.

    knows: the labels that it had learnt from. delay_s: from the newest of them to the first
    recording that was served in this order; from the beginning, where it had none.
    """

    version: str
    knows: int | None
    served: int
    delay_s: float | None


def orders(served: Sequence[Served]) -> list[Order]:
    """One a version, as they came; what was served before any order is left out."""
    result = []
    for version in dict.fromkeys(one.version for one in served if one.version):
        mine = [one for one in served if one.version == version]
        known = re.search(r"-n(\d+)$", version)
        knows = int(known[1]) if known else None
        delay = None
        if knows is not None and knows <= len(served):
            delay = mine[0].opened_s - (served[knows - 1].labelled_s if knows else 0.0)
        result.append(Order(version, knows, len(mine), delay))
    return result


def waits(served: Sequence[Served]) -> tuple[float, float]:
    """Seconds that Label Studio let the annotator wait for a label: (median, longest)."""
    seconds = [one.waited_s for one in served]
    return (statistics.median(seconds), max(seconds)) if seconds else (0.0, 0.0)


class Annotator:
    """Opens what is served, chooses the right label, submits."""

    def __init__(self, url: str, token: str, project: int, answers: Mapping[int, str]) -> None:
        self.project = project
        self.answers = answers
        self.failures = 0
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Token {token}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # this machine, whatever proxy the environment names
        )

    def __enter__(self) -> Annotator:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def label(
        self, count: int, seconds_per_label: float, tell: Callable[[list[Served]], None]
    ) -> list[Served]:
        """Label `count` recordings, or what there is; tell hears of each.

        Raises StoryError when Label Studio refuses again and again.
        """
        began = time.monotonic()
        served: list[Served] = []
        failed = 0  # in a row
        while len(served) < count:
            opened = time.monotonic()
            try:
                version = self.version()
                task = self._next()
                if task is None:
                    break
                waited = time.monotonic() - opened
                time.sleep(max(0.0, opened + seconds_per_label - time.monotonic()))
                submitted = time.monotonic()
                self._submit(task)
            except httpx.HTTPError as error:  # the database is locked, say: try the next
                failed, self.failures = failed + 1, self.failures + 1
                if failed >= FAILURES:
                    raise StoryError(f"Label Studio refused {failed} times: {error}") from error
                time.sleep(PAUSE_S)
                continue
            failed, now = 0, time.monotonic()
            served.append(
                Served(task, version, opened - began, now - began, waited + now - submitted)
            )
            tell(served)
        return served

    def version(self) -> str:
        """In whose order Label Studio serves; "" while it has none from AFTER."""
        found = self._json("GET", f"/api/projects/{self.project}/")["model_version"] or ""
        return found if found.startswith(OWN) else ""

    def press_train(self) -> None:
        """The button "Start Training" of the project's first model."""
        backends = self._json("GET", "/api/ml", params={"project": self.project})
        self._json("POST", f"/api/ml/{backends[0]['id']}/train", json={"use_ground_truth": False})

    def _next(self) -> int | None:
        response = self._http.get(f"/api/projects/{self.project}/next")
        if response.status_code == 404:  # nothing is left to label
            return None
        response.raise_for_status()
        return int(response.json()["id"])

    def _submit(self, task: int) -> None:
        choice = {
            "from_name": "emotion", "to_name": "audio", "type": "choices",
            "value": {"choices": [self.answers[task]]},
        }  # fmt: skip
        self._json("POST", f"/api/tasks/{task}/annotations/", json={"result": [choice]})

    def _json(self, method: str, path: str, **more: Any) -> Any:
        response = self._http.request(method, path, **more)
        response.raise_for_status()
        return response.json() if response.content else None
