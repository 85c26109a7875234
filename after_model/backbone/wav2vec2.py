"""wav2vec 2.0, and HuBERT, WavLM and data2vec-audio as what they change in it.

Three things in the published architectures would make an utterance depend on its batch mates, and
each is closed here: group normalisation over time in the first CNN layer (statistics are taken over
valid samples), attention (padding is masked), and positional convolutions that have a bias or a
norm before them (their input is masked again at every layer).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask

from after_model.audio import SAMPLE_RATE
from after_model.backbone.base import Backbone, frame_mask, quiet_transformers
from after_model.backbone.kernels import narrow_cnn, ragged

FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


class Wav2Vec2Backbone(Backbone):
    """A CNN over the wave, a convolution for positions, a transformer.

    HuBERT differs in a projection without a norm of its own and an optional batch norm before the
    positional convolution, data2vec in several such convolutions, WavLM in attention with a
    position bias that the first layer makes for all. "Stable" models norm before, not after.
    """

    def __init__(self, model: Any, *, name: str, normalize: bool) -> None:
        super().__init__(model, name=name, normalize=normalize)
        self.cnn_dim = self.config.conv_dim[-1]
        self.frame_seconds = math.prod(self.config.conv_stride) / SAMPLE_RATE

    @classmethod
    def read(cls, source: str, config: Any, **options: bool) -> Any:
        if config.mask_time_prob == 0 and config.mask_feature_prob == 0:
            config.mask_time_prob = 0.05  # otherwise transformers leaves the mask embedding out
        config.attention_dropout = 0.0  # it would rule out fused attention, twice as fast
        config.activation_dropout = 0.0  # what remains: hidden_dropout after every block
        return transformers.AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, **options
        )

    # --- audio to CNN features -------------------------------------------------------------------

    @property
    def min_samples(self) -> int:
        samples = 1
        for kernel, stride in self._receptive_field()[::-1]:
            samples = (samples - 1) * stride + kernel
        return samples

    def num_frames(self, num_samples: int) -> int:
        frames = max(num_samples, self.min_samples)
        for kernel, stride in self._receptive_field():
            frames = (frames - kernel) // stride + 1
        return frames

    def encode_cnn(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
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

    def stem(self) -> Iterable[nn.Module]:
        return [self.model.feature_extractor]

    def _stem_settings(self) -> list[Any]:
        return self._receptive_field()

    def _receptive_field(self) -> list[tuple[int, int]]:
        return list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))

    # --- CNN features to hidden states -----------------------------------------------------------

    def project(self, features: Tensor) -> Tensor:
        hidden = self.model.feature_projection(features)
        return hidden[0] if isinstance(hidden, tuple) else hidden

    def normalised(self, features: Tensor) -> Tensor:
        """After the feature projection's norm, where it has one."""
        norm = getattr(self.model.feature_projection, "layer_norm", None)
        return features if norm is None else norm(features)

    def encode(self, hidden: Tensor, frames: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        encoder = self.model.encoder
        if self.unpadded(hidden.device):
            return ragged.encode(
                hidden,
                frames,
                lambda flat, lengths: ragged.wav2vec2(encoder, flat, lengths, wanted),
            )
        padded = bool((frames < hidden.shape[1]).any())
        mask = frame_mask(frames, hidden.shape[1]) if padded else None
        if mask is not None:
            hidden = hidden * mask[..., None]
        found = self._layers(hidden, mask, max(wanted))
        return [
            found[state] if mask is None else found[state] * mask[..., None] for state in wanted
        ]

    def _layers(self, hidden: Tensor, mask: Tensor | None, highest: int) -> list[Tensor]:
        """States 0 to the highest of [B, T, H], mask [B, T] where anything is padded."""
        encoder, config, attended = self.model.encoder, self.config, mask
        biased = self.family == "wavlm"  # its attention takes the mask as it is, others expanded
        norm_first = getattr(config, "do_stable_layer_norm", False)
        if not biased:
            attended = create_bidirectional_mask(
                config=config, inputs_embeds=hidden, attention_mask=mask
            )
        hidden = hidden + self._positions(hidden, mask)
        if not norm_first:
            hidden = encoder.layer_norm(hidden)
        hidden, bias = encoder.dropout(hidden), None
        found = [hidden]
        for number, layer in enumerate(encoder.layers[:highest]):
            # layer drop, as transformers draws it: WavLM's first layer makes the others' bias
            droppable = encoder.training and config.layerdrop > 0 and not (biased and number == 0)
            if not (droppable and torch.rand([]) < config.layerdrop):
                if biased:
                    hidden, bias = layer(hidden, attention_mask=attended, position_bias=bias)
                else:
                    hidden = layer(hidden, attention_mask=attended)
            found.append(hidden)
        if norm_first and highest == self.num_layers:
            found[-1] = encoder.layer_norm(hidden)
        return found

    def _positions(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The positional convolution, [B, T, H]; nothing but valid frames enters any part of it."""
        embedding = self.model.encoder.pos_conv_embed
        hidden = hidden.transpose(1, 2)
        for part in getattr(embedding, "layers", [embedding]):
            if getattr(part, "batch_norm", None) is not None:
                hidden = part.batch_norm(hidden)
            if mask is not None:
                hidden = hidden * mask[:, None]
            hidden = part.padding(part.conv(hidden))
            if hasattr(part, "layer_norm"):
                hidden = part.layer_norm(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = part.activation(hidden)
        return hidden.transpose(1, 2)

    # --- kernels and files -----------------------------------------------------------------------

    def unpadded(self, device: torch.device) -> bool:
        plain = self.family != "wavlm" and getattr(self.config, "adapter_attn_dim", None) is None
        return plain and ragged.suits(self.model.encoder, device)

    def fixed_stem(self) -> contextlib.AbstractContextManager[None]:
        return narrow_cnn.fixed_weights(self.model.feature_extractor.conv_layers)

    def fixed_transformer(self) -> contextlib.AbstractContextManager[None]:
        if not self.unpadded(torch.device("cpu")):
            return contextlib.nullcontext()
        return ragged.fixed_weights(self.model.encoder)

    def save(self, folder: Path | str) -> None:
        with quiet_transformers():
            self.model.save_pretrained(Path(folder))
        transformers.Wav2Vec2FeatureExtractor(
            do_normalize=self.normalize, return_attention_mask=False
        ).save_pretrained(Path(folder))


def _norm_over_time(hidden: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """The first CNN layer's group norm over each row's valid samples only; zeros after them."""
    length = hidden.shape[-1]
    if bool((valid == length).all()):
        return norm(hidden)
    # A row at a time: a masked mean and variance of all would be six times slower with gradients.
    rows = zip(hidden.unbind(), valid.tolist(), strict=True)
    return torch.cat([F.pad(norm(row[None, :, :n]), (0, length - n)) for row, n in rows])
