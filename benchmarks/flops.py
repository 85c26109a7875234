"""Floating-point operations that a task needs, counted from the backbone's configuration.

Multiplications and additions of matrix products and convolutions; nothing for padding. What is
trained counts three times: forward, and the gradients of its inputs and of its weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from after_model.audio import SAMPLE_RATE
from after_model.backbone import Backbone


def per_audio_second(
    backbone: Backbone,
    samples: np.ndarray,
    *,
    cnn_times: int,
    transformer_times: int,
    heads_times: int = 0,
    layers: int | None = None,
) -> float:
    """GFLOP per second of audio, over utterances of so many samples [N].

    layers: of the transformer that are computed, None for all.

    The times: 0 for what isn't run, 1 for what runs forward, 3 for what is trained.
    """
    config, total = backbone.config, 0.0
    for count in samples.tolist():
        frames = backbone.num_frames(count)
        total += cnn_times * cnn(config, count)
        total += transformer_times * transformer(config, frames, layers)
        if heads_times:
            total += heads_times * codebook_heads(config, frames)
    return total / 1e9 / (samples.sum() / SAMPLE_RATE)


def cnn(config: Any, samples: int) -> float:
    """The stem's convolutions on one utterance, forward."""
    if config.model_type == "whisper":
        mels, width, frames = config.num_mel_bins, config.d_model, samples // 160
        return 2.0 * 3 * width * (frames * mels + (frames + 1) // 2 * width)
    total, length, channels = 0.0, samples, 1
    layers = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
    for width, kernel, stride in layers:
        length = (length - kernel) // stride + 1
        total += 2.0 * length * kernel * channels * width
        channels = width
    return total


def transformer(config: Any, frames: int, layers: int | None = None) -> float:
    """Feature projection, positional convolution and transformer on one utterance, forward."""
    layers = config.num_hidden_layers if layers is None else layers
    if config.model_type == "whisper":
        return float(frames * layers * _layer(config.d_model, config.encoder_ffn_dim, frames))
    hidden, inner = config.hidden_size, config.intermediate_size
    # data2vec-audio has several positional convolutions, the others one
    kernel = config.num_conv_pos_embeddings * getattr(config, "conv_pos_kernel_size", 1)
    group = hidden // config.num_conv_pos_embedding_groups
    before = 2 * config.conv_dim[-1] * hidden + 2 * hidden * group * kernel
    return float(frames * (before + layers * _layer(hidden, inner, frames)))


def _layer(hidden: int, inner: int, frames: int) -> int:
    """A transformer layer, per frame."""
    return 8 * hidden**2 + 4 * hidden * inner + 4 * frames * hidden


def codebook_heads(config: Any, frames: int) -> float:
    """Quantizer and projections of pre-training on one utterance, forward."""
    codes = config.num_codevector_groups * config.num_codevectors_per_group
    projections = (config.hidden_size + config.codevector_dim) * config.proj_codevector_dim
    return 2.0 * frames * (config.conv_dim[-1] * codes + projections)
