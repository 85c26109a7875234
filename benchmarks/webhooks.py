"""`python -m benchmarks.webhooks`: how fast the service acknowledges events, and answers /health.

Starts `python -m backend serve` with a project, sends it the event of a finished annotation many
times at once, each over a connection of its own as Label Studio does, and asks for /health while
other processes burn the CPU. Label Studio waits a second for an event, inside the annotator's
submit, and a second for /health.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.settings import Settings
from backend.store.projects import Project, Projects

ROOT = Path(__file__).parents[1]
PROJECT, SECRET = 1, "s" * 40
STARTING_S = 60.0
LABELS = 200  # in the event's labeling config: some projects' events are large


@dataclass(frozen=True)
class Latencies:
    """What was asked so many times, how many were answered with 2xx, and how long it took."""

    what: str
    count: int
    succeeded: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    per_second: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 when everything was answered with 2xx."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (settings, port):
        rows = [
            burst(port, options.events, options.at_once),
            health(port, options.health, "/health, nothing else running"),
        ]
        counted = Projects(settings).get(PROJECT).events
        with burning(options.burners):
            rows += [
                health(port, options.health, f"/health, {options.burners} processes burning CPU"),
                burst(port, options.events, options.at_once, " while burning"),
            ]
    for row in rows:
        print(
            f"{row.what:45} {row.succeeded:5}/{row.count} answered  p50 {row.p50_ms:6.1f} ms  "
            f"p99 {row.p99_ms:6.1f} ms  max {row.max_ms:6.1f} ms  {row.per_second:7.0f}/s"
        )
    print(f"events counted after the first burst: {counted} of {options.events}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    complete = counted == options.events and all(row.succeeded == row.count for row in rows)
    return 0 if complete else 1


def burst(port: int, events: int, at_once: int, when: str = "") -> Latencies:
    """Events of finished annotations, `at_once` of them at a time."""
    body = json.dumps(event()).encode()
    headers = {"Content-Type": "application/json", "X-AFTER-Secret": SECRET}
    return _measure(
        f"{events} events, {at_once} at once{when}",
        lambda: _request(port, "POST", "/webhook", body, headers),
        events,
        at_once,
    )


def health(port: int, count: int, what: str) -> Latencies:
    """/health, once after the other."""
    return _measure(what, lambda: _request(port, "GET", "/health"), count, 1)


def event() -> dict[str, object]:
    """ANNOTATION_CREATED, about as large as Label Studio's."""
    choices = "".join(f'<Choice value="emotion-{i}"/>' for i in range(LABELS))
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {"id": 1, "result": [], "was_cancelled": False, "task": 1},
        "project": {"id": PROJECT, "label_config": f"<View>{choices}</View>"},
        "task": {"id": 1, "data": {"audio": "/data/upload/1/a.wav"}},
    }


@contextlib.contextmanager
def serving(folder: Path, **values: str) -> Iterator[tuple[Settings, int]]:
    """The service on a free port with one project, in a process of its own."""
    settings = Settings(data=folder, _env_file=None)  # type: ignore[call-arg]
    Projects(settings).save(
        Project(id=PROJECT, url="http://localhost:8080", api_key="none", secret=SECRET)
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "AFTER_DATA": str(folder), "AFTER_PORT": str(port), "AFTER_HOST": "127.0.0.1", **values,
    }  # fmt: skip
    service = subprocess.Popen(
        [sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(service, port)
        _request(port, "GET", "/status")  # what it imports in the background is there afterwards
        yield settings, port
    finally:
        service.terminate()
        service.wait(30)


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Processes that use all the CPU they get, as a training does."""
    context = multiprocessing.get_context("spawn")
    burners = [context.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        time.sleep(1)  # until they burn
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _burn() -> None:
    while True:
        sum(i * i for i in range(10_000))


def _measure(what: str, ask: Callable[[], int], count: int, at_once: int) -> Latencies:
    def one(_: int) -> tuple[float, int]:
        started = time.perf_counter()
        status = ask()
        return time.perf_counter() - started, status

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        answers = list(threads.map(one, range(count)))
    took = time.perf_counter() - started
    seconds = sorted(s for s, _ in answers)
    return Latencies(
        what=what,
        count=count,
        succeeded=sum(200 <= status < 300 for _, status in answers),
        p50_ms=1000 * seconds[count // 2],
        p99_ms=1000 * seconds[min(count - 1, int(count * 0.99))],
        max_ms=1000 * seconds[-1],
        per_second=count / took,
    )


def _request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> int:
    """The answer's status, 0 where there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _wait(service: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + STARTING_S
    while _request(port, "GET", "/health") != 200:
        if service.poll() is not None or time.monotonic() > until:
            raise RuntimeError("python -m backend serve does not start; run it by hand to see why")
        time.sleep(0.1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--events", type=int, default=1000, help="in a burst (%(default)s)")
    parser.add_argument("--at-once", type=int, default=8, help="connections (%(default)s)")
    parser.add_argument("--health", type=int, default=500, help="questions (%(default)s)")
    parser.add_argument(
        "--burners", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
