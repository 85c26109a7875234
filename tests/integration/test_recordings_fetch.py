"""Recordings fetched from a real Label Studio, as tasks name them."""

from __future__ import annotations

import base64

import pytest

from after_model.audio import probe
from backend.label_studio import audio as recordings
from backend.label_studio.predictions import LabelStudio, LabelStudioError, LabelStudioUnavailable
from backend.settings import Settings
from tests.integration.web import free_port


@pytest.fixture(params=["legacy token", "personal access token"])
def client(request, label_studio):
    legacy = request.param == "legacy token"
    return LabelStudio(
        label_studio.url, label_studio.legacy_token if legacy else label_studio.new_token()
    )


@pytest.fixture
def fetch(client, tmp_path):
    """fetch({"12-audio": uri}, **settings) -> {"12-audio": Fetched}"""

    def run(items, **values):
        settings = Settings(data=tmp_path, _env_file=None, **values)  # type: ignore[call-arg]
        return recordings.fetch(client, tmp_path / "audio", items, settings)

    return run


def uris(client, made):
    return {f"{task.id}-audio": task.data["audio"] for task in client.tasks(made.id)}


@pytest.mark.parametrize("how", ["upload", "local", "http"])
def test_every_way_of_adding_audio(fetch, client, label_studio, clips, how):
    made = label_studio.project(clips=clips[:3], how=how)
    fetched = fetch(uris(client, made), allow_private_addresses=how == "http")
    contents = [found.path.read_bytes() for found in fetched.values()]
    assert sorted(contents) == sorted(clip.read_bytes() for clip in clips[:3])
    for found in fetched.values():
        assert found.path.suffix == ".wav"
        assert probe(found.path).sample_rate_hz == 16_000


def test_names_that_need_escaping(fetch, client, label_studio, clips, tmp_path):
    named = [tmp_path / "déjà vu & 50% #1?.wav", tmp_path / "a+b=c;d.wav"]
    for path in named:
        path.write_bytes(clips[0].read_bytes())
    made = label_studio.project(clips=named, how="local")
    fetched = fetch(uris(client, made))
    assert [found.error for found in fetched.values()] == [None, None]


def test_an_absolute_address_of_label_studio(fetch, client, label_studio, clips):
    made = label_studio.project(clips=clips[:1])
    items = {key: label_studio.url + uri for key, uri in uris(client, made).items()}
    (found,) = fetch(items).values()
    assert found.path.read_bytes() == clips[0].read_bytes()


def test_a_file_through_the_storage_proxy(fetch, client, label_studio, clips):
    # Local storages have no proxy of their own; what is asked for must at least be understood.
    made = label_studio.project(clips=clips[:1])
    task = made.tasks[0]
    encoded = base64.urlsafe_b64encode(b"s3://bucket/clip.wav").decode()
    (found,) = fetch({f"{task}-audio": f"/tasks/{task}/resolve/?fileuri={encoded}"}).values()
    assert "Cloud Storage" in found.error


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_cloud_storage_that_is_not_connected_says_how(fetch, label_studio, clips, scheme):
    made = label_studio.project(clips=clips[:1])
    (found,) = fetch({f"{made.tasks[0]}-audio": f"{scheme}://bucket/clip.wav"}).values()
    assert "Settings > Cloud Storage" in found.error


def test_a_local_file_that_no_storage_covers_says_so(fetch, label_studio, clips):
    made = label_studio.project(clips=clips[:1])
    (label_studio.files / "uncovered").mkdir(exist_ok=True)
    (label_studio.files / "uncovered" / "clip.wav").write_bytes(clips[0].read_bytes())
    uri = "/data/local-files/?d=uncovered/clip.wav"
    (found,) = fetch({f"{made.tasks[0]}-audio": uri}).values()
    assert "no storage of the project covers it" in found.error


def test_an_upload_that_is_gone_stops_no_other(fetch, client, label_studio, clips):
    made = label_studio.project(clips=clips[:3])
    items = uris(client, made)
    gone = list(items)[1]
    (label_studio.data / "media" / items[gone].removeprefix("/data/")).unlink()
    fetched = fetch(items)
    assert [key for key, found in fetched.items() if found.path is None] == [gone]
    assert "import it again" in fetched[gone].error


def test_an_access_token_that_expires_between_files_is_replaced(fetch, client, label_studio, clips):
    made = label_studio.project(clips=clips[:3])
    if client.personal:
        client.authorization()
        client._tokens._access_token_expiration = (
            client._tokens._access_token_expiration.min.replace(
                tzinfo=client._tokens._access_token_expiration.tzinfo
            )
        )
    assert all(found.path for found in fetch(uris(client, made), fetch_workers=1).values())


def test_a_wrong_token_is_no_fault_of_the_recordings(label_studio, clips, tmp_path):
    made = label_studio.project(clips=clips[:1])
    uri = label_studio.get(f"/api/tasks/{made.tasks[0]}")["data"]["audio"]
    client = LabelStudio(label_studio.url, label_studio.new_token()[:-6] + "AAAAAA")
    with pytest.raises(LabelStudioError, match="Personal Access Token"):
        recordings.fetch(client, tmp_path, {"1-audio": uri}, Settings(data=tmp_path))


def test_label_studio_away_is_no_fault_of_the_recordings(tmp_path):
    client = LabelStudio(f"http://127.0.0.1:{free_port()}", "f" * 40)
    with pytest.raises(LabelStudioUnavailable):
        recordings.fetch(
            client, tmp_path, {"1-audio": "/data/upload/1/a.wav"}, Settings(data=tmp_path)
        )
