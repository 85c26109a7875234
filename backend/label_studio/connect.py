"""Connect a project of Label Studio with this backend, and repair a connection; safe to repeat.

What Label Studio does by itself when a backend is added is not enough, and partly in the way: it
serves tasks in random order (its `model_version` becomes the backend's title), its webhook has no
credentials, is missing where the host's name has no dot, and is there twice where somebody added
the backend twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from backend import settings as settings_module
from backend.access import SECRET_HEADER
from backend.label_studio import display, labeling, speaking
from backend.label_studio import registration as setup
from backend.label_studio.connection import DOTTED_NAME, SSRF_SETTINGS, is_ssrf_refusal
from backend.label_studio.failures import DOCUMENT
from backend.label_studio.predictions import LabelStudio, LabelStudioError, LabelStudioUnavailable
from backend.label_studio.registration import Webhook
from backend.label_studio.speakers import NOTHING_SAID, Rule
from backend.settings import Settings
from backend.store.projects import ORDER, Project, Projects, UnknownProject

TITLE = "AFTER"
SAMPLING = "Uncertainty sampling"


class ConnectError(ValueError):
    """A connection that can't be made; the message says which setting to change, and where."""


@dataclass(frozen=True)
class Wishes:
    """What whoever connects a project wants of it; what isn't said stays as it is.

    speaker: how tasks say who speaks. use_speakers: use what is found, where nothing was said yet.
    show_guess: whether people see the model's choice before they have answered.
    """

    speaker: Rule = NOTHING_SAID
    use_speakers: bool = False
    show_guess: bool | None = None


@dataclass
class Connected:
    """What connecting found and changed, a line each; people: of those that are about people."""

    project: Project
    lines: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def connect(
    settings: Settings,
    url: str,
    api_key: str,
    project_id: int,
    backend_url: str | None = None,
    wishes: Wishes = Wishes(),
) -> Connected:
    """Check, register, repair; the worker then begins by itself.

    Raises ConnectError, LabelingError, SpeakerError or LabelStudioError, before anything is changed
    where the reason can be known before.
    """
    projects = Projects(settings)
    address = (backend_url or settings.backend_url).rstrip("/")
    client = LabelStudio(url, api_key)
    info = client.project(project_id)
    controls = labeling.controls(info.label_config)
    _check_same_server(projects, project_id, url)
    _check_backend(address)
    before = _known(projects, project_id)
    said = speaking.decide(
        client, info, controls, speaking.rule_of(before), wishes.speaker, wishes.use_speakers
    )
    kept = before.show_guess if before else None
    project = projects.save(
        Project(
            id=project_id,
            url=url,
            api_key=api_key,
            secret=before.secret if before else settings_module.new_secret(),
            title=info.title,
            backend_url=address,
            speaker_key=said.rule.key,
            speaker_pattern=said.rule.pattern,
            show_guess=kept if wishes.show_guess is None else wishes.show_guess,
        )
    )
    keys = {control.audio_key for control in controls}
    speaking.note(projects.folder(project_id), said.rule, said.tasks, keys)
    projects.folder(project_id).reserve()
    projects.folder(project_id).delete(["failed.json", DOCUMENT])  # connecting again tries again
    result = Connected(project)
    named = ", ".join(f"{c.name} ({len(c.labels)} labels)" for c in controls)
    result.lines.append(f"project {project_id}, {info.title!r}: learns {named}")
    result.people.append(said.line)
    try:
        _register(client, settings, project, result)
        _repair_webhook(client, project, result)
    except Exception:
        if before is None:  # a project that can't be reached is not to be worked at
            projects.remove(project_id)
        raise
    if before is not None and before.backend_url not in ("", address):
        _forget_address(client, before, result)
    _repair_order(client, projects, project, result)
    result.people.append(display.repair_guess(client, settings, project))
    if line := display.repair_tab(client, project, keys):
        result.lines.append(line)
    projects.note_event(project_id, tasks_changed=True)
    result.lines += result.people
    result.lines.append(
        f"connected. Label at {url}/projects/{project_id}/ ; how it goes: {address}/"
    )
    return result


def disconnect(settings: Settings, project_id: int) -> str:
    """Take the backend and its webhook out of the project; models, labels, predictions stay."""
    projects = Projects(settings)
    project = projects.get(project_id)
    try:
        client = LabelStudio(project.url, project.api_key)
        for backend in registrations(client, project):
            setup.delete_backend(client, backend)
        for webhook in webhooks(client, project):
            setup.delete_webhook(client, webhook)
        said = f"project {project_id} is disconnected"
    except LabelStudioError as error:
        said = f"project {project_id} is forgotten here, but Label Studio can't be changed: {error}"
    projects.remove(project_id)
    return f"{said}; its models stay in {projects.folder(project_id).path}"


# --- checks --------------------------------------------------------------------------------------


def _known(projects: Projects, project_id: int) -> Project | None:
    try:
        return projects.get(project_id)
    except UnknownProject:
        return None


def _check_same_server(projects: Projects, project_id: int, url: str) -> None:
    """One backend serves one Label Studio: project ids are unique only within one."""
    others = {p.url for p in projects.all() if p.id != project_id and p.url != url}
    if others:
        raise ConnectError(
            f"this backend serves {', '.join(sorted(others))} already; for {url} start another "
            "with a folder of its own (AFTER_DATA)"
        )


def _check_backend(address: str) -> None:
    """Label Studio asks the backend while it is registered: it has to run."""
    try:
        response = httpx.get(f"{address}/health", timeout=5, trust_env=False)
        ours = response.status_code == 200 and response.json().get("model_class") == "AfterBackend"
    except (httpx.HTTPError, ValueError) as error:
        # An address that only Label Studio can reach is fine: it says so itself if it can't.
        if urlsplit(address).hostname not in settings_module.LOOPBACK:
            return
        raise ConnectError(
            f"{address} doesn't answer: start the backend first (python -m backend serve), or "
            "name its address with --backend-url"
        ) from error
    if not ours:
        raise ConnectError(f"{address} is something else than this backend; set --backend-url")


# --- registration --------------------------------------------------------------------------------


def registrations(client: LabelStudio, project: Project) -> list[setup.Backend]:
    """The registrations of this backend; there should be one."""
    found = setup.backends(client, project.id)
    return [backend for backend in found if backend.url.rstrip("/") == project.backend_url]


def _forget_address(client: LabelStudio, old: Project, result: Connected) -> None:
    """Take out what led to the address that the backend had before."""
    for backend in registrations(client, old):
        setup.delete_backend(client, backend)
    for webhook in webhooks(client, old):
        setup.delete_webhook(client, webhook)
    result.lines.append(f"removed the backend's old address, {old.backend_url}")


def credentials(settings: Settings) -> tuple[str, str]:
    """The user and password that the backend wants, both empty where it wants none."""
    if not settings.has_credentials:
        return "", ""
    return settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()


def _register(client: LabelStudio, settings: Settings, project: Project, result: Connected) -> None:
    user, password = credentials(settings)
    found = registrations(client, project)
    for extra in found[1:]:
        setup.delete_backend(client, extra)
        result.lines.append("removed a second registration of this backend")
    try:
        if not found:
            backend = setup.add_backend(
                client, project.id, project.backend_url, TITLE, user, password
            )
            result.lines.append(f"registered the backend, {project.backend_url}")
        elif found[0].connected and (found[0].user, found[0].has_password) == (user, bool(user)):
            backend = found[0]
            result.lines.append(f"the backend is registered, {project.backend_url}")
        else:
            backend = setup.update_backend(
                client, found[0], project.id, user=user, password=password
            )
            result.lines.append("registered the backend anew")
    except LabelStudioUnavailable:
        raise
    except LabelStudioError as error:
        if not found:  # a refused one may stay, without a webhook
            for orphan in registrations(client, project):
                setup.delete_backend(client, orphan)
        if is_ssrf_refusal(error):
            raise ConnectError(f"{SSRF_SETTINGS} ({project.backend_url})") from error
        raise ConnectError(unreachable(project, str(error))) from error
    if not backend.connected:
        raise ConnectError(unreachable(project, backend.error))


def unreachable(project: Project, reason: str) -> str:
    """What to change, from what Label Studio says of the backend."""
    if "403 Client Error" in reason:
        return (
            "the backend answers to its own name only: start it with "
            f"AFTER_URL={project.backend_url}, and with AFTER_BASIC_AUTH_USER and "
            "AFTER_BASIC_AUTH_PASS where Label Studio is on another machine"
        )
    if "401 Client Error" in reason or "authentication parameters" in reason:
        return (
            f"{project.backend_url} refused Label Studio's credentials: run connect with the "
            "AFTER_BASIC_AUTH_USER and AFTER_BASIC_AUTH_PASS that the backend was started with"
        )
    return (
        f"Label Studio can't reach {project.backend_url}: give an address that its machine can "
        f"reach with --backend-url or AFTER_URL. It says: {reason[:300]}"
    )


# --- webhook -------------------------------------------------------------------------------------


def webhook_url(project: Project) -> str:
    return f"{project.backend_url}/webhook"


def webhooks(client: LabelStudio, project: Project) -> list[Webhook]:
    """The project's webhooks to this backend; there should be one."""
    found = setup.webhooks(client, project.id)
    return [w for w in found if w.url.rstrip("/") == webhook_url(project)]


def wanted_headers(project: Project) -> dict[str, str]:
    """The secret that tells Label Studio's events from others'; it opens nothing else.

    Whoever may change the project sees these headers, so the backend's password is none of them.
    """
    return {SECRET_HEADER: project.secret}


def tells_password(webhook: Webhook) -> bool:
    """Whether it carries the backend's password, as those of older releases do."""
    return any(name.lower() == "authorization" for name in webhook.headers)


def is_as_wanted(webhook: Webhook, headers: dict[str, str]) -> bool:
    """Whether it is active, sends every event with its content, and has the headers."""
    sends = webhook.is_active and webhook.send_payload and webhook.for_all_actions
    return sends and webhook.headers == headers


def _repair_webhook(client: LabelStudio, project: Project, result: Connected) -> None:
    headers = wanted_headers(project)
    found = webhooks(client, project)
    for extra in found[1:]:
        setup.delete_webhook(client, extra)
        result.lines.append("removed a second webhook: every event came twice")
    if found and is_as_wanted(found[0], headers):
        result.lines.append("the webhook is as it should be")
    elif found:
        setup.update_webhook(client, found[0], headers)
        told = " instead of the backend's password" if tells_password(found[0]) else ""
        result.lines.append(f"gave the webhook its secret header{told}")
    else:
        try:
            setup.add_webhook(client, project.id, webhook_url(project), headers)
        except LabelStudioError as error:
            if "valid URL" not in str(error) and "." in (urlsplit(project.backend_url).netloc):
                raise
            raise ConnectError(f"{DOTTED_NAME} ({project.backend_url})") from error
        result.lines.append("created the webhook")


# --- order ---------------------------------------------------------------------------------------


def _repair_order(
    client: LabelStudio, projects: Projects, project: Project, result: Connected
) -> None:
    """Uncertainty sampling by the newest window, if there is one."""
    info = client.project(project.id)
    if info.sampling != SAMPLING:
        client.set_sampling(project.id, SAMPLING)
        result.lines.append("tasks are served by uncertainty from now on")
    newest = projects.folder(project.id).read(ORDER, {}).get("version")
    if (
        newest is not None
        and info.model_version != newest
        and client.prediction_counts(project.id).get(newest)
    ):
        client.set_model_version(project.id, newest)
        result.lines.append(f"tasks are served in the order of {newest} again")
