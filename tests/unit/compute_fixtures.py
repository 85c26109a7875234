"""A project of twelve synthetic recordings, as what computes finds it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from after_model.audio import Utterance
from backend.settings import Settings
from backend.store.projects import ProjectFolder, Projects, TaskRecord

CONTROL = {
    "name": "emotion", "to_name": "audio", "audio_key": "audio",
    "labels": ["hum", "hiss"], "multiple": False, "learner": "emotion-1",
}  # fmt: skip


def label_of(task: int | str) -> str:
    """What is right: the recordings hum and hiss in turn."""
    return "hum" if int(task) % 2 else "hiss"


def twelve_tasks(settings: Settings, recordings: Sequence[Utterance]) -> ProjectFolder:
    """Project 7; the audio of task 12 is no audio."""
    folder = Projects(settings).folder(7)
    folder.audio.mkdir(parents=True)
    tasks = {}
    for number, utterance in enumerate(recordings[:12], start=1):
        shutil.copy(utterance.path, folder.audio / f"{number}.wav")
        tasks[number] = TaskRecord({"audio": "u"}, {"audio": f"audio/{number}.wav"})
    (folder.audio / "12.wav").write_bytes(b"no audio")
    folder.save_tasks(tasks)
    return folder
