"""`python -m backend cut`: long recordings of a project that is in Label Studio become tasks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import flask
import numpy as np
import pytest
import soundfile
from web_fixtures import CONFIG, add_project, make_settings
from werkzeug.serving import make_server

from after_model import audio
from backend.__main__ import main
from backend.cli import cut as module
from backend.store import cuts
from backend.store.projects import Projects, TaskRecord
from backend.web.status import status

LIMIT_S = 8.0
LONG, SHORT = "/data/upload/1/00000000-talk.wav", "/data/upload/1/00000000-short.wav"


class LabelStudio:
    """Keeps uploads and tasks as Label Studio 1.23 does; fail_after: requests to add any."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.tasks, self.uploads = files, {}, {}
        self.config, self.fail_after, self.posts = CONFIG, 10**9, 0
        self.app = flask.Flask("label studio")
        self.app.add_url_rule("/<path:path>", view_func=self.answer, methods=["GET", "POST"])

    def add(self, **data: object) -> int:
        self.tasks[number := max(self.tasks, default=0) + 1] = data
        return number

    def answer(self, path: str):
        request = flask.request
        if f"/{path}" in self.files:
            return flask.Response(self.files[f"/{path}"], mimetype="audio/wav")
        if path == "api/projects/1/":
            return {"id": 1, "title": "calls", "label_config": self.config}
        if path == "api/tasks/":
            found = [{"id": k, "data": d, "is_labeled": False} for k, d in self.tasks.items()]
            return {"tasks": found, "total": len(found)}
        if path == "api/projects/1/file-uploads":
            wanted = json.loads(request.args.get("ids", json.dumps(list(self.uploads))))
            return [{"id": k, "file": self.uploads[k], "size": 1} for k in wanted]
        if path == "api/projects/1/import":
            self.posts += 1
            if self.posts > self.fail_after:
                return {"detail": "it is broken"}, 400
            return self._uploaded() if request.files else self._imported()
        return {"detail": path}, 404

    def _uploaded(self):
        assert flask.request.args["commit_to_project"] == "false"
        ids = []
        for file in flask.request.files.values():
            ids.append(number := len(self.uploads) + 1)
            self.uploads[number] = f"upload/1/{number:08x}-{file.filename}"
            self.files[f"/data/{self.uploads[number]}"] = file.read()
        return {"file_upload_ids": ids, "task_count": len(ids)}, 201

    def _imported(self):
        for task in flask.request.json:
            self.add(**task["data"])
        return {"task_count": len(flask.request.json)}, 201

    @property
    def segments(self) -> list[dict]:
        return [data for data in self.tasks.values() if "source_task" in data]


@pytest.fixture(scope="module")
def recordings(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Four sentences with a second of silence between them, and one sentence."""
    spoken = [audio.load(path) for path in sorted((corpora / "EmoDB" / "wav").glob("*.wav"))[:4]]
    silence = np.zeros(audio.SAMPLE_RATE, np.float32)
    long = np.concatenate([part for wave in spoken for part in (wave, silence)])
    folder = tmp_path_factory.mktemp("recordings")
    written = {}
    for name, wave in ((LONG, long), (SHORT, spoken[0])):
        soundfile.write(folder / "one.wav", wave, audio.SAMPLE_RATE)
        written[name] = (folder / "one.wav").read_bytes()
    return written


@pytest.fixture
def server(recordings: dict[str, bytes]) -> Iterator[LabelStudio]:
    """A long recording whose task has more data, and a short one."""
    fake = LabelStudio(dict(recordings))
    http = make_server("127.0.0.1", 0, fake.app, threaded=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    fake.url = f"http://127.0.0.1:{http.server_port}"
    fake.add(audio=LONG, speaker="03", start_s=None)
    fake.add(audio=SHORT, speaker="08")
    yield fake
    http.shutdown()
    http.server_close()


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTER_DATA", str(tmp_path))
    monkeypatch.setenv("AFTER_MAX_AUDIO_S", str(LIMIT_S))
    settings = make_settings(tmp_path, max_audio_s=LIMIT_S)
    add_project(settings, url=server.url, backend_url="http://127.0.0.1:9")
    return settings


def test_every_utterance_is_a_task_that_names_its_source_and_time(server, settings, tmp_path):
    report = module.run(settings, 1)
    assert (report.cut, report.added, report.wrong) == (1, 4, [])
    found = server.segments
    assert len(found) == 4
    for data in found:
        assert (data["source"], data["source_task"], data["speaker"]) == (LONG, 1, "03")
        (tmp_path / "one.flac").write_bytes(server.files[data["audio"]])
        lasts = audio.probe(tmp_path / "one.flac").duration_s
        assert lasts == pytest.approx(data["end_s"] - data["start_s"], abs=0.02)
        assert lasts < LIMIT_S
    assert [data["start_s"] for data in found] == sorted(data["start_s"] for data in found)
    assert server.tasks[1] == {"audio": LONG, "speaker": "03", "start_s": None}


def test_twice_makes_nothing_twice(server, settings):
    module.run(settings, 1)
    before = server.posts
    report = module.run(settings, 1)
    assert (report.cut, report.before, report.added) == (0, 1, 0)
    assert (len(server.segments), len(server.uploads), server.posts) == (4, 4, before)
    assert str(report) == "1 were cut before, and no other recording lasts more than 8 s"


def test_what_somebody_deleted_does_not_come_back(server, settings):
    module.run(settings, 1)
    del server.tasks[4]
    module.run(settings, 1)
    assert len(server.segments) == 3


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_broken_off_anywhere_it_goes_on_where_it_ended(server, settings, monkeypatch, done):
    monkeypatch.setattr(module.uploads, "FILES", 2)
    server.fail_after = done
    if done < 3:  # two uploads and an import
        with pytest.raises(RuntimeError, match="it is broken"):
            module.run(settings, 1)
    else:
        monkeypatch.setattr(cuts, "note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            module.run(settings, 1)
        monkeypatch.undo()
    server.fail_after = 10**9
    module.run(settings, 1)
    assert (len(server.segments), len(server.uploads)) == (4, 4)
    assert len({data["start_s"] for data in server.segments}) == 4


def test_half_an_import_is_completed(server, settings):
    module.run(settings, 1)
    Projects(settings).folder(1).delete([cuts.DOCUMENT])
    del server.tasks[4]
    assert module.run(settings, 1).added == 1
    assert len(server.segments) == 4
    assert len(server.uploads) == 4


def test_tasks_of_one_recording_share_what_is_uploaded(server, settings):
    server.add(audio=LONG, speaker="11")
    assert module.run(settings, 1).added == 8
    assert len(server.uploads) == 4
    assert [data["source_task"] for data in server.segments] == [1] * 4 + [3] * 4


def test_a_recording_of_too_many_bytes_is_fetched_to_be_cut(server, settings):
    size = len(server.files[SHORT]) + 10
    chosen = settings.model_copy(update={"max_audio_bytes": size})
    assert module.run(chosen, 1).added == 4
    folder = Projects(settings).folder(1)
    assert not (folder.path / "cut").exists()
    assert sum(path.stat().st_size for path in folder.audio.iterdir()) < size


def test_what_the_worker_fetched_is_not_fetched_again(server, settings):
    folder = Projects(settings).folder(1)
    folder.audio.mkdir(parents=True)
    (folder.audio / "mine.wav").write_bytes(server.files.pop(LONG))
    folder.save_tasks({1: TaskRecord({"audio": LONG}, {"audio": "audio/mine.wav"})})
    assert module.run(settings, 1).added == 4
    assert (folder.audio / "mine.wav").is_file()


def test_one_that_cannot_be_cut_stops_no_other(server, settings, tmp_path, capsys):
    noise = 0.01 * np.random.default_rng(1).normal(size=10 * audio.SAMPLE_RATE)
    soundfile.write(tmp_path / "noise.wav", noise, audio.SAMPLE_RATE)
    server.files["/data/upload/1/00000000-noise.wav"] = (tmp_path / "noise.wav").read_bytes()
    server.tasks = {1: {"audio": "/data/upload/1/00000000-noise.wav"}, 2: {"audio": LONG}}
    server.tasks[3] = {"audio": "/data/upload/1/00000000-gone.wav"}
    assert main(["cut", "1"]) == 1
    said = capsys.readouterr()
    assert said.err == (
        "left out: task 1: nobody speaks in it, as far as can be heard. Remove it\n"
    )
    assert "1 recordings of more than 8 s were cut into 4 new tasks" in said.out


def test_several_recordings_a_task_are_refused(server, settings, capsys):
    server.config = CONFIG.replace(
        "</View>",
        '<Audio name="b" value="$answer"/><Choices name="c" toName="b"><Choice value="x"/>'
        '<Choice value="y"/></Choices></View>',
    )
    assert main(["cut", "1"]) == 1
    assert "several recordings (answer, audio)" in capsys.readouterr().err


def test_two_at_a_time_are_refused(server, settings):
    with module._alone(Projects(settings).folder(1)):  # noqa: SIM117
        with pytest.raises(ValueError, match="being cut already"):
            module.run(settings, 1)


def test_the_worker_is_told(server, settings):
    before = Projects(settings).get(1).task_events
    module.run(settings, 1)
    assert Projects(settings).get(1).task_events > before


def test_the_page_names_the_command_until_it_was_done(server, settings):
    folder = Projects(settings).folder(1)
    reason = f"lasts 19.0 s, more than 8 s. {cuts.HINT}"
    folder.write("skipped.json", {"1": reason, "2": "is silent"})

    def shown():
        (project,) = status(settings)["projects"]
        return project["too_long"], [entry["reason"] for entry in project["skipped"]]

    assert shown() == (1, [reason, "is silent"])
    module.run(settings, 1)
    assert shown() == (
        0,
        ["lasts 19.0 s, more than 8 s. it was cut into 4 tasks", "is silent"],
    )
