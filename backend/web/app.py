"""The web service: Label Studio's ML-backend protocol, the status page, metrics.

Label Studio calls /health, /setup and /webhook while a person waits (it gives up after 1, 3 and 1
seconds), so these only read small files and move counters. Nothing here trains; a model is loaded
for /predict alone, when a task has no stored answer (see predicting.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, abort, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from backend import access
from backend.settings import Settings, new_secret
from backend.store.projects import Project, Projects, UnknownProject
from backend.web import bodies, charts
from backend.web.bodies import PredictBody, SetupBody, VersionsBody, WebhookBody
from backend.web.events import Events
from backend.web.metrics import Metrics
from backend.web.predicting import (
    PENDING_VERSION,
    ConfigNotUnderstood,
    Predictor,
    order_version,
    serving_version,
)
from backend.web.readiness import problems
from backend.web.status import duration, status

log = logging.getLogger("after.web")

EVENTS = (
    "ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED",
    "ANNOTATIONS_CREATED", "ANNOTATIONS_UPDATED", "ANNOTATIONS_DELETED",
)  # fmt: skip
TASK_EVENTS = ("TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED")
MAX_ADOPTED = 100  # projects that Label Studio's pages connected and no worker has checked yet

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings) -> Flask:
    """The WSGI application; imports neither torch nor a model."""
    app = Flask(__name__, template_folder=str(Path(__file__).parent / "templates"))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.jinja_env.autoescape = True  # the template's name doesn't end in .html
    app.jinja_env.globals.update(
        {
            "learning_curve": charts.learning_curve,
            "entropy_histogram": charts.entropy_histogram,
            "duration": duration,
            "ago": lambda seconds: f"{duration(seconds)} ago",
            "share": lambda part, whole: min(100.0, 100.0 * part / max(1, whole)),
        }
    )
    projects = Projects(settings)
    predictor = Predictor(settings)
    metrics = Metrics(settings, projects)
    app.extensions["after"] = projects
    events = Events(projects)

    @app.before_request
    def _let_in() -> None:
        if request.path not in ("/health", "/ready"):
            access.check(settings, request)

    @app.after_request
    def _close(response: Response) -> Response:
        for name, value in PAGE_HEADERS.items():
            response.headers.setdefault(name, value)
        metrics.note_request(request.url_rule.rule if request.url_rule else "", response)
        return response

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "UP", "model_class": "AfterBackend"}

    @app.get("/ready")
    def ready() -> tuple[dict[str, Any], int]:
        missing = problems(projects)
        return {"ready": not missing, "problems": missing}, 503 if missing else 200

    @app.post("/setup")
    def setup() -> dict[str, Any]:
        body = bodies.read(request, SetupBody)
        project = _connected(settings, projects, bodies.project_id(body.project))
        folder = projects.folder(project.id)
        return {"model_version": order_version(folder) or PENDING_VERSION}

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        body = bodies.read(request, PredictBody)
        project = projects.get(bodies.project_id(body.project))
        answers = predictor.predict(
            project,
            projects.folder(project.id),
            [(task.id, task.data) for task in body.tasks],
            body.label_config,
        )
        metrics.note_answers(project.id, answers)
        return {"results": answers}

    @app.post("/webhook")
    def webhook() -> dict[str, Any]:
        try:
            project, body = _event(settings, events.known())
        except (HTTPException, UnknownProject):  # of what was known a second ago
            project, body = _event(settings, events.known(fresh=True))
        action = body.action
        if action == "START_TRAINING":
            projects.request_training(project.id)
        elif action == "PROJECT_UPDATED" and not events.is_news(body.project):
            return {"status": "ignored"}
        elif action in TASK_EVENTS or action in EVENTS:
            events.note(project.id, tasks_changed=action in TASK_EVENTS)
        else:
            return {"status": "ignored"}
        return {"status": "noted"}

    @app.route("/versions", methods=["GET", "POST"])
    def versions() -> dict[str, Any]:
        project = _named(projects)
        chosen = projects.all() if project is None else [project]  # with GET none is named
        folders = [projects.folder(p.id) for p in chosen]
        published = {version for folder in folders for version in folder.releases.versions()}
        return {
            "versions": sorted(published),
            "current": serving_version(folders[0]) if len(folders) == 1 else None,
        }

    @app.get("/status")
    def status_json() -> Response:
        return jsonify(status(settings, projects))

    @app.get("/")
    def page() -> str:
        return render_template(
            "status.html.jinja", still="still" in request.args, **status(settings, projects)
        )

    @app.get("/metrics")
    def metrics_text() -> Response:
        return Response(metrics.text(), content_type=metrics.content_type)

    _handle_errors(app)
    return app


def _connected(settings: Settings, projects: Projects, project_id: int) -> Project:
    """The project; one that Label Studio's own pages connected is adopted."""
    try:
        return projects.get(project_id)
    except UnknownProject:
        key = settings.label_studio_api_key.get_secret_value()
        if not (settings.label_studio_url and key):
            raise
        if sum(project.adopted for project in projects.all()) >= MAX_ADOPTED:
            abort(429, f"{MAX_ADOPTED} new projects wait for the worker; is it running?")
        log.info("project=%d adopted", project_id)
        return projects.save(
            Project(
                id=project_id,
                url=settings.label_studio_url,
                api_key=key,
                secret=new_secret(),
                backend_url=settings.backend_url,
                adopted=True,
            )
        )


def _event(settings: Settings, known: Mapping[int, Project]) -> tuple[Project, WebhookBody]:
    """The request's project and what it tells; aborts, or raises UnknownProject, where it may not
    count."""
    access.check_sender(settings, request, [project.secret for project in known.values()])
    body = bodies.read(request, WebhookBody)
    if body.project.id not in known:
        raise UnknownProject(body.project.id)
    project = known[body.project.id]
    access.check_event(settings, request, body.action, project.secret)
    return project, body


def _named(projects: Projects) -> Project | None:
    """The project that a request about versions names in its address or its body, if it does."""
    uid = request.args.get("project")
    if uid is None and request.is_json and request.get_data():
        uid = bodies.read(request, VersionsBody).project
    return None if uid is None else projects.get(bodies.project_id(uid))


def _handle_errors(app: Flask) -> None:
    """Every error is JSON with a reason; what is unexpected is in the log, not in the answer."""

    @app.errorhandler(HTTPException)
    def _refused(error: HTTPException) -> tuple[Response, int] | Response:
        response = error.get_response()
        reason = jsonify({"error": error.description or error.name})
        response.data, response.content_type = reason.data, "application/json"
        return response  # type: ignore[return-value]  # werkzeug's class, made by Flask

    @app.errorhandler(UnknownProject)
    def _unknown(error: UnknownProject) -> tuple[Response, int]:
        return jsonify({"error": str(error)}), 404

    @app.errorhandler(ConfigNotUnderstood)
    def _not_understood(error: ConfigNotUnderstood) -> tuple[Response, int]:
        return jsonify({"error": f"label_config: {error}"}), 422

    @app.errorhandler(sa.exc.OperationalError)
    def _no_database(_error: sa.exc.OperationalError) -> tuple[Response, int]:
        log.exception("route=%s the database can't be used", request.path)
        return jsonify({"error": "the backend's database can't be used; its log says why"}), 503

    @app.errorhandler(Exception)
    def _failed(_error: Exception) -> tuple[Response, int]:
        log.exception("route=%s failed", request.path)
        return jsonify({"error": "the backend failed; its log says why"}), 500
