"""A classifier as transformers' own modules compute it: what every peer runs, in its own way.

    model = load_plain(folder)                  # written by EmotionClassifier.save
    inputs = model.inputs(wave)                 # by transformers' feature extractor
    logits = model(inputs[None])                # [1, C]; nothing padded
    logits = model.padded(*model.batch([...]))  # [B, C]; padded to the longest, masked

Layers above the highest state that is pooled are cut off: a user who wants speed wouldn't compute
them. Whisper's encoder is called on a recording's own length; its extractor would pad to 30 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from after_model.audio import SAMPLE_RATE
from after_model.backbone import frame_mask
from after_model.classifier import EmotionClassifier

WHISPER = "whisper"


class Plain(nn.Module):
    """Encoder, pooling and head; `classifier` only gives weights and settings."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: EmotionClassifier, extractor: Any) -> None:
        super().__init__()
        backbone = classifier.backbone
        self.whisper = backbone.family == WHISPER
        self.states = classifier.states
        self.pools = classifier.head.pools
        self.extractor = extractor
        self.encoder = _encoder(backbone, max(self.states))
        self.linear = classifier.head.linear
        self.register_buffer("mean", classifier.state_mean)
        self.register_buffer("std", classifier.state_std)

    def inputs(self, wave: np.ndarray, **options: Any) -> np.ndarray:
        """What the encoder is given of a recording: [S], or [mels, M] for Whisper."""
        if self.whisper:
            options = {"padding": "do_not_pad", "truncation": False} | options
        found = self.extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="np", **options)
        return found["input_features" if self.whisper else "input_values"][0]

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, S] or [B, mels, M], all of one length -> logits [B, C]."""
        if self.whisper:
            return self._head([_statistics(x, self.pools) for x in self._whisper(inputs, None)])
        return self._head([_statistics(x, self.pools) for x in self._wav2vec2(inputs, None)])

    def batch(self, inputs: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Padded with zeros to the longest: inputs [B, ..., longest] and lengths [B]."""
        lengths = torch.tensor([one.shape[-1] for one in inputs])
        longest = int(lengths.max())
        rows = [F.pad(torch.from_numpy(one), (0, longest - one.shape[-1])) for one in inputs]
        return torch.stack(rows), lengths

    def padded(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of a padded batch: attention and pooling see valid frames only.

        Not exact: convolutions hear the padding, and a group norm over time counts it.
        """
        if self.whisper:
            frames = (lengths - 1) // 2 + 1
            mask = frame_mask(frames, (inputs.shape[-1] - 1) // 2 + 1)
            found = self._whisper(inputs, mask[:, None, None])
        else:
            frames = self.encoder._get_feat_extract_output_lengths(lengths)
            masked = self.encoder.config.feat_extract_norm == "layer"
            valid = frame_mask(lengths, inputs.shape[-1]).long() if masked else None
            found = self._wav2vec2(inputs, valid)
        return self._head([_statistics(x, self.pools, frames) for x in found])

    def _whisper(self, mel: Tensor, attended: Tensor | None) -> list[Tensor]:
        encoder = self.encoder
        hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        found = [hidden]
        for layer in encoder.layers:
            hidden = layer(hidden, attended)
            found.append(hidden)
        found[-1] = encoder.layer_norm(hidden)
        return [found[state] for state in self.states]

    def _wav2vec2(self, waves: Tensor, valid: Tensor | None) -> list[Tensor]:
        several = len(self.states) > 1
        found = self.encoder(waves, attention_mask=valid, output_hidden_states=several)
        if several:
            return [found.hidden_states[state] for state in self.states]
        return [found.last_hidden_state]

    def _head(self, pooled: list[Tensor]) -> Tensor:
        standardised = (torch.stack(pooled, dim=1) - self.mean) / self.std
        return self.linear(standardised.mean(dim=1))


def load_plain(folder: Path) -> Plain:
    """From what EmotionClassifier.save() wrote, in evaluation mode."""
    classifier, _ = EmotionClassifier.load(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    return Plain(classifier, extractor).eval()


def _encoder(backbone: Any, highest: int) -> Any:
    """transformers' encoder with the backbone's weights, as far as the highest state."""
    whole = highest == backbone.num_layers
    if backbone.family == WHISPER:
        encoder = WhisperEncoder(backbone.config)
        weights = {k: v for k, v in backbone.model.state_dict().items() if k != "masked_spec_embed"}
        if not any(name.startswith("layer_norm.") for name in weights):  # cut off already
            whole, encoder.layer_norm = False, nn.Identity()
        encoder.load_state_dict(weights)
        encoder.layers = encoder.layers[:highest]
        if not whole:
            encoder.layer_norm = nn.Identity()
        return encoder
    encoder = transformers.AutoModel.from_config(backbone.config)
    encoder.load_state_dict(backbone.model.state_dict())
    encoder.encoder.layers = encoder.encoder.layers[:highest]
    if not whole and getattr(backbone.config, "do_stable_layer_norm", False):
        encoder.encoder.layer_norm = nn.Identity()
    return encoder


def _statistics(hidden: Tensor, pools: int, frames: Tensor | None = None) -> Tensor:
    """Mean [B, H], and deviation behind it where pools is 2, over (valid) frames [B, T, H]."""
    if frames is None:
        mean, deviation = hidden.mean(dim=1), None
        if pools == 2:
            deviation = ((hidden - mean[:, None]) ** 2).mean(dim=1)
    else:
        mask = frame_mask(frames, hidden.shape[1])[..., None]
        mean, deviation = (hidden * mask).sum(dim=1) / frames[:, None], None
        if pools == 2:
            deviation = ((hidden - mean[:, None]) ** 2 * mask).sum(dim=1) / frames[:, None]
    if deviation is None:
        return mean
    return torch.cat([mean, (deviation + 1e-6).sqrt()], dim=1)
