"""What every speech backbone offers, whatever its family: stem | transformer, cut where the cache
cuts it.

    features, frames = backbone.encode_cnn(waves, lengths)     # once per utterance; cacheable
    context = backbone(features, frames)                       # last hidden state, [B, T, H]
    third, fifth = backbone.states(features, frames, [3, 5])   # hidden states by their number

Hidden states are numbered as transformers numbers them: 0 is what enters the first layer, L (or
"last") what the model gives out, after its final norm where it has one. Rule for every family: what
an utterance gets does not depend on what it is batched with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging


class BackboneError(ValueError):
    """A backbone that cannot be loaded; the message names the cause and the way out."""


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """True on valid frames: LongTensor [B] -> BoolTensor [B, length]."""
    return torch.arange(length, device=frames.device)[None, :] < frames[:, None]


class Backbone(nn.Module, ABC):
    """A speech model of transformers, split into its stem (what is cached) and its transformer.

    model: the part of transformers' model that is used. normalize: whether prepare() gives waves
    zero mean and unit variance. Attributes: family; cnn_dim, the stem features' D; hidden_size, H;
    num_layers, L; default_states, what is pooled where nobody says; frame_seconds.
    """

    cnn_dim: int
    frame_seconds: float

    def __init__(self, model: Any, *, name: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.normalize = normalize
        self.config = model.config
        self.family: str = self.config.model_type
        self.hidden_size: int = self.config.hidden_size
        self.num_layers: int = self.config.num_hidden_layers

    # --- what a family defines -------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def read(cls, source: str, config: Any, **options: bool) -> Any:
        """transformers' model of a folder or hub name: float32, in evaluation mode."""

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """The shortest input that yields one frame."""

    @abstractmethod
    def num_frames(self, num_samples: int) -> int:
        """Frames that the stem makes of num_samples (never below 1: prepare() pads)."""

    @abstractmethod
    def encode_cnn(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Stem features of prepared waves [B, S] of the given lengths [B]: ([B, T, D], frames [B]).

        Frames beyond an utterance's own are meaningless and left as they fall.
        """

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Stem features [B, T, D] -> [B, T, H]: where masks apply, before positions are added."""

    @abstractmethod
    def encode(self, hidden: Tensor, frames: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """The wanted hidden states of projected features [B, T, H], [B, T, H] each.

        Zeros on padded frames; layers above the highest state are not computed.
        """

    @abstractmethod
    def normalised(self, features: Tensor) -> Tensor:
        """Stem features [B, T, D] on the scale that pre-training quantizes them on."""

    @abstractmethod
    def stem(self) -> Iterable[nn.Module]:
        """The modules of the stem."""

    @abstractmethod
    def _stem_settings(self) -> list[Any]:
        """What stem features depend on beside weights; as JSON."""

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Write config, safetensors and input normalisation; load(folder) reads them back."""

    # --- faster, with the same result (after_model.backbone.kernels) -----------------------------

    @abstractmethod
    def unpadded(self, device: torch.device) -> bool:
        """Whether the transformer computes no padding on that device."""

    def fixed_stem(self) -> contextlib.AbstractContextManager[None]:
        """Within it the stem's weights don't change: they are laid out once for all recordings."""
        return contextlib.nullcontext()

    def fixed_transformer(self) -> contextlib.AbstractContextManager[None]:
        """Within it the transformer's weights don't change and are float32: laid out once."""
        return contextlib.nullcontext()

    # --- the same for all ------------------------------------------------------------------------

    def prepare(self, wave: np.ndarray) -> np.ndarray:
        """The input the weights expect: [S] float32, zero mean and unit variance if they do."""
        if self.normalize:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        if len(wave) < self.min_samples:
            wave = np.pad(wave, (0, self.min_samples - len(wave)))
        return np.ascontiguousarray(wave, dtype=np.float32)

    def states(
        self,
        features: Tensor,
        frames: Tensor,
        wanted: Sequence[int],
        time_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Hidden states [B, T, H] of stem features [B, T, D] with frames [B] valid, as wanted.

        Numbers as in transformers' output_hidden_states; zeros on padded frames. time_mask [B, T]
        frames become the learned mask embedding; feature_mask [B, H] channels become zero
        (SpecAugment). What lies above the highest state is not computed.
        """
        hidden = self.project(features)
        if time_mask is not None:
            embedding = self.model.masked_spec_embed.to(hidden.dtype)
            hidden = torch.where(time_mask[..., None], embedding, hidden)
        if feature_mask is not None:
            hidden = hidden.masked_fill(feature_mask[:, None, :], 0.0)
        return self.encode(hidden, frames, wanted)

    def forward(
        self,
        features: Tensor,
        frames: Tensor,
        time_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """The last hidden state [B, T, H]: states() with [num_layers]."""
        return self.states(features, frames, [self.num_layers], time_mask, feature_mask)[0]

    @property
    def default_states(self) -> tuple[int, ...]:
        """The states to pool where nobody searched: the configuration's, else the middle one.

        The last state is nearly always the wrong one (public linear probes: wav2vec2-base on EmoDB
        73 % with the last, 90 % with the best); `default_states` in config.json names others.
        """
        named = getattr(self.config, "default_states", None)
        return self.resolve_states(named or [(self.num_layers + 1) // 2])

    def resolve_states(self, states: Sequence[int] | str | None) -> tuple[int, ...]:
        """State numbers in ascending order: None or "default", "last", "all", or numbers.

        Raises ValueError on numbers that the model has not, and on none.
        """
        if states is None or states == "default":
            return self.default_states
        if states == "last":
            return (self.num_layers,)
        if states == "all":
            return tuple(range(self.num_layers + 1))
        numbers = () if isinstance(states, str) else tuple(sorted(set(states)))
        if not numbers or not 0 <= numbers[0] <= numbers[-1] <= self.num_layers:
            raise ValueError(
                f"states {states!r}: {self.name} has hidden states 0 to {self.num_layers}; name "
                "some of them, or default, last, all"
            )
        return numbers

    def freeze_stem(self, frozen: bool = True) -> None:
        """Whether gradients reach the stem's weights."""
        for module in self.stem():
            module.requires_grad_(not frozen)

    def drop_attention_dropout(self) -> None:
        """Attention without dropout, which on a CPU takes the unfused, slower path."""
        for module in self.model.modules():
            if hasattr(module, "q_proj") and isinstance(module.dropout, float):
                module.dropout = 0.0

    # --- identity --------------------------------------------------------------------------------

    @property
    def cnn_hash(self) -> str:
        """Names what stem features depend on: the stem's weights and settings, normalisation."""
        named = [(str(i), module) for i, module in enumerate(self.stem())]
        weights = {f"{i}.{k}": v for i, m in named for k, v in m.state_dict().items()}
        return _digest([self.normalize, self._stem_settings()], weights)

    @property
    def encoder_hash(self) -> str:
        """Names what embeddings depend on: all weights, settings, input normalisation.

        Computed at each call (0.1 s for the embedded backbones): ask once, outside of loops.
        """
        settings = [self.family, self.normalize, self._stem_settings()]
        heads = self.config.num_attention_heads
        return _digest([*settings, self.num_layers, heads], self.model.state_dict())


def _digest(settings: list[Any], weights: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=10)
    digest.update(json.dumps(settings).encode())
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class quiet_transformers:
    """Silences the load report: parameters it calls missing are initialised on purpose."""

    def __enter__(self) -> None:
        self._level = transformers_logging.get_verbosity()
        self._bar = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._level)
        if self._bar:
            transformers_logging.enable_progress_bar()
