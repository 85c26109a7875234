"""One run: labels asked for in small steps, the probe refitted after each, tested at given shares.

The functions are the product's own: the probe, the strategies and the starts of `after_model`.
Every label is counted, the first ones too, and no label is held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from after_model import acquisition, initialization, metrics
from after_model.acquisition import Pool
from after_model.classifier import probe
from after_model.classifier.probe import Probe, ProbeConfig
from after_model.classifier.speakers import SpeakerMeans
from after_model.classifier.standardising import Standardiser
from simulate.plan import digest, plain
from simulate.results import Row

VERSION = 1
"""Of what a run does: results of another one have another run_id and are not mixed in."""


@dataclass(frozen=True)
class Arm:
    """A way of asking for labels. `step`: labels asked for at a time, as a share of the pool."""

    strategy: str
    start: str
    step: float = 0.02

    @property
    def name(self) -> str:
        return f"{self.strategy}, {self.start} start"


@dataclass(frozen=True)
class Setting:
    """What all arms have in common.

    shares: of the pool, ascending, at which the probe is tested. start_per_class: the start asks
    for so many recordings per class. dense: up to this share labels are asked for in steps, beyond
    it all at once up to the next of the shares. speakers: take each speaker's own mean off the
    embeddings where cross-validation agrees; test speakers' too, which is transductive.
    """

    shares: tuple[float, ...] = (0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
    start_per_class: int = 2
    dense: float = 0.2
    speakers: bool = False
    mc_samples: int = 10
    probe: ProbeConfig = field(default_factory=ProbeConfig)


@dataclass(frozen=True)
class Split:
    """One division of a corpus into speakers to learn from and speakers to be tested on."""

    corpus: str
    fingerprint: str
    repetition: int
    fold: int
    folds: int


@dataclass(frozen=True)
class Recordings:
    """What a run knows: of the pool to be labelled and of the recordings to be tested on.

    points: raw embeddings float [N, R] and [M, R]. labels: class indices; the loop looks at those
    of recordings it has asked for, and at the test's to count what is right.
    """

    points: np.ndarray
    labels: np.ndarray
    speakers: tuple[str, ...]
    test_points: np.ndarray
    test_labels: np.ndarray
    test_speakers: tuple[str, ...]
    classes: int


def run_id(split: Split, setting: Setting, arm: Arm | None, embeddings: str) -> str:
    """16 hex digits of everything that determines the result; embeddings: which ones, by name.

    arm None: all labels. The split's numbers are the seed as well.
    """
    return digest([VERSION, split, setting, arm, embeddings])


def curve(
    recordings: Recordings, setting: Setting, arm: Arm, rng: np.random.Generator
) -> list[dict[str, float]]:
    """A point for each of the shares: labels, share, ua, ece."""
    learner = Learner(recordings, setting)
    marks = counts(setting.shares, len(recordings.labels))
    first = min(setting.start_per_class * recordings.classes, marks[-1])
    waiting = initialization.get(arm.start).select(learner.seen(), first, rng)
    points = []
    for share, mark in zip(setting.shares, marks, strict=True):
        step = max(1, round(arm.step * len(recordings.labels))) if share <= setting.dense else mark
        while len(learner.labelled) < mark:
            room = mark - len(learner.labelled)
            if not len(waiting):  # never beyond the mark: the probe tested there asks what follows
                waiting = learner.ask(arm.strategy, min(step, room), rng)
            learner.tell(waiting[:room])
            waiting = waiting[room:]
        points.append({"labels": mark, "share": share, **learner.test()})
    return points


def everything(recordings: Recordings, setting: Setting) -> dict[str, float]:
    """The point of a run that has all the pool's labels: the same whatever the arm."""
    learner = Learner(recordings, setting)
    learner.tell(np.arange(len(recordings.labels)))
    return {"labels": len(recordings.labels), "share": 1.0, **learner.test()}


def counts(shares: tuple[float, ...], pool_size: int) -> list[int]:
    """Labels at each share, ascending, at least one and none twice. Raises ValueError otherwise."""
    found = [max(1, round(share * pool_size)) for share in shares]
    if sorted(set(found)) != found:
        raise ValueError(
            f"shares: of {pool_size} recordings they are {found} labels; choose shares that ascend "
            "and are further apart"
        )
    return found


class Learner:
    """The probe and what has been labelled so far. `labelled`: pool indices in the order asked."""

    def __init__(self, recordings: Recordings, setting: Setting) -> None:
        self.recordings, self.setting = recordings, setting
        self.labelled = np.zeros(0, np.int64)
        self.statistics = Standardiser.of(recordings.points)
        self.means = self._means()
        self._probe: Probe | None = None

    def ask(self, strategy: str, k: int, rng: np.random.Generator) -> np.ndarray:
        """Pool indices [min(k, what is left)], most wanted first, none of them labelled."""
        chosen = acquisition.get(strategy)
        left = np.setdiff1d(np.arange(len(self.recordings.labels)), self.labelled)
        pool = Pool(size=len(left), **dict(self._fields(left, chosen.needs | chosen.uses, rng)))
        return left[chosen.select(pool, k, rng)]

    def tell(self, indices: np.ndarray) -> None:
        """The labels of these have been given."""
        self.labelled = np.concatenate([self.labelled, indices])
        self._probe = None

    def test(self) -> dict[str, float]:
        """UA and calibration error on the test speakers."""
        known = self.recordings
        probs = self.probe.probs(known.test_points, self._names(known.test_speakers))
        found = metrics.evaluate(known.test_labels, probs)
        return {"ua": found["ua"], "ece": found["ece"]}

    def seen(self) -> np.ndarray:
        """float32 [N, R / S]: what the probe's regression sees of the pool.

        The mean of the standardised states, less speakers' means where the probe of the labels so
        far takes them off.
        """
        points = self.recordings.points.astype(np.float64)
        used = self.probe.means if len(self.labelled) else None
        if used is not None:
            points -= used.offsets()[used.rows(self.recordings.speakers)]
        scaled = (points - self.statistics.mean) / self.statistics.deviation
        states = scaled.reshape(len(points), self.setting.probe.states, -1)
        return states.mean(axis=1).astype(np.float32)

    @property
    def probe(self) -> Probe:
        """Fitted to the labels given so far."""
        if self._probe is None:
            known = self.recordings
            targets = np.eye(known.classes)[known.labels[self.labelled]]
            self._probe = probe.fit(
                known.points[self.labelled],
                targets,
                statistics=self.statistics,
                speakers=[known.speakers[i] for i in self.labelled],
                means=self.means,
                config=self.setting.probe,
            )
        return self._probe

    def _fields(
        self, left: np.ndarray, fields: frozenset[str], rng: np.random.Generator
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Those fields of a Pool of the indices `left` that a strategy reads."""
        points = self.recordings.points[left]
        names = self._names([self.recordings.speakers[i] for i in left])
        if "probs" in fields:
            yield "probs", self.probe.probs(points, names)
        if "mc_probs" in fields:
            samples = self.setting.mc_samples
            yield "mc_probs", self.probe.mc_probs(points, samples, rng, speakers=names)
        if "embeddings" in fields:
            yield "embeddings", self.seen()[left]
        if "labelled_embeddings" in fields:
            yield "labelled_embeddings", self.seen()[self.labelled]
        if "labelled_targets" in fields:
            classes = np.eye(self.recordings.classes)
            yield "labelled_targets", classes[self.recordings.labels[self.labelled]]

    def _means(self) -> SpeakerMeans | None:
        """Of everybody's recordings, without a label; None where speakers are not to be used."""
        if not self.setting.speakers:
            return None
        known = self.recordings
        means = SpeakerMeans(known.points.shape[1])
        means.add(known.points, known.speakers)
        means.add(known.test_points, known.test_speakers)
        return means

    def _names(self, speakers: tuple[str, ...] | list[str]) -> list[str] | None:
        return list(speakers) if self.setting.speakers else None


def as_row(identity: str, split: Split, arm: Arm | None, points: list[dict[str, float]]) -> Row:
    """What is kept of a run; `arm` None for the run on all labels."""
    return {
        "run_id": identity,
        "split": plain(split),
        "arm": plain(arm) if arm else None,
        "name": arm.name if arm else "all labels",
        "curve": plain(points),
    }
