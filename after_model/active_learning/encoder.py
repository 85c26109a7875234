"""The encoder that a learner reads recordings with: the backbone, or what TAPT made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from after_model import backbone, tapt
from after_model.active_learning.config import LearnerConfig
from after_model.audio import AudioLimits, Utterance
from after_model.device import resolve_device
from after_model.features import FeatureStore
from after_model.progress import Progress


class Encoder:
    """A configuration's backbone with its stem features on disk; adapted once, on one pool.

    Another backbone, or other settings of TAPT, have a folder of their own below tapt_folder: a
    changed setting finds no adaptation that is not its own.
    """

    def __init__(
        self,
        config: LearnerConfig,
        store_folder: Path,
        tapt_folder: Path,
        *,
        max_bytes: int | None,
        limits: AudioLimits,
        device: str,
        progress: Progress,
    ) -> None:
        self.config = config
        self.device = device
        self.progress = progress
        self._store_folder, self._tapt_folder = store_folder, tapt_folder
        self._max_bytes, self._limits = max_bytes, limits
        self._store: FeatureStore | None = None
        self._mark: str | None = None

    @property
    def store(self) -> FeatureStore:
        """The stem features of the encoder as it is."""
        if self._store is None:
            name = self.adaptation if self.adapted else self.config.backbone
            encoder = backbone.load(name).to(resolve_device(self.device))
            self._store = FeatureStore(
                self._store_folder, encoder, limits=self._limits, max_bytes=self._max_bytes
            )
        return self._store

    @property
    def adaptation(self) -> Path:
        """Where TAPT of this backbone with these settings is, or would be."""
        if self._mark is None:
            self._mark = tapt.identity(backbone.load(self.config.backbone), self.config.tapt)
        return self._tapt_folder / self._mark

    @property
    def adapted(self) -> bool:
        """Whether TAPT is on and has come to its end."""
        return self.config.tapt is not None and tapt.finished(self.adaptation)

    @property
    def tapt_seconds(self) -> float:
        """What TAPT took, 0 without it."""
        return tapt.report(self.adaptation).seconds if self.adapted else 0.0

    def adapt(self, pool: Sequence[Utterance]) -> None:
        """TAPT on the pool; `store` is another one afterwards."""
        tapt.adapt(
            backbone.load(self.config.backbone),
            pool,
            self.store,
            self.adaptation,
            self.config.tapt,
            device=self.device,
            progress=self.progress,
        )
        self._store = None

    def surprisal(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Pre-training loss by frame position, float32 [N, S], for ALPS (eq. 7)."""
        return tapt.surprisal(
            self.adaptation, self.store, utterances, device=self.device, progress=self.progress
        )
