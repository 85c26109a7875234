"""The encoders of Whisper: convolutions over a log-mel spectrogram, sinusoidal positions, pre-norm
layers.

OpenAI's pipeline pads every recording to 30 s, and the encoder then hears mostly silence. Here a
recording keeps its own length: the spectrogram of its valid frames, positions from 0, no padding
but what batching adds, which is masked in the convolutions and in attention. Frozen whisper-base
read like that separates the emotions of EmoDB as the README beside its weights says.

A recording longer than the positions reach (1,500 frames, 30 s) is heard by the transformer in
windows, as few as hold it and as equal as can be: 40 s are two of 20 s, so that no window is a
scrap. Whatever fits into one is computed as if there were no windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from after_model.audio import SAMPLE_RATE
from after_model.backbone.base import Backbone, BackboneError, frame_mask
from after_model.backbone.kernels import ragged

FAMILIES = ("whisper",)
_SAVED_PREFIX = "encoder."  # as WhisperModel names its encoder's weights


class Encoder(WhisperEncoder):
    """transformers' encoder with a mask embedding; without its last norm where there is none.

    `final_layer_norm: false` in config.json marks an encoder whose upper layers were cut off: the
    norm belongs after the last layer of the whole one, and no state below goes through it.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.masked_spec_embed = nn.Parameter(torch.empty(config.d_model).uniform_())
        if not getattr(config, "final_layer_norm", True):
            self.layer_norm = nn.Identity()
        # positions are computed once and for all: whatever is trained, they are not
        positions = self.embed_positions.weight.detach()
        del self.embed_positions.weight
        self.embed_positions.register_buffer("weight", positions)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            transformers.initialization.uniform_(self.masked_spec_embed)


class WhisperBackbone(Backbone):
    """A Whisper encoder; extractor: transformers' own, for the mel filters and window sizes."""

    mel_filters: Tensor  # [bins, mels]
    window: Tensor

    def __init__(self, model: Any, *, name: str, extractor: Any) -> None:
        super().__init__(model, name=name, normalize=False)
        self.extractor = extractor
        self.hop: int = extractor.hop_length
        self.window_size: int = extractor.n_fft
        self.cnn_dim = self.config.d_model
        self.frame_seconds = 2 * self.hop / SAMPLE_RATE
        filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.window_size), persistent=False)

    @classmethod
    def read(cls, source: str, config: Any, **options: bool) -> Any:
        config.attention_dropout = 0.0  # it would rule out fused attention, twice as fast
        model, found = Encoder.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            # of a whole model, of its encoder, or of what save() wrote; a decoder is not read
            key_mapping={r"^(model\.)?encoder\.": ""},
            output_loading_info=True,
            **options,
        )
        missing = sorted(set(found["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise BackboneError(
                f"the encoder's weights lack {len(missing)} of those that config.json promises, "
                f"{missing[0]} first"
            )
        return model

    # --- audio to stem features ------------------------------------------------------------------

    @property
    def min_samples(self) -> int:
        return max(self.hop, self.window_size // 2 + 1)  # what can be reflected at its ends

    def num_frames(self, num_samples: int) -> int:
        return (max(num_samples, self.min_samples) // self.hop - 1) // 2 + 1

    def encode_cnn(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mel, valid = self.log_mel(waves, lengths)
        hidden = F.gelu(self.model.conv1(mel))
        if bool((valid < mel.shape[2]).any()):  # the second convolution hears zeros after the end
            hidden = hidden * frame_mask(valid, mel.shape[2])[:, None]
        hidden = F.gelu(self.model.conv2(hidden))
        return hidden.transpose(1, 2), (valid - 1) // 2 + 1

    def log_mel(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Whisper's log-mel spectrogram of waves [B, S]: [B, mels, M], valid frames [B]; 100 a
        second.

        Each recording is reflected at its own end and scaled by its own loudest part; zeros after
        it, which the first convolution is to hear there.
        """
        half = self.window_size // 2
        at = torch.arange(-half, waves.shape[1] + half, device=waves.device).abs()[None]
        last = lengths[:, None] - 1
        at = torch.where(at > last, 2 * last - at, at).clamp(min=0)
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.stft(
                waves.float().gather(1, at),
                self.window_size,
                self.hop,
                window=self.window,
                center=False,
                return_complex=True,
            )[..., :-1]
            power = spectrum.real.square() + spectrum.imag.square()
            mel = (self.mel_filters.T @ power).clamp(min=1e-10).log10()
            valid = lengths // self.hop
            inside = frame_mask(valid, mel.shape[2])[:, None]
            loudest = mel.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
            mel = (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0
        return mel * inside, valid

    def stem(self) -> Iterable[nn.Module]:
        return [self.model.conv1, self.model.conv2]

    def _stem_settings(self) -> list[Any]:
        return ["log-mel", self.hop, self.window_size, self.config.num_mel_bins]

    # --- stem features to hidden states ----------------------------------------------------------

    def project(self, features: Tensor) -> Tensor:
        return features  # as wide as the transformer already

    def normalised(self, features: Tensor) -> Tensor:
        """Every frame to mean 0 and variance 1, as wav2vec 2.0's projection does."""
        return F.layer_norm(features, features.shape[-1:])

    def encode(self, hidden: Tensor, frames: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        longest = self.config.max_source_positions
        if self.unpadded(hidden.device):
            return ragged.encode(
                hidden, frames, lambda flat, lengths: self._unpadded(flat, lengths, wanted)
            )
        if hidden.shape[1] <= longest:
            return self._padded(hidden, frames, wanted)
        windows = [
            (row, start, size)
            for row, count in enumerate(frames.tolist())
            for start, size in _windows(count, longest)
        ]
        sizes = torch.tensor([size for _, _, size in windows], device=frames.device)
        heard = nn.utils.rnn.pad_sequence(
            [hidden[row, start : start + size] for row, start, size in windows], batch_first=True
        )
        found = []
        for state in self._padded(heard, sizes, wanted):
            whole = state.new_zeros(hidden.shape)
            for own, (row, start, size) in zip(state, windows, strict=True):
                whole[row, start : start + size] = own[:size]
            found.append(whole)
        return found

    def _unpadded(self, flat: Tensor, lengths: list[int], wanted: Sequence[int]) -> list[Tensor]:
        """States of frames [F, H], utterances one after the other."""
        longest = self.config.max_source_positions
        sizes = [size for count in lengths for _, size in _windows(count, longest)]
        at = ragged.positions([0] * len(sizes), sizes)
        hidden = flat + self.model.embed_positions.weight[at].to(flat.dtype)
        return ragged.whisper(self.model, hidden, sizes, wanted)

    def _padded(self, hidden: Tensor, frames: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """States of [B, T, H], T within the positions, by transformers' layers."""
        model, length = self.model, hidden.shape[1]
        mask = frame_mask(frames, length) if bool((frames < length).any()) else None
        attended = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=mask
        )
        hidden = hidden + model.embed_positions.weight[:length].to(hidden.dtype)
        hidden = F.dropout(hidden, model.dropout, model.training)
        found = [hidden]
        for layer in model.layers[: max(wanted)]:
            # layer drop, as transformers draws it
            droppable = model.training and model.layerdrop > 0
            if not (droppable and torch.rand([]) < model.layerdrop):
                hidden = layer(hidden, attended)
            found.append(hidden)
        if len(found) > self.num_layers:
            found[-1] = model.layer_norm(hidden)
        return [
            found[state] if mask is None else found[state] * mask[..., None] for state in wanted
        ]

    # --- kernels and files -----------------------------------------------------------------------

    def unpadded(self, device: torch.device) -> bool:
        return ragged.suits(self.model, device)

    # weights are not laid out (fixed_transformer): that took a quarter more time than it saved

    def save(self, folder: Path | str) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            _SAVED_PREFIX + name: weight.detach().cpu().contiguous()
            for name, weight in self.model.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.config.save_pretrained(folder)
        self.extractor.save_pretrained(folder)


def _windows(frames: int, longest: int) -> list[tuple[int, int]]:
    """(start, size) of the fewest windows that hold so many frames, equal to within one."""
    count = max(1, -(-frames // longest))
    edges = [frames * i // count for i in range(count + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(edges)]
