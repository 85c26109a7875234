"""`python -m backend doctor`: tests every precondition and says what to change where one fails.

Nothing is changed. Two tests leave a trace for a moment: an event is asked for by saving a setting
of the project as it is, and a webhook that is switched off shows whether Label Studio takes one.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import sqlalchemy as sa

from backend.label_studio import audio as recordings
from backend.label_studio import connect, labeling
from backend.label_studio import registration as setup
from backend.label_studio.connection import DOTTED_NAME, SSRF_SETTINGS, is_ssrf_refusal
from backend.label_studio.importing import CHEAP_S, IMPORT_FLAG, PATIENCE_S
from backend.label_studio.predictions import LabelStudio, LabelStudioError, ProjectInfo
from backend.settings import LOOPBACK, Settings
from backend.store import cuts
from backend.store.projects import ORDER, Project, ProjectFolder, Projects

FREE_BYTES = 2**30  # a round of a base-size backbone writes about 400 MB
ALIVE_S = 30.0  # a worker says that it lives every few seconds
SAMPLE = 3
EVENT_WAIT_S = 3.0  # Label Studio gives up a webhook after one
RIGHTS = (
    "projects.view", "projects.change", "tasks.view", "predictions.any",
    "webhooks.view", "webhooks.change", "views.view", "views.create",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One precondition. fix: the setting, line or command to change, where it isn't met."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(settings: Settings, project_id: int | None = None) -> list[Check]:
    """All checks, in the order in which they are worth repairing; raises UnknownProject."""
    return list(_checks(settings, project_id))


def main(settings: Settings, project_id: int | None = None) -> int:
    """Prints each check as it is made; 1 where something failed."""
    colours = sys.stdout.isatty()
    failed = total = 0
    for check in _checks(settings, project_id):
        total += 1
        failed += not check.ok
        _print(line(check, colours))
    _print("" if failed else f"all {total} checks passed")
    if failed:
        _print(f"{failed} of {total} checks failed")
    return 1 if failed else 0


def line(check: Check, colours: bool = False) -> str:
    """A check for a terminal."""
    mark = "ok  " if check.ok else "FAIL"
    if colours:
        mark = f"\x1b[3{2 if check.ok else 1}m{mark}\x1b[0m"
    text = f"{mark}  {check.name}: {check.detail}"
    return text if check.ok or not check.fix else f"{text}\n      fix: {check.fix}"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _checks(settings: Settings, project_id: int | None) -> Iterator[Check]:
    yield _guarded("disk", lambda: _disk(settings.data))
    yield _guarded("computing", lambda: _computing(settings))
    database = _guarded("database", lambda: _database(settings))
    yield database
    if not database.ok:
        return
    projects = Projects(settings)
    try:
        yield _guarded("worker", lambda: _worker(projects))
        chosen = projects.all() if project_id is None else [projects.get(project_id)]
        if not chosen:
            yield from _without_project(settings)
        for project in chosen:
            yield from _project(settings, projects, project)
    finally:
        projects.close()


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check; what it did not foresee is a failure of it, not of all."""
    try:
        return check()
    except Exception as error:
        return Check(name, False, str(error) or repr(error))


# --- this machine --------------------------------------------------------------------------------


def _disk(data: Path) -> Check:
    with tempfile.NamedTemporaryFile(dir=data) as probe:
        probe.write(b"writable")
    free = shutil.disk_usage(data).free
    return Check(
        "disk",
        free >= FREE_BYTES,
        f"{free / 2**30:.1f} GiB free in {data}",
        "free some space, or set AFTER_DATA to a folder on a larger disk; AFTER_KEEP_MODELS says "
        "how many models are kept",
    )


def _computing(settings: Settings) -> Check:
    settings.learner_config()  # raises SettingsError for a name that does not exist
    import torch

    cuda = torch.cuda.is_available()
    wanted = settings.device.startswith("cuda")
    if cuda:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        detail = f"PyTorch {torch.__version__}, {', '.join(names)}"
    else:
        detail = f"PyTorch {torch.__version__}, no CUDA device: rounds take minutes instead of secs"
    return Check(
        "computing",
        cuda or not wanted,
        detail,
        f"AFTER_DEVICE={settings.device}, but PyTorch sees no CUDA device: install a CUDA build of "
        "torch and the driver, give the container its GPU, or set AFTER_DEVICE=auto",
    )


def _database(settings: Settings) -> Check:
    projects = Projects(settings)
    count = len(projects.all())
    projects.close()
    where = "PostgreSQL" if settings.database_url.get_secret_value() else str(settings.data)
    if settings.database_url.get_secret_value():
        engine = sa.create_engine(settings.jobs_url)
        engine.connect().close()
        engine.dispose()
    return Check("database", True, f"{where}, {count} connected projects")


def _worker(projects: Projects) -> Check:
    seen = projects.workers()
    alive = [name for name, at in seen.items() if time.time() - at < ALIVE_S]
    detail = f"alive: {', '.join(alive)}" if alive else "no worker is running"
    return Check("worker", bool(alive), detail, "start one: python -m backend worker")


def _answers(url: str, settings: Settings) -> str:
    """ "" where this backend answers at the address, else why not."""
    try:
        response = httpx.get(f"{url}/health", timeout=5, trust_env=False)
        ours = response.status_code == 200 and response.json().get("model_class") == "AfterBackend"
        return "" if ours else f"{url} is something else than this backend"
    except (httpx.HTTPError, ValueError) as error:
        return f"{url} doesn't answer ({type(error).__name__})"


def _service(settings: Settings, address: str) -> Check:
    local = "127.0.0.1" if settings.host in ("0.0.0.0", "::", *LOOPBACK) else settings.host
    own = f"http://{local}:{settings.port}"
    problems = []
    for url in dict.fromkeys((address, own)):
        problem = _answers(url, settings)
        if not problem:
            return Check("web process", True, f"answers at {url}")
        problems.append(problem)
    return Check(
        "web process",
        False,
        "; ".join(problems),
        "start it: python -m backend serve; AFTER_HOST, AFTER_PORT and AFTER_URL say where",
    )


# --- Label Studio --------------------------------------------------------------------------------


def _without_project(settings: Settings) -> Iterator[Check]:
    url, key = settings.label_studio_url, settings.label_studio_api_key.get_secret_value()
    yield _guarded("web process", lambda: _service(settings, settings.backend_url))
    if url and key:
        yield _guarded("Label Studio", lambda: _label_studio(url, key))
        yield _guarded("token", lambda: _token(url, key))
    yield Check(
        "projects",
        False,
        "none is connected",
        "python -m backend connect --url http://... --project ID",
    )


def _label_studio(url: str, key: str) -> Check:
    return Check("Label Studio", True, f"{LabelStudio(url, key).version()} at {url}")


def _token(url: str, key: str) -> Check:
    client = LabelStudio(url, key)
    user = client.whoami()
    kind = "personal access token" if client.personal else "legacy token"
    rights = user.get("permissions")
    missing = [r for r in RIGHTS if isinstance(rights, list) and r not in rights]
    return Check(
        "token",
        not missing,
        f"{kind} of {user.get('email')}" + (f", without {', '.join(missing)}" if missing else ""),
        "connect again with a token of a user who may change the project",
    )


def _project(settings: Settings, projects: Projects, project: Project) -> Iterator[Check]:
    """The checks of one project; what depends on a failed one is left out."""
    name = f"project {project.id}"
    yield _guarded("web process", lambda: _service(settings, project.backend_url))
    server = _guarded("Label Studio", lambda: _label_studio(project.url, project.api_key))
    yield server
    if not server.ok:
        return
    token = _guarded("token", lambda: _token(project.url, project.api_key))
    yield token
    client = LabelStudio(project.url, project.api_key)
    try:
        info = client.project(project.id)
    except LabelStudioError as error:
        yield Check(name, False, str(error))
        return
    yield Check(name, True, f"{info.title!r}, {info.task_number} tasks, {info.annotated} labelled")
    yield _guarded(f"{name}, labeling config", lambda: _config(info))
    yield _guarded(f"{name}, backend", lambda: _registered(client, settings, project))
    webhook = _guarded(f"{name}, webhook", lambda: _webhook(client, project))
    yield webhook
    if webhook.ok:
        yield _guarded(f"{name}, events", lambda: _events(client, projects, info))
    yield _guarded(f"{name}, order", lambda: _order(client, projects, project, info))
    yield _guarded(f"{name}, guess", lambda: _guess(settings, project, info))
    yield _guarded(f"{name}, imports", lambda: _imports(client, info))
    yield _guarded(f"{name}, audio", lambda: _audio(client, settings, info))
    yield _guarded(f"{name}, long recordings", lambda: _long(projects.folder(info.id), settings))


def _again(project: Project) -> str:
    return f"python -m backend connect --url {project.url} --project {project.id}"


def _config(info: ProjectInfo) -> Check:
    name = f"project {info.id}, labeling config"
    try:
        found = labeling.controls(info.label_config)
    except labeling.LabelingError as error:
        fix = "put a Choices on an Audio into it (Settings > Labeling Interface > Code), like\n"
        return Check(name, False, error.reason, fix + labeling.EXAMPLE)
    named = (f"{c.name} on {c.audio_key!r}: {', '.join(c.labels)}" for c in found)
    return Check(name, True, "; ".join(named))


def _registered(client: LabelStudio, settings: Settings, project: Project) -> Check:
    """Reading the registration makes Label Studio call /health and /setup."""
    name = f"project {project.id}, backend"
    found = connect.registrations(client, project)
    if not found:
        return Check(name, False, f"{project.backend_url} is not registered", _again(project))
    if len(found) > 1:
        return Check(name, False, f"it is registered {len(found)} times", _again(project))
    if found[0].connected:
        return Check(name, True, f"Label Studio reaches {project.backend_url}")
    problem = found[0].error
    try:  # Label Studio keeps no reason of an unanswered /health, but says it when asked to save
        user, password = connect.credentials(settings)
        setup.update_backend(client, found[0], project.id, user=user, password=password)
    except LabelStudioError as error:
        problem = str(error)
        if is_ssrf_refusal(error):
            return Check(name, False, "Label Studio may not call this backend", SSRF_SETTINGS)
    return Check(
        name,
        False,
        f"Label Studio doesn't reach it: {problem[:300]}",
        connect.unreachable(project, problem).partition(". It says")[0],
    )


def _webhook(client: LabelStudio, project: Project) -> Check:
    name = f"project {project.id}, webhook"
    found = connect.webhooks(client, project)
    try:
        _probe_webhook(client, project)
    except LabelStudioError as error:
        if is_ssrf_refusal(error):
            return Check(name, False, "Label Studio may not send events to it", SSRF_SETTINGS)
        if "valid URL" in str(error):
            return Check(name, False, "Label Studio takes no webhook to this host", DOTTED_NAME)
        raise
    if not found:
        return Check(name, False, "there is none: labels aren't noticed", _again(project))
    if len(found) > 1:
        detail = f"there are {len(found)}: every event comes {len(found)} times"
        return Check(name, False, detail, _again(project))
    if not found[0].is_active:
        return Check(name, False, "it is switched off", _again(project))
    if connect.tells_password(found[0]):
        detail = "it carries the backend's password, for whoever may see the project's settings"
        return Check(name, False, detail, _again(project))
    if not connect.is_as_wanted(found[0], connect.wanted_headers(project)):
        detail = "its secret header is missing or another one, or it leaves out events"
        return Check(name, False, detail, _again(project))
    return Check(name, True, f"one, to {found[0].url}")


def _probe_webhook(client: LabelStudio, project: Project) -> None:
    """Raises the LabelStudioError that creating the webhook would.

    A webhook that was created while private addresses were allowed stays, and sends nothing once
    they are refused; Label Studio tells nobody.
    """
    url = connect.webhook_url(project)
    setup.delete_webhook(client, setup.add_webhook(client, project.id, url, {}, active=False))


def _events(client: LabelStudio, projects: Projects, info: ProjectInfo) -> Check:
    """Save a setting as it is, and see whether the event comes in."""
    name = f"project {info.id}, events"
    before = projects.get(info.id)
    client.set_sampling(info.id, info.sampling)
    until = time.monotonic() + EVENT_WAIT_S
    while time.monotonic() < until:
        now = projects.get(info.id)
        if now.events + now.task_events > before.events + before.task_events:
            return Check(name, True, "Label Studio's events arrive")
        time.sleep(0.1)
    return Check(
        name,
        False,
        f"none arrived within {EVENT_WAIT_S:g} s of a change",
        f"see what the web process's log says of /webhook; does {before.backend_url} lead to a "
        "web process with this AFTER_DATA or AFTER_DATABASE_URL? Without events AFTER looks every "
        "AFTER_RECONCILE_S seconds",
    )


def _order(client: LabelStudio, projects: Projects, project: Project, info: ProjectInfo) -> Check:
    name = f"project {project.id}, order"
    if info.sampling != connect.SAMPLING:
        return Check(name, False, f"tasks are served by {info.sampling!r}", _again(project))
    folder = projects.folder(project.id)
    order = folder.read(ORDER, {})
    if "version" not in order:
        return Check(name, True, "by uncertainty, once the worker has read the recordings")
    version, wanted = order["version"], [entry["task"] for entry in order["window"]]
    if info.annotated >= info.task_number:
        return Check(name, True, "every task has a label")
    if info.model_version != version:
        detail = f"tasks are served by {info.model_version or 'chance'}, not by {version}"
        return Check(name, False, detail, _again(project))
    left = len(client.open_tasks(project.id, wanted))
    if not left and wanted:
        return Check(
            name,
            False,
            f"the order has run out: all {len(wanted)} tasks of {version} are labelled, and the "
            "others are served at random",
            "start a worker: python -m backend worker. If one runs, its log says why it pushes "
            "nothing",
        )
    return Check(name, True, f"by uncertainty, as {version} has it; {left} of its tasks are open")


def _guess(settings: Settings, project: Project, info: ProjectInfo) -> Check:
    name = f"project {project.id}, guess"
    wanted = project.shows_guess(settings)
    if info.show_predictions == wanted:
        seen = "see" if wanted else "don't see"
        return Check(name, True, f"people {seen} the model's choice before they have answered")
    detail = "people see the model's choice, which sways what they answer"
    if wanted:
        detail = "people don't see the model's choice, although that is wished for"
    option = "--no-show-guess" if wanted else "--show-guess"
    return Check(name, False, detail, f"{_again(project)}; if it is meant, with {option}")


def _imports(client: LabelStudio, info: ProjectInfo) -> Check:
    """Dear imports stop nothing: predictions are then sent one by one."""
    name = f"project {info.id}, imports"
    seconds = client.time_import(info.id)
    if seconds <= CHEAP_S:
        return Check(name, True, f"an import of predictions takes {seconds:.2f} s")
    took = f"{seconds:.1f} s" if math.isfinite(seconds) else f"more than {PATIENCE_S:g} s"
    return Check(
        name,
        True,
        f"an import of predictions takes {took}, the more the larger the project, so they are sent "
        f"one by one; where you may, start Label Studio with {IMPORT_FLAG}",
    )


def _long(folder: ProjectFolder, settings: Settings) -> Check:
    """Those that the worker met; they stop nothing."""
    name = f"project {folder.id}, long recordings"
    reasons = {str(key): reason for key, reason in folder.unusable().items()}
    left_out = cuts.too_long(reasons | folder.read("skipped.json", {}), cuts.cuts(folder))
    if not left_out:
        return Check(name, True, f"none of more than {settings.max_audio_s:g} s is left out")
    return Check(
        name,
        True,
        f"{len(left_out)} of more than {settings.max_audio_s:g} s are left out; python -m backend "
        f"cut {folder.id} makes utterances of them",
    )


def _audio(client: LabelStudio, settings: Settings, info: ProjectInfo) -> Check:
    """Fetch a few recordings anew and read their headers."""
    from after_model.audio import AudioError, AudioLimits, probe

    name = f"project {info.id}, audio"
    try:
        keys = {control.audio_key for control in labeling.controls(info.label_config)}
    except labeling.LabelingError:
        return Check(name, False, "the labeling config names no audio", "see above")
    tasks = client.tasks(info.id)
    if not tasks:
        fix = f"import some: {client.url}/projects/{info.id}/data/import"
        return Check(name, False, "the project has no tasks", fix)
    step = max(1, len(tasks) // SAMPLE)
    sample = tasks[::step][:SAMPLE]
    wanted = {f"{t.id}-{k}": t.data[k] for t in sample for k in sorted(keys) if t.data.get(k)}
    if not wanted:
        given = ", ".join(sorted(sample[0].data)) or "nothing"
        return Check(
            name,
            False,
            f"the tasks' data has {given}, and no {', '.join(sorted(keys))}",
            f'write <Audio value="${next(iter(sample[0].data), "audio")}"/> in the labeling config',
        )
    limits = AudioLimits(max_duration_s=settings.max_audio_s)
    problems, seconds = [], 0.0
    with tempfile.TemporaryDirectory(prefix="after-doctor-") as folder:
        for key, fetched in recordings.fetch(client, Path(folder), wanted, settings).items():
            try:
                if fetched.path is None:
                    problems.append(f"task {key.split('-')[0]}: {fetched.error}")
                else:
                    seconds += probe(fetched.path, limits).duration_s
            except AudioError as error:
                problems.append(f"task {key.split('-')[0]}: {cuts.why(error)}")
    if problems:
        detail = f"{len(problems)} of {len(wanted)} can't be used: {'; '.join(problems)}"
        return Check(name, False, detail, "each is skipped, and the rest is used")
    return Check(name, True, f"{len(wanted)} of {len(tasks)} read, {seconds:.1f} s in all")
