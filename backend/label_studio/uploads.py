"""Files and tasks sent into a project of Label Studio."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.label_studio.connection import Connection, LabelStudioError

FILES = 16  # a request: a few MiB of segments; Label Studio takes up to a hundred
TASKS = 500  # a request
_UPLOADED = re.compile(r"upload/\d+/[0-9a-f]{8}-(?P<name>[^/]+)")  # as Label Studio 1.23 names them


def uploaded(client: Connection, project_id: int) -> dict[str, str]:
    """What the token's user uploaded into a project: addresses by the names that were given."""
    return _listed(client, project_id, {"all": "true"})


def upload(client: Connection, project_id: int, files: Sequence[Path]) -> dict[str, str]:
    """Upload files that become no tasks by themselves: addresses by their names.

    Names are ASCII without spaces, so that Label Studio keeps them.
    """
    found: dict[str, str] = {}
    for start in range(0, len(files), FILES):
        some = files[start : start + FILES]
        what = f"take {len(some)} files into project {project_id}"
        answer = client.request(
            what,
            "POST",
            f"api/projects/{project_id}/import",
            params={"commit_to_project": "false"},
            files={path.name: (path.name, path.read_bytes()) for path in some},
        )
        ids = answer.get("file_upload_ids") or []
        found |= _listed(client, project_id, {"ids": json.dumps(ids)})
    missing = [path.name for path in files if path.name not in found]
    if missing:
        raise LabelStudioError(
            f"{client.url}: asked to take files into project {project_id}, Label Studio doesn't "
            f"list {missing[0]} afterwards"
        )
    return found


def import_tasks(client: Connection, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> None:
    """New tasks with these data."""
    what, path = f"add tasks to project {project_id}", f"api/projects/{project_id}/import"
    for start in range(0, len(tasks), TASKS):
        some = [{"data": dict(data)} for data in tasks[start : start + TASKS]]
        client.request(what, "POST", path, json=some)


def _listed(client: Connection, project_id: int, params: Mapping[str, str]) -> dict[str, str]:
    what = f"read the uploads of project {project_id}"
    found = client.request(what, "GET", f"api/projects/{project_id}/file-uploads", params=params)
    named = ((_UPLOADED.fullmatch(entry["file"]), entry["file"]) for entry in found)
    return {match["name"]: f"/data/{file}" for match, file in named if match}
