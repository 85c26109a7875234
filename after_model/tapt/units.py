"""k-means for task-adaptive pre-training: HuBERT's units, and where a new codebook starts.

    units = compute_units(backbone, store, utterances, count=100, layer=2, rng=rng)
    units.of(utterance)      # int64 [T], one unit a frame
    start_codebook(model, store, utterances, rng)

Units are clusters of hidden features of the unmasked audio before adaptation (Hsu et al. 2021,
second iteration).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.cluster import MiniBatchKMeans

from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.features import FeatureStore
from after_model.features.batching import collate, length_batches, read_ahead
from after_model.progress import Progress, silent
from after_model.tapt.config import TaptError
from after_model.tapt.objectives import CodebookHeads, TaptModel

FIT_FRAMES = 50_000  # about 17 minutes: more moves the centres little
CODEBOOK_FRAMES = 20_000
MAX_FRAMES = 8_000  # padded frames a batch


@dataclass(frozen=True)
class Units:
    """Cluster centres [V, H] of one layer and the units of the utterances they were asked for."""

    centres: np.ndarray
    codes: dict[str, np.ndarray]  # by utterance id, int16 [T]

    def of(self, utterance: Utterance) -> np.ndarray:
        """Units of one utterance, int64 [T]. Raises TaptError if they were not computed."""
        if utterance.id not in self.codes:
            raise TaptError(
                f"{utterance.id}: no units; pass it to adapt() as training or held-out audio, for "
                "units come from the backbone before its adaptation"
            )
        return self.codes[utterance.id].astype(np.int64)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        ids = list(self.codes)
        arrays = {
            "centres": self.centres,
            "frames": np.array([len(self.codes[i]) for i in ids], dtype=np.int64),
            "codes": np.concatenate([self.codes[i] for i in ids] or [np.zeros(0, np.int16)]),
        }
        save_file(arrays, path, metadata={"ids": json.dumps(ids)})


def load_units(path: Path) -> Units:
    """Read what Units.save wrote."""
    with safe_open(path, framework="np") as file:
        ids = json.loads(file.metadata()["ids"])
        ends = np.cumsum(file.get_tensor("frames"))
        rows = np.split(file.get_tensor("codes"), ends[:-1])
        return Units(file.get_tensor("centres"), dict(zip(ids, rows, strict=True)))


def compute_units(
    backbone: Backbone,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    count: int,
    layer: int,
    rng: np.random.Generator,
    held_out: Sequence[Utterance] = (),
    progress: Progress = silent,
) -> Units:
    """Cluster a random part of the utterances' frames and give every frame its nearest centre.

    layer: the number of the hidden state, 1 comes out of the first layer. held_out utterances get
    units but have no say in the centres. Fewer frames than `count` give fewer units.
    """
    sample = _sample(store, utterances, FIT_FRAMES, rng)
    data = np.concatenate([hidden for _, hidden in _hidden(backbone, store, sample, layer)])
    kmeans = _kmeans(min(count, len(data)), rng).fit(data)
    everyone = [*utterances, *held_out]
    codes: dict[str, np.ndarray] = {}
    for utterance, hidden in _hidden(backbone, store, everyone, layer):
        codes[utterance.id] = kmeans.predict(hidden).astype(np.int16)
        progress("units", len(codes), len(everyone))
    return Units(kmeans.cluster_centers_.astype(np.float32), codes)


def start_codebook(
    model: TaptModel, store: FeatureStore, utterances: Sequence[Utterance], rng: np.random.Generator
) -> None:
    """Let a quantizer without trained weights begin as k-means of the features it will quantize.

    Group g of G clusters every G-th channel from the g-th on (product quantization), so that the
    codes are used evenly and mean something. Measured on EmoDB with after-tiny: random weights use
    16 of 160 codes (perplexity), and their tokens are predicted no better than by frequency.
    """
    assert isinstance(model.heads, CodebookHeads)
    sample = _sample(store, utterances, CODEBOOK_FRAMES, rng)
    raw = np.concatenate([store[u] for u in sample]).astype(np.float32)
    device = next(model.parameters()).device
    with torch.no_grad():
        features = model.normalised(torch.from_numpy(raw).to(device)).cpu().numpy()
    quantizer = model.heads.quantizer
    groups, codes = quantizer.groups, quantizer.codes
    centres = np.zeros((groups, codes, features.shape[1]), dtype=np.float32)
    for group in range(groups):
        part = np.ascontiguousarray(features[:, group::groups])
        count = min(codes, len(part))
        found = _kmeans(count, rng).fit(part).cluster_centers_
        centres[group, :, group::groups] = found[np.arange(codes) % count]
    quantizer.start_from(torch.from_numpy(centres), torch.from_numpy(features))


def _kmeans(count: int, rng: np.random.Generator) -> MiniBatchKMeans:
    seed = int(rng.integers(2**31))
    return MiniBatchKMeans(n_clusters=count, batch_size=4096, n_init=3, random_state=seed)


def _sample(
    store: FeatureStore, utterances: Sequence[Utterance], frames: int, rng: np.random.Generator
) -> list[Utterance]:
    """Random utterances that have about so many frames together, in the pool's order."""
    lengths = store.frames(utterances)
    order = rng.permutation(len(utterances))
    enough = int(np.searchsorted(np.cumsum(lengths[order]), frames)) + 1
    return [utterances[i] for i in np.sort(order[:enough])]


def _hidden(
    backbone: Backbone, store: FeatureStore, utterances: Sequence[Utterance], layer: int
) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Each utterance with its hidden features [T, H] at a layer, in evaluation mode."""
    device = next(backbone.parameters()).device
    batches = length_batches(store.frames(utterances), max_frames=MAX_FRAMES)
    loaded = read_ahead(lambda batch: (batch, collate(store, utterances, batch)), batches)
    backbone.eval()
    with torch.inference_mode():
        for batch, (features, frames) in loaded:
            (hidden,) = backbone.states(features.to(device), frames.to(device), [layer])
            for row, index in enumerate(batch):
                yield utterances[index], hidden[row, : int(frames[row])].cpu().numpy()
