"""Speech backbones: wav2vec 2.0, HuBERT, WavLM and data2vec-audio behind one interface.

    backbone = load()                          # the embedded "after-tiny"
    backbone = load("facebook/wav2vec2-base")  # a hub name, or a folder
    features, frames = backbone.encode_cnn(waves, lengths)   # once per utterance; cacheable
    context = backbone(features, frames)                     # transformer, [B, T, H]

What an utterance gets does not depend on what it is batched with. Three things in the published
architectures would break that, and each is closed here: group normalisation over time in the first
CNN layer (statistics are taken over valid samples), attention (padding is masked), and positional
convolutions that have a bias or a norm before them (their input is masked again at every layer).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging as transformers_logging

from after_model.backbone.kernels import narrow_cnn, ragged

DEFAULT = "after-tiny"
WEIGHTS = Path(__file__).parents[1] / "weights"
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
_LOADING_ERRORS = (OSError, ValueError, SafetensorError)


class BackboneError(ValueError):
    """A backbone that cannot be loaded; the message names the cause and the way out."""


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """True on valid frames: LongTensor [B] -> BoolTensor [B, length]."""
    return torch.arange(length, device=frames.device)[None, :] < frames[:, None]


class Backbone(nn.Module):
    """A transformers speech model split where the cache cuts it: CNN encoder | transformer."""

    def __init__(self, model: Any, *, name: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.normalize = normalize
        self.config = model.config
        self.family: str = self.config.model_type
        self.cnn_dim: int = self.config.conv_dim[-1]
        self.hidden_size: int = self.config.hidden_size
        self._valid: Tensor | None = None  # [B, 1, T] while encode() runs
        for module in model.encoder.pos_conv_embed.modules():
            if isinstance(module, nn.Conv1d):
                module.register_forward_pre_hook(self._mask_convolution_input)

    # --- audio to CNN features -------------------------------------------------------------------

    @property
    def min_samples(self) -> int:
        """The shortest input that yields one frame."""
        samples = 1
        for kernel, stride in self._receptive_field()[::-1]:
            samples = (samples - 1) * stride + kernel
        return samples

    def num_frames(self, num_samples: int) -> int:
        """Frames that the CNN makes of num_samples (never below 1: prepare() pads)."""
        frames = max(num_samples, self.min_samples)
        for kernel, stride in self._receptive_field():
            frames = (frames - kernel) // stride + 1
        return frames

    def prepare(self, wave: np.ndarray) -> np.ndarray:
        """The input the weights expect: [S] float32, zero mean and unit variance if they do."""
        if self.normalize:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        if len(wave) < self.min_samples:
            wave = np.pad(wave, (0, self.min_samples - len(wave)))
        return np.ascontiguousarray(wave, dtype=np.float32)

    def encode_cnn(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """CNN features of prepared waves [B, S] of the given lengths [B]: ([B, T, D], frames [B]).

        Frames beyond an utterance's own are meaningless and left as they fall.
        """
        layers = self.model.feature_extractor.conv_layers
        if narrow_cnn.suits(waves, self.cnn_dim):
            return narrow_cnn.encode(layers, waves, lengths)
        hidden = waves[:, None]
        valid = lengths.clone()
        for layer in layers:
            valid = (valid - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden = layer.activation(_norm_over_time(layer.conv(hidden), valid, norm))
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2), valid

    def _receptive_field(self) -> list[tuple[int, int]]:
        return list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))

    # --- CNN features to context -----------------------------------------------------------------

    def project(self, features: Tensor) -> Tensor:
        """Feature projection: [B, T, D] -> [B, T, H]."""
        hidden = self.model.feature_projection(features)
        return hidden[0] if isinstance(hidden, tuple) else hidden

    def encode(self, hidden: Tensor, frames: Tensor, layer: int | None = None) -> Tensor:
        """Transformer over projected features [B, T, H]; zeros on padded frames.

        layer: the output of that layer (1 is the first) instead of the model's own output.
        """
        if ragged.suits(self.model, hidden.device):
            return ragged.encode(self.model.encoder, hidden, frames, layer)
        length = hidden.shape[1]
        padded = bool((frames < length).any())
        mask = frame_mask(frames, length) if padded else None
        self._valid = mask[:, None] if mask is not None else None
        captured: list[Tensor] = []
        handle = None
        if layer is not None:
            handle = self.model.encoder.layers[layer - 1].register_forward_hook(
                lambda _module, _inputs, output: captured.append(
                    output[0] if isinstance(output, tuple) else output
                )
            )
        try:
            output = self.model.encoder(hidden, attention_mask=mask).last_hidden_state
        finally:
            self._valid = None
            if handle is not None:
                handle.remove()
        if captured:
            output = captured[0]
        return output if mask is None else output * mask[..., None]

    def forward(
        self,
        features: Tensor,
        frames: Tensor,
        time_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Context representations [B, T, H] of CNN features [B, T, D] with frames [B] valid.

        time_mask [B, T] frames become the learned mask embedding; feature_mask [B, H] channels
        become zero (SpecAugment).
        """
        hidden = self.project(features)
        if time_mask is not None:
            embedding = self.model.masked_spec_embed.to(hidden.dtype)
            hidden = torch.where(time_mask[..., None], embedding, hidden)
        if feature_mask is not None:
            hidden = hidden.masked_fill(feature_mask[:, None, :], 0.0)
        return self.encode(hidden, frames, layer)

    def _mask_convolution_input(self, _module: nn.Module, inputs: tuple[Tensor]) -> Any:
        return None if self._valid is None else (inputs[0] * self._valid,)

    # --- identity and files ----------------------------------------------------------------------

    @property
    def cnn_hash(self) -> str:
        """Names what the cached features depend on: CNN weights and input normalisation."""
        digest = hashlib.blake2b(digest_size=10)
        digest.update(json.dumps([self.normalize, self._receptive_field()]).encode())
        for name, weight in sorted(self.model.feature_extractor.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write config, safetensors and input normalisation; load(folder) reads them back."""
        folder = Path(folder)
        with _quiet_transformers():
            self.model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(
            do_normalize=self.normalize, return_attention_mask=False
        ).save_pretrained(folder)


def load(name_or_path: str | Path = DEFAULT) -> Backbone:
    """Load a backbone by hub name, folder, or "after-tiny" (embedded; needs no network).

    Returns it on the CPU in float32 and evaluation mode. Parameters that a checkpoint lacks (the
    mask embedding, at times) are initialised from a fixed seed.

    Raises BackboneError when it cannot be had, is of an unknown family or has no safetensors.
    """
    name = str(name_or_path)
    source = str(WEIGHTS / name) if (WEIGHTS / name / "config.json").exists() else name
    config = _fetch(name, lambda local: transformers.AutoConfig.from_pretrained(source, **local))
    if config.model_type not in FAMILIES:
        raise BackboneError(
            f"{name}: model type {config.model_type!r} is no speech backbone AFTER knows; "
            f"use one of {', '.join(FAMILIES)}"
        )
    if config.mask_time_prob == 0 and config.mask_feature_prob == 0:
        config.mask_time_prob = 0.05  # otherwise transformers leaves the mask embedding out
    config.attention_dropout = 0.0  # it would rule out fused attention, which is twice as fast
    config.activation_dropout = 0.0  # what remains: hidden_dropout after every block
    with torch.random.fork_rng(devices=[]), _quiet_transformers():
        torch.manual_seed(0)
        model = _fetch(
            name,
            lambda local: transformers.AutoModel.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, **local
            ),
        )
    extractor = _fetch(
        name,
        lambda local: transformers.AutoFeatureExtractor.from_pretrained(source, **local),
    )
    return Backbone(model, name=name, normalize=bool(extractor.do_normalize)).eval()


def _norm_over_time(hidden: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """The first CNN layer's group norm over each row's valid samples only; zeros after them."""
    length = hidden.shape[-1]
    if bool((valid == length).all()):
        return norm(hidden)
    # A row at a time: a masked mean and variance of all would be six times slower with gradients.
    rows = zip(hidden.unbind(), valid.tolist(), strict=True)
    return torch.cat([F.pad(norm(row[None, :, :n]), (0, length - n)) for row, n in rows])


def _fetch(name: str, get: Callable[[dict[str, bool]], Any]) -> Any:
    """From disk if it is there, else from the hub; a BackboneError that helps if neither."""
    try:
        return get({"local_files_only": True})
    except _LOADING_ERRORS:
        pass
    try:
        if Path(name).exists():
            return get({"local_files_only": True})
        return get({})
    except _LOADING_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise BackboneError(
            f"cannot load backbone {name!r}: {reason}. Without a network use "
            f"{DEFAULT!r}, which is embedded, or name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors (pickled weights are not read)"
        ) from error


class _quiet_transformers:
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
