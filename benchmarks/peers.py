"""transformers' side: datasets, collators and the loading of its models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    _compute_mask_indices,
    _sample_negative_indices,
)

from after_model import audio


class Raw(Dataset):
    """Recordings as the pipeline takes them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"raw": audio.load(self._paths[index]), "sampling_rate": audio.SAMPLE_RATE}


class Labelled(Dataset):
    """Recordings as the audio-classification example gives them to the Trainer: decoded and
    normalised when they are asked for."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], extractor: Any) -> None:
        self._paths, self._labels, self._extractor = paths, labels, extractor

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        wave = audio.load(self._paths[index])
        inputs = self._extractor(wave, sampling_rate=audio.SAMPLE_RATE)
        return {"input_values": inputs["input_values"][0], "labels": self._labels[index]}


class Normalised(Dataset):
    """Recordings as the pre-training example has them: decoded and normalised beforehand."""

    def __init__(self, paths: Sequence[Path], extractor: Any) -> None:
        self._items = [
            extractor(audio.load(path), sampling_rate=audio.SAMPLE_RATE)["input_values"][0]
            for path in paths
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_values": self._items[index]}


class PretrainingCollator:
    """The collator of transformers' wav2vec 2.0 pre-training example: pads a batch, draws masks and
    negatives."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model, self._extractor = model, extractor

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._extractor.pad(items, padding="longest", return_tensors="pt")
        size, samples = batch["input_values"].shape
        frames = int(self._model._get_feat_extract_output_lengths(samples))
        valid = None
        if batch.get("attention_mask") is not None:
            valid = self._model._get_feature_vector_attention_mask(frames, batch["attention_mask"])
        config = self._model.config
        mask = _compute_mask_indices(
            (size, frames), config.mask_time_prob, config.mask_time_length, attention_mask=valid
        )
        negatives = _sample_negative_indices((size, frames), config.num_negatives, mask)
        return {
            **batch,
            "mask_time_indices": torch.from_numpy(mask).long(),
            "sampled_negative_indices": torch.from_numpy(negatives).long(),
        }


def extractor(folder: Path, *, attention_mask: bool | None = None) -> Any:
    """The feature extractor beside a model; attention_mask: as the checkpoint says, if None."""
    options = {} if attention_mask is None else {"return_attention_mask": attention_mask}
    return transformers.AutoFeatureExtractor.from_pretrained(folder, **options)


def padding(samples: np.ndarray, batches: Sequence[Sequence[int] | np.ndarray]) -> float:
    """Samples computed per sample needed, where every batch is padded to its longest."""
    computed = sum(int(samples[list(batch)].max()) * len(batch) for batch in batches)
    return computed / int(sum(samples[list(batch)].sum() for batch in batches))


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """Switch all dropout off, also in training mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # attention
            module.dropout = 0.0  # type: ignore[assignment]
    return model
