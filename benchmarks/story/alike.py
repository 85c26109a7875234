"""The same learner in this process, told the labels of given recordings: what is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from after_model.active_learning import ActiveLearner
from after_model.audio import AudioLimits, Utterance
from after_model.labels import LabelSpace
from backend.settings import Settings
from benchmarks.story.outcome import Quality, quality
from benchmarks.story.telling import Teller


class Alike:
    """Fits the learner that the backend's settings describe, on the same recordings.

    paths, labels: by task, whose number is a recording's id there, too: what is held out follows
    from ids. folder: for features and models; the fits share what doesn't depend on labels.
    """

    def __init__(
        self,
        paths: Mapping[int, Path],
        labels: Mapping[int, str],
        classes: Sequence[str],
        folder: Path,
        settings: Settings,
        teller: Teller,
    ) -> None:
        self._labels = {str(task): label for task, label in labels.items()}
        self._space = LabelSpace(tuple(classes))
        self._folder = folder
        self._settings = settings
        self._teller = teller
        self._pool = [Utterance(str(task), path) for task, path in sorted(paths.items())]

    def of(self, chosen: Sequence[int]) -> Quality:
        """How right a fit on these tasks' labels is on the others that can be read."""
        learner = self._learner("served")
        learner.adapt()
        return self._fit(learner, [str(task) for task in chosen])

    def at_random(self, count: int, choices: int) -> Iterator[Quality]:
        """The same of `count` recordings chosen at random, several times."""
        for seed in range(choices):
            learner = self._learner(f"random-{seed}")
            learner.adapt()
            readable = self._readable(learner)
            order = np.random.default_rng(seed).permutation(len(readable))
            yield self._fit(learner, [readable[i].id for i in order[:count]])

    def _learner(self, name: str) -> ActiveLearner:
        return ActiveLearner(
            self._pool,
            self._space,
            self._settings.learner_config(),
            self._folder / name,
            store_folder=self._folder / "features",
            tapt_folder=self._folder / "tapt",
            limits=AudioLimits(max_duration_s=self._settings.max_audio_s),
            device=self._settings.device,
            progress=self._teller.progress,
        )

    def _fit(self, learner: ActiveLearner, chosen: Sequence[str]) -> Quality:
        learner.tell({key: self._labels[key] for key in chosen})
        learner.train()
        known = set(chosen)
        rest = [u for u in self._readable(learner) if u.id not in known]
        probs = learner.predict(rest).probs
        names = self._space.names
        return quality([self._labels[u.id] for u in rest], [names[i] for i in probs.argmax(axis=1)])

    def _readable(self, learner: ActiveLearner) -> list[Utterance]:
        skipped = {error.path for error in learner.skipped}
        return [u for u in self._pool if u.path not in skipped]
