"""What connects a project in Label Studio: ML backends, webhooks, tabs of the Data Manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.label_studio.connection import Connection


@dataclass(frozen=True)
class Backend:
    """An ML backend as Label Studio knows it; reading it makes Label Studio call it."""

    id: int
    url: str
    title: str
    state: str
    error: str
    user: str
    has_password: bool

    @property
    def connected(self) -> bool:
        return self.state == "CO"


@dataclass(frozen=True)
class Webhook:
    """A webhook of a project."""

    id: int
    url: str
    project: int | None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    is_active: bool = True
    send_payload: bool = True
    for_all_actions: bool = True


@dataclass(frozen=True)
class View:
    """A tab of the Data Manager."""

    id: int
    title: str
    ordering: tuple[str, ...]
    data: dict[str, Any]


def backends(client: Connection, project_id: int) -> list[Backend]:
    """The project's ML backends; Label Studio asks each whether it is up."""
    return [_backend(entry) for entry in _listed(client, "backends", "api/ml/", project_id)]


def add_backend(
    client: Connection, project_id: int, url: str, title: str, user: str = "", password: str = ""
) -> Backend:
    """Label Studio calls the backend at once and refuses it where that fails."""
    body = {"project": project_id, "url": url, "title": title}
    body |= _backend_credentials(user, password)
    return _backend(client.request(f"register the backend {url}", "POST", "api/ml/", json=body))


def update_backend(
    client: Connection,
    backend: Backend,
    project_id: int,
    title: str | None = None,
    user: str = "",
    password: str = "",
) -> Backend:
    # Without the url Label Studio answers with an error of its own.
    body = {"project": project_id, "url": backend.url, "title": title or backend.title}
    body |= _backend_credentials(user, password)
    return _backend(_updated(client, f"backend {backend.url}", f"api/ml/{backend.id}", body))


def delete_backend(client: Connection, backend: Backend) -> None:
    client.request(f"remove the backend {backend.url}", "DELETE", f"api/ml/{backend.id}")


def webhooks(client: Connection, project_id: int) -> list[Webhook]:
    return [_webhook(entry) for entry in _listed(client, "webhooks", "api/webhooks/", project_id)]


def add_webhook(
    client: Connection, project_id: int, url: str, headers: Mapping[str, str], active: bool = True
) -> Webhook:
    body = _webhook_body(url, headers) | {"project": project_id, "is_active": active}
    what = f"create the webhook {url}"
    return _webhook(client.request(what, "POST", "api/webhooks/", json=body))


def update_webhook(client: Connection, webhook: Webhook, headers: Mapping[str, str]) -> Webhook:
    """Make it active, for all events, with these headers."""
    body = _webhook_body(webhook.url, headers)
    path = f"api/webhooks/{webhook.id}/"
    return _webhook(_updated(client, f"webhook {webhook.url}", path, body))


def delete_webhook(client: Connection, webhook: Webhook) -> None:
    client.request(f"remove the webhook {webhook.url}", "DELETE", f"api/webhooks/{webhook.id}/")


def views(client: Connection, project_id: int) -> list[View]:
    return [_view(entry) for entry in _listed(client, "tabs", "api/dm/views/", project_id)]


def add_view(client: Connection, project_id: int, data: Mapping[str, Any]) -> View:
    """A tab of the Data Manager; data: {"title", "ordering", "filters", ...}."""
    body = {"project": project_id, "data": data}
    what = f"create the tab {data['title']!r}"
    return _view(client.request(what, "POST", "api/dm/views/", json=body))


def update_view(client: Connection, project_id: int, view: View, data: Mapping[str, Any]) -> View:
    """Another content of a tab; filters of data replace those that are there."""
    body = {"project": project_id, "data": data}
    path = f"api/dm/views/{view.id}/"
    return _view(_updated(client, f"tab {data['title']!r}", path, body))


def columns(client: Connection, project_id: int) -> list[str]:
    """What a tab of the Data Manager can show, such as "tasks:data.audio"."""
    found = _listed(client, "columns", "api/dm/columns/", project_id)
    return [_column(entry) for entry in found["columns"] if not entry.get("children")]


def show_predictions(client: Connection, project_id: int, model_version: str, show: bool) -> None:
    """Whether people see predictions before they have answered.

    Hiding them empties `model_version`, by which tasks are served, unless it is sent along.
    """
    body = {"show_collab_predictions": show, "model_version": model_version}
    what = f"{'show' if show else 'hide'} the predictions of project {project_id}"
    client.request(what, "PATCH", f"api/projects/{project_id}/", json=body)


def _listed(client: Connection, what: str, path: str, project_id: int) -> Any:
    """What a project has of this kind."""
    named = f"read the {what} of project {project_id}"
    return client.request(named, "GET", path, params={"project": project_id})


def _updated(client: Connection, what: str, path: str, body: Mapping[str, Any]) -> Any:
    """What Label Studio has after it was changed."""
    return client.request(f"change the {what}", "PATCH", path, json=body)


def _column(entry: Mapping[str, Any]) -> str:
    parent = f"{entry['parent']}." if entry.get("parent") else ""
    return f"{entry['target']}:{parent}{entry['id']}"


def _backend(entry: Mapping[str, Any]) -> Backend:
    return Backend(
        id=entry["id"],
        url=entry.get("url") or "",
        title=entry.get("title") or "",
        state=entry.get("state") or "",
        error=entry.get("error_message") or "",
        user=entry.get("basic_auth_user") or "",
        has_password=bool(entry.get("basic_auth_pass_is_set")),
    )


def _backend_credentials(user: str, password: str) -> dict[str, Any]:
    if not user:
        return {"auth_method": "NONE"}
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}


def _webhook(entry: Mapping[str, Any]) -> Webhook:
    return Webhook(
        id=entry["id"],
        url=entry.get("url") or "",
        project=entry.get("project"),
        headers=dict(entry.get("headers") or {}),
        is_active=bool(entry.get("is_active")),
        send_payload=bool(entry.get("send_payload")),
        for_all_actions=bool(entry.get("send_for_all_actions")),
    )


def _webhook_body(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "url": url,
        "headers": dict(headers),
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
    }


def _view(entry: Mapping[str, Any]) -> View:
    data = dict(entry.get("data") or {})
    ordering = data.get("ordering") or entry.get("ordering") or ()
    return View(entry["id"], str(data.get("title") or ""), tuple(ordering), data)
