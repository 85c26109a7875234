"""Fetching audio: whole or not at all, no secrets to strangers, no private addresses."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio import audio as recordings
from backend.label_studio.failures import Failures
from backend.label_studio.predictions import LabelStudioUnavailable
from backend.settings import Settings

UPLOADS = "/data/upload/1"
TOKEN = {"Authorization": "Token very-secret"}
CLIP = b"RIFF-not-really-audio" * 1000
BOMB = gzip.compress(bytes(100 * 2**20), 9)
BODIES = {
    "/empty.wav": b"",
    "/endless.wav": CLIP * 100,
    "/packed.wav": gzip.compress(CLIP),
    "/bomb.wav": BOMB,
    "/nested.wav": gzip.compress(BOMB, 9),
}


class _Server(BaseHTTPRequestHandler):
    """Serves /clip.wav, redirects, slow, large and broken answers; remembers what was asked."""

    asked: list[tuple[str, str | None]]
    down: list[bool]

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers.get("Authorization")))
        parts = urlsplit(self.path)
        name = parts.path.removeprefix("/data/upload/1")
        if name in ("/redirect", "/loop"):
            self.send_response(302)
            self.send_header("Location", parse_qs(parts.query).get("to", [f"{UPLOADS}/loop"])[0])
            self.end_headers()
            return
        if name.startswith("/hang"):
            time.sleep(3)
        if name == "/slow-headers.wav":
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                for _ in range(50):
                    self.wfile.write(b"x")
                    time.sleep(0.2)
            return
        status = {"/missing.wav": 404, "/forbidden.wav": 403, "/away.wav": 503}.get(name, 200)
        if self.down:
            status = 503
        self.send_response(status)
        kind = "text/html; charset=utf-8" if name == "/login" else "audio/wav"
        self.send_header("Content-Type", kind)
        if name in ("/packed.wav", "/bomb.wav", "/nested.wav"):
            encoding = "gzip, gzip" if name == "/nested.wav" else "gzip"
            self.send_header("Content-Encoding", encoding)
        if name == "/announced.wav":
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        if name == "/trickle.wav":
            with contextlib.suppress(OSError):
                for _ in range(50):
                    self.wfile.write(b"R")
                    time.sleep(0.2)
            return
        body = BODIES.get(name, CLIP)
        with contextlib.suppress(OSError):  # the client may have had enough
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclasses.dataclass
class Host:
    url: str
    asked: list[tuple[str, str | None]]
    down: list[bool]


def _serve() -> Iterator[Host]:
    handler = type("Handler", (_Server,), {"asked": [], "down": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Host(f"http://127.0.0.1:{server.server_port}", handler.asked, handler.down)
    server.shutdown()
    server.server_close()


@pytest.fixture
def home() -> Iterator[Host]:
    """What stands for Label Studio."""
    yield from _serve()


@pytest.fixture
def stranger() -> Iterator[Host]:
    yield from _serve()


class Client:
    def __init__(self, url: str) -> None:
        self.url = url

    def authorization(self) -> dict[str, str]:
        return dict(TOKEN)


@pytest.fixture
def fetch(home: Host, tmp_path: Path):
    """fetch(uri, **settings) -> Fetched"""

    def one(uri: str, **settings):
        settings.setdefault("fetch_timeout_s", 1.0)
        chosen = Settings(data=tmp_path, **settings)
        result = recordings.fetch(Client(home.url), tmp_path / "audio", {"12-audio": uri}, chosen)  # type: ignore[arg-type]
        return result["12-audio"]

    return one


def left_over(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".new-")]


def test_an_upload_is_fetched_with_the_token(fetch, home):
    result = fetch("/data/upload/1/clip.wav")
    assert result.path.read_bytes() == CLIP
    assert result.path.suffix == ".wav"
    assert home.asked == [("/data/upload/1/clip.wav", "Token very-secret")]


def test_a_local_file_keeps_its_extension(fetch):
    assert fetch("/data/local-files/?d=some%20folder/a.flac").path.suffix == ".flac"


def test_an_absolute_address_of_label_studio_gets_the_token(fetch, home):
    fetch(f"{home.url}/data/upload/1/clip.wav")
    assert home.asked[0][1] == "Token very-secret"


def test_what_is_there_is_not_fetched_again(fetch, home):
    first, second = fetch(f"{UPLOADS}/clip.wav"), fetch(f"{UPLOADS}/clip.wav")
    assert first == second
    assert len(home.asked) == 1


def test_another_address_of_a_task_is_another_file(fetch):
    assert fetch(f"{UPLOADS}/a.wav").path != fetch(f"{UPLOADS}/b.wav").path


def test_private_addresses_are_refused(fetch, stranger):
    result = fetch(f"{stranger.url}/clip.wav")
    assert result.path is None
    assert "AFTER_ALLOW_PRIVATE_ADDRESSES" in result.error
    assert stranger.asked == []


def test_a_stranger_never_gets_the_token(fetch, stranger):
    assert fetch(f"{stranger.url}/clip.wav", allow_private_addresses=True).path.exists()
    assert stranger.asked == [("/clip.wav", None)]


def test_a_redirect_to_a_stranger_drops_the_token(fetch, stranger):
    fetch(f"{UPLOADS}/redirect?to={stranger.url}/clip.wav", allow_private_addresses=True)
    assert stranger.asked == [("/clip.wav", None)]


def test_a_redirect_to_a_private_address_is_refused(fetch, stranger):
    result = fetch(f"{UPLOADS}/redirect?to={stranger.url}/clip.wav")
    assert "private address" in result.error
    assert stranger.asked == []


@pytest.mark.parametrize(
    "path",
    ["/clip.wav", "/api/current-user/whoami", "/data/upload/%2e%2e/%2e%2e/api/projects/",
     "/data/upload/x/..%2f..%2f..%2fapi", "/data/upload/%252e%252e/api", "/data/upload\\..\\api",
     "/user/account", "/projects/1/settings"],
)  # fmt: skip
def test_label_studios_other_pages_never_get_the_token(fetch, home, path):
    assert "keeps no recordings there" in fetch(path).error
    assert home.asked == []
    fetch(path, allow_private_addresses=True)
    assert [token for _, token in home.asked] == [None]


def test_a_redirect_inside_label_studio_to_another_page_drops_the_token(fetch, home):
    fetch(f"{UPLOADS}/redirect?to=/api/projects/", allow_private_addresses=True)
    assert [token for _, token in home.asked] == ["Token very-secret", None]


def test_a_redirect_to_a_file_is_refused(fetch):
    assert "http(s)" in fetch(f"{UPLOADS}/redirect?to=file:///etc/passwd").error


def test_redirects_end(fetch):
    assert "redirects" in fetch(f"{UPLOADS}/loop").error


def test_a_compressed_answer_is_unpacked(fetch):
    assert fetch(f"{UPLOADS}/packed.wav").path.read_bytes() == CLIP


@pytest.mark.parametrize(
    ("path", "said"), [("/bomb.wav", "AFTER_MAX_AUDIO_BYTES"), ("/nested.wav", "gzip, gzip")]
)
def test_an_answer_that_unpacks_to_gigabytes_takes_little_memory(fetch, path, said):
    tracemalloc.start()
    result = fetch(UPLOADS + path, max_audio_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said in result.error
    assert peak < 8 * 2**20


@pytest.mark.parametrize("path", ["/announced.wav", "/endless.wav"])
def test_too_large_is_given_up(fetch, path, tmp_path):
    result = fetch(UPLOADS + path, max_audio_bytes=100_000)
    assert "AFTER_MAX_AUDIO_BYTES" in result.error
    assert left_over(tmp_path / "audio") == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing.wav", "404"),
        ("/forbidden.wav", "needs access to the project"),
        ("/empty.wav", "empty"),
        ("/login", "web page"),
        ("/hang", "in time"),
        ("ftp://host/clip.wav", "cloud storage"),
        ("http://no-such-host.invalid/clip.wav", "resolved"),
        ("http://[bad", "Invalid"),
    ],
)
def test_what_goes_wrong_is_told(fetch, path, said):
    result = fetch(UPLOADS + path if path.startswith("/") else path)
    assert result.path is None
    assert said in result.error


def test_label_studio_being_away_is_no_fault_of_the_recordings(fetch, home):
    home.down.append(True)
    with pytest.raises(LabelStudioUnavailable):
        fetch(f"{UPLOADS}/away.wav")


@pytest.mark.parametrize("name", ["away.wav", "hang.wav"])
def test_a_recording_that_label_studio_alone_has_trouble_with_stops_nothing(fetch, name):
    result = fetch(f"{UPLOADS}/{name}", fetch_timeout_s=0.5)
    assert name in result.error


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(fetch, tmp_path):
    started = time.monotonic()
    assert "too slow" in fetch(f"{UPLOADS}/trickle.wav").error
    assert time.monotonic() - started < 5
    assert left_over(tmp_path / "audio") == []


def test_a_server_that_never_ends_its_headers_is_given_up(fetch, stranger):
    started = time.monotonic()
    result = fetch(
        f"{stranger.url}/slow-headers.wav", allow_private_addresses=True, fetch_total_s=1.0
    )
    assert "AFTER_FETCH_TOTAL_S=1" in result.error
    assert time.monotonic() - started < 5


def test_a_recording_has_a_time_limit_in_all(fetch):
    """A trickle that is fast enough for the limit between two bytes."""
    started = time.monotonic()
    result = fetch(f"{UPLOADS}/trickle.wav", fetch_timeout_s=60.0, fetch_total_s=1.0)
    assert "AFTER_FETCH_TOTAL_S=1" in result.error
    assert time.monotonic() - started < 5


def test_a_dead_address_is_not_asked_again_before_its_time(home, tmp_path):
    now = [1000.0]
    failures = Failures(clock=lambda: now[0])
    items = {"1-audio": f"{UPLOADS}/missing.wav", "2-audio": f"{UPLOADS}/b.wav"}

    def again() -> list[str]:
        home.asked.clear()
        found = recordings.fetch(
            Client(home.url),
            tmp_path,
            items,
            Settings(data=tmp_path),
            failures=failures,  # type: ignore[arg-type]
        )
        assert "404" in found["1-audio"].error
        return [path for path, _ in home.asked]

    assert sorted(again()) == [f"{UPLOADS}/b.wav", f"{UPLOADS}/missing.wav"]
    assert again() == []
    now[0] += 61
    assert again() == [f"{UPLOADS}/missing.wav"]
    now[0] += 61
    assert again() == []


def test_a_silent_host_costs_a_few_requests_and_no_other_host_any(home, stranger, tmp_path):
    settings = Settings(
        data=tmp_path, allow_private_addresses=True, fetch_timeout_s=0.3, fetch_workers=1
    )
    items = {f"{i}-audio": f"{stranger.url}/hang{i}.wav" for i in range(20)}
    items["99-audio"] = f"{UPLOADS}/a.wav"
    found = recordings.fetch(Client(home.url), tmp_path, items, settings)  # type: ignore[arg-type]
    assert len(stranger.asked) == recordings.HOST_PATIENCE
    assert "in a row unanswered" in found["19-audio"].error
    assert found["99-audio"].path is not None


@pytest.mark.parametrize("uri", ["/data/upload/1/clip.wav", "/studio/data/upload/1/clip.wav"])
def test_a_label_studio_below_its_hosts_root(home, tmp_path, uri):
    client = Client(f"{home.url}/studio")
    recordings.fetch(client, tmp_path, {"1-audio": uri}, Settings(data=tmp_path))  # type: ignore[arg-type]
    assert home.asked[0][0] == "/studio/data/upload/1/clip.wav"


def test_one_bad_recording_stops_no_other(home, tmp_path):
    names = ("a.wav", "missing.wav", "c.wav")
    items = {f"{i}-audio": f"{UPLOADS}/{name}" for i, name in enumerate(names)}
    result = recordings.fetch(Client(home.url), tmp_path, items, Settings(data=tmp_path))  # type: ignore[arg-type]
    assert [fetched.path is not None for fetched in result.values()] == [True, False, True]
    assert list(result) == list(items)


def test_cloud_storage_goes_through_label_studio(fetch, home):
    fetch("s3://bucket/clip.wav")
    path, token = home.asked[0]
    encoded = parse_qs(urlsplit(path).query)["fileuri"][0]
    assert urlsplit(path).path == "/tasks/12/resolve/"
    assert base64.urlsafe_b64decode(encoded) == b"s3://bucket/clip.wav"
    assert token == "Token very-secret"


def test_errors_hide_what_an_address_may_hold(fetch, stranger):
    secret = stranger.url.replace("//", "//user:hunter2@") + "/missing.wav?signature=abc"
    error = fetch(secret, allow_private_addresses=True).error
    assert "hunter2" not in error
    assert "abc" not in error


@given(st.text(), st.text())
def test_a_cached_file_stays_in_its_folder(key, uri):
    name = recordings.file_name(key, uri)
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert len(name.encode()) < 255
