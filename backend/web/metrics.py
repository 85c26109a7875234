"""/metrics for Prometheus.

What projects are like is read from their files when asked, so it is right whichever process is
asked. Only requests and answers are counted here, in the one process that `serve` runs.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Response
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from backend.settings import Settings
from backend.store.projects import Projects
from backend.web.predicting import PENDING_VERSION
from backend.web.status import status


class Metrics:
    """The service's own registry."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, settings: Settings, projects: Projects) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ProjectCollector(settings, projects))
        self._requests = Counter(
            "after_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._answers = Counter(
            "after_predictions_answered",
            "Predictions that /predict gave: from a model, of an unreadable clip, or none yet.",
            ["project", "kind"],
            registry=self._registry,
        )

    def note_request(self, route: str, response: Response) -> None:
        self._requests.labels(route or "none", str(response.status_code)).inc()

    def note_answers(self, project_id: int, answers: Sequence[dict[str, Any]]) -> None:
        kinds = Tally(_kind(answer) for answer in answers)
        for kind, count in kinds.items():
            self._answers.labels(str(project_id), kind).inc(count)

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _kind(answer: dict[str, Any]) -> str:
    if answer["model_version"] == PENDING_VERSION:
        return "none"
    return "model" if answer["result"] else "empty"


class _ProjectCollector(Collector):
    """Gauges of every project, from what the status page shows."""

    def __init__(self, settings: Settings, projects: Projects) -> None:
        self._settings = settings
        self._projects = projects

    def describe(self) -> list[Any]:
        return []  # else registering would read every project

    def collect(self) -> Iterator[Any]:
        now = status(self._settings, self._projects)
        waiting = sum(job["status"] == "waiting" for job in now["queue"])
        yield GaugeMetricFamily("after_jobs_waiting", "Jobs in the queue.", waiting)
        running = len(now["queue"]) - waiting
        yield GaugeMetricFamily("after_jobs_running", "Jobs being done.", running)
        seen = GaugeMetricFamily(
            "after_worker_last_seen_seconds", "When a worker was last alive.", labels=["worker"]
        )
        for worker in now["workers"]:
            seen.add_metric([worker["name"]], worker["seen"])
        yield seen
        yield from _per_project(now["projects"])


def _per_project(sections: Sequence[dict[str, Any]]) -> Iterator[Any]:
    gauges = {
        "after_tasks": ("Tasks.", lambda s: s["tasks"]),
        "after_labels": ("Labels given.", lambda s: s["labels"]),
        "after_label_budget": ("Labels that the budget allows.", lambda s: s["budget"]),
        "after_pool": ("Tasks without a label.", lambda s: max(0, s["tasks"] - s["labels"])),
        "after_skipped": ("Clips that can't be used.", lambda s: s["skipped_count"]),
        "after_errors": ("Errors on the status page.", lambda s: len(s["errors"])),
        "after_rounds": ("Rounds finished.", lambda s: len(_rounds(s))),
        "after_rounds_refused": (
            "Rounds whose model was not promoted.",
            lambda s: sum(not row["promoted"] for row in _rounds(s)),
        ),
    }
    for name, (description, value_of) in gauges.items():
        family = GaugeMetricFamily(name, description, labels=["project"])
        for section in sections:
            value = value_of(section)
            if value is not None:
                family.add_metric([str(section["id"])], value)
        yield family
    yield from _ua(sections)
    seconds = SummaryMetricFamily(
        "after_round_seconds", "What training took in a round.", labels=["project"]
    )
    for section in sections:
        took = [row["seconds"] or 0.0 for row in _rounds(section)]
        seconds.add_metric([str(section["id"])], len(took), sum(took))
    yield seconds


def _ua(sections: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Three gauges, where there are audits enough to tell."""
    said = "Unweighted accuracy on unlabelled recordings, by audits"
    for bound, name in (("value", ""), ("low", "_low"), ("high", "_high")):
        end = "." if bound == "value" else f": the {bound} end of its 95 % interval."
        family = GaugeMetricFamily(f"after_ua{name}", said + end, labels=["project", "question"])
        for section in sections:
            for one in section["quality"]:
                if one["ua"] is not None:
                    family.add_metric([str(section["id"]), one["name"]], one["ua"][bound])
        yield family


def _rounds(section: dict[str, Any]) -> list[dict[str, Any]]:
    """The rounds that trained: not the bootstrap."""
    return [row for row in section["versions"] if row["labelled"]]
