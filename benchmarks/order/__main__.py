"""`python -m benchmarks.order`: from a label to the order that knows it, on a real Label Studio."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from backend.label_studio.predictions import LabelStudio, LabelStudioError
from benchmarks import report
from benchmarks.order.watch import Watch, delays
from benchmarks.story import truth
from benchmarks.story.annotator import Annotator, Served
from benchmarks.story.errors import StoryError
from benchmarks.story.people import person_of
from benchmarks.story.services import Services
from benchmarks.story.telling import Teller

DESCRIPTION = """\
Starts what `make run AUDIO=folder` starts, adds tasks that share the folder's recordings until the
project has its size, and labels what is served. Prints how long it takes from a label to the order
that knows it, and what annotators wait for beside that in a project without a backend.
"""
CHUNK = 2000  # tasks an import
SETTLED_S = 900.0  # until the backend knows all tasks
OWN_START_S = 3.0


@dataclass
class Found:
    """What was measured. Seconds."""

    tasks: int
    annotators: int
    first_order_s: float = 0.0
    ready_s: float = 0.0
    labels: int = 0
    versions: int = 0
    delays: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    waits_alone: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="after-order-") as folder:
            found = _measure(options, Path(folder))
    except (StoryError, LabelStudioError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _show(found)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return 0


def _measure(options: argparse.Namespace, data: Path) -> Found:
    audio = options.audio.expanduser().resolve()
    labels = truth.read(audio, None)
    names = truth.names(labels)
    found = Found(options.tasks, options.annotators)
    teller = Teller()
    with Services(data, audio, names, options.label_studio_venv.resolve(), teller) as services:
        services.start()
        client = LabelStudio(services.label_studio_url, services.token)
        began = time.monotonic()
        services.wait_for_order()
        answers = _filled(services, client, labels, options.tasks, teller)
        found.tasks = len(answers)  # at least as many as there are recordings
        found.first_order_s = _ordered(services, began)
        _settled(services, found.tasks, teller)
        found.ready_s = time.monotonic() - began
        alone = _another_project(client, services, names, found.tasks)
        with _annotators(services, [alone], _any(names), options.annotators) as people:
            found.waits_alone = _waits(_label(people, options.baseline, options.seconds_per_label))
        database = data / "label-studio" / "label_studio.sqlite3"
        with (
            Watch(database, services.project) as watch,
            _annotators(services, [services.project], answers, options.annotators) as people,
        ):
            served = _label(people, options.labels, options.seconds_per_label)
            time.sleep(OWN_START_S + 10)
        found.labels, found.versions = len(served), len(watch.seen)
        found.waits = _waits(served)
        found.delays = delays(watch.seen, _first_labels(served))
    return found


def _filled(
    services: Services, client: LabelStudio, labels: dict[str, str], count: int, teller: Teller
) -> dict[int, str]:
    """The right label by task, once the project has so many tasks."""
    tasks = client.tasks(services.project)
    while len(tasks) < count:
        part = min(CHUNK, count - len(tasks))
        bodies = [{"data": tasks[i % len(labels)].data} for i in range(part)]
        client.request(
            f"add {part} tasks", "POST", f"api/projects/{services.project}/import",
            json=bodies, timeout_s=600,
        )  # fmt: skip
        tasks += client.tasks_after(services.project, tasks[-1].id)
        teller.remind(f"{len(tasks)} of {count} tasks")
    return {task.id: labels[truth.recording(task.data)] for task in tasks}


def _ordered(services: Services, began: float) -> float:
    while services.status()["serving"] is None and time.monotonic() - began < SETTLED_S:
        time.sleep(0.5)
    return time.monotonic() - began


def _settled(services: Services, count: int, teller: Teller) -> None:
    """Until the backend knows all tasks and has made an order of them."""
    until = time.monotonic() + SETTLED_S
    while True:
        section = services.status()
        if section["tasks"] == count and not section["queued"] and section["running"] is None:
            time.sleep(OWN_START_S + 5)
            return
        services.check()
        if time.monotonic() > until:
            raise StoryError(f"the backend knows {section['tasks']} of {count} tasks")
        teller.remind(f"the backend knows {section['tasks']} of {count} tasks")
        time.sleep(1)


def _another_project(
    client: LabelStudio, services: Services, names: Sequence[str], count: int
) -> int:
    """A project of the same size that no backend knows."""
    config = client.project(services.project).label_config
    made = client.request(
        "make a project", "POST", "api/projects/",
        json={"title": "without a backend", "label_config": config,
              "sampling": "Uncertainty sampling"},
    )  # fmt: skip
    for start in range(0, count, CHUNK):
        bodies = [{"data": {"audio": f"/x/{i}.wav"}} for i in range(min(CHUNK, count - start))]
        path = f"api/projects/{made['id']}/import"
        client.request("add tasks", "POST", path, json=bodies, timeout_s=600)
    return int(made["id"])


class _any(dict[int, str]):
    """The first label, whatever the task."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._name = names[0]

    def __missing__(self, _task: int) -> str:
        return self._name


@contextmanager
def _annotators(
    services: Services, projects: Sequence[int], answers: dict[int, str], count: int
) -> Iterator[list[Annotator]]:
    url = services.label_studio_url
    people = [
        Annotator(url, person_of(url, services.token, number), project, answers)
        for project in projects
        for number in range(count)
    ]
    try:
        yield people
    finally:
        for person in people:
            person.__exit__()


def _label(people: Sequence[Annotator], count: int, seconds: float) -> list[Served]:
    """All at once, each its share; times on the clock of time.monotonic()."""
    parts: list[list[Served]] = [[] for _ in people]

    def work(number: int) -> None:
        began = time.monotonic()
        for one in people[number].label(count // len(people), seconds, lambda _: None):
            parts[number].append(
                Served(one.task, one.version, began + one.opened_s, began + one.labelled_s,
                       one.waited_s)
            )  # fmt: skip

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(people))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for part in parts for one in part]


def _waits(served: Sequence[Served]) -> list[float]:
    return [one.waited_s for one in served]


def _first_labels(served: Sequence[Served]) -> list[float]:
    """When each task got its first label, in order: a second one is no new task that is known."""
    first: dict[int, float] = {}
    for one in sorted(served, key=lambda one: one.labelled_s):
        first.setdefault(one.task, one.labelled_s)
    return list(first.values())


def _show(found: Found) -> None:
    console = report.new_console()
    table = Table(title=f"{found.tasks} tasks, {found.annotators} annotators")
    for name in ("", "median", "95 %", "most", "how many"):
        table.add_column(name, justify="right" if name else "left")
    rows = {
        "from a label to its order, s": found.delays,
        "an annotator waits, s": found.waits,
        "the same without a backend, s": found.waits_alone,
    }
    for name, values in rows.items():
        if values:
            cells = [*np.percentile(values, [50, 95]), max(values)]
            table.add_row(name, *[f"{cell:.2f}" for cell in cells], str(len(values)))
    console.print(table)
    console.print(
        f"{found.labels} labels, {found.versions} orders; the first order "
        f"{found.first_order_s:.0f} s after the start, all tasks known after {found.ready_s:.0f} s"
    )
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.order",
        description=DESCRIPTION,
        epilog="example:\n  python -m benchmarks.order --audio EmoDB/wav --tasks 20000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--audio", type=Path, required=True, metavar="DIR", help="of EmoDB")
    parser.add_argument("--tasks", type=int, default=4500, help="(default: %(default)s)")
    parser.add_argument("--labels", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--annotators", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--baseline", type=int, default=40, metavar="N",
                        help="labels in the project without a backend")  # fmt: skip
    parser.add_argument("--seconds-per-label", type=float, default=1.2, metavar="N",
                        help="(default: %(default)s)")  # fmt: skip
    parser.add_argument("--label-studio-venv", type=Path, default=Path(".venv-label-studio"),
                        metavar="DIR")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
