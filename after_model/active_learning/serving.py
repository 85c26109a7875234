"""The probe that serves: embeddings of a pool by one encoder, and what a probe on them says.

side = ServingProbe(store, pool, folder, config, num_classes)
probe = side.probe(labels)                    # refitted when labels changed
side.scores(utterances, probe)                # probabilities
side.describe(candidates, labels, ...)        # the pool as a strategy sees it
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from after_model.acquisition import Pool, Strategy
from after_model.active_learning.config import LearnerConfig
from after_model.audio import Utterance
from after_model.classifier import EmotionClassifier
from after_model.classifier import probe as probes
from after_model.classifier.adapting import Frames, read_frames
from after_model.classifier.embedding import Embedder
from after_model.classifier.of_probe import of_probe
from after_model.classifier.probe import Probe, ProbeConfig
from after_model.classifier.scoring import Scores
from after_model.classifier.speakers import SpeakerMeans
from after_model.classifier.standardising import Standardiser
from after_model.features import Embeddings, FeatureStore, PoolEmbeddings, embed
from after_model.progress import Progress, silent

BLOCK = 8_192  # recordings whose embeddings are in memory at a time

Labels = Mapping[str, Sequence[float]]
"""Targets [C] by id."""


@dataclass(frozen=True)
class Points:
    """Rows [N, D] that are read when they are indexed: what a strategy clusters."""

    rows: np.ndarray
    width: int
    read: Callable[[np.ndarray], np.ndarray]
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.width

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        return self.read(self.rows[chosen])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(self.rows), dtype)


class ServingProbe:
    """The embeddings of a pool by one encoder, and the probe of the labels given so far.

    Statistics (standardisation, speakers' means) are of all the pool's recordings, labelled or not.
    The probe is a function of pool, labels and configuration alone: whoever opens a learner again
    gets the same one.
    """

    def __init__(
        self,
        store: FeatureStore,
        pool: Sequence[Utterance],
        folder: Path,
        config: LearnerConfig,
        num_classes: int,
        *,
        max_bytes: int | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> None:
        self.store = store
        self.config = config
        self.num_classes = num_classes
        self.device = device
        self.progress = progress
        self._embedder = Embedder(store.backbone, config.head, config.states)
        self._disk = Embeddings(
            folder, self._embedder.name, self._embedder.width, max_bytes=max_bytes
        )
        self.settings = ProbeConfig(states=len(self._embedder.states), seed=config.seed)
        self._row = {u.id: i for i, u in enumerate(pool)}
        self._speakers = [u.speaker for u in pool]
        self.embeddings = self._embedded(pool)
        self._statistics, self._means = self._of_the_pool()
        self._fitted: tuple[Labels, Probe] | None = None
        self._said: tuple[Probe, np.ndarray] | None = None  # probabilities of the whole pool

    def probe(self, labels: Labels) -> Probe:
        """The probe of these labels; the last one where they are the same."""
        if self._fitted is None or self._fitted[0] != labels:
            self._fitted = dict(labels), self.fit(labels)
        return self._fitted[1]

    def fit(self, labels: Labels) -> Probe:
        """A probe of these labels."""
        rows = self._rows(labels)
        speakers = [self._speakers[i] for i in rows]
        return probes.fit(
            self.embeddings.take(rows),
            np.array(list(labels.values()), np.float64).reshape(-1, self.num_classes),
            statistics=self._statistics,
            speakers=speakers if any(self._speakers) else None,
            means=self._means,
            config=self.settings,
        )

    def scores(self, utterances: Sequence[Utterance], probe: Probe) -> Scores:
        """Probabilities of any recordings, by the probe; embeddings stay where they are.

        Those outside the pool are embedded first, once. Where speakers' means are used those of
        speakers outside the pool come from these recordings, which is transductive.
        """
        strangers = [i for i, u in enumerate(utterances) if u.id not in self._row]
        found = self._embedded(utterances) if strangers else self._part(utterances)
        speakers = [u.speaker for u in utterances]
        if strangers and probe.means is not None:
            probe = _acquainted(probe, found, strangers, speakers)
        probs = np.zeros((len(utterances), self.num_classes), np.float32)
        for rows, block in found.blocks(BLOCK):
            probs[rows] = probe.probs(block, speakers[rows])
        probs[~found.readable] = 1 / self.num_classes
        nothing = np.zeros((len(utterances), 0), np.float32)
        return Scores(probs, nothing, unreadable=dict(found.unreadable))

    def believed(self, ids: Sequence[str], probe: Probe) -> np.ndarray:
        """Probabilities float64 [n, C] of the pool's recordings with these ids."""
        rows = self._rows(ids)
        if self._said is not None and self._said[0] is probe:
            return self._said[1][rows]
        return probe.probs(self.embeddings.take(rows), [self._speakers[i] for i in rows])

    def points(self, utterances: Sequence[Utterance], probe: Probe | None = None) -> Points:
        """What clusters of the pool's recordings are found in: what the probe's regression sees."""
        width = self._embedder.width // self.settings.states
        return Points(
            self._rows([u.id for u in utterances]), width, lambda rows: self._seen(rows, probe)
        )

    def describe(
        self,
        candidates: Sequence[Utterance],
        labels: Labels,
        strategy: Strategy,
        *,
        samples: int = 0,
        seed: int = 0,
        **features: np.ndarray | None,
    ) -> Pool:
        """The candidates as a strategy sees them, with what it reads and no more.

        The probe is that of the labels; one that nothing is read of is not fitted. samples: of the
        probe under dropout of its inputs, where it reads those. features: fields of Pool that are
        not the probe's.
        """
        rows = self._rows([u.id for u in candidates])
        read = strategy.needs | strategy.uses
        points = {"embeddings", "labelled_embeddings"}  # speakers' means are off where it says so
        asked = {"probs", "mc_probs", *(points if self._means is not None else ())} & read
        probe = self.probe(labels) if asked else None
        seen = self.points(candidates, probe)
        taught = Points(self._rows(labels), seen.width, lambda rows: self._seen(rows, probe))
        mc_probs = None
        if probe is not None and "mc_probs" in read and samples:
            speakers = [self._speakers[i] for i in rows]
            mc_probs = probe.mc_probs(
                self.embeddings.take(rows), samples, np.random.default_rng(seed), speakers=speakers
            )
        known: dict[str, Any] = {
            "probs": lambda: self.pool_probs(self.probe(labels))[rows],
            "embeddings": lambda: seen,
            "labelled_embeddings": lambda: taught,
            "labelled_targets": lambda: np.array(list(labels.values()), np.float64),
        }
        found = {name: make() for name, make in known.items() if name in read}
        return Pool(size=len(rows), mc_probs=mc_probs, **found, **features)

    def classifier(self, probe: Probe) -> EmotionClassifier:
        """The probe as the head of a classifier on the frozen backbone, without speakers' means."""
        return of_probe(probe, self.store.backbone, self.config.head, self.config.states)

    def frames(self, utterances: Sequence[Utterance]) -> Frames:
        """What an adapter reads of recordings; the encoder is run."""
        classifier = EmotionClassifier(
            self.store.backbone, self.num_classes, self.config.head, self.config.states
        )
        return read_frames(
            classifier, self.store, utterances, device=self.device, progress=self.progress
        )

    # --- parts -----------------------------------------------------------------------------------

    def _rows(self, ids: Labels | Sequence[str]) -> np.ndarray:
        return np.array([self._row[name] for name in ids], dtype=np.int64)

    def _seen(self, rows: np.ndarray, probe: Probe | None) -> np.ndarray:
        """float32 [n, D] of the pool's recordings as the probe's regression sees them."""
        values = self.embeddings.take(rows).astype(np.float64)
        if probe is not None and probe.means is not None:
            known = probe.means.rows([self._speakers[i] for i in rows])
            values -= probe.means.offsets()[known]
        values = (values - self._statistics.mean) / self._statistics.deviation
        return values.reshape(len(rows), self.settings.states, -1).mean(axis=1).astype(np.float32)

    def pool_probs(self, probe: Probe) -> np.ndarray:
        """Probabilities of the whole pool [N, C], in its order: read through once a probe."""
        if self._said is None or self._said[0] is not probe:
            probs = np.zeros((len(self.embeddings), self.num_classes))
            for rows, block in self.embeddings.blocks(BLOCK):
                probs[rows] = probe.probs(block, self._speakers[rows])
            self._said = probe, probs
        return self._said[1]

    def _embedded(self, utterances: Sequence[Utterance]) -> PoolEmbeddings:
        def compute(missing: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return self._embedder.compute(self.store, missing, self.device)

        keys = self.store.keys(utterances)
        return embed(utterances, keys, self._disk, compute, progress=self.progress)

    def _part(self, utterances: Sequence[Utterance]) -> PoolEmbeddings:
        """The pool's embeddings of some of its recordings."""
        rows = self._rows([u.id for u in utterances])
        lost = self.embeddings.unreadable
        return replace(
            self.embeddings,
            rows=self.embeddings.rows[rows],
            utterances=utterances,
            unreadable={i: lost[r] for i, r in enumerate(rows.tolist()) if r in lost},
        )

    def _of_the_pool(self) -> tuple[Standardiser, SpeakerMeans | None]:
        """Of all recordings that can be read, in one pass."""
        wanted = self.config.speakers == "auto" and any(self._speakers)
        means = SpeakerMeans(self._embedder.width) if wanted else None
        scaler = StandardScaler()
        readable = self.embeddings.readable
        for rows, block in self.embeddings.blocks(BLOCK):
            kept = np.flatnonzero(readable[rows])
            if len(kept):
                scaler.partial_fit(block[kept].astype(np.float64))
                if means is not None:
                    means.add(block[kept], [self._speakers[rows.start + i] for i in kept])
        if not readable.any():  # no recording: nothing will be asked of it
            width = self._embedder.width
            return Standardiser(np.zeros(width), np.ones(width)), means
        return Standardiser(scaler.mean_, scaler.scale_), means


def _acquainted(
    probe: Probe, found: PoolEmbeddings, strangers: Sequence[int], speakers: Sequence[str]
) -> Probe:
    """The probe with what these recordings add to speakers' means."""
    means = copy.deepcopy(probe.means)
    assert means is not None
    new = [i for i in strangers if i not in found.unreadable]
    for start in range(0, len(new), BLOCK):
        part = new[start : start + BLOCK]
        means.add(found.take(np.array(part)), [speakers[i] for i in part])
    return replace(probe, means=means)
