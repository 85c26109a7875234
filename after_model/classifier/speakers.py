"""What each speaker sounds like on average, taken off that speaker's embeddings.

Who speaks fills more of an embedding than what they feel. The mean of a speaker's recordings needs
no label, only that their speaker is known. It is transductive: recordings that are to be
judged change how they are judged; results that use it have to say so. Whether it helps is for
cross-validation by speaker to say (`probe.fit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_KAPPA = 10.0
"""How many recordings a speaker's mean needs to count half: n / (n + kappa) towards the pool's."""


@dataclass(frozen=True)
class SpeakerReport:
    """Whether the probe takes speakers' means off, and how both ways do by cross-validation.

    Losses are mean cross-entropies in nats, UA in [0, 1], on labels of speakers that the fits did
    not know. NaN where there are too few labels or speakers to compare; `used` is then False.
    """

    used: bool = False
    with_loss: float = float("nan")
    without_loss: float = float("nan")
    with_ua: float = float("nan")
    without_ua: float = float("nan")


class SpeakerMeans:
    """Running sums of embeddings by speaker; unlabelled recordings count as labelled ones do.

    Kept up to date by `add` as recordings come. The same recording twice counts twice: whoever adds
    keeps count. Transductive: see the module.
    """

    def __init__(self, dimensions: int, kappa: float = DEFAULT_KAPPA) -> None:
        if kappa < 0:
            raise ValueError(f"kappa: expected at least 0, got {kappa}")
        self.kappa = kappa
        self.names: list[str] = []
        self.sums: np.ndarray = np.zeros((0, dimensions))
        self.counts: np.ndarray = np.zeros(0, np.int64)
        self.total = np.zeros(dimensions)  # of everybody, the unknown too
        self.recordings = 0
        self._row: dict[str, int] = {}

    def add(self, points: np.ndarray, speakers: Sequence[str]) -> None:
        """points [n, R] and who speaks in each; "" is an unknown speaker: part of the pool only."""
        if len(points) != len(speakers):
            raise ValueError(f"speakers: expected one a row ({len(points)}), got {len(speakers)}")
        new = [name for name in dict.fromkeys(speakers) if name and name not in self._row]
        self._row.update({name: len(self.names) + i for i, name in enumerate(new)})
        self.names += new
        self.sums = np.concatenate([self.sums, np.zeros((len(new), self.sums.shape[1]))])
        self.counts = np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        points = np.asarray(points, np.float64)
        rows = self.rows(speakers)
        known = rows >= 0
        np.add.at(self.sums, rows[known], points[known])
        np.add.at(self.counts, rows[known], 1)
        self.total += points.sum(axis=0)
        self.recordings += len(points)

    def rows(self, speakers: Sequence[str]) -> np.ndarray:
        """The row of each speaker in `names`, int [n]; -1 for one that is not known."""
        find = self._row.get
        return np.fromiter((find(name, -1) for name in speakers), np.int64, len(speakers))

    def offsets(self) -> np.ndarray:
        """What to take off, float64 [speakers + 1, R]: shrunk difference to the pool's mean.

        The last row is zeros: what an unknown speaker (row -1) loses.
        """
        offsets = np.zeros((len(self.names) + 1, self.sums.shape[1]))
        if self.names:
            counts = self.counts[:, None]
            away = self.sums / counts - self.total / self.recordings
            offsets[:-1] = away * (counts / (counts + self.kappa))
        return offsets

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, for safetensors or npz; names are UTF-8, joined by newlines."""
        return {
            "names": np.frombuffer("\n".join(self.names).encode(), np.uint8).copy(),
            "sums": self.sums,
            "counts": self.counts,
            "total": self.total,
            "kappa_recordings": np.array([self.kappa, self.recordings]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> SpeakerMeans:
        """What `arrays` gave."""
        kappa, recordings = arrays["kappa_recordings"]
        means = cls(arrays["sums"].shape[1], float(kappa))
        text = arrays["names"].tobytes().decode()
        means.names = text.split("\n") if text else []
        means.sums, means.counts = arrays["sums"].copy(), arrays["counts"].copy()
        means.total, means.recordings = arrays["total"].copy(), int(recordings)
        means._row = {name: row for row, name in enumerate(means.names)}
        return means
