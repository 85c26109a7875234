"""What the service accepts: bodies as JSON, checked, with the field's name in every refusal.

Whatever arrives, the answer is the body as an object of the right types or a 4xx with a reason.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from flask import Request, abort
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

MAX_PROJECT_ID = 2**31 - 1  # an integer column of Label Studio and of the table of projects

Body = TypeVar("Body", bound=BaseModel)


class ProjectReference(BaseModel):
    """The part of a webhook's project that matters; what it has besides its id may be anything."""

    id: StrictInt = Field(ge=1, le=MAX_PROJECT_ID)
    model_version: Any = None
    label_config: Any = None
    sampling: Any = None
    maximum_annotations: Any = None


class WebhookBody(BaseModel):
    """POST /webhook, whatever the action: everything else is asked of Label Studio itself."""

    action: StrictStr = Field(min_length=1, max_length=100)
    project: ProjectReference


class SetupBody(BaseModel):
    """POST /setup. Its access_token is not kept: it is the creator's, and sent in the clear."""

    project: StrictStr


class VersionsBody(BaseModel):
    """GET or POST /versions; Label Studio sends none with GET."""

    project: StrictStr | None = None


class TaskBody(BaseModel):
    """One task to predict."""

    model_config = ConfigDict(extra="ignore")

    id: StrictInt = Field(ge=0, le=2**63 - 1)
    data: dict[str, Any] = Field(default_factory=dict)


class PredictBody(BaseModel):
    """POST /predict. params.context, which interactive labeling sends, changes nothing here."""

    tasks: list[TaskBody]
    project: StrictStr
    label_config: StrictStr
    params: dict[str, Any] | None = None


def read(request: Request, kind: type[Body]) -> Body:
    """The request's body; aborts with 400, 413, 415 or 422 and the reason."""
    if not request.is_json:
        abort(415, "expected a JSON body with Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        abort(415, "expected a body as it is, without Content-Encoding")
    return check(parse(request.get_data()), kind)


def parse(raw: bytes) -> Any:
    """Any JSON; aborts with 400 on anything else."""
    try:
        return json.loads(raw)
    except RecursionError:
        abort(400, "the JSON is nested too deeply")
    except ValueError as error:  # not UTF-8 and numbers of thousands of digits, too
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        abort(400, f"the body is not JSON{where}")


def check(content: Any, kind: type[Body]) -> Body:
    """The content as `kind`; aborts with 422 naming the fields that are wrong."""
    if not isinstance(content, dict):
        abort(422, f"expected a JSON object, got {_kind_of(content)}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in details[:5]]
        abort(422, "; ".join(lines))


def project_id(uid: str) -> int:
    """ "1.1795343438" (Label Studio's id and time of creation) or "1" -> 1; aborts with 422."""
    match = re.fullmatch(r"([0-9]{1,10})(\.[0-9]{1,20})?", uid)
    number = int(match[1]) if match else 0
    if not 1 <= number <= MAX_PROJECT_ID:
        abort(422, "project: expected Label Studio's project id, such as 7 or 7.1795343438")
    return number


def _kind_of(content: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(content), "a number")
