"""Whatever is sent to the service, it never fails: no 5xx, no traceback, JSON with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from web_fixtures import CONFIG, SECRET, add_project, entry, make_client, make_settings, release

ROUTES = ["/", "/health", "/setup", "/predict", "/webhook", "/versions", "/status", "/metrics"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
TYPES = ["application/json", "application/json; charset=utf-16", "text/plain", "", "a/b; =;;"]
FUZZ = hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=["open", "guarded"])
def client(request, tmp_path_factory):
    guarded = {"basic_auth_user": "ls", "basic_auth_pass": "pw"}
    values = guarded if request.param == "guarded" else {}
    settings = make_settings(
        tmp_path_factory.mktemp("fuzz"),
        label_studio_url="http://localhost:9", label_studio_api_key="k" * 40, **values,
    )  # fmt: skip
    folder = add_project(settings)
    release(folder, "after-r01-n0016", {1: entry(0.1, 0.7, 0.1, 0.1)})
    return make_client(settings)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["1", "1.1795343438", "START_TRAINING", "ANNOTATION_CREATED", CONFIG, "\ud800"]
    )
)
json_values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "data", "project", "action", "tasks", "label_config", "params"])
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
bodies = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"9" * 10_000, b"NaN", b"-Infinity", b""]),
)


def check(response):
    assert response.status_code < 500, response.text
    assert "Traceback" not in response.text
    if response.status_code >= 400 and response.request.method != "HEAD":
        assert response.json["error"]


@FUZZ
@given(
    route=st.sampled_from(ROUTES) | st.text(max_size=10).map(lambda text: "/" + text),
    method=st.sampled_from(METHODS),
    body=bodies,
    content_type=st.sampled_from(TYPES),
    secret=st.sampled_from([None, SECRET, "", "x"]),
    authorization=st.sampled_from(
        [None, "Basic bHM6cHc=", "Basic x", "Bearer y", "Basic " + "A" * 99]
    ),
)
def test_nothing_sent_makes_the_service_fail(
    client, route, method, body, content_type, secret, authorization
):
    headers = {"X-AFTER-Secret": secret, "Authorization": authorization}
    given_headers = {name: value for name, value in headers.items() if value is not None}
    check(
        client.open(
            route, method=method, data=body, content_type=content_type, headers=given_headers
        )
    )


plausible = {
    "/setup": st.fixed_dictionaries({"project": leaves}),
    "/webhook": st.fixed_dictionaries(
        {
            "action": st.sampled_from(["ANNOTATION_CREATED", "START_TRAINING", "TASKS_CREATED"])
            | leaves,
            "project": st.fixed_dictionaries({"id": st.just(1) | leaves}) | leaves,
        }
    ),
    "/predict": st.fixed_dictionaries(
        {
            "tasks": st.lists(
                st.fixed_dictionaries(
                    {"id": st.just(1) | leaves},
                    optional={"data": st.dictionaries(st.just("audio"), json_values) | leaves},
                )
                | leaves,
                max_size=3,
            ),
            "project": st.just("1.1795343438") | leaves,
            "label_config": st.just(CONFIG)
            | leaves
            | st.text(alphabet='<>/"= Choices', max_size=40),
        },
        optional={"params": json_values},
    ),
    "/versions": st.fixed_dictionaries({}, optional={"project": leaves}),
}


@FUZZ
@given(data=st.data(), route=st.sampled_from(sorted(plausible)))
def test_nothing_nearly_right_makes_the_service_fail(client, data, route):
    body = data.draw(plausible[route])
    response = client.post(
        route,
        data=json.dumps(body),
        content_type="application/json",
        headers={"X-AFTER-Secret": SECRET, "Authorization": "Basic bHM6cHc="},
    )
    check(response)
    if route == "/predict" and response.status_code == 200:
        assert len(response.json["results"]) == len(body["tasks"])


@FUZZ
@given(query=st.dictionaries(st.sampled_from(["project", "x"]), st.text(max_size=12), max_size=2))
def test_no_query_makes_the_service_fail(client, query):
    check(client.get("/versions", query_string=query, headers={"Authorization": "Basic bHM6cHc="}))
