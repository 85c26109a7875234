"""`python -m backend cut` and `connect --cut` on a real Label Studio: tasks that play and fetch."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from after_model import audio
from backend.__main__ import main
from backend.label_studio import audio as recordings
from backend.label_studio.predictions import LabelStudio
from tests.integration.web import web_service

LIMIT_S = 8.0


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AFTER_MAX_AUDIO_S", str(LIMIT_S))
    with web_service(tmp_path / "data", max_audio_s=LIMIT_S) as chosen:
        yield chosen


@pytest.fixture
def long(corpora, tmp_path):
    """Four sentences of EmoDB with a second of silence after each."""
    spoken = [audio.load(path) for path in sorted((corpora / "EmoDB" / "wav").glob("*.wav"))[:4]]
    silence = np.zeros(audio.SAMPLE_RATE, np.float32)
    wave = np.concatenate([part for each in spoken for part in (each, silence)])
    soundfile.write(tmp_path / "talk.wav", wave, audio.SAMPLE_RATE)
    return tmp_path / "talk.wav"


@pytest.mark.parametrize("how", ["upload", "local"])
def test_long_recordings_become_tasks_that_can_be_heard(
    label_studio, settings, clips, long, how, tmp_path, capsys
):
    made = label_studio.project(clips=[long, clips[0]], how=how)
    client = LabelStudio(label_studio.url, label_studio.legacy_token)
    (task,) = (task for task in client.tasks(made.id) if "talk" in task.data["audio"])
    label_studio.patch(f"/api/tasks/{task.id}/", {"data": task.data | {"speaker": "03"}})
    where = ["--url", label_studio.url, "--api-key", label_studio.legacy_token]
    own = ["--backend-url", settings.backend_url, "--project", str(made.id)]
    assert main(["connect", *where, *own, "--cut"]) == 0
    assert "were cut into 4 new tasks" in capsys.readouterr().out

    found = {each.id: each.data for each in client.tasks(made.id) if each.id not in made.tasks}
    assert len(found) == 4
    for data in found.values():
        assert (data["source_task"], data["speaker"]) == (task.id, "03")
        assert data["source"] == task.data["audio"]
    items = {f"{key}-audio": data["audio"] for key, data in found.items()}
    fetched = recordings.fetch(client, tmp_path / "fetched", items, settings)
    for key, data in found.items():
        lasts = audio.probe(fetched[f"{key}-audio"].path).duration_s
        assert lasts == pytest.approx(data["end_s"] - data["start_s"], abs=0.02)

    assert main(["cut", str(made.id)]) == 0
    assert "1 were cut before" in capsys.readouterr().out
    assert len(client.tasks(made.id)) == 6
